#!/usr/bin/env bash
# RecoverKV on three nodes beside etcd with three members and Redis with two replicas (appendfsync always, WAIT 2), on this
# machine, in one run, case by case in turns: PUTs and GETs of 4 KiB. It needs a folder with lib.sh, respload.c and
# etcdload.mjs, load generators that print a line of JSON for each case; etcd, redis-server and gcc; and npm's etcd3,
# which is fetched into the scratch folder unless ETCD_NPM names a folder with it.
#
#     npm run build && PEERS=FOLDER [PB=SCRATCH] bench/kv-peers.sh [-r ROUNDS] [-t SECONDS] [-w SECONDS] [-c "1 16 40 64"] \
#       [-k KEYS] [-o OUT]
#
# Before the first round each case runs once, -w seconds with the most clients, and is not counted: code of nodes that were
# started a moment ago is still being compiled. What those runs had is in warm.jsonl. The table has the medians of the rounds,
# and the lowest and the highest rate beside them. -w 0 leaves it out.
#
# RecoverKV and etcd are measured twice: by a lean generator (the one in C that also loads Redis; bench/kv/etcd-load.ts),
# which is what the ratios are of, and by their client libraries for Node ("node client"). The generators' processor time
# stands in the table: they share the cores with the servers, and etcdload takes a whole core. PB: scratch folder on the disk under test, 12 GiB; removed at the end only
# if it was made here.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=3 seconds=5 warm=5 clients="1 16 40 64" keys=4096 out=bench/out/kv-peers value=4096
while getopts r:t:w:c:k:o: flag; do
  case $flag in
    r) rounds=$OPTARG ;;
    t) seconds=$OPTARG ;;
    w) warm=$OPTARG ;;
    c) clients=$OPTARG ;;
    k) keys=$OPTARG ;;
    o) out=$OPTARG ;;
    *) exit 2 ;;
  esac
done
for file in lib.sh respload.c etcdload.mjs; do
  [ -n "${PEERS:-}" ] && [ -f "$PEERS/$file" ] || { echo "no $file: set PEERS to the folder that holds it"; exit 2; }
done
for tool in node npm gcc flock etcd etcdctl redis-server redis-cli; do
  command -v "$tool" >/dev/null || { echo "$tool is not installed"; exit 2; }
done
made=
if [ -z "${PB:-}" ]; then PB=$(mktemp -d "${TMPDIR:-/var/tmp}/holdfast-kv-peers-XXXXXX") made=$PB; fi
mkdir -p "$PB" "$out"
export PB
folder=$PB/kv-peers
rm -rf "$folder"
mkdir -p "$folder"
# shellcheck source=/dev/null
. "$PEERS/lib.sh" # DISK, LOCK, started, wait_port, stop_all
gcc -O2 -w -o "$folder/respload" "$PEERS/respload.c"

ours=
tidy_up() {
  set +e # what is gone already is no reason to leave the rest
  # Its nodes are stopped by itself, which takes longer than stop_all has patience.
  if [ -n "$ours" ]; then kill -TERM "$ours" 2>/dev/null && wait "$ours" || true; fi
  stop_all
  rm -rf "$folder" "$made"
}
trap tidy_up EXIT

if [ -z "${ETCD_NPM:-}" ]; then
  ETCD_NPM=$folder/npm
  mkdir -p "$ETCD_NPM"
  (cd "$ETCD_NPM" && npm init -y && npm install --no-audit --no-fund etcd3@1) >"$folder/npm.log" 2>&1 ||
    { cat "$folder/npm.log"; echo "npm's etcd3 cannot be fetched"; exit 2; }
fi
export ETCD_NPM

# --- etcd: three members --------------------------------------------------------------------------------------------------
port=${BASE_PORT:-23600}
initial=n0=http://127.0.0.1:$((port + 3)),n1=http://127.0.0.1:$((port + 4)),n2=http://127.0.0.1:$((port + 5))
etcds=()
for i in 0 1 2; do
  client=http://127.0.0.1:$((port + i)) peer=http://127.0.0.1:$((port + 3 + i))
  etcd --name "n$i" --data-dir "$folder/etcd$i" --listen-client-urls "$client" --advertise-client-urls "$client" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "$initial" \
    --initial-cluster-state new --quota-backend-bytes 8000000000 --log-level error --logger zap >"$folder/etcd$i.log" 2>&1 &
  etcds+=($!)
  started $!
