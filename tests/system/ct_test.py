#!/usr/bin/python3
"""pstorage-ct: a container volume from its making to its end, over the disk view and a loop device;
its mount is killed, another one is refused while it is in use, a Debian runs in it."""
import errno
import json
import os
import shutil
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import check, cluster, main, run, skip  # noqa: E402
from mount_test import fails_with, mounted, until  # noqa: E402


class Containers:
    def __init__(self, one):
        self.one = one
        self.root = os.path.join(one.directory, "root")

    def __call__(self, *arguments, ok=True):
        return run("pstorage-ct", *arguments, env=self.one.environment, ok=ok)

    def clear(self):
        """Whatever a failed test has left mounted."""
        for one in json.loads(self("--json", "list", ok=False)[1] or "[]"):
            if one["mounted"]:
                run("umount", "-l", one["mounted"], ok=False)
            if one["device"]:
                run("losetup", "-d", one["device"], ok=False)
            for snapshot in one["snapshots"]:
                run("umount", "-l", snapshot["mounted"], ok=False)
                run("losetup", "-d", snapshot["device"], ok=False)


def make_template(one):
    template = os.path.join(one.directory, "template")
    os.makedirs(os.path.join(template, "etc"))
    for number in range(200):
        with open(os.path.join(template, "etc", f"file{number}"), "w", encoding="ascii") as file:
            file.write(f"content {number}\n" * number)
    os.symlink("etc/file1", os.path.join(template, "link"))
    for folder in ("proc", "bin", "lost+found"):
        os.mkdir(os.path.join(template, folder))
    return template


# A Debian that can run a shell; what these depend on is among them.
ROOTFS_PACKAGES = ("base-files", "bash", "coreutils", "dash", "grep", "hostname", "libacl1",
                   "libattr1", "libc-bin", "libc6", "libgmp10", "libpcre2-8-0", "libselinux1",
                   "libtinfo6", "mount", "sed", "util-linux")
ROOTFS_WITHOUT = ("/usr/share/doc", "/usr/share/info", "/usr/share/locale", "/usr/share/man")


def make_rootfs(one):
    """A tar archive of the files that Debian's packages have put on this host: no network."""
    root = os.path.join(one.directory, "rootfs")
    for folder in ("bin", "lib", "lib64", "sbin"):
        os.makedirs(os.path.join(root, "usr", folder))
        os.symlink(f"usr/{folder}", os.path.join(root, folder))
    _, text = run("dpkg-query", "--listfiles", *ROOTFS_PACKAGES)
    listing = os.path.join(one.directory, "rootfs.list")
    with open(listing, "w", encoding="utf-8") as file:
        for name in dict.fromkeys(text.split("\n")):
            if name.startswith("/") and name != "/." and not name.startswith(ROOTFS_WITHOUT):
                file.write(name[1:] + "\n")
    archive = os.path.join(one.directory, "rootfs.tar")
    run("tar", "-C", "/", "--no-recursion", "-cf", archive, "-T", listing)
    run("tar", "-C", root, "--keep-directory-symlink", "-xf", archive)
    run("tar", "-C", root, "-cf", archive, ".")
    shutil.rmtree(root)
    return archive


def take_little(ct, template):
    """How long it takes is printed only: blockdev/ct/README.md."""
    for identity, size, more in (("100", "1T", ()), ("101", "10G", ("--template", template))):
        begin = time.monotonic()
        ct("create", identity, "-s", size, *more)
        seconds = time.monotonic() - begin
        volume = f"private/{identity}/root.hdd"
        usage, = json.loads(ct.one.pstorage("-q", "volume", "du", "--json", volume))
        allocated = usage["allocated_bytes"]
        print(f"  {size} created in {seconds:.1f} s, {allocated >> 20} MiB allocated", flush=True)
        check(allocated < 32 << 20, f"an almost empty container takes {allocated} bytes")
    ct("destroy", "100")


