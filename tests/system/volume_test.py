#!/usr/bin/python3
"""Volumes as people use them: ploop disks in the cluster, their snapshots, clones and trash, while
nobody uses them and while a guest writes, and when whoever works on them is killed."""
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import check, cluster, main, nbd, run  # noqa: E402

MIB = 1 << 20


def volume(one, *arguments, ok=True):
    return one.pstorage("-q", "volume", *arguments, ok=ok)


def query(one, *arguments):
    return json.loads(volume(one, *arguments, "--json"))


def fails(one, wanted, *arguments):
    """The command says one line with `wanted` in it, and fails."""
    code, text = run("pstorage", "-q", "volume", *arguments, ok=False, env=one.environment)
    check(code == 1 and wanted in text and len(text.strip().splitlines()) == 1,
          f"volume {' '.join(arguments)}: exit {code}, wanted '{wanted}':\n{text}")


def released(one, name, patience=30):
    """Waits until the NBD server has given an idle volume back."""
    end = time.monotonic() + patience
    while query(one, "info", name)["holder"]:
        check(time.monotonic() < end, f"{name} is not given back")
        time.sleep(0.1)


def write(one, name, *pieces):
    """(offset, byte, length)..., flushed."""
    handle = one.connect(name)
    for offset, byte, length in pieces:
        handle.pwrite(bytes([byte]) * length, offset)
    handle.flush()
    handle.shutdown()


def read(one, name, offset, length=1):
    handle = one.connect(name)
    data = handle.pread(length, offset)
    handle.shutdown()
    return data


def volumes_at_rest():
    with cluster(cs=2, replicas="2:1") as one:
        volume(one, "create", "vm1", "-s", "300M")
        volume(one, "create", "group/raw1", "-s", "64M", "--format", "raw")
        fails(one, "exists already", "create", "vm1", "-s", "1G")
        fails(one, "exists already", "create", "vm1", "-s", "1G", "--format", "raw")
        fails(one, "bad volume name", "create", "vm1@x", "-s", "1G")
        check([v["name"] for v in query(one, "ls")] == ["group/raw1", "vm1"], "ls")
        info = query(one, "info", "vm1")
        check(info["format"] == "ploop" and info["size"] == 300 * MIB, f"info: {info}")
        listing = run("nbdinfo", "--list", f"nbd+unix:///?socket={one.socket}")[1]
        check('export="vm1"' in listing and 'export="group/raw1"' in listing, listing)

        write(one, "vm1", (0, 1, MIB), (70 * MIB, 2, 4096), (300 * MIB - 512, 3, 512))
        fails(one, "is in use by pstorage-nbd", "rename", "vm1", "vm2")
        fails(one, "is in use by pstorage-nbd", "check", "vm1")
        released(one, "vm1")
        volume(one, "rename", "vm1", "group/vm2")
        fails(one, "no file or directory", "info", "vm1")
        check(read(one, "group/vm2", 300 * MIB - 1) == b"\3", "content after a rename")
        released(one, "group/vm2")
        report = query(one, "check", "group/vm2")
        check(report[0]["clean"] and report[0]["allocated"] == 3, f"check: {report}")
        usage = query(one, "du", "group/vm2")[0]
        check(usage["virtual_bytes"] == 300 * MIB and
              MIB < usage["allocated_bytes"] == usage["exclusive_bytes"] < 3 * MIB, f"du: {usage}")

        volume(one, "rm", "group/vm2")
        fails(one, "no file or directory", "info", "group/vm2")
        volume(one, "create", "group/vm2", "-s", "1G")
        fails(one, "exists already", "undelete", "group/vm2")
        volume(one, "undelete", "group/vm2", "--as", "back")
        check(read(one, "back", 70 * MIB) == b"\2", "content from the trash")
        check(query(one, "trash") == [], "trash")
        volume(one, "rm", "--now", "group/vm2")
        volume(one, "rm", "group/raw1")
        volume(one, "trash", "--purge")
        check(query(one, "trash") == [] and [v["name"] for v in query(one, "ls")] == ["back"], "ls")