done
for i in 0 1 2; do wait_port $((port + i)); done
export ETCDCTL_API=3
leader=
for _ in $(seq 1 100); do
  for i in 0 1 2; do
    at=127.0.0.1:$((port + i))
    etcdctl --endpoints "$at" endpoint status -w fields 2>/dev/null |
      awk -F' : ' '/"MemberID"/{m=$2}/"Leader"/{l=$2}END{exit !(m!="" && m==l)}' && leader=$at
  done
  [ -n "$leader" ] && break
  sleep 0.1
done
[ -n "$leader" ] || { echo "etcd has no leader"; exit 1; }

# --- Redis: a primary and two replicas ----------------------------------------------------------------------------------
redis=$((port + 10))
servers=()
for i in 0 1 2; do
  mkdir -p "$folder/redis$i"
  follow=()
  [ "$i" = 0 ] || follow=(--replicaof 127.0.0.1 "$redis")
  redis-server --port $((redis + i)) --bind 127.0.0.1 --dir "$folder/redis$i" --appendonly yes --appendfsync always \
    --save '' --auto-aof-rewrite-percentage 0 --repl-diskless-sync-delay 0 --daemonize no \
    --client-output-buffer-limit 'replica 0 0 0' --repl-backlog-size 256mb --logfile "$folder/redis$i/log" \
    "${follow[@]}" >/dev/null 2>&1 &
  servers+=($!)
  started $!
  wait_port $((redis + i))
done
in_sync() { [ "$(redis-cli -p "$redis" info replication | grep -c 'state=online')" = 2 ]; }
for _ in $(seq 1 100); do in_sync && break; sleep 0.1; done
in_sync || { echo "the replicas of Redis are not online"; exit 1; }
# A replica that lags would make the first WAIT wait for what it lacks.
caught_up() { printf 'set x 1\nwait 2 60000\n' | timeout 70 redis-cli -p "$redis" >/dev/null; }

# --- RecoverKV: a coordinator and three nodes ---------------------------------------------------------------------------
node dist/bench/kv/three.js --dir "$folder" >"$folder/events" 2>"$folder/three.log" &
ours=$!
while ! grep -q '"event":"up"' "$folder/events"; do
  kill -0 "$ours" 2>/dev/null || { cat "$folder/three.log"; echo "the nodes did not start"; exit 1; }
  sleep 0.1
done
field() { node -p "const up = JSON.parse(require('node:fs').readFileSync('$folder/events', 'utf8')); $1"; }
resp=$(field 'up.redis') url=$(field 'up.url') pids=$(field 'Object.values(up.pids).join(",")')
awake=$(field 'up.awakeUs')

echo "filling each with $keys keys of $value bytes" >&2
node dist/bench/kv/peers-fill.js etcd "http://$leader" "$keys" "$value"
node dist/bench/kv/peers-fill.js redis "127.0.0.1:$redis" "$keys" "$value"
node dist/bench/kv/peers-fill.js redis "$resp" "$keys" "$value"
own_fill="{\"fill\":{\"from\":0,\"to\":$keys,\"valueBytes\":$value}}"
echo "$own_fill" | node dist/bench/kv/kv-generator.js "$url" >/dev/null

