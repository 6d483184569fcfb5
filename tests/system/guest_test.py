#!/usr/bin/python3
"""A volume as a disk of a real Linux guest (guest.py): the kernel's own NBD client."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import Guest  # noqa: E402
from harness import check, cluster, main, nbd_server  # noqa: E402
from volume_test import query, released  # noqa: E402

MIB = 1 << 20
FILE_SYSTEM_TOOLS = ["fio", "mkfs.ext4", "e2fsck"]
VERIFY = ("fio --name=verify --directory=/mnt --size=4M --rw=randwrite --bs=4k --direct=1 "
          "--verify=crc32c --verify_fatal=1 --fsync=64 --randseed=7 --eta=never --output=/tmp/fio")

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


def kernel_client():
    """nbd-client's kernel device: file system, verified writes, trim, attached again."""
    with cluster(cs=2, replicas="2:1") as one, nbd_server(one) as port:
        one.volume("vm1", "256M", "ploop")
        allocated = {}

        def note(when):
            allocated[when] = query(one, "du", "vm1")[0]["allocated_bytes"]

        commands = (f"attach() {{ nbd-client -N vm1 10.0.2.2 {port} $disk; }}\n"
                    "detach() { nbd-client -d $disk; }\n")
        with Guest(commands + LIFE, programs=[*FILE_SYSTEM_TOOLS, "nbd-client"], modules=["nbd"],
                   hooks={"allocated": note}) as guest:
            text = guest.run(timeout=180)
        check("/dev/nbd0: clean" in text or "files" in text, f"e2fsck said nothing:\n{text}")
        released(one, "vm1")
        note("after")
        check(allocated["before"] - allocated["after"] >= 40 * MIB, f"fstrim: {allocated}")
        check(all(delta["clean"] for delta in query(one, "check", "vm1")), "the image is not clean")


if __name__ == "__main__":
    main(kernel_client)