def made_filled_and_used(ct, mnt, template):
    take_little(ct, template)
    check("101 exist unmounted" in ct("status", "101")[1], "status before")
    code, text = ct("create", "101", "-s", "1G", ok=False)
    check(code == 1 and "already" in text, text)
    code, text = ct("mount", "101", "-m", ct.root, ok=False)
    check(code == 0, text)
    run("diff", "-r", "--exclude=lost+found", template, ct.root)
    check("101 exist mounted" in ct("status", "101")[1], "status mounted")
    with open(os.path.join(ct.root, "big"), "wb") as file:
        file.write(os.urandom(40 << 20))
        os.fsync(file.fileno())
    os.unlink(os.path.join(ct.root, "big"))
    run("sync", "-f", ct.root)
    back = json.loads(ct("--json", "compact", "101")[1])
    check(back["returned"] > 35 << 20, f"compact gave back {back}")
    with mounted(ct.one, "other") as other:
        fails_with(errno.EBUSY, "a second user of the volume", open,
                   other / ".disks/private/101/root.hdd", "rb")
        check("in use by pstorage-mount[" in other.text(), "the log does not name the holder")
    check(sorted(os.listdir(mnt / ".disks/private/101")) == ["root.hdd"], "the disk view")
    fails_with(errno.EPERM, "making files in the view", open, mnt / ".disks/new", "wb")


def snapshots_and_clones(ct, mnt):
    path = os.path.join(ct.root, "state")
    with open(path, "w", encoding="ascii") as file:
        file.write("before")
    ct("snapshot", "-n", "monday", "101")
    with open(path, "w", encoding="ascii") as file:
        file.write("after")
    check("monday" in ct("snapshot-list", "101")[1], "list of snapshots")
    # Frozen when it was taken, so nothing is to be repaired in it.
    run("e2fsck", "-f", "-n", mnt / ".disks/private/101/root.hdd@monday")
    code, text = ct("snapshot-switch", "101", "monday", ok=False)
    check(code == 1 and "umount" in text, f"switch while mounted: {text}")
    looked_at(ct, path)
    ct("clone", "--linked", "101", "102")
    ct("snapshot-switch", "101", "monday")
    for identity, expected in (("101", "before"), ("102", "after")):
        ct("mount", identity, "-m", ct.root)
        with open(path, encoding="ascii") as file:
            check(file.read() == expected, f"container {identity}")
        ct("umount", identity)
    ct("destroy", "102")
    check("102" not in ct("list")[1], "destroyed")


def looked_at(ct, path):
    """A snapshot mounted beside its container."""
    old = ct.root + "-old"
    ct("snapshot-mount", "101", "monday", "-m", old)
    with open(os.path.join(old, "state"), encoding="ascii") as file:
        check(file.read() == "before", "the snapshot's content")
    with open(path, encoding="ascii") as file:
        check(file.read() == "after", "the container's content")
    fails_with(errno.EROFS, "writing to a snapshot", open, os.path.join(old, "new"), "wb")
    state = json.loads(ct("--json", "status", "101")[1])
    check([one["mounted"] for one in state["snapshots"]] == [old], f"{state}")
    ct("umount", "101")
    for command in (("snapshot-delete", "101", "monday"), ("destroy", "101"),
                    ("snapshot-switch", "101", "monday"), ("unregister", "101", "vm101")):
        code, text = ct(*command, ok=False)
        check(code == 1 and "snapshot-umount 101 monday" in text, f"{command}: {text}")
    ct("snapshot-umount", "101", "monday")
    code, text = ct("snapshot-umount", "101", "monday", ok=False)
    check(code == 1 and "not mounted here" in text, text)


def a_volume_for_a_while(ct):
    code, text = ct("register", "nothing", "103", ok=False)
    check(code == 1 and "nothing" in text, text)
    ct("unregister", "101", "group/vm101")
    check("101" not in [one["id"] for one in json.loads(ct("--json", "list")[1])], "unregistered")
    check("group/vm101" in ct.one.pstorage("-q", "volume", "ls"), "not among the volumes")
    ct("register", "group/vm101", "101")
    code, text = ct("register", "group/vm101", "101", ok=False)
    check(code == 1 and "already" in text, text)


def a_debian_runs_in_it(ct):
    ct("create", "201", "-s", "1G", "--template", make_rootfs(ct.one))
    ct("mount", "201", "-m", ct.root)
    script = "cat /etc/debian_version && echo pid $$ && hostname && echo made >/made && sync"
    with open("/etc/debian_version", encoding="ascii") as file:
        version = file.read().strip()
    _, text = run("unshare", "-m", "-p", "-f", "-u", "chroot", ct.root, "/bin/bash", "-c",
                  f"hostname ct201 && {script}")
    check(text.split() == [version, "pid", "1", "ct201"], f"under unshare: {text}")
    check(os.path.getsize(os.path.join(ct.root, "made")) == 5, "what it wrote")
    os.unlink(os.path.join(ct.root, "made"))
    if shutil.which("runc"):
        in_runc(ct, script, version)
    else:
        print("  runc is not installed: not tried", flush=True)
    ct("umount", "201")
    ct("destroy", "201")