# --- the cases ------------------------------------------------------------------------------------------------------------
etcd_pids=$(IFS=,; echo "${etcds[*]}") redis_pids=$(IFS=,; echo "${servers[*]}")
results=$out/results.jsonl
: >"$results"
: >"$out/warm.jsonl"
note() { tee -a "$1" >&2; }
failed() { printf '{"peer":"%s","workload":"%s","clients":%d,"error":"%s clients: it ended with %d"}\n' "$1" "$2" "$3" "$3" "$4"; }
resp_case() { # PEER PORT set|get WAIT CLIENTS PIDS
  local code=0
  flock "$LOCK" timeout 120 "$folder/respload" "$2" "$3" "$4" "$5" 1 "$seconds" "$value" "$keys" "$1" "$6" "$DISK" || code=$?
  [ $code = 0 ] || failed "$1" "$3" "$5" $code
}
etcd_case() { # put|get CLIENTS
  local code=0
  flock "$LOCK" timeout 120 node dist/bench/kv/etcd-load.js "$leader" "$1" "$2" "$seconds" "$value" "$keys" etcd \
    "$etcd_pids" || code=$?
  [ $code = 0 ] || failed etcd "$1" "$2" $code
}
etcd_client_case() { # put|get CLIENTS
  local code=0
  flock "$LOCK" timeout 120 node "$PEERS/etcdload.mjs" "http://$leader" "$1" "$2" "$seconds" "$value" "$keys" \
    'etcd, node client' "$etcd_pids" "$DISK" || code=$?
  [ $code = 0 ] || failed 'etcd, node client' "$1" "$2" $code
}
own_case() { # put|get CLIENTS
  local load="{\"op\":\"$1\",\"clients\":$2,\"reads\":\"primary\",\"keys\":$keys,\"valueBytes\":$value,\"seed\":1"
  # The first half second is not counted.
  printf '%s,"seconds":0.5}\n%s,"seconds":%s}\n' "$load" "$load" "$seconds" |
    flock "$LOCK" timeout 120 node dist/bench/kv/kv-generator.js "$url" | tail -n 1 | node -e '
      const [op, clients] = process.argv.slice(1);
      const { opsPerSecond, latency, generatorCpuPercent, failures } = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
      const line = { peer: "recoverkv, node client", workload: op, clients: Number(clients), iops: opsPerSecond,
        p50_us: latency.p50Us, p99_us: latency.p99Us, gen_cpu_pct: generatorCpuPercent };
      console.log(JSON.stringify(failures > 0 ? { ...line, error: `${failures} operations failed` } : line));
    ' "$1" "$2" || failed 'recoverkv, node client' "$1" "$2" 1
}
cases() { # CLIENTS FILE
  etcd_case put "$1" | note "$2"
  etcd_client_case put "$1" | note "$2"
  caught_up
  resp_case 'redis wait 2' "$redis" set 2 "$1" "$redis_pids" | note "$2"
  resp_case recoverkv "${resp##*:}" set 0 "$1" "$pids" | note "$2"
  own_case put "$1" | note "$2"
  etcd_case get "$1" | note "$2"
  etcd_client_case get "$1" | note "$2"
  resp_case 'redis wait 2' "$redis" get 0 "$1" "$redis_pids" | note "$2"
  resp_case recoverkv "${resp##*:}" get 0 "$1" "$pids" | note "$2"
  own_case get "$1" | note "$2"
}
read -ra counts <<<"$clients"
most=$(printf '%s\n' "${counts[@]}" | sort -n | tail -n 1)
# A case has half a second that is not counted, and a process to start.
echo "about $(((10 * rounds * ${#counts[@]} * (seconds + 1) + 10 * (warm + 1)) / 60 + 1)) minutes" >&2
if [ "$warm" != 0 ]; then
  echo "warming up, $most clients, not counted" >&2
  seconds=$warm cases "$most" "$out/warm.jsonl"
fi
for round in $(seq 1 "$rounds"); do
  for count in "${counts[@]}"; do
    echo "round $round of $rounds, $count clients" >&2
    cases "$count" "$results"
  done
done
{
  echo "$(date -u +%F), $(nproc) cores, Linux $(uname -r), Node $(node --version), $(etcd --version | head -n 1)," \
    "$(redis-server --version | cut -d ' ' -f 3); HOLDFAST_AWAKE_US: $awake; values of $value bytes, $keys keys;" \
    "$seconds s a case after $warm s of warming up, medians of $rounds"
  node dist/bench/kv/peers-table.js "$results"
} | tee "$out/tables.txt"
