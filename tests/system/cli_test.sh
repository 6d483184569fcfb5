#!/usr/bin/env bash
# The command line and mdsd as their users see them: what is printed, what is refused and how.
set -euo pipefail

build=${PSTORAGE_BUILD:-$(cd "$(dirname "$0")/../.." && pwd)/build/release}
work=$(mktemp --directory --tmpdir pstorage-cli-XXXXXX)
export PATH=$build/bin:$PATH PSTORAGE_NAME=stor1 PSTORAGE_ETC=$work/etc
mds_pid=

stop_mds() {
  [ -z "$mds_pid" ] || kill "$mds_pid" 2>/dev/null || true
  mds_pid=
}
finish() {
  local status=$?
  stop_mds
  [ "$status" -eq 0 ] || echo "cli_test: failed; left in $work" >&2
  [ "$status" -ne 0 ] || rm --recursive --force "$work"
}
trap finish EXIT

passed=0
ok() {
  passed=$((passed + 1))
  echo "ok $passed - $*"
}
fail() {
  echo "not ok - $*" >&2
  exit 1
}

# expect STATUS PATTERN COMMAND...: exit status and one line of output that matches.
expect() {
  local status=$1 pattern=$2 got=0 output
  shift 2
  output=$(limited "$@" 2>&1 </dev/null) || got=$?
  [ "$got" -eq "$status" ] || fail "'$*' ended with $got, not $status: $output"
  grep --quiet --extended-regexp -e "$pattern" <<<"$output" ||
    fail "'$*' printed '$output', not /$pattern/"
  [ "$status" -eq 0 ] || [ "$(wc --lines <<<"$output")" -eq 1 ] ||
    fail "'$*' explained itself in more than one line: $output"
  ok "$* -> $status /$pattern/"
}
# A command that hangs is a failed one. with_password is ours, not a program.
limited() {
  if [ "$1" = with_password ]; then "$@"; else timeout 30 "$@"; fi
}
with_password() { # PASSWORD COMMAND...
  local password=$1
  shift
  printf '%s\n' "$password" | timeout 30 "$@"
}

is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
port=$((30000 + RANDOM % 2000))
until is_free "$port" && is_free $((port + 1)); do port=$((port + 2)); done

start_mds() {
  mdsd -r "$work/mds" -D
  mds_pid=$(cat "$work/mds/mdsd.pid")
}

# ---- usage
expect 2 "try 'pstorage --help'" pstorage
expect 2 "no-such" pstorage no-such-command
expect 2 "bogus" pstorage stat --bogus
expect 2 "required" pstorage volume create vm1
expect 2 "required" mdsd
expect 2 "bogus" mdsd -r /x --bogus
expect 0 "pstorage [0-9]" pstorage --version
expect 0 "mdsd [0-9]" mdsd -v
expect 1 "bad cluster name" pstorage -c 'bad/name' stat

# ---- making a cluster
expect 1 "no .*bs.list|where is cluster" pstorage stat
expect 1 "give -I -p" pstorage make-mds -a 127.0.0.1 -r "$work/mds"
expect 1 "password is empty" with_password "" pstorage make-mds -I -p -P -a 127.0.0.1 -r "$work/mds"
[ ! -e "$work/mds" ] || fail "a refused make-mds left $work/mds"
mkdir --parents "$work/used"
touch "$work/used/file"
expect 1 "not empty" with_password secret pstorage make-mds -I -p -P -a 127.0.0.1 -r "$work/used"
[ ! -e "$work/etc/clusters/stor1/auth_digest.key" ] || fail "a refused make-mds left a key"
if [ "$(id --user)" -ne 0 ]; then
  mkdir --mode 0555 "$work/read-only"
  expect 1 "ermission" with_password secret \
    pstorage make-mds -I -p -P -a 127.0.0.1 -r "$work/read-only/mds"
fi
expect 1 "Read-only|read-only|ermission|No such file" with_password secret \
  pstorage make-mds -I -p -P -a 127.0.0.1 -r /proc/pstorage-mds
expect 1 "not the repository" mdsd -r "$work/used"
expect 0 "is made" with_password secret \
  pstorage make-mds -I -p -P -a "127.0.0.1:$port" -r "$work/mds"
[ "$(stat --format %a "$work/etc/clusters/stor1/auth_digest.key")" = 600 ] || fail "key mode"
grep --quiet --line-regexp "127.0.0.1:$port" "$work/etc/clusters/stor1/bs.list" || fail "bs.list"
expect 1 "exists" with_password secret \
  pstorage make-mds -I -p -P -a "127.0.0.1:$port" -r "$work/mds2"
expect 1 "no MDS of cluster 'stor1' answers: .*refused" pstorage stat

# ---- serving
start_mds
expect 1 "locked: process $mds_pid" mdsd -r "$work/mds"
expect 0 "^connected to MDS#1" pstorage stat
expect 0 "^Cluster 'stor1': healthy" pstorage -q stat
expect 0 "^MDS nodes: 1 of 1, epoch uptime: " pstorage -q stat
expect 0 "^CS nodes:  0 of 0 \(0 avail, 0 inactive, 0 offline\)" pstorage -q stat
expect 0 "MDSID" pstorage -q stat
pstorage stat --json | /usr/bin/python3 -c 'import json,sys; s=json.load(sys.stdin); assert s["cluster"]=="stor1"' ||
  fail "stat --json"
expect 1 "give -b|where is cluster" pstorage -c other stat

