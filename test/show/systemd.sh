#!/usr/bin/env bash
# Shows the units of docs/systemd under a real systemd: PID 1 of namespaces of its own, in an overlay of this machine's root
# that is gone at the end. The package is installed as docs/operating.md says, with certificates, tokens and a coordinator on
# addresses that are not loopback; then services are started, restarted, killed and stopped. Takes about a minute.
#
#     npm run build && sudo test/show/systemd.sh
#
# Needs root, Linux with cgroup2 mounted somewhere, overlayfs, systemd 247 or later (it need not be what this machine
# runs), util-linux, iproute2, openssl, and etcd for its last part. Reaches no network. Data lies in HOLDFAST_TEST_DIR
# or TMPDIR; the rest is memory.
#
# Guarantees: the machine's own settings are read-only for that systemd (/proc/sys, /sys), none of its services is started
# there, and whatever ends this script ends that PID 1 and with it all that ran in its namespaces.
#
# The last line is `shown` and the exit code 0, or it is the step that failed.
set -uo pipefail

# What runs as PID 1 of the new namespaces until systemd takes its place: builds the root, and enters it.
if [ "${1-}" = --init ]; then
  set -e
  folder=$2
  mount --make-rprivate /
  mount -t tmpfs -o mode=755 scratch "$folder/root"
  mkdir "$folder/root"/{upper,work,root}
  mount -t overlay -o "lowerdir=/,upperdir=$folder/root/upper,workdir=$folder/root/work" overlay "$folder/root/root"
  cd "$folder/root/root"
  mount -t proc proc proc
  mount --bind proc/sys proc/sys
  mount -o remount,bind,ro proc/sys
  mount -t sysfs -o ro sysfs sys
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  mount -t tmpfs -o mode=755 dev dev
  for name in null zero full random urandom tty; do touch "dev/$name" && mount --bind "/dev/$name" "dev/$name"; done
  mkdir dev/pts dev/shm
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
  ln -s pts/ptmx dev/ptmx
  ln -s /proc/self/fd dev/fd
  mount -t tmpfs -o mode=1777 shm dev/shm
  mount -t tmpfs -o mode=755 run run
  mount -t tmpfs -o mode=1777 tmp tmp
  mkdir -p opt/package
  cp "$folder/holdfast.tgz" opt/package
  cp -r "$folder/node_modules" opt/package
  # The machine's own services and file systems are none of its business.
  mount --bind /dev/null etc/fstab
  mount -t tmpfs units etc/systemd/system
  for unit in systemd-sysctl.service systemd-modules-load.service systemd-journald-audit.socket; do
    ln -s /dev/null "etc/systemd/system/$unit"
  done
  # Volumes lie on a real file system.
  for name in holdfast holdfast-coordinator; do
    mkdir -p "$folder/lib/$name" "var/lib/$name"
    mount --bind "$folder/lib/$name" "var/lib/$name"
  done
  ip link set lo up
  for host in 1 2 3 9; do ip address add "10.0.0.$host/32" dev lo; done
  mkdir old
  pivot_root . old
  umount -l /old
  # As the kernel leaves it to a systemd that boots: it takes credentials to services by mounts that spread.
  mount --make-rshared /
  exec env -i container=holdfast PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --unit=basic.target --log-target=journal --show-status=0
fi

cd "$(dirname "$0")/../.."
for tool in unshare nsenter pivot_root ip openssl systemctl node npm; do
  command -v "$tool" >/dev/null || { echo "failed: $tool is not installed"; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo 'failed: this needs root'; exit 1; }
cgroups=$(findmnt -n -t cgroup2 -o TARGET | head -n 1)
[ -n "$cgroups" ] || { echo 'failed: cgroup2 is not mounted'; exit 1; }

