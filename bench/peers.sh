#!/usr/bin/env bash
# Durable 4 KiB writes of a volume on two nodes beside QEMU's synchronous mirrors, on this machine, taking turns with one
# mirror and then with another. It needs a folder with a script run-peers.sh that measures any NBD URI beside peers that it starts itself:
#
#     npm run build && PEERS=FOLDER [PB=SCRATCH] bench/peers.sh [ITS OPTIONS]
#
# PB: scratch folder on the disk under test, 8 GiB; removed at the end only if it was made here. Options go to
# run-peers.sh, e.g. -r 5 -t 5; -m decides on the cases, by default the writes. The machine should have nothing else to do.
set -euo pipefail
cd "$(dirname "$0")/.."

run=${PEERS:+$PEERS/run-peers.sh}
[ -n "$run" ] && [ -x "$run" ] || { echo "no run-peers.sh: set PEERS to the folder that holds it"; exit 2; }
for tool in node nbdkit qemu-nbd qemu-storage-daemon gcc; do
  command -v "$tool" >/dev/null || { echo "$tool is not installed"; exit 2; }
done
made=
if [ -z "${PB:-}" ]; then PB=$(mktemp -d "${TMPDIR:-/var/tmp}/holdfast-peers-XXXXXX") made=$PB; fi
mkdir -p "$PB"
export PB
folder=$PB/holdfast
cluster=
tidy_up() {
  if [ -n "$cluster" ]; then kill -INT "$cluster" 2>/dev/null && wait "$cluster" || true; fi
  rm -rf "$folder" "$made"
}
trap tidy_up EXIT
rm -rf "$folder"
mkdir -p "$folder"

node dist/src/cli/main.js up --dir "$folder/data" --size 1GiB --base-port "${BASE_PORT:-23400}" --json >"$folder/events" &
cluster=$!
while ! grep -q '"event":"up"' "$folder/events"; do
  kill -0 "$cluster" 2>/dev/null || { cat "$folder/events"; echo "the cluster did not start"; exit 1; }
  sleep 0.1
done
# The primary's export, and the processes of both nodes.
spec=$(node -e '
  const lines = require("node:fs").readFileSync(process.argv[1], "utf8").trim().split("\n").map((line) => JSON.parse(line));
  const { nbd, primary, pids } = lines.find(({ event }) => event === "up");
  const uri = nbd[Object.keys(pids).indexOf(primary)];
  console.log(`holdfast=${uri},d=none,pid=${Object.values(pids).join("+")}`);
' "$folder/events")
echo "$spec"
# One mirror at a time: both would listen on the same port.
"$run" -m '^write' "$@" "$spec" quorum-2nbd-wt
"$run" -F -m '^write' "$@" "$spec" quorum-local+nbd