# ---- volumes and attributes
expect 0 "^NAME" pstorage -q volume ls
expect 0 "" pstorage volume create vm1 -s 10G --format raw --replicas 3:2
expect 1 "exists already" pstorage volume create vm1 -s 10G
expect 1 "exists already" pstorage volume create vm1 -s 10G --format raw
expect 1 "no clusters" pstorage volume create vm2 -s 1G --format raw --cluster 1M
expect 1 "cluster" pstorage volume create vm2 -s 1G --cluster 100K
expect 1 "bad size|multiple of 512" pstorage volume create vm2 -s 1000
expect 1 "size" pstorage volume create vm2 -s 10X
expect 1 "minimum is above the norm" pstorage volume create vm2 -s 1G --replicas 2:3
expect 1 "unknown failure-domain 'moon'" pstorage volume create vm2 -s 1G --failure-domain moon
expect 1 "bad volume name" pstorage volume create /vm2 -s 1G
expect 0 "^vm1 +10GB" pstorage -q volume ls
expect 0 "replicas=3:2" pstorage volume info vm1
expect 1 "no file or directory '/volumes/none'" pstorage volume info none
expect 0 "" pstorage volume resize vm1 -s 20G
expect 1 "--shrink" pstorage volume resize vm1 -s 10G
expect 0 "" pstorage volume resize vm1 -s 10G --shrink
expect 0 "Path: 'pstorage://stor1/'" pstorage get-attr -p /
expect 0 "chunk-size=67108864" pstorage get-attr -p /
expect 0 "" pstorage set-attr -R -p / replicas=3 tier=1
expect 0 "replicas=3:2" pstorage get-attr -p /
expect 0 "tier=1" pstorage get-attr -p /volumes/vm1
expect 1 "unknown attribute 'replica'" pstorage set-attr -p / replica=3
expect 1 "not on a mount" pstorage get-attr /pstorage/stor1
expect 1 "not in use" pstorage revoke /volumes/vm1
expect 0 "" pstorage volume rename vm1 group/vm2
expect 0 "^group/vm2 +10GB" pstorage -q volume ls
expect 1 "directory of volumes" pstorage volume rm group
expect 1 "is a raw volume" pstorage volume snapshot group/vm2
expect 0 "" pstorage volume rm group/vm2
expect 1 "no file or directory" pstorage volume rm group/vm2
expect 0 "^group/vm2 +10GB" pstorage -q volume trash
expect 1 "not in the trash" pstorage volume undelete none
expect 0 "" pstorage volume undelete group/vm2 --as vm1
expect 0 "" pstorage volume rm --now vm1
expect 0 "^NAME" pstorage -q volume trash
expect 1 "bad time" pstorage volume trash --retention week
expect 0 "" pstorage volume trash --retention 0

# ---- settings, services, events
expect 0 "^mds.wd.offline_tout=300000" pstorage get-config
expect 0 "" pstorage set-config mds.wd.offline_tout=60000
expect 0 "^mds.wd.offline_tout=60000" pstorage get-config
expect 1 "did you mean 'mds.wd.offline_tout'" pstorage set-config mds.wd.offline=1
expect 1 "a number from" pstorage set-config mds.wd.offline_tout=abc
expect 0 "^MDS +1 avail" pstorage -q list-services
expect 0 "MDS#1 at 127.0.0.1:$port became master" pstorage get-event

# ---- another host: wrong password, right password, another cluster
export PSTORAGE_ETC=$work/etc2
expect 1 "auth-node" pstorage -b "127.0.0.1:$port" stat
expect 1 "wrong password" with_password wrong pstorage -b "127.0.0.1:$port" auth-node -P
[ ! -e "$work/etc2/clusters/stor1" ] || fail "a refused auth-node left files"
expect 1 "belongs to cluster 'stor1'" with_password secret \
  pstorage -c other -b "127.0.0.1:$port" auth-node -P
expect 0 "may now use cluster 'stor1'" with_password secret \
  pstorage -b "127.0.0.1:$port" auth-node -P
expect 0 "connected to MDS#1" pstorage stat
export PSTORAGE_ETC=$work/etc

# ---- garbage on the port
for _ in 1 2 3; do
  head --bytes 100000 /dev/urandom >"/dev/tcp/127.0.0.1/$((port + 1))" 2>/dev/null || true
  printf 'GET / HTTP/1.0\r\n\r\n' >"/dev/tcp/127.0.0.1/$((port + 1))" 2>/dev/null || true
done
expect 0 "^Cluster 'stor1'" pstorage -q stat

# ---- kill -9, restart, clean stop
for round in 1 2 3; do
  pstorage -q volume create "keep$round" -s 1G --format raw
  kill -KILL "$mds_pid"
  start_mds
  expect 0 "^keep$round " pstorage -q volume ls
done
pstorage set-config net.encryption=1
kill -TERM "$mds_pid"
for _ in $(seq 100); do kill -0 "$mds_pid" 2>/dev/null && sleep 0.05; done
kill -0 "$mds_pid" 2>/dev/null && fail "SIGTERM did not end mdsd"
[ ! -e "$work/mds/mdsd.pid" ] || fail "mdsd left its pid file"
start_mds
expect 0 "^keep3 " pstorage -q volume ls
ok "encrypted session"

# ---- a damaged log refuses to start, and says what to do
stop_mds
sleep 0.5
printf '\xff' | dd of="$work/mds/raft/segment-0000000000000001" bs=1 seek=8240 conv=notrunc status=none
rm "$work"/mds/mds.db*
expect 1 "is damaged and no other metadata server has what it lost.*Restore" mdsd -r "$work/mds"

echo "cli_test: $passed passed"