def snapshots_at_rest_and_in_use():
    with cluster(cs=2, replicas="2:1") as one:
        volume(one, "create", "vm1", "-s", "100M")
        volume(one, "create", "raw1", "-s", "1M", "--format", "raw")
        volume(one, "snapshot", "vm1", "-n", "empty")
        write(one, "vm1", (0, 1, MIB), (MIB, 1, MIB))
        released(one, "vm1")
        volume(one, "snapshot", "vm1", "-n", "monday")
        # In use: the server does it.
        guest = one.connect("vm1")
        guest.pwrite(b"\2" * 4096, 0)
        fails(one, "is a raw volume", "check", "raw1")
        volume(one, "snapshot", "vm1@tuesday")
        fails(one, "a snapshot 'tuesday' already", "snapshot", "vm1", "-n", "tuesday")
        guest.pwrite(b"\3" * 4096, 0)
        guest.flush()
        fails(one, "is in use by pstorage-nbd", "rollback", "vm1", "monday")
        fails(one, "only its newest snapshot can be removed now", "snapshot-rm", "vm1", "monday")
        for snapshot, wanted in (("empty", 0), ("monday", 1), ("tuesday", 2)):
            handle = one.connect("vm1@" + snapshot)
            check(handle.is_read_only(), "a snapshot can be written to")
            check(handle.pread(1, 0) == bytes([wanted]), f"content of {snapshot}")
            check(handle.pread(1, MIB) == (b"\0" if snapshot == "empty" else b"\1"), "other cluster")
            handle.shutdown()
        code, text = run("nbdinfo", one.uri("vm1@never"), ok=False)
        check(code != 0, f"an unknown snapshot is served: {text}")
        check(guest.pread(1, 0) == b"\3", "the guest's own data")
        volume(one, "clone", "vm1", "live")
        volume(one, "clone", "vm1@monday", "old")
        guest.pwrite(b"\4" * MIB, 0)
        guest.shutdown()
        check(read(one, "live", 0) == b"\3" and read(one, "old", 0) == b"\1", "clones")
        write(one, "old", (0, 9, 4096))
        released(one, "vm1")
        # Merging must leave alone what clones share.
        names = [s["name"] for s in query(one, "snapshots", "vm1")]
        check(names[:3] == ["empty", "monday", "tuesday"] and len(names) == 4, f"names: {names}")
        for name in ("monday", "empty"):
            volume(one, "snapshot-rm", "vm1", name)
        check(read(one, "vm1", 0) == b"\4" and read(one, "vm1", MIB) == b"\1", "after merges")
        check(read(one, "live", 0) == b"\3" and read(one, "old", MIB) == b"\1", "clones after merges")
        check(read(one, "vm1@tuesday", 0) == b"\2", "the snapshot that stayed")
        released(one, "vm1")
        volume(one, "rollback", "vm1@tuesday")
        check(read(one, "vm1", 0) == b"\2", "after the rollback")
        for name in ("vm1", "live", "old"):
            released(one, name)
            check(all(d["clean"] for d in query(one, "check", name)), f"{name} is not clean")
        volume(one, "rm", "--now", "vm1")
        check(read(one, "live", 0) == b"\3" and read(one, "old", 0) == b"\x09", "clones alone")
        usage = query(one, "du", "live")[0]
        check(usage["exclusive_bytes"] <= usage["allocated_bytes"], f"du: {usage}")


