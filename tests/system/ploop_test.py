#!/usr/bin/python3
"""pstorage-ploop beside the real ploop and qemu's parallels driver: each reads and checks what the
others write; the same commands end with the same exit codes, tables and content."""
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import BUILD, check, main, run, skip  # noqa: E402

OURS = os.path.join(BUILD, "bin", "pstorage-ploop")
TOP = "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
NONE = "{00000000-0000-0000-0000-000000000000}"
S1 = "{11111111-2222-3333-4444-555555555555}"
S2 = "{22222222-2222-3333-4444-555555555555}"
MIB = 1 << 20
# Version 2 wants a parameter of ploop's kernel module; init reads far behind its arguments.
SCRIPT = """mount --make-rprivate / && mount -t tmpfs none /sys/module &&
mkdir -p /sys/module/ploop/parameters &&
echo 1 >/sys/module/ploop/parameters/large_disk_support && exec ploop "$@" """


def real(*arguments, ok=True):
    environment = dict(os.environ, ZPAD="x" * 8192)
    return run("unshare", "-m", "bash", "-c", SCRIPT, "ploop", *arguments, ok=ok, env=environment)


def ours(*arguments, ok=True):
    return run(OURS, *arguments, ok=ok)


class Disk:
    """A directory with an image made by somebody; the disk's expected bytes; who works on it."""

    def __init__(self, directory, tool, size=64 * MIB, version=2, sectors=2048):
        os.makedirs(directory)
        self.directory = directory
        self.descriptor = os.path.join(directory, "DiskDescriptor.xml")
        self.base = os.path.join(directory, "root.hds")
        self.random = random.Random(f"{version}{sectors}")
        self.bytes = bytearray(size)
        tool("init", "-s", f"{size // MIB}M", "-v", str(version), "-b", str(sectors), "-t", "none",
             self.base)

    def chain(self):
        """Image files, base first."""
        lines = real("snapshot-list", "-H", "-o", "uuid,parent_uuid,fname", self.descriptor)[1]
        rows = {}
        for line in lines.splitlines():
            if not line.startswith("{"):
                continue
            guid, parent, name = line.split(None, 2)
            rows[guid] = (parent, name.strip())
        files, guid = [], TOP
        while guid != NONE:
            guid, name = rows[guid]
            files.insert(0, name)
        return files

    def node(self):
        node = None
        for name in self.chain():
            layer = {"driver": "parallels", "file": {"driver": "file", "filename": name}}
            if node:
                layer["backing"] = node
            node = layer
        return "json:" + json.dumps(node)

    def write(self, count=6):
        """qemu writes patterns, anywhere."""
        commands = []
        for _ in range(count):
            length = self.random.choice((4096, 65536, 3 * MIB))
            offset = self.random.randrange((len(self.bytes) - length) // 512) * 512
            pattern = self.random.randrange(1, 256)
            commands += ["-c", f"write -P {pattern} {offset} {length}"]
            self.bytes[offset:offset + length] = bytes([pattern]) * length
        run("qemu-io", *commands, self.node())

    def content(self):
        raw = os.path.join(self.directory, "raw")
        run("qemu-img", "convert", "-O", "raw", self.node(), raw)
        with open(raw, "rb") as file:
            found = file.read()
        os.unlink(raw)
        return found

    def verify(self, what, exact=True):
        """qemu reads the chain; both checkers look at every delta."""
        wanted, found = bytes(self.bytes), self.content()
        check(hashlib.sha256(found).digest() == hashlib.sha256(wanted).digest(),
              f"{what}: the content differs")
        for name in self.chain():
            code, text = real("check", "-f", "-c", "-r", name, ok=False)
            # qemu leaves the flag "empty" set when it writes (ploop: exit code 7).
            check(code == 0 or (not exact and code == 7), f"{what}: ploop check: {code}\n{text}")
            code, text = run("qemu-img", "check", "-f", "parallels", name, ok=False)
            check(code == 0, f"{what}: qemu-img check {code}\n{text}")
            code, text = ours("check", "-f", "-c", "-r", name, ok=False)
            check(code == 0 or (not exact and code == 7), f"{what}: our check: {code}\n{text}")

    def our_content(self, what):
        """Our own reading of the whole chain: a raw copy by way of merges in a copy of the disk."""
        copy = self.directory + ".copy"
        shutil.copytree(self.directory, copy)
        descriptor = os.path.join(copy, "DiskDescriptor.xml")
        if len(self.chain()) > 1:
            ours("snapshot-merge", "-A", descriptor)
        ours("convert", "-f", "raw", descriptor)
        raw = ours("snapshot-list", "-H", "-o", "fname", descriptor)[1].strip()
        with open(raw, "rb") as file:
            found = file.read()
        shutil.rmtree(copy)
        check(found == bytes(self.bytes), f"{what}: we read something else")


def life_of_a_disk(directory, makers, version, sectors):
    """makers: who makes the image, and who then does each step, in turn."""
    disk = Disk(directory, makers[0], version=version, sectors=sectors)
    name = f"v{version}, {sectors} sectors, {makers[0].__name__} first"
    disk.write()
    real("check", "-f", "-c", disk.base)  # corrects the flag that qemu leaves
    disk.verify(name + ", written")
    disk.our_content(name + ", written")
    snapshot_bytes = bytes(disk.bytes)
    makers[1]("snapshot", "-u", S1, disk.descriptor)
    disk.write()
    makers[0]("snapshot", "-u", S2, disk.descriptor)
    disk.write()
    disk.verify(name + ", 2 snapshots", exact=False)
    disk.our_content(name + ", 2 snapshots")
    makers[1]("snapshot-delete", "-u", S1, disk.descriptor)
    disk.verify(name + ", snapshot deleted", exact=False)
    makers[0]("grow", "-s", "96M", disk.descriptor)
    disk.bytes.extend(bytes(32 * MIB))
    disk.verify(name + ", grown", exact=False)
    disk.write()
    makers[1]("snapshot-merge", disk.descriptor)
    disk.verify(name + ", merged", exact=False)
    disk.our_content(name + ", merged")
    makers[0]("convert", "-v", str(3 - version), disk.descriptor)
    disk.verify(name + ", converted", exact=False)
    makers[1]("snapshot", "-u", S1, disk.descriptor)
    before = bytes(disk.bytes)
    disk.write()
    makers[0]("snapshot-switch", "-u", S1, disk.descriptor)
    disk.bytes[:] = before
    disk.verify(name + ", switched back", exact=False)
    check(before != snapshot_bytes, "the test wrote nothing")
    ours("check", disk.descriptor)
    shutil.rmtree(directory)


def take_turns(*cases):
    """On tmpfs: ploop refuses images whose clusters are sparse."""
    with tempfile.TemporaryDirectory(prefix="ploop-", dir="/dev/shm") as home:
        for version, sectors, makers in cases:
            life_of_a_disk(os.path.join(home, "disk"), makers, version, sectors)


def tools_take_turns():
    take_turns((2, 2048, (ours, real)), (1, 512, (real, ours)))


def all_tools_take_turns():
    take_turns(*((version, sectors, makers) for version in (1, 2)
                 for sectors in (64, 512, 2048, 8192, 32768)
                 for makers in ((ours, real), (real, ours))))


def qemu_images():
    with tempfile.TemporaryDirectory(prefix="ploop-", dir="/dev/shm") as home:
        for cluster in ("64k", "64M"):
            image = os.path.join(home, f"{cluster}.hds")
            run("qemu-img", "create", "-q", "-f", "parallels", "-o", f"cluster_size={cluster}",
                image, "100M")
            run("qemu-io", "-f", "parallels", "-c", "write -P 7 0 66M", "-c",
                "write -P 9 90M 100k", image)
            ours("check", "-f", image)  # corrects the flag
            ours("restore-descriptor", home, image)
            os.rename(os.path.join(home, "DiskDescriptor.xml"), os.path.join(home, "D.xml"))
            descriptor = os.path.join(home, "D.xml")
            run("qemu-img", "convert", "-f", "parallels", "-O", "raw", image, image + ".raw")
            ours("convert", "-f", "raw", descriptor)
            mine = ours("snapshot-list", "-H", "-o", "fname", descriptor)[1].strip()
            with open(mine, "rb") as one, open(image + ".raw", "rb") as two:
                expected = two.read()
                check(one.read()[:len(expected)] == expected, f"{cluster}: we read something else")
            ours("convert", "-f", "expanded", descriptor)
            back = ours("snapshot-list", "-H", "-o", "fname", descriptor)[1].strip()
            run("qemu-img", "check", "-f", "parallels", back)
            real("check", "-f", "-c", "-r", back)
            for name in (back, image + ".raw", descriptor):
                os.unlink(name)


def big_grow():
    """The table needs more clusters: data moves out of its way."""
    with tempfile.TemporaryDirectory(prefix="ploop-", dir="/dev/shm") as home:
        for version in (1, 2):
            disk = Disk(os.path.join(home, str(version)), ours, version=version)
            disk.write()
            real("check", "-f", "-c", disk.base)
            ours("grow", "-s", "900G", disk.descriptor)
            real("check", "-f", "-c", "-r", disk.base)
            run("qemu-img", "check", "-f", "parallels", disk.base)
            text = run("qemu-io", "-f", "parallels", "-c", "read -P 0 899G 1M", "-c",
                       "write -P 3 899G 1M", "-c", "read -P 3 899G 1M", disk.base)[1]
            check("verification failed" not in text, text)
            raw = os.path.join(disk.directory, "head")
            run("qemu-img", "dd", "-f", "parallels", "-O", "raw", "bs=1M", "count=64",
                f"if={disk.base}", f"of={raw}")
            with open(raw, "rb") as file:
                check(file.read() == bytes(disk.bytes), "growing changed the content")
            check("1887436800" in ours("info", "-s", disk.descriptor)[1], "the size is another")


def compact_and_copy():
    with tempfile.TemporaryDirectory(prefix="ploop-", dir="/dev/shm") as home:
        disk = Disk(os.path.join(home, "disk"), ours)
        run("qemu-io", "-f", "parallels", "-c", "write -P 1 0 40M", "-c", "write -z 4M 20M",
            "-c", "write -P 0 30M 5M", disk.base)
        ours("check", "-f", disk.base)
        disk.bytes[0:40 * MIB] = b"\1" * (40 * MIB)
        disk.bytes[4 * MIB:24 * MIB] = bytes(20 * MIB)
        disk.bytes[30 * MIB:35 * MIB] = bytes(5 * MIB)
        ours("compact", disk.descriptor)
        disk.verify("compacted")
        check(os.path.getsize(disk.base) == 16 * MIB, "compact left unused clusters")
        copied = os.path.join(home, "copy.hds")
        ours("copy", "-s", disk.descriptor, "-d", copied)
        run("qemu-img", "compare", "-f", "parallels", "-F", "parallels", disk.base, copied)
        real("check", "-f", "-c", "-r", copied)
        ours("convert", "-f", "preallocated", disk.descriptor)
        disk.verify("preallocated")
        check(os.path.getsize(disk.base) == 65 * MIB, "not preallocated")


def crashed_qemu():
    """A writer that was killed: marked as in use, with a tail; -d repairs it."""
    with tempfile.TemporaryDirectory(prefix="ploop-", dir="/dev/shm") as home:
        disk = Disk(os.path.join(home, "disk"), ours)
        run("qemu-io", "-f", "parallels", "-c", "write -P 5 1M 3M", "-c", "flush", "-c", "abort",
            disk.base, ok=False)
        for tool in (real, ours):
            code, text = tool("check", "-f", "-r", disk.base, ok=False)
            check(code == 37, f"{tool.__name__}: in use: exit {code}\n{text}")
        code, text = ours("snapshot", disk.descriptor)  # a new top does not touch it
        code, text = ours("snapshot-merge", disk.descriptor, ok=False)
        check(code == 37 and "check -d" in text, f"merged into an image in use: {code} {text}")
        ours("check", "-f", "-d", disk.base)
        ours("snapshot-merge", disk.descriptor)
        disk.bytes[MIB:4 * MIB] = b"\5" * (3 * MIB)
        disk.verify("repaired")


def same_answers():
    """Exit codes and tables beside the real tool's."""
    with tempfile.TemporaryDirectory(prefix="ploop-", dir="/dev/shm") as home:
        disks = {}
        for tool in (real, ours):
            disk = Disk(os.path.join(home, tool.__name__), tool)
            run("qemu-io", "-f", "parallels", "-c", "write -P 5 0 8M", disk.base)
            tool("check", "-f", disk.base)
            tool("snapshot", "-u", S1, disk.descriptor)
            tool("snapshot", "-u", S2, disk.descriptor)
            disks[tool] = disk

        def both(*words):
            answers = []
            for tool, disk in disks.items():
                named = [word.replace("DD", disk.descriptor).replace("IMAGE", disk.base)
                         .replace("HERE", disk.directory) for word in words]
                answers.append(tool(*named, ok=False))
            check(answers[0][0] == answers[1][0], f"{words}: exit {answers[0]} and {answers[1]}")
            return answers

        both("snapshot", "-u", S1, "DD")
        both("snapshot", "-u", "1234", "DD")
        both("snapshot-switch", "-u", S1.replace("1", "9"), "DD")
        both("snapshot-delete", "-u", S1.replace("1", "9"), "DD")
        both("snapshot-list", "-u", S1.replace("1", "9"), "DD")
        both("snapshot-list", "-o", "nonsense", "DD")
        both("grow", "-s", "32M", "DD")
        both("init", "-s", "64M", "-t", "none", "IMAGE")
        both("init", "-t", "none", "IMAGE2")
        both("info", "-s", "HERE/missing.xml")
        both("check", "IMAGE.missing")
        both("check", "-f", "IMAGE")
        both("snapshot-list", "-H", "DD")
        code, text = both("info", "-s", "DD")[1]
        check(text == "size:\t\t131072\nblocksize:\t2048\nfmt_version:\t2\n", f"info -s: {text}")
        for options in ((), ("-s",), ("-H",), ("-o", "uuid,parent_uuid"), ("-u", S1),
                        ("-H", "-o", "current,uuid")):
            theirs = real("snapshot-list", *options, disks[ours].descriptor)[1]
            mine = ours("snapshot-list", *options, disks[ours].descriptor)[1]
            check(theirs == mine, f"snapshot-list {options}:\n{theirs}\n{mine}")
        with open(disks[ours].base, "r+b") as file:
            file.seek(64)
            file.write((7).to_bytes(4, "little") * 2)
        damaged = disks[ours].base
        for tool in (real, ours):
            code, _ = tool("check", "-f", "-c", "-r", damaged, ok=False)
            check(code == 11, f"{tool.__name__} sees no cluster used twice: {code}")
        ours("check", "-F", damaged)
        real("check", "-f", "-c", "-r", damaged)
        with open(damaged, "r+b") as file:
            file.truncate(5 * MIB)
        for tool in (real, ours):
            code, _ = tool("check", "-f", "-c", "-r", damaged, ok=False)
            check(code == 11, f"{tool.__name__} sees no entry beyond the end: {code}")
        text = ours("check", "-r", "-f", damaged, ok=False)[1]
        check("beyond the end" in text and "-F" in text, text)


if __name__ == "__main__":
    if os.geteuid() != 0:
        skip("mount namespaces for the real ploop need root")
    full = [all_tools_take_turns] if "all_tools_take_turns" in sys.argv else []
    main(tools_take_turns, qemu_images, big_grow, compact_and_copy, crashed_qemu, same_answers, *full)
