#!/bin/bash
# The NBD server over memory volumes against the clients people use. $1: nbd_memory_server.
# Needs: libnbd-bin, qemu-utils, fio, python3-libnbd (/usr/bin/python3). Skips loudly (77) without.
set -euo pipefail

server=$1
for tool in nbdinfo nbdcopy qemu-img qemu-io fio; do
  command -v "$tool" >/dev/null || { echo "SKIPPED: $tool is not installed"; exit 77; }
done
/usr/bin/python3 -c 'import nbd' || { echo "SKIPPED: python3-libnbd is not installed"; exit 77; }

work=$(mktemp -d)
server_pid=
finish() {
  if [[ -n $server_pid ]]; then kill "$server_pid" 2>/dev/null || true; wait "$server_pid" || true; fi
  rm -rf "$work"
}
trap finish EXIT
fail() { echo "FAILED: $*"; exit 1; }
step() { echo "-- $*"; }

start() { # ADDRESS VOLUME=SIZE...
  rm -f "$work/address"
  "$server" "$@" >"$work/address" 2>"$work/log" &
  server_pid=$!
  for _ in {1..100}; do
    if [[ -s $work/address ]]; then address=$(cat "$work/address"); return; fi
    kill -0 "$server_pid" 2>/dev/null || fail "the server ended: $(cat "$work/log")"
    sleep 0.05
  done
  fail "the server did not start"
}

start "unix:$work/nbd.sock" disk=64M odd=10000001 small=1M
uri="nbd+unix:///disk?socket=$work/nbd.sock"
odd="nbd+unix:///odd?socket=$work/nbd.sock"
small="nbd+unix:///small?socket=$work/nbd.sock"

step "a second server does not take the socket of a live one"
if "$server" "unix:$work/nbd.sock" x=1M 2>"$work/second"; then fail "it did"; fi
grep -q "another program listens there" "$work/second" || fail "$(cat "$work/second")"

step "nbdinfo lists and describes"
nbdinfo --list "nbd+unix:///?socket=$work/nbd.sock" >"$work/list"
[[ $(grep -c '^export=' "$work/list") == 3 ]] || fail "$(cat "$work/list")"
nbdinfo --json "$uri" 2>/dev/null | /usr/bin/python3 -c '
import json, sys
e = json.load(sys.stdin)["exports"][0]
for what in ("can_cache can_df can_fast_zero can_flush can_fua can_multi_conn can_trim can_zero").split():
    assert e[what], what
assert e["export-size"] == 64 << 20
sizes = [e["block_size_" + which] for which in ("minimum", "preferred", "maximum")]
assert sizes == [1, 4096, 32 << 20], sizes'
[[ $(nbdinfo --size "$odd") == 10000001 ]] || fail "size"
if nbdinfo "nbd+unix:///none?socket=$work/nbd.sock" 2>/dev/null; then fail "an unknown export"; fi

step "nbdcopy in and out over 4 connections, also an odd size"
head -c 50M /dev/urandom >"$work/in"
truncate -s 64M "$work/in"
nbdcopy --connections=4 --requests=64 "$work/in" "$uri"
nbdcopy --connections=4 "$uri" "$work/out"
cmp "$work/in" "$work/out" || fail "bytes differ"
head -c 10000001 /dev/urandom >"$work/odd"
nbdcopy "$work/odd" "$odd"
nbdcopy "$odd" "$work/out"
cmp "$work/odd" "$work/out" || fail "bytes of the odd size differ"
nbdinfo --map --totals "$uri" >"$work/map"
grep -q "hole,zero" "$work/map" || fail "the empty end is no hole: $(cat "$work/map")"

step "qemu-img converts and compares"
qemu-img convert -q -n -f raw -O raw "$work/in" "$uri"
qemu-img compare -q -f raw -F raw "$work/in" "$uri" || fail "they differ"
qemu-img convert -q -f raw -O qcow2 "$uri" "$work/out.qcow2"
qemu-img compare -q -f qcow2 -F raw "$work/out.qcow2" "$work/in" || fail "they differ"

step "qemu-io: unaligned patterns"
qemu-io -f raw "$small" >"$work/io" 2>&1 <<'COMMANDS'
write -P 17 1 1
write -P 18 4095 2
write -P 19 65000 70000
read -P 0 0 1
read -P 17 1 1
read -P 0 2 4093
read -P 18 4095 2
read -P 0 4097 1000
read -P 19 65000 70000
write -f -P 20 100001 33
read -P 20 100001 33
read -P 19 100034 20
write -z 65001 5000
read -P 19 65000 1
read -P 0 65001 5000
write -z -u 70001 8200
read -P 0 70001 8200
discard 80000 20000
flush
read -P 19 134999 1
COMMANDS
if grep -Eqi "fail|error|verif" "$work/io"; then cat "$work/io"; fail "qemu-io"; fi
[[ $(grep -c ' ops; ' "$work/io") == 19 ]] || { cat "$work/io"; fail "qemu-io: commands missing"; }

step "libnbd: the rest of the protocol"
/usr/bin/python3 "$(dirname "$0")/nbd_interop.py" "$small"

step "fio verifies"
fio --name=verify --ioengine=nbd --uri="$uri" --rw=randwrite --bsrange=512-128k --blockalign=512 \
    --iodepth=32 --size=64M --io_size=96M --verify=crc32c --verify_fatal=1 --verify_state_save=0 --minimal >"$work/fio" ||
  { cat "$work/fio"; fail "fio"; }

step "garbage is answered by hanging up"
for _ in {1..20}; do
  /usr/bin/python3 - "$work/nbd.sock" <<'PYTHON'
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.settimeout(5)
try:
    s.sendall(os.urandom(100000))
    while s.recv(65536):
        pass
except (BrokenPipeError, ConnectionResetError):
    pass
PYTHON
done
nbdinfo --size "$uri" >/dev/null || fail "the server does not serve any more"

step "SIGTERM ends it and removes the socket"
kill "$server_pid"
wait "$server_pid" || fail "exit status $?"
server_pid=
[[ ! -e $work/nbd.sock ]] || fail "the socket file is still there"

step "the socket of a killed server is replaced; TCP works too"
start "unix:$work/nbd.sock" disk=1M
kill -9 "$server_pid"
wait "$server_pid" 2>/dev/null || true
[[ -S $work/nbd.sock ]] || fail "no stale socket to test with"
start "unix:$work/nbd.sock" disk=1M
kill "$server_pid"
wait "$server_pid"
start 127.0.0.1:0 disk=1M
[[ $(nbdinfo --size "nbd://$address/disk") == 1048576 ]] || fail "tcp"
echo "all passed"