def grow_at_rest_and_in_use():
    with cluster(cs=1, replicas="1:1") as one:
        volume(one, "create", "vm1", "-s", "100M")
        volume(one, "create", "raw1", "-s", "100M", "--format", "raw")
        write(one, "vm1", (0, 1, MIB))
        released(one, "vm1")
        volume(one, "resize", "vm1", "-s", "200M")
        fails(one, "cannot shrink", "resize", "vm1", "-s", "100M")
        guest = one.connect("vm1")
        check(guest.get_size() == 200 * MIB, "size after growing at rest")
        # Over the border where the table needs a second cluster: data moves out of its way.
        volume(one, "resize", "vm1", "-s", "300G")
        check(guest.pread(1, MIB - 1) == b"\1", "data after growing in use")
        guest.pwrite(b"\2" * 512, 100 * MIB)
        again = one.connect("vm1")
        check(again.get_size() == 300 << 30, "size for a new client")
        again.pwrite(b"\3" * 512, (300 << 30) - 512)
        again.shutdown()
        guest.shutdown()
        volume(one, "resize", "raw1", "-s", "200M")
        fails(one, "--shrink", "resize", "raw1", "-s", "100M")
        released(one, "vm1")
        report = query(one, "check", "vm1")
        check(report[0]["clean"] and report[0]["allocated"] == 3, f"check: {report}")


class Guest:
    """Writes counters to its sectors all the time; knows what was flushed."""

    def __init__(self, one, name, sectors=4000, seed=1):
        self.one = one
        self.name = name
        self.random = random.Random(seed)
        self.sectors = sectors
        self.newest = {}
        self.flushed = {}
        self.longest = 0.0
        self.fault = None
        self.stop = threading.Event()
        self.handle = one.connect(name)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        number = 0
        try:
            while not self.stop.is_set():
                for _ in range(20):
                    number += 1
                    sector = self.random.randrange(self.sectors)
                    self.newest[sector] = number
                    begin = time.monotonic()
                    self.handle.pwrite(number.to_bytes(8, "little") * 64, sector * 16384)
                    self.longest = max(self.longest, time.monotonic() - begin)
                self.handle.flush()
                self.flushed = dict(self.newest)
        except nbd.Error as error:
            self.fault = str(error)

    def end(self):
        self.stop.set()
        self.thread.join()

    def leave(self):
        self.end()
        with contextlib.suppress(nbd.Error):
            self.handle.shutdown()

    @staticmethod
    def content(handle, sectors):
        found = {}
        for sector in sectors:
            data = handle.pread(512, sector * 16384)
            value = int.from_bytes(data[:8], "little")
            check(data == value.to_bytes(8, "little") * 64, f"a torn sector {sector}")
            found[sector] = value
        return found

    def verify(self, handle, flushed):
        for sector, value in self.content(handle, flushed).items():
            check(flushed[sector] <= value <= self.newest[sector],
                  f"{self.name} sector {sector}: {value}, flushed {flushed[sector]}")


def snapshots_under_load():
    """A guest writes on while snapshots are taken; each holds what was flushed before it."""
    with cluster(cs=2, replicas="2:1") as one:
        volume(one, "create", "vm1", "-s", "100M")
        guest = Guest(one, "vm1")
        taken = []
        for number in range(5):
            time.sleep(0.3)
            flushed = dict(guest.flushed)
            volume(one, "snapshot", "vm1", "-n", f"s{number}")
            taken.append((f"s{number}", flushed, dict(guest.newest)))
        guest.end()
        check(guest.fault is None, f"the guest saw an error: {guest.fault}")
        guest.handle.flush()
        guest.verify(guest.handle, guest.newest)
        for name, flushed, newest in taken:
            handle = one.connect("vm1@" + name)
            for sector, value in Guest.content(handle, newest).items():
                check(flushed.get(sector, 0) <= value <= newest[sector],
                      f"{name} sector {sector}: {value}")
            handle.shutdown()
        guest.handle.shutdown()
        print(f"   longest write with 5 snapshots: {guest.longest * 1000:.0f} ms", flush=True)
        released(one, "vm1")
        check(all(d["clean"] for d in query(one, "check", "vm1")), "not clean")


