#!/usr/bin/python3
"""pstorage-ct in a Linux guest (guest.py) over the kernel's NBD client: a container's life, its
keeper and its server are killed, the guest loses its power and another host, which has FUSE and a
loop device, takes the container over."""
import json
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import Guest  # noqa: E402
from harness import BUILD, check, cluster, main, run, skip  # noqa: E402
from ct_test import Containers  # noqa: E402
from mount_test import mounted, until  # noqa: E402

PROGRAMS = [*(os.path.join(BUILD, "bin", name) for name in ("pstorage", "pstorage-ct", "pstorage-nbd")),
            "mke2fs", "e2fsck", "resize2fs", "mount", "umount", "fsfreeze", "fstrim", "sync", "blkdiscard"]

BEGIN = """
export PSTORAGE_ETC=/etc/pstorage PSTORAGE_NAME=dev PSTORAGE_HOST_ID=00000000de7fffff
ct() { pstorage-ct "$@"; }
says() {  # WORDS COMMAND...
  wanted=$1; shift
  text=$("$@" 2>&1) || { echo "$* failed: $text"; tail -n 5 /tmp/nbd.log; exit 1; }
  echo "$text" | grep -q -e "$wanted" || { echo "$* does not say $wanted: $text"; exit 1; }
}
fails() {  # WORDS COMMAND...
  wanted=$1; shift
  if text=$("$@" 2>&1); then echo "$* should fail: $text"; exit 1; fi
  echo "$text" | grep -q -e "$wanted" || { echo "$* fails without $wanted: $text"; exit 1; }
}
until_true() {  # COMMAND...: at most 60 s
  tries=0
  until "$@" >/tmp/tried 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || { echo "never: $*"; cat /tmp/tried /tmp/nbd.log; exit 1; }
    usleep 100000
  done
}
serve() { pstorage-nbd -c dev >/tmp/nbd.log 2>&1 & server=$!; until_true grep "serving NBD" /tmp/nbd.log; }
checked() {  # VOLUME[@SNAPSHOT]
  device=$(pstorage -c dev volume attach --read-only "$1")
  e2fsck -fn "$device"
  pstorage -c dev volume detach "$device"
}
"""

LIFE = """
fails "no pstorage-nbd serves" ct mount 101 --via nbd
fails "pstorage-nbd start' or 'pstorage-mount" ct mount 101
serve
fails "pstorage-mount -c dev" ct mount 101 --via fuse
ct mount 101 -m /mnt
grep "^/dev/nbd0 /mnt ext4 rw" /proc/mounts
says "mounted */dev/nbd0 */mnt *pstorage-nbd" ct list
fails "is mounted on /mnt" ct mount 101
fails "umount 101" ct destroy 101
host refused
dd if=/dev/urandom of=/mnt/kept bs=1M count=4 2>/dev/null
dd if=/dev/urandom of=/mnt/large bs=1M count=16 2>/dev/null
sync
md5sum /mnt/kept >/tmp/kept
rm /mnt/large
sync
ct --json compact 101 | tr -d ' \\n'; echo

ct snapshot -n monday 101
echo later >/mnt/later
ct snapshot-mount 101 monday -m /old
grep "^/dev/nbd1 /old ext4 ro" /proc/mounts
cmp /old/kept /mnt/kept
[ ! -e /old/later ]
fails "snapshot-umount 101 monday" ct snapshot-mount 101 monday -m /old
ct snapshot-umount 101 monday
checked private/101/root.hdd@monday

ct set 101 --diskspace 64M
[ "$(cat /sys/block/nbd0/size)" = 131072 ]
dd if=/dev/zero of=/mnt/large bs=1M count=40 conv=fsync 2>/dev/null
rm /mnt/large
"""

KEEPER = """
# Only its keeper is lost: it goes on.
kill -9 $(pidof pstorage)
says "101 exist dead" ct status 101
fails "umount -f 101" ct umount 101
cd /mnt  # the new keeper must not keep it busy
says "works again" ct status --repair 101
cd /
says "101 exist mounted" ct status 101
says "nothing to repair" ct status --repair 101
kill $server
wait $server
serve
echo more >/mnt/more
sync
ct umount 101
[ "$(pstorage -c dev volume attached --json)" = "[]" ]
checked private/101/root.hdd
ct set 101 --diskspace 48M
checked private/101/root.hdd
ct set 101 --diskspace 64M
ct mount 101 -m /mnt -r
[ "$(cat /sys/block/nbd0/ro)" = 1 ]
cat /mnt/more /mnt/later
kill -9 $(pidof pstorage)
kill $server  # and now its connection, too
wait $server
serve
ct umount -f 101
"""

SERVER = """
# The server is lost, and does not come back.
ct mount 101 -m /mnt
echo flushed >/mnt/flushed
sync
kill -9 $server
wait $server || true
ct umount -f 101
! grep nbd /proc/mounts
[ "$(pstorage -c dev volume attached --json)" = "[]" ]
says "101 exist unmounted" ct status 101
# Both are: nothing but taking it away helps. The lease of the dead one ends first.
serve
until_true ct mount 101 -m /mnt
md5sum -c /tmp/kept
kill -9 $server $(pidof pstorage)
wait $server || true
says "dead mount is gone" ct status --repair 101
! grep nbd /proc/mounts
serve
until_true ct mount 101 -m /mnt
cat /mnt/flushed
echo last >/mnt/last
sync
"""


def credentials(one):
    """What a host of this cluster has in /etc/pstorage."""
    here = one.environment["PSTORAGE_ETC"]
    return {os.path.join("/etc/pstorage", os.path.relpath(os.path.join(folder, name), here)):
            ("from", os.path.join(folder, name)) for folder, _, names in os.walk(here) for name in names}


def a_container_over_kernel_nbd():
    if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
        skip("loop devices need root")
    with cluster(cs=2, replicas="2:1") as one, mounted(one):
        ct = Containers(one)
        ct("create", "101", "-s", "32M")

        def refused():
            # losetup would try for two minutes.
            code, text = run("pstorage-ct", "mount", "101", "-m", ct.root, env=one.environment,
                             ok=False, timeout=60)
            check(code == 1 and "in use by pstorage-nbd" in text, f"a second host: {text}")

        try:
            with Guest(BEGIN + LIFE + KEEPER + SERVER, programs=PROGRAMS, files=credentials(one),
                       modules=["nbd"], loopback_is_host=True, hooks={"refused": refused}) as guest:
                text = guest.run(timeout=400)
            print(text, flush=True)
            compacted = json.loads(re.search(r'\{"after".*\}', text).group())
            check(compacted["returned"] >= 12 << 20, f"compact: {compacted}")
            check(text.count("Pass 5") == 3 and "more\nlater\n" in text and "flushed" in text, text)
            # The guest has lost its power: its lease ends.
            until(lambda: ct("mount", "101", "-m", ct.root, ok=False)[0] == 0, "taken over")
            for name in ("flushed", "last"):
                with open(os.path.join(ct.root, name), encoding="ascii") as file:
                    check(file.read() == name + "\n", f"what was synced is lost: {name}")
            device = json.loads(ct("--json", "status", "101")[1])["device"]
            check(device.startswith("/dev/loop"), f"without a kernel client: {device}")
            ct("umount", "101")
        finally:
            ct.clear()


if __name__ == "__main__":
    main(a_container_over_kernel_nbd)