folder=$(mktemp -d "${HOLDFAST_TEST_DIR:-${TMPDIR:-/tmp}}/holdfast-show-XXXXXX")
chmod 755 "$folder"
group=$cgroups/$(basename "$folder")
mkdir "$folder/root" "$group"
outer=
tidy_up() {
  if [ -n "$outer" ]; then
    # With the unshare ends its child, the PID 1, and with that all the others.
    kill -KILL "$outer" 2>/dev/null
    wait "$outer" 2>/dev/null
  fi
  # What was killed leaves its group when it is gone.
  for _ in $(seq 100); do
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
    [ -e "$group" ] || break
    sleep 0.1
  done
  rm -rf "$folder"
}
trap tidy_up EXIT
trap 'exit 1' INT TERM

failed() {
  echo "failed: $1"
  [ -z "$outer" ] || within journalctl --no-pager --lines=60 --output=short-precise
  exit 1
}
# Runs a command as root of the namespaces, with what an operator has in his environment.
operator=(
  HOLDFAST_COORDINATOR=holdfasts://10.0.0.9:7400
  HOLDFAST_TLS_CA=/srv/pki/ca.crt HOLDFAST_TLS_CERT=/srv/pki/operator.crt HOLDFAST_TLS_KEY=/srv/pki/operator.key
)
home=$(getent passwd 0 | cut -d: -f6)
within() { nsenter -t "$one" -a -r -w env -i HOME="$home" PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${operator[@]}" "$@"; }
# step WHAT COMMAND...: prints both, ends everything if it fails.
step() {
  local what=$1
  shift
  printf '\n== %s\n$ %s\n' "$what" "$*"
  within timeout 120 "$@" || failed "$what"
}
# until_so WHAT COMMAND...: asks again for a minute at most.
until_so() {
  local what=$1 end=$((SECONDS + 60))
  shift
  until within timeout 30 "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || failed "waited in vain: $what"
    sleep 0.2
  done
  printf '\n== %s\n' "$what"
}
# value UNIT PROPERTY
value() { within systemctl show --value --property="$2" "$1"; }
# must_be UNIT PROPERTY VALUE
must_be() {
  local is
  is=$(value "$1" "$2")
  echo "   $1: $2=$is"
  [ "$is" = "$3" ] || failed "$1: $2 is $is, not $3"
}

echo '== the package'
npm pack --ignore-scripts --silent --pack-destination "$folder" >/dev/null 2>&1
mv "$folder"/holdfast-*.tgz "$folder/holdfast.tgz" || failed 'npm pack'
# npm would bring these from its registry.
mkdir "$folder/node_modules"
npm ls --omit=dev --all --parseable 2>/dev/null | sed -n 's|.*/node_modules/||p' | sort -u >"$folder/names"
(cd node_modules && tar -c -T "$folder/names") | tar -x -C "$folder/node_modules" || failed 'the packages that it needs'

echo '== systemd'
(
  echo "$BASHPID" >"$group/cgroup.procs"
  exec setsid unshare --fork --kill-child --pid --mount --uts --ipc --cgroup --net bash "$PWD/test/show/systemd.sh" \
    --init "$folder"
) >"$folder/console" 2>&1 </dev/null &
outer=$!
end=$((SECONDS + 60))
one=
until [ -n "$one" ] && [ "$(cat "/proc/$one/comm" 2>/dev/null)" = systemd ] && within systemctl is-active basic.target >/dev/null 2>&1; do
  one=$(tr -d ' ' <"/proc/$outer/task/$outer/children" 2>/dev/null)
  kill -0 "$outer" 2>/dev/null && [ $SECONDS -lt $end ] || { cat "$folder/console"; outer= failed 'systemd did not start'; }
  sleep 0.2
done
step 'PID 1, and what it runs' systemctl --version
step 'state' systemctl is-system-running

step 'installed where npm install -g puts it' bash -ec '
  mkdir -p /usr/local/lib/node_modules/holdfast
  tar -xzf /opt/package/holdfast.tgz --strip-components=1 -C /usr/local/lib/node_modules/holdfast
  mv /opt/package/node_modules /usr/local/lib/node_modules/holdfast
  chmod +x /usr/local/lib/node_modules/holdfast/dist/src/cli/main.js
  ln -s ../lib/node_modules/holdfast/dist/src/cli/main.js /usr/local/bin/holdfast
  holdfast --version
  cd /usr/local/lib/node_modules/holdfast/docs/systemd
  cp holdfast.sysusers.conf /usr/lib/sysusers.d/holdfast.conf && systemd-sysusers
  cp *.service /etc/systemd/system && systemctl daemon-reload
  id holdfast'

step 'certificates and tokens, as in docs/security.md; root alone reads the keys' bash -ec '
  touch ~/secret
  mkdir -p -m 700 /srv/pki && cd /srv/pki
  openssl req -x509 -newkey ed25519 -nodes -keyout ca.key -out ca.crt -days 3650 \
    -subj "/CN=holdfast cluster" -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
  issue() {
    openssl req -newkey ed25519 -nodes -keyout "$1.key" -out "$1.csr" -subj "/CN=$1"
    printf "subjectAltName=%s\n" "$2" > "$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 90 -extfile "$1.ext" -out "$1.crt"
    chmod 600 "$1.key"
  }
  {
    issue a URI:holdfast:node:a,IP:10.0.0.1
    issue b URI:holdfast:node:b,IP:10.0.0.2
    issue c URI:holdfast:node:c,IP:10.0.0.3
    issue coordinator IP:10.0.0.9
    issue etcd IP:10.0.0.9
    issue operator URI:holdfast:admin:operator
    issue app email:app@example.com
    # etcd that knows users and asks for certificates refuses one with a CN at its gateway.
    openssl req -newkey ed25519 -nodes -keyout etcd-c.key -out etcd-c.csr -subj "/O=holdfast"
    openssl x509 -req -in etcd-c.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 90 -out etcd-c.crt
    chmod 600 etcd-c.key
  } 2>/dev/null
  holdfast token create app --role read-write --volume vm1 --tokens tokens > app.token
  mkdir -p /etc/holdfast && cp ca.crt /etc/holdfast && ls -l *.key'

step 'configs, and drop-ins for what root alone may read' bash -ec '
  credentials() { # UNIT NAME
    mkdir -p "/etc/systemd/system/$1.d"
    printf "[Service]\nLoadCredential=crt:/srv/pki/$2.crt\nLoadCredential=key:/srv/pki/$2.key\nLoadCredential=tokens:/srv/pki/tokens\n" \
      > "/etc/systemd/system/$1.d/keys.conf"
  }
  credentials holdfast-coordinator.service coordinator
  at=/run/credentials/holdfast-coordinator.service
  printf "coordinator:\n  dir: /var/lib/holdfast-coordinator\n  listen: 10.0.0.9:7400\n  tlsCertFile: $at/crt\n  tlsKeyFile: $at/key\n  tlsCaFile: ca.crt\n" \
    > /etc/holdfast/coordinator.yaml
  for pair in a:1 b:2; do
    name=${pair%:*} ip=10.0.0.${pair#*:}
    credentials "holdfast-node@$name.service" "$name"
    at=/run/credentials/holdfast-node@$name.service
    printf "node:\n  name: $name\n  dir: /var/lib/holdfast/$name\n  listen: $ip:7401\n  peerListen: $ip:7441\n  coordinator: holdfasts://10.0.0.9:7400\n  http: 127.0.0.1:748${pair#*:}\n" \
      > "/etc/holdfast/$name.yaml"
    printf "  tlsCertFile: $at/crt\n  tlsKeyFile: $at/key\n  tlsCaFile: ca.crt\n  tokensFile: $at/tokens\n" >> "/etc/holdfast/$name.yaml"
    holdfast config check "/etc/holdfast/$name.yaml"
  done
  systemctl daemon-reload'

nodes=(holdfast-node@a holdfast-node@b)
step 'systemctl enable --now' systemctl enable --now holdfast-coordinator "${nodes[@]}"
until_so 'both nodes are known' bash -c 'holdfast volume create vm1 --size 64MiB --replicas 2'
until_so 'it is safe' holdfast status
step 'status' holdfast status
step 'a client writes, with its certificate and its token' bash -ec '
  export HOLDFAST_TLS_CERT=/srv/pki/app.crt HOLDFAST_TLS_KEY=/srv/pki/app.key
  head -c 40M /dev/urandom > /tmp/image
  holdfast write holdfasts://10.0.0.1:7401,10.0.0.2:7401/vm1 --offset 4096 --token-file /srv/pki/app.token < /tmp/image'
same() {
  step "$1" bash -ec '
    export HOLDFAST_TLS_CERT=/srv/pki/app.crt HOLDFAST_TLS_KEY=/srv/pki/app.key
    holdfast read holdfasts://10.0.0.1:7401,10.0.0.2:7401/vm1 --offset 4096 --length 40MiB --token-file /srv/pki/app.token |
      cmp - /tmp/image'
}
same 'and reads the same'
# primary: the unit of the node that vm1 is served by, and the other one.
primary() {
  within holdfast status --json | node -e '
    const { volumes } = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
    const { primary } = volumes.find(({ volume }) => volume === "vm1");
    console.log(`holdfast-node@${primary}`, `holdfast-node@${primary === "a" ? "b" : "a"}`)'
}
main_pid() { value "$1" MainPID; }

printf '\n== the hardening is in force\n'
for unit in holdfast-coordinator "${nodes[@]}"; do
  must_be "$unit" ActiveState active
  must_be "$unit" NRestarts 0
  within bash -ec '
    pid=$1
    # Each of its threads: no capability, no way to one, and the filter of system calls.
    for task in /proc/$pid/task/*; do
      grep -q "^NoNewPrivs:.1" $task/status && grep -q "^Seccomp:.2" $task/status && grep -q "^CapEff:.0*$" $task/status &&
        grep -q "^CapBnd:.0*$" $task/status
    done
    echo "   $(ls /proc/$pid/task | wc -l) threads of user $(stat -c %U /proc/$pid), each without capabilities and behind the filter"
    ! tr "\0" "\n" < /proc/$pid/cmdline | grep -i -e "PRIVATE KEY" -e secret
    # In its mounts, as root: what root cannot, it cannot.
    in_it() { nsenter -t $pid -m -- "$@"; }
    for place in /usr /etc /opt /var/lib; do
      if in_it touch $place/probe 2>/dev/null; then echo "$place can be written"; exit 1; fi
    done
    [ -e ~/secret ] && [ -e /tmp/image ] || { echo "there is nothing that could be hidden"; exit 1; }
    in_it test ! -e ~/secret
    in_it test ! -e /tmp/image
    echo "   in its mounts root itself cannot write to /usr, /etc, /opt, /var/lib; no homes, a /tmp of its own"
    # The keys: those of this unit alone, for its user alone.
    [ "$(in_it ls /run/credentials)" = "$2.service" ]
    echo "   $(in_it stat -c "%A %U %n" /run/credentials/$2.service/key)"
    in_it setpriv --reuid=holdfast --regid=holdfast --clear-groups cat /run/credentials/$2.service/key | cmp - "/srv/pki/${2##*[@-]}.key"
    if in_it setpriv --reuid=holdfast --regid=holdfast --clear-groups ls /srv/pki 2>/dev/null; then exit 1; fi
    if in_it setpriv --reuid=nobody --clear-groups cat /run/credentials/$2.service/key 2>/dev/null; then exit 1; fi
  ' probe "$(main_pid "$unit")" "$unit" || failed "the hardening of $unit"
done

# A client that writes one block after the other, and at the end reads them all.
within tee /opt/package/writer.mjs >/dev/null <<'END'
import { existsSync } from 'node:fs';
import { connect } from '/usr/local/lib/node_modules/holdfast/dist/src/client/index.js';
const pki = '/srv/pki';
const volume = await connect('holdfasts://10.0.0.1:7401,10.0.0.2:7401/vm1', {
  tls: { caFile: `${pki}/ca.crt`, certFile: `${pki}/app.crt`, keyFile: `${pki}/app.key` },
  tokenFile: `${pki}/app.token`,
});
const BLOCKS = 2048, BYTES = 4096, FIRST = 48 * 1024 * 1024;
const written = new Map();
let longestMs = 0, n = 0;
for (; !existsSync('/run/writer-stop') || n < BLOCKS; n++) {
  const fromMs = performance.now();
  await volume.write(FIRST + (n % BLOCKS) * BYTES, Buffer.alloc(BYTES, String(n)));
  written.set(n % BLOCKS, n);
  longestMs = Math.max(longestMs, performance.now() - fromMs);
}
for (const [block, value] of written) {
  const bytes = Buffer.from(await volume.read(FIRST + block * BYTES, BYTES));
  if (!bytes.equals(Buffer.alloc(BYTES, String(value)))) throw new Error(`block ${block} is not what was written last`);
}
await volume.close();
console.log(`${n} writes acknowledged, none lost; the longest took ${Math.round(longestMs)} ms`);
END
within systemd-run --quiet --unit=writer --property=Restart=no --remain-after-exit node /opt/package/writer.mjs || failed 'the client'

read -r served other <<<"$(primary)"
step "systemctl restart $served, which is primary, while a client writes" systemctl restart "$served"
must_be "$served" Result success
must_be "$served" NRestarts 0
within journalctl --no-pager --output=cat -u "$served" | grep -q 'Deactivated successfully' || failed 'it did not end with code 0'
until_so 'it is safe again' holdfast status
read -r now _ <<<"$(primary)"
[ "$now" = "$other" ] || failed "$now is primary, not $other"
echo "   $now is primary now"
step 'what happened' bash -c 'holdfast events | tail -n 12'

read -r served other <<<"$(primary)"
pid=$(main_pid "$served")
step "kill -9 of the main process of $served, which is primary" kill -9 "$pid"
until_so 'systemd has started it again' bash -c '[ "$(systemctl show --value -p NRestarts "$1")" = 1 ] && systemctl is-active "$1"' - "$served"
until_so 'it is safe again' holdfast status
[ "$(main_pid "$served")" != "$pid" ] || failed 'it is the same process'

pid=$(main_pid holdfast-coordinator)
step 'kill -9 of the coordinator: what is served goes on' kill -9 "$pid"
until_so 'systemd has started it again' bash -c '[ "$(systemctl show --value -p NRestarts holdfast-coordinator)" = 1 ] && holdfast status'

within touch /run/writer-stop
until_so 'the client is done' bash -c '[ "$(systemctl show --value -p SubState writer)" = exited ]'
step 'what it says' journalctl --no-pager --output=cat --identifier=node --unit=writer
same 'the image is what it was'

step 'a config file with a fault: code 2, and not again and again' bash -c '
  printf "node:\n  nmae: c\n" > /etc/holdfast/c.yaml; systemctl start holdfast-node@c; true'
# Between two starts it would be activating.
until_so 'it has failed for good' bash -c '[ "$(systemctl is-active holdfast-node@c)" = failed ]'
must_be holdfast-node@c ActiveState failed
must_be holdfast-node@c ExecMainStatus 2
must_be holdfast-node@c NRestarts 0

step 'systemctl stop' systemctl stop "${nodes[@]}" holdfast-coordinator
for unit in holdfast-coordinator "${nodes[@]}"; do
  must_be "$unit" Result success
  must_be "$unit" ExecMainStatus 0
  must_be "$unit" ActiveState inactive
done
step 'systemctl start' systemctl start holdfast-coordinator "${nodes[@]}"
until_so 'it is safe again' holdfast status
same 'the image is what it was'

if command -v etcd >/dev/null && command -v etcdctl >/dev/null; then
  step 'etcd with TLS and users' bash -ec '
    cd /srv/pki
    systemd-run --quiet --unit=show-etcd --property=Type=notify etcd --data-dir /var/lib/etcd-show \
      --listen-client-urls https://10.0.0.9:2379 --advertise-client-urls https://10.0.0.9:2379 \
      --listen-peer-urls http://127.0.0.1:2380 --logger zap \
      --cert-file $PWD/etcd.crt --key-file $PWD/etcd.key --trusted-ca-file $PWD/ca.crt --client-cert-auth
    export ETCDCTL_API=3
    ctl() { etcdctl --endpoints https://10.0.0.9:2379 --cacert ca.crt --cert c.crt --key c.key "$@"; }
    ctl user add root:$(openssl rand -hex 8)
    ctl user grant-role root root
    ctl role add holdfast
    ctl role grant-permission holdfast readwrite holdfast/ holdfast0
    password=$(openssl rand -hex 16)
    ctl user add holdfast:$password
    ctl user grant-role holdfast holdfast
    ctl auth enable
    at=/run/credentials/holdfast-node@c.service
    umask 077
    printf "HOLDFAST_ETCD_USER=holdfast\nHOLDFAST_ETCD_PASSWORD=$password\nHOLDFAST_ETCD_CA=/etc/holdfast/ca.crt\nHOLDFAST_ETCD_CERT=$at/etcd-c.crt\nHOLDFAST_ETCD_KEY=$at/etcd-c.key\n" \
      > /etc/holdfast/c.env
    ls -l /etc/holdfast/c.env'
  step 'a node of it: what is secret in /etc/holdfast/c.env, for root alone' bash -ec '
    at=/run/credentials/holdfast-node@c.service
    mkdir -p /etc/systemd/system/holdfast-node@c.service.d
    {
      echo "[Service]"
      printf "LoadCredential=%s:/srv/pki/%s\n" crt c.crt key c.key etcd-c.crt etcd-c.crt etcd-c.key etcd-c.key
    } > /etc/systemd/system/holdfast-node@c.service.d/keys.conf
    printf "node:\n  name: c\n  dir: /var/lib/holdfast/c\n  listen: 10.0.0.3:7401\n  peerListen: 10.0.0.3:7441\n  coordinator: etcds://10.0.0.9:2379\n  tlsCertFile: $at/crt\n  tlsKeyFile: $at/key\n  tlsCaFile: ca.crt\n" \
      > /etc/holdfast/c.yaml
    systemctl daemon-reload && systemctl start holdfast-node@c'
  # The operator has the same in his environment.
  within bash -c 'sed -e "s|/run/credentials/holdfast-node@c.service|/srv/pki|" -e "s/^/export /" /etc/holdfast/c.env > /srv/pki/etcd.sh
    echo "export HOLDFAST_COORDINATOR=etcds://10.0.0.9:2379" >> /srv/pki/etcd.sh'
  until_so 'it is known' bash -c '. /srv/pki/etcd.sh; holdfast volume create vm2 --size 16MiB --replicas 1'
  until_so 'it serves' bash -c '. /srv/pki/etcd.sh; echo hello | holdfast write holdfasts://10.0.0.3:7401/vm2 --offset 0'
  step 'a read' bash -c '[ "$(holdfast read holdfasts://10.0.0.3:7401/vm2 --offset 0 --length 5)" = hello ]'
  step 'its password stands in no argument and in no log' bash -c '
    password=$(sed -n s/^HOLDFAST_ETCD_PASSWORD=//p /etc/holdfast/c.env)
    said=$(tr "\0" " " < "/proc/$(systemctl show --value -p MainPID holdfast-node@c)/cmdline"; journalctl -u holdfast-node@c)
    [ ${#password} = 32 ] && [[ $said == *"/usr/local/bin/holdfast node --config"* && $said != *"$password"* ]]'
  step 'systemctl restart' systemctl restart holdfast-node@c
  until_so 'it serves' bash -c '[ "$(holdfast read holdfasts://10.0.0.3:7401/vm2 --offset 0 --length 5)" = hello ]'
  step 'systemctl stop' systemctl stop holdfast-node@c
  must_be holdfast-node@c Result success
  must_be holdfast-node@c ExecMainStatus 0
else
  printf '\nskipped: etcd and etcdctl are not installed\n'
fi

printf '\n== nothing was refused to a service that it needs\n'
within journalctl --no-pager --output=cat -u 'holdfast-*' | grep -E 'EPERM|EROFS|"level":(50|60)|SECCOMP|SIGSYS' && failed 'the journal says so'
step 'no unit has failed' bash -c 'failed=$(systemctl list-units --failed --plain --no-legend); echo "$failed"; [ -z "$failed" ]'
printf '\nshown\n'
