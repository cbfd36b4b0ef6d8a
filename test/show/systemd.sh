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
    for _ in $(seq 100); do
      [ -z "$(find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null)" ] && break
      sleep 0.1
    done
  fi
  find "$group" -depth -type d -exec rmdir {} \;
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
  HOLDFAST_TLS_CA=/root/pki/ca.crt HOLDFAST_TLS_CERT=/root/pki/operator.crt HOLDFAST_TLS_KEY=/root/pki/operator.key
)
within() { nsenter -t "$one" -a -r -w env -i HOME=/root PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${operator[@]}" "$@"; }
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
  mkdir -p -m 700 /root/pki && cd /root/pki
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
  } 2>/dev/null
  holdfast token create app --role read-write --volume vm1 --tokens tokens > app.token
  mkdir -p /etc/holdfast && cp ca.crt /etc/holdfast && ls -l *.key'

step 'configs, and drop-ins for what root alone may read' bash -ec '
  credentials() { # UNIT NAME
    mkdir -p "/etc/systemd/system/$1.d"
    printf "[Service]\nLoadCredential=crt:/root/pki/$2.crt\nLoadCredential=key:/root/pki/$2.key\nLoadCredential=tokens:/root/pki/tokens\n" \
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
  export HOLDFAST_TLS_CERT=/root/pki/app.crt HOLDFAST_TLS_KEY=/root/pki/app.key
  head -c 40M /dev/urandom > /tmp/image
  holdfast write holdfasts://10.0.0.1:7401,10.0.0.2:7401/vm1 --offset 4096 --token-file /root/pki/app.token < /tmp/image'
same() {
  step "$1" bash -ec '
    export HOLDFAST_TLS_CERT=/root/pki/app.crt HOLDFAST_TLS_KEY=/root/pki/app.key
    holdfast read holdfasts://10.0.0.1:7401,10.0.0.2:7401/vm1 --offset 4096 --length 40MiB --token-file /root/pki/app.token |
      cmp - /tmp/image'
}
same 'and reads the same'
printf '\nshown\n'
