#!/usr/bin/python3
"""A volume as a disk of a real Linux guest (guest.py): the kernel's own NBD client, attached by
`pstorage volume attach` and by nbd-client."""
import os
import shutil
import signal
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import Guest  # noqa: E402
from harness import BUILD, Nbd_server, check, cluster, main, nbd_server, run, skip  # noqa: E402
from volume_test import query, released  # noqa: E402

MIB = 1 << 20
FILE_SYSTEM_TOOLS = ["fio", "mkfs.ext4", "e2fsck"]
VERIFY = ("fio --name=verify --directory=/mnt --size=2M --rw=randwrite --bs=4k --direct=1 "
          "--verify=crc32c --verify_fatal=1 --fsync=32 --randseed=7 --eta=never --output=/tmp/fio")

# $1: where volume vm1 is attached by `attach`, taken away by `detach`.
LIFE = f"""
disk=/dev/nbd0
attach
mkfs.ext4 -q -F $disk
mount -t ext4 $disk /mnt
{VERIFY} --do_verify=1 || {{ cat /tmp/fio; exit 1; }}
fio --name=large --directory=/mnt --size=48M --rw=write --bs=1M --eta=never --output=/tmp/fio
sync
host allocated before
rm /mnt/large*
sync  # its blocks are free once the journal says so
fstrim /mnt
umount /mnt
detach
attach
e2fsck -fn $disk
mount -t ext4 $disk /mnt
{VERIFY} --verify_only || {{ cat /tmp/fio; exit 1; }}
umount /mnt
detach
"""


def note_into(allocated, one):
    def note(when):
        allocated[when] = query(one, "du", "vm1")[0]["allocated_bytes"]
    return note


def check_trimmed(one, allocated, text):
    check("Pass 5" in text and "files (" in text, f"e2fsck said nothing:\n{text}")
    released(one, "vm1")
    note_into(allocated, one)("after")
    # Of 48 MiB; what was written since takes some clusters again.
    check(allocated["before"] - allocated["after"] >= 32 * MIB, f"fstrim: {allocated}")
    check(all(delta["clean"] for delta in query(one, "check", "vm1")), "the image is not clean")


def nbd_client():
    """Debian's nbd-client: file system, verified writes, trim, attached again."""
    with cluster(cs=2, replicas="2:1") as one, nbd_server(one) as port:
        one.volume("vm1", "256M", "ploop")
        allocated = {}
        commands = (f"attach() {{ nbd-client -N vm1 10.0.2.2 {port} $disk; }}\n"
                    "detach() { nbd-client -d $disk; }\n")
        with Guest(commands + LIFE, programs=[*FILE_SYSTEM_TOOLS, "nbd-client"], modules=["nbd"],
                   hooks={"allocated": note_into(allocated, one)}) as guest:
            check_trimmed(one, allocated, guest.run(timeout=180))


ATTACHED = f"""
attach() {{ [ "$(pstorage -c dev volume attach vm1 $disk --server $server --timeout 2)" = $disk ]; }}
detach() {{ pstorage -c dev volume detach vm1; }}
fails() {{ wanted=$1; shift; ! text=$("$@" 2>&1) && echo "$text" | grep -q "$wanted"; }}
{LIFE}
# The server is stopped in order, and killed, while fio writes.
attach
fails "attached as /dev/nbd0 already" pstorage -c dev volume attach vm1 --server $server
mount -t ext4 $disk /mnt
fails "is in use: unmount it first" pstorage -c dev volume detach $disk
{VERIFY} --rate_iops=100 --do_verify=1 &
writer=$!
while ! [ -s /mnt/verify.0.0 ]; do usleep 100000; done
host restart SIGTERM
host restart SIGKILL
wait $writer || {{ cat /tmp/fio; exit 1; }}
pstorage -c dev volume attached
# A keeper that was killed is replaced under the mounted file system, and does what it did.
kill -9 $(pidof pstorage)
pstorage -c dev volume attached --json | tr -d ' \n' | grep -q '"keeper":null'
attach
pstorage -c dev volume attached --json | tr -d ' \n' | grep -q '"keeper":[0-9]'
host restart SIGTERM
echo after >/mnt/after
sync
umount /mnt
e2fsck -fn $disk
detach
[ "$(pstorage -c dev volume attached --json)" = "[]" ]
while pidof pstorage; do usleep 100000; done  # the keeper goes with its device
pstorage -c dev volume attach vm1@before --server $server | grep -q /dev/nbd
[ "$(cat /sys/block/nbd0/ro)" = 1 ]
pstorage -c dev volume detach vm1@before
pstorage -c dev volume attach vm1 --read-only --server $server | grep -q /dev/nbd
[ "$(cat /sys/block/nbd0/ro)" = 1 ]
pstorage -c dev volume detach vm1
"""