def in_runc(ct, script, version):
    bundle = os.path.join(ct.one.directory, "bundle")
    os.mkdir(bundle)
    run("runc", "spec", "--bundle", bundle)
    path = os.path.join(bundle, "config.json")
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    config["process"]["terminal"] = False
    config["process"]["args"] = ["/bin/bash", "-c", script]
    config["root"] = {"path": ct.root, "readonly": False}
    config["hostname"] = "ct201"
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    _, text = run("runc", "run", "--bundle", bundle, f"ct201-{os.getpid()}")
    check(text.split() == [version, "pid", "1", "ct201"], f"under runc: {text}")
    check(os.path.getsize(os.path.join(ct.root, "made")) == 5, "what it wrote under runc")


def grown_and_killed(ct, mnt):
    ct("set", "101", "--diskspace", "12G", "--save")
    # What it was before it grew comes back, but with the size that was saved.
    ct("snapshot-switch", "101", "monday")
    ct("mount", "101", "-m", ct.root)
    size = os.statvfs(ct.root)
    check(size.f_blocks * size.f_frsize > 11 << 30, f"size after growing: {size}")
    with open(os.path.join(ct.root, "flushed"), "wb") as file:
        file.write(b"x" * 100_000)
        os.fsync(file.fileno())
    mnt.kill()
    until(lambda: "dead" in ct("status", "101")[1], "the dead mount is seen")
    code, text = ct("umount", "101", ok=False)
    check(code == 1 and "-f" in text, f"umount of a dead one: {text}")
    ct("status", "101", "--repair")
    mnt.clear()
    mnt.up()
    # The lease of the dead one has to end first.
    until(lambda: ct("mount", "101", "-m", ct.root, ok=False)[0] == 0, "mounted again")
    check(os.path.getsize(os.path.join(ct.root, "flushed")) == 100_000, "flushed data is lost")
    code, text = ct("set", "101", "--diskspace", "11G", ok=False)
    check(code == 1 and "umount" in text, f"shrinking while mounted: {text}")
    ct("umount", "101")
    ct("set", "101", "--diskspace", "11G")
    run("e2fsck", "-f", "-n", mnt / ".disks/private/101/root.hdd")
    ct("mount", "101", "-r", "-m", ct.root)
    size = os.statvfs(ct.root)
    check(size.f_blocks * size.f_frsize < 11 << 30, f"size after shrinking: {size}")
    check(os.path.getsize(os.path.join(ct.root, "flushed")) == 100_000, "data lost by shrinking")
    ct("umount", "101")
    ct("destroy", "101")


def life_of_a_container():
    if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
        skip("loop devices need root")
    with cluster(cs=3, replicas="3:2") as one, mounted(one) as mnt:
        ct = Containers(one)
        try:
            made_filled_and_used(ct, mnt, make_template(one))
            snapshots_and_clones(ct, mnt)
            a_volume_for_a_while(ct)
            a_debian_runs_in_it(ct)
            grown_and_killed(ct, mnt)
        finally:
            ct.clear()


def twenty_thousand_files_in_a_container():
    """For scripts/test --full: unpacked, power cut off (all daemons killed), compared."""
    if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
        skip("loop devices need root")
    with cluster(cs=3, replicas="3:2") as one, mounted(one) as mnt:
        ct = Containers(one)
        try:
            source = os.path.join(one.directory, "tree")
            for number in range(20_000):
                folder = os.path.join(source, f"d{number % 200}")
                os.makedirs(folder, exist_ok=True)
                with open(os.path.join(folder, f"f{number}"), "wb") as file:
                    file.write(f"{number} ".encode() * (number % 500))
            run("tar", "-cf", source + ".tar", "-C", source, ".")
            ct("create", "7", "-s", "4G")
            ct("mount", "7", "-m", ct.root)
            run("tar", "-xf", source + ".tar", "-C", ct.root, timeout=600)
            run("sync", "-f", ct.root)
            for name in one.cs_names:
                one.kill(name)
            for name in one.cs_names:
                one.start(name)
            ct("umount", "7")
            run("e2fsck", "-f", "-n", mnt / ".disks/private/7/root.hdd")
            ct("mount", "7", "-m", ct.root)
            run("tar", "-df", source + ".tar", "-C", ct.root, timeout=600)
            ct("umount", "7")
        finally:
            ct.clear()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(life_of_a_container, twenty_thousand_files_in_a_container)
    else:
        main(life_of_a_container)
