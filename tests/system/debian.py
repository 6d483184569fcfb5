"""A whole Debian with our packages and systemd, which boots in a guest (guest.py) from a disk of its
own. What the disk keeps is there at the next boot.

    with debian.installed() as host:
        output = host.run(script)

The script is bash with -eu, run as root when the host is up."""
import contextlib
import os
import subprocess
import tempfile

from guest import Guest, kernel
from harness import ROOT, check, run, skip

# What a host has besides our packages and what these ask for.
PACKAGES = ("systemd-sysv", "dbus", "udev", "kmod", "procps", "iproute2", "systemd-container",
            "open-iscsi", "nbd-client", "e2fsprogs", "fuse3")
DISK = "3G"
MEMORY_MB = 1536
RUN = """#!/bin/sh
stty -F /dev/ttyS1 raw -echo
nonce=$(tr '\\0' '\\n' </proc/1/cmdline | tail -n 1)
cd /root
bash -eu /root/script
code=$?
sync
printf '\\n%s exit %s\\n' "$nonce" $code
"""
UNIT = """[Unit]
Description=The script of a test
After=multi-user.target
[Service]
ExecStart=/root/run
TTYPath=/dev/ttyS1
StandardOutput=tty
StandardError=tty
[Install]
WantedBy=graphical.target
"""
TAKE_SCRIPT = "mount -t ext4 /dev/vda /mnt\ncp /next-script /mnt/root/script\numount /mnt\n"


class Debian:
    """One host, on the disk `image`."""

    def __init__(self, image):
        self.image = image

    def run(self, script, timeout=480):
        """Boots, and returns what the script says; if it fails, so does the test."""
        drive = f"if=virtio,format=raw,file={self.image},cache=unsafe"
        with Guest(TAKE_SCRIPT, files={"/next-script": script}, modules=["virtio_blk"],
                   boot_from="/dev/vda", memory_mb=MEMORY_MB,
                   arguments=["-smp", "2", "-drive", drive]) as guest:
            return guest.run(timeout=timeout)


def install(root):
    """Debian, the guest's kernel modules, and our packages, into this directory."""
    done = subprocess.run([f"{ROOT}/tests/system/clean_debian.sh", root, *PACKAGES], text=True,
                          stdout=subprocess.PIPE, check=False)
    if done.returncode == 77:
        skip(done.stdout.strip().removeprefix("SKIP: "))
    check(done.returncode == 0, f"clean_debian.sh: {done.stdout}")
    modules = kernel()[1]
    os.makedirs(f"{root}/lib/modules", exist_ok=True)
    run("cp", "--archive", modules, f"{root}/lib/modules/")
    run("chroot", root, "depmod", os.path.basename(modules))
    os.mkdir(f"{root}/debs")
    run(f"{ROOT}/scripts/packages/build", f"{root}/debs")
    run("chroot", root, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        "DEBIAN_FRONTEND=noninteractive", "sh", "-c",
        "apt-get install --yes --quiet --quiet /debs/*.deb && apt-get clean && rm -r /debs",
        timeout=300)


def prepare(root):
    """The unit that runs the test's script."""
    for path, text in (("root/run", RUN), ("etc/systemd/system/test-script.service", UNIT),
                       ("etc/hostname", "debian\n")):
        with open(f"{root}/{path}", "w", encoding="ascii") as file:
            file.write(text)
    os.chmod(f"{root}/root/run", 0o755)
    run("systemctl", f"--root={root}", "enable", "test-script.service")


@contextlib.contextmanager
def installed():
    with tempfile.TemporaryDirectory(prefix="pstorage-debian-", dir="/var/tmp") as directory:
        root = f"{directory}/root"
        install(root)
        prepare(root)
        image = f"{directory}/disk.img"
        run("mke2fs", "-q", "-t", "ext4", "-d", root, image, DISK)
        run("rm", "--recursive", "--one-file-system", root)
        yield Debian(image)