def attached():
    """pstorage volume attach: a disk's life, and restarts of the server under load."""
    with cluster(cs=2, replicas="2:1") as one:
        one.volume("vm1", "256M", "ploop")
        one.pstorage("-q", "volume", "snapshot", "vm1", "-n", "before")
        server = Nbd_server(one)

        def restart(how):
            server.end(getattr(signal, how))
            server.start()

        allocated = {}
        try:
            with Guest(f"server=10.0.2.2:{server.port}\n" + ATTACHED,
                       programs=[*FILE_SYSTEM_TOOLS, os.path.join(BUILD, "bin", "pstorage")],
                       modules=["nbd"], hooks={"allocated": note_into(allocated, one),
                                               "restart": restart}) as guest:
                text = guest.run(timeout=240)
            check_trimmed(one, allocated, text)
            check("DEVICE" in text and "vm1" in text, text)
        finally:
            server.end()


ROOT_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
exec </dev/ttyS1 >/dev/ttyS1 2>&1
stty -F /dev/ttyS1 raw -echo
(set -e
 grep "^/dev/vda / ext4 rw" /proc/mounts
 boots=$(cat /boots)
 echo $((boots + 1)) >/boots
 mount -o remount,ro /
 echo "boot $boots")
printf '\\n%s exit %s\\n' "$1" $?
while :; do sleep 1000; done
"""


def booted_from_a_volume():
    """A guest whose root is a volume, over QEMU's NBD client: it boots, twice, and keeps what it
    writes."""
    with cluster(cs=2, replicas="2:1") as one, tempfile.TemporaryDirectory() as directory:
        one.volume("root", "128M", "ploop")
        tree = os.path.join(directory, "tree")
        for folder in ("bin", "sbin", "proc", "sys", "dev", "run", "tmp"):
            os.makedirs(os.path.join(tree, folder))
        shutil.copy(shutil.which("busybox"), os.path.join(tree, "bin", "busybox"))
        for name, text in (("sbin/init", ROOT_INIT), ("boots", "1\n")):
            with open(os.path.join(tree, name), "w", encoding="ascii") as file:
                file.write(text)
        os.chmod(os.path.join(tree, "sbin/init"), 0o755)
        image = os.path.join(directory, "root.img")
        run("mke2fs", "-q", "-t", "ext4", "-d", tree, image, "64M")
        run("nbdcopy", image, one.uri("root"))
        drive = f"if=virtio,format=raw,file={one.uri('root')}"
        for number in (1, 2):
            with Guest("", modules=["virtio_blk"], boot_from="/dev/vda",
                       arguments=["-drive", drive]) as guest:
                text = guest.run(timeout=120)
            check(f"boot {number}" in text, f"boot {number}:\n{text}")
        run("nbdcopy", one.uri("root"), image)
        run("e2fsck", "-fn", image)


def refused_without_a_kernel_client():
    """Where the kernel has no NBD client the command says so, and what to do."""
    if os.path.exists("/sys/module/nbd") or run("sh", "-c", "modprobe -q nbd", ok=False)[0] == 0:
        skip("this kernel has an NBD client")
    pstorage = os.path.join(BUILD, "bin", "pstorage")
    for wanted, words in (("this kernel has no NBD client", ["attach", "vm1"]),
                          ("bad device '/dev/sda'", ["attach", "vm1", "/dev/sda"]),
                          ("is not attached here", ["detach", "vm1"])):
        code, text = run(pstorage, "-c", "dev", "volume", *words, ok=False)
        check(code == 1 and wanted in text and len(text.splitlines()) == 1, f"{words}: {text}")
    check(run(pstorage, "-c", "dev", "volume", "attached", "--json")[1] == "[]\n", "attached")


if __name__ == "__main__":
    main(refused_without_a_kernel_client, attached, nbd_client, booted_from_a_volume)
