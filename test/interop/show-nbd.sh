#!/usr/bin/env bash
# Shows a built clone's NBD export under Debian's clients: nbdinfo, nbdcopy, qemu-img, qemu-io and fio, with an image of
# 1 GiB. Takes half a minute, and 4 GiB in HOLDFAST_TEST_DIR or TMPDIR, given back at the end.
#
#     npm run build && test/interop/show-nbd.sh
#
# The last line is `shown` and the exit code 0, or it is the step that failed.
set -uo pipefail
cd "$(dirname "$0")/../.."

folder=$(mktemp -d "${HOLDFAST_TEST_DIR:-${TMPDIR:-/tmp}}/holdfast-show-XXXXXX")
server=
tidy_up() {
  if [ -n "$server" ]; then kill "$server" 2>/dev/null && wait "$server"; fi
  rm -rf "$folder"
}
trap tidy_up EXIT

# step WHAT COMMAND...: prints both and how long it took, ends everything if it fails.
step() {
  local what=$1 from=$EPOCHREALTIME
  shift
  printf '\n== %s\n$ %s\n' "$what" "$*"
  "$@" || { echo "failed: $what"; exit 1; }
  awk -v from="$from" -v to="$EPOCHREALTIME" 'BEGIN { printf "-- %.2f s\n", to - from }'
}

for tool in node nbdinfo nbdcopy qemu-img qemu-io fio; do
  command -v "$tool" >/dev/null || { echo "failed: $tool is not installed"; exit 1; }
done

node dist/src/cli/main.js serve "$folder/vol" --size 1GiB --listen 127.0.0.1:0 --nbd 127.0.0.1:0 --json \
  --log-level warn >"$folder/events" 2>"$folder/log" &
server=$!
while ! grep -q '"listening"' "$folder/events"; do
  kill -0 "$server" 2>/dev/null || { cat "$folder/log"; echo "failed: the server did not start"; exit 1; }
  sleep 0.1
done
base=$(node -pe 'JSON.parse(require("node:fs").readFileSync(process.argv[1], "utf8").split("\n")[0]).nbd' "$folder/events")
uri=$base/vol

same_hash() {
  local one two
  one=$(sha256sum <"$1") two=$(sha256sum <"$2")
  echo "${one%% *} $(basename "$1")"
  echo "${two%% *} $(basename "$2")"
  [ "$one" = "$two" ]
}
# 1: they differ; 2: they could not be compared.
is_other() { qemu-img compare -f raw -F raw "$1" "$2"; [ $? = 1 ]; }
make_image() { head -c 768M /dev/urandom >"$1" && truncate -s 1G "$1"; }
map() { nbdinfo --map --totals "$1" && nbdinfo --map "$1" | head -n 5; }

step 'what the server says of its export' nbdinfo --json "$uri"
step 'what it exports' nbdinfo --list "$base"
step 'nothing is allocated yet' map "$uri"
step 'an image: 768 MiB of noise, and a hole' make_image "$folder/image"
step 'up, four connections' nbdcopy --connections=4 --flush "$folder/image" "$uri"
step 'what is allocated now' map "$uri"
step 'down, four connections' nbdcopy --connections=4 "$uri" "$folder/back"
step 'the same bytes' same_hash "$folder/image" "$folder/back"
rm "$folder/back"

step 'qemu-img convert up' qemu-img convert -n -f raw -O raw "$folder/image" "$uri"
step 'qemu-img compare' qemu-img compare -f raw -F raw "$folder/image" "$uri"
step 'qemu-io at odd offsets' qemu-io -f raw -c 'write -P 0x5a 4097 123457' -c 'read -P 0x5a 4097 123457' \
  -c 'write -P 0xa5 1048575 3' -c 'read -P 0xa5 1048575 3' -c 'write -z 8193 300000' -c 'read -P 0 8193 300000' \
  -c 'write -f -P 3 33M 20M' -c 'read -P 3 33M 20M' -c 'discard 100M 16M' -c 'flush' "$uri"
step 'and compare sees it' is_other "$folder/image" "$uri"
step 'fio, four jobs of depth 32, odd blocks, verified' fio --name=mixed --ioengine=nbd --uri="$uri" --numjobs=4 \
  --iodepth=32 --rw=randrw --size=128m --offset_increment=128m --bsrange=512-128k --blockalign=512 --verify=crc32c \
  --do_verify=1 --verify_fatal=1 --verify_state_save=0 --group_reporting

kill "$server"
wait "$server" || { echo 'failed: the server did not end in order'; exit 1; }
server=
step 'the volume on its disk' node dist/src/cli/main.js volume check "$folder/vol"
echo
echo shown