def snapshots_go_while_in_use():
    """The newest snapshot goes into the running top while a guest writes; the server is killed -9 in
    the middle and goes on when it is back. Nothing flushed is lost; a clone keeps what it shares."""
    size = 200 * MIB
    with cluster(cs=2, replicas="1:1") as one:
        volume(one, "create", "vm1", "-s", "200M")
        handle = one.connect("vm1")
        for offset in range(0, size, MIB):
            handle.pwrite(bytes([1 + offset // MIB % 250]) * MIB, offset)
        handle.flush()
        handle.shutdown()
        volume(one, "snapshot", "vm1", "-n", "s1")
        volume(one, "clone", "vm1@s1", "copy")
        guest = Guest(one, "vm1", sectors=4000)

        def underway():
            found = query(one, "info", "vm1").get("removing", {"done": 0})
            return 0 < found["done"] < found["all"]

        removal = subprocess.Popen(["pstorage", "-q", "volume", "snapshot-rm", "vm1", "s1"],
                                   env=one.environment, text=True, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT)
        while removal.poll() is None and not underway():
            time.sleep(0.01)
        check(removal.poll() is None, f"the snapshot went too fast: {removal.stdout}")
        fails(one, "is being removed", "snapshot", "vm1", "-n", "s2")
        one.kill("nbd")
        guest.leave()
        flushed = dict(guest.flushed)
        one.start("nbd")
        handle = one.connect("vm1")
        said = removal.communicate(timeout=90)[0]
        check(removal.returncode == 0, f"snapshot-rm: {said}")
        check(query(one, "snapshots", "vm1") == [], "the snapshot is still listed")

        def complete(handle, flushed, newest):
            for offset in range(0, size, MIB):
                data = handle.pread(MIB, offset)
                for at in range(0, MIB, 16384):
                    sector = (offset + at) // 16384
                    value = int.from_bytes(data[at:at + 8], "little")
                    old = bytes([1 + offset // MIB % 250])
                    is_old = data[at:at + 512] == old * 512 and sector not in flushed
                    check(is_old or data[at:at + 512] == value.to_bytes(8, "little") * 64 and
                          flushed.get(sector, 1) <= value <= newest.get(sector, 0),
                          f"sector {sector}: {value}, flushed {flushed.get(sector)}")
                    check(data[at + 512:at + 16384] == old * (16384 - 512), f"behind {sector}")

        complete(handle, flushed, guest.newest)
        handle.shutdown()
        # Once more to its end, with nobody killed: no request fails.
        volume(one, "snapshot", "vm1", "-n", "s3")
        again = Guest(one, "vm1", sectors=500, seed=2)
        volume(one, "snapshot-rm", "vm1", "s3")
        again.end()
        check(again.fault is None, f"the guest saw an error: {again.fault}")
        again.handle.flush()
        again.verify(again.handle, again.newest)
        again.handle.shutdown()
        print(f"   longest write while a snapshot went: {again.longest * 1000:.0f} ms", flush=True)
        handle = one.connect("copy")
        complete(handle, {}, {})
        handle.shutdown()
        for name in ("vm1", "copy"):
            released(one, name)
            check(all(d["clean"] for d in query(one, "check", name)), f"{name} is not clean")
        check(len(query(one, "check", "vm1")) == 1, "the chain is longer than one delta")


def crashes_leave_the_disk_whole(rounds=2, seed=None):
    """The tool, or the holder, is killed while it works; then the disk is read."""
    seed = seed or int(os.environ.get("SEED", random.randrange(1 << 30)))
    print(f"   seed {seed}", flush=True)
    choice = random.Random(seed)
    with cluster(cs=1, replicas="1:1") as one:
        volume(one, "create", "vm1", "-s", "64M")
        write(one, "vm1", (0, 7, MIB))
        released(one, "vm1")
        volume(one, "snapshot", "vm1", "-n", "base")
        for number in range(rounds):
            in_use = number % 2 == 1
            guest = Guest(one, "vm1", sectors=1000, seed=seed + number) if in_use else None
            if in_use:
                time.sleep(0.3)
            verb = choice.choice([["snapshot", "vm1", "-n", f"s{number}"],
                                  ["clone", "vm1", f"c{number}"]] +
                                 ([] if in_use else [["rollback", "vm1@base"]]))
            before = None if in_use else read(one, "vm1", 0, 1)
            if not in_use:
                released(one, "vm1")
            tool = subprocess.Popen(["pstorage", "-q", "volume", *verb], env=one.environment,
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(choice.uniform(0.01, 0.25))
            if in_use and choice.random() < 0.5:
                one.kill("nbd")
                tool.wait()
                guest.leave()
                one.start("nbd")
            else:
                tool.kill()
                tool.wait()
                if in_use:
                    guest.leave()
                    check(guest.fault is None, f"the guest saw an error: {guest.fault}")
            handle = one.connect("vm1")
            if in_use:
                guest.verify(handle, guest.flushed)
            else:
                value = handle.pread(1, 0)
                check(value == before or verb[0] == "rollback" and value == b"\7",
                      f"{verb} killed: {value}, was {before}")
            handle.shutdown()
            # Names that nothing leads to are swept by the next work on the disk.
            released(one, "vm1")
            volume(one, "snapshot", "vm1", "-n", f"after{number}")
            check(all(d["clean"] for d in query(one, "check", "vm1")), f"not clean after {verb}")
            names = {v["name"] for v in query(one, "ls")}
            if verb[0] == "clone" and verb[2] in names:
                check(len(read(one, verb[2], 0, 1)) == 1, "a clone that is listed cannot be read")


def crashes_again_and_again():
    crashes_leave_the_disk_whole(rounds=16)


def two_never_both_succeed():
    """A tool holds the lease (it was stopped in the middle): others are told who."""
    with cluster(cs=1, replicas="1:1") as one:
        volume(one, "create", "vm1", "-s", "64M")
        tools = [subprocess.Popen(["pstorage", "-q", "volume", "snapshot", "vm1", "-n", f"t{n}"],
                                  env=one.environment, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True) for n in range(4)]
        results = [(tool.communicate()[0], tool.returncode) for tool in tools]
        made = [s["name"] for s in query(one, "snapshots", "vm1")]
        for number, (text, code) in enumerate(results):
            check((code == 0) == (f"t{number}" in made), f"t{number}: exit {code}, {made}: {text}")
            check(code == 0 or "in use by pstorage[" in text, f"t{number}: {text}")
        check(any(code == 0 for _, code in results), f"nobody succeeded: {results}")


def clone_of_a_large_image():
    with cluster(cs=1, replicas="1:1") as one:
        volume(one, "create", "big", "-s", "100G")
        handle = one.connect("big")
        for cluster_number in range(0, 100 << 10, 2048):
            handle.pwrite(b"\1" * 4096, cluster_number * MIB)
        handle.shutdown()
        released(one, "big")
        volume(one, "snapshot", "big", "-n", "s")
        begin = time.monotonic()
        volume(one, "clone", "big@s", "copy")
        seconds = time.monotonic() - begin
        print(f"   clone of 100 GiB: {seconds:.2f} s", flush=True)
        check(read(one, "copy", 2048 * MIB) == b"\1", "content of the clone")
        check(seconds < 10, f"a clone took {seconds:.1f} s")


def sha(path):
    return run("sha256sum", path)[1].split()[0]


def others_accept_what_we_keep():
    """qemu-img, nbdcopy and fio on a ploop volume; its files outside are taken by ploop and QEMU."""
    with cluster(cs=2, replicas="2:1") as one, \
            tempfile.TemporaryDirectory(prefix="pstorage-volume-", dir="/dev/shm") as directory:
        source = os.path.join(directory, "source.raw")
        with open(source, "wb") as file:
            file.truncate(200 * MIB)
            for offset in (0, MIB - 4096, 64 * MIB - 512, 150 * MIB, 200 * MIB - 70000):
                file.seek(offset)
                file.write(os.urandom(65536))
            file.truncate(200 * MIB)
        qcow = os.path.join(directory, "source.qcow2")
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", source, qcow)
        volume(one, "import", source, "raw-in")
        volume(one, "import", qcow, "qcow-in")
        volume(one, "import", one.uri("raw-in"), "nbd-in", "--format", "raw")
        for name in ("raw-in", "qcow-in", "nbd-in"):
            code, text = run("qemu-img", "compare", "-f", "raw", "-F", "raw", source, one.uri(name),
                             ok=False)
            check(code == 0 and "identical" in text, f"{name}: {text}")
            released(one, name)
        usage = query(one, "du", "raw-in")[0]
        check(usage["allocated_bytes"] < 8 * MIB, f"an imported hole takes space: {usage}")
        fails(one, "exists already", "import", source, "raw-in")
        fails(one, "there is no file", "import", source + ".none", "x")
        fails(one, "exists already", "export", "raw-in", source)
        check({v["name"] for v in query(one, "ls")} == {"raw-in", "qcow-in", "nbd-in"}, "ls")

        run("qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", qcow, one.uri("raw-in"))
        run("nbdcopy", "--connections=4", source, one.uri("qcow-in"))
        fio = run("fio", "--name=v", "--verify_state_save=0",
                  "--ioengine=nbd", f"--uri={one.uri('raw-in')}",
                  "--rw=randwrite", "--bs=4k", "--iodepth=16", "--size=64M", "--io_size=16M",
                  "--verify=crc32c", "--do_verify=1", "--fsync=64", "--output-format=terse",
                  ok=False)
        check(fio[0] == 0, f"fio: {fio[1][-2000:]}")
        released(one, "raw-in")
        volume(one, "snapshot", "raw-in", "-n", "s1")
        write(one, "raw-in", (5 * MIB, 9, 4096))
        released(one, "raw-in")
        back = os.path.join(directory, "back.raw")
        old = os.path.join(directory, "old.qcow2")
        volume(one, "export", "raw-in", back)
        volume(one, "export", "raw-in@s1", old)
        code, text = run("qemu-img", "compare", "-f", "raw", "-F", "raw", back, one.uri("raw-in"),
                         ok=False)
        check(code == 0, f"the exported volume: {text}")
        code, text = run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", old,
                         one.uri("raw-in@s1"), ok=False)
        check(code == 0, f"the exported snapshot: {text}")
        released(one, "raw-in")
        disk = os.path.join(directory, "disk")
        volume(one, "export", "raw-in", disk, "--to", "ploop")
        deltas = sorted(name for name in os.listdir(disk) if name.startswith("root.hds"))
        check(len(deltas) == 2, f"deltas: {deltas}")
        for name in deltas:
            path = os.path.join(disk, name)
            run("cp", "--sparse=never", path, path + ".full")  # ploop refuses sparse clusters
            run("qemu-img", "check", "-f", "parallels", path)
            run("ploop", "check", "-f", "-c", "-r", path + ".full")
            os.unlink(path + ".full")
        listing = run("ploop", "snapshot-list", os.path.join(disk, "DiskDescriptor.xml"))[1]
        check(len(listing.strip().splitlines()) >= 3, f"ploop snapshot-list: {listing}")
        chain = json.dumps({"driver": "parallels",
                            "file": {"driver": "file", "filename": os.path.join(disk, deltas[1])},
                            "backing": {"driver": "parallels",
                                        "file": {"driver": "file",
                                                 "filename": os.path.join(disk, deltas[0])}}})
        qemu_view = os.path.join(directory, "qemu.raw")
        run("qemu-img", "convert", "-O", "raw", "json:" + chain, qemu_view)
        with open(qemu_view, "rb") as mine, open(back, "rb") as ours:
            check(mine.read() == ours.read(), "QEMU reads another content out of the chain")


def killed_when(one, is_time, *arguments):
    """Starts a volume command and kills it -9 as soon as is_time()."""
    process = subprocess.Popen(["pstorage", "-q", "volume", *arguments], env=one.environment,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not is_time():
        time.sleep(0.002)
    check(process.poll() is None, f"volume {' '.join(arguments)} was over before it was killed")
    process.kill()
    process.wait()


def goes_on(one, half, *arguments):
    """Runs the same command again, when the killed one's leases are free; what it copied."""
    end = time.monotonic() + 40
    while True:
        code, text = run("pstorage", "-q", "volume", *arguments, "--json", ok=False,
                         env=one.environment)
        if code == 0:
            break
        check("in use" in text and time.monotonic() < end, f"{arguments}: {text}")
        time.sleep(0.2)
    result = json.loads(text)
    check(result["start"] > 0, f"it began afresh: {result}")
    check(0 < result["copied"] <= half - result["start"], f"copied again: {result}")


def interrupted_copies_go_on():
    """kill -9 in the middle of an import and of an export: nobody takes what is there for a whole
    one, the same command goes on behind what was durable, and refuses another source."""
    size = 400 * MIB
    with cluster(cs=2, replicas="1:1") as one, \
            tempfile.TemporaryDirectory(prefix="pstorage-volume-", dir="/dev/shm") as directory:
        source = os.path.join(directory, "source.raw")
        with open(source, "wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))

        def noted():
            return any(v.get("importing", {"done": 0})["done"] > 0 for v in query(one, "ls"))

        killed_when(one, noted, "import", source, "vm1")
        check([v["name"] for v in query(one, "ls")] == ["vm1.importing"], "ls of a half import")
        before = os.stat(source)
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        fails(one, "was changed since", "import", source, "vm1")
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
        goes_on(one, size, "import", source, "vm1")
        check([v["name"] for v in query(one, "ls")] == ["vm1"], "ls after the import")
        volume(one, "snapshot", "vm1", "-n", "s1")

        target = os.path.join(directory, "target.raw")
        note = target + ".exporting.note"

        def half_exported():
            with contextlib.suppress(OSError), open(note, encoding="utf-8") as file:
                return '"done":0' not in file.read()
            return False

        killed_when(one, half_exported, "export", "vm1@s1", target)
        check(not os.path.exists(target), "a half export has the name of a whole one")
        goes_on(one, size, "export", "vm1@s1", target)
        check(sorted(os.listdir(directory)) == ["source.raw", "target.raw"], "files are left")
        run("cmp", source, target)


def limits_hold_and_change_while_in_use():
    with cluster(cs=1, replicas="1:1") as one:
        volume(one, "create", "vm1", "-s", "64M")
        volume(one, "create", "raw1", "-s", "64M", "--format", "raw")
        for name in ("vm1", "raw1"):
            handle = one.connect(name)

            def seconds_of(requests, handle=handle):
                begin = time.monotonic()
                for number in range(requests):
                    handle.pwrite(b"x" * 4096, number % 1000 * 4096)
                return time.monotonic() - begin

            seconds_of(50)
            volume(one, "limit", name, "--iops", "50")
            check(seconds_of(150) > 1.5, f"{name}: the limit does not hold")
            check(query(one, "limit", name)["iops"] == 50, "limit --json")
            volume(one, "limit", name, "--iops", "0", "--mbps", "1")
            begin = time.monotonic()
            for _ in range(3):
                handle.pwrite(b"y" * MIB, 0)
            check(time.monotonic() - begin > 0.8, f"{name}: the bandwidth is not limited")
            volume(one, "limit", name, "--mbps", "0")
            handle.pwrite(b"z" * (8 * MIB), 0)
            handle.shutdown()
            handle = one.connect(name)
            check(handle.pread(1, 8 * MIB - 1) == b"z", "content under limits")
            handle.shutdown()


if __name__ == "__main__":
    # CMakeLists.txt names what CI runs; without arguments: all.
    main(volumes_at_rest, snapshots_at_rest_and_in_use, grow_at_rest_and_in_use,
         snapshots_under_load, snapshots_go_while_in_use, crashes_leave_the_disk_whole,
         crashes_again_and_again,
         two_never_both_succeed,
         clone_of_a_large_image, others_accept_what_we_keep, interrupted_copies_go_on,
         limits_hold_and_change_while_in_use)
