#!/usr/bin/python3
"""One cluster on hosts of its own, under fio verify, and one misfortune after the other. After
each: no error at the client, no wrong byte, full redundancy again. Five hosts with a chunk server
each (the first on a disk that can be spoiled, the second on a small one), a sixth chunk server
beside the fifth, three metadata servers. Without arguments all of them; CI names some."""
import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import (BUILD, Cluster, check, faulty_disk, fill, main, own_disk, run,  # noqa: E402
                     skip)

HEALTHY_PATIENCE = 60
SECOND_CS = "cs5b"


class Lab:
    """The cluster all scenarios share."""

    def __init__(self):
        if os.geteuid() != 0:
            skip("network namespaces need root")
        self.stack = contextlib.ExitStack()
        self.second = None
        self.stack.callback(self.end)
        try:
            self.start()
        except BaseException:
            self.stack.close()
            raise

    def start(self):
        directory = tempfile.mkdtemp(prefix="pstorage-nemesis-")
        self.stack.callback(shutil.rmtree, directory, ignore_errors=True)
        home = os.path.join(directory, "cluster")
        os.mkdir(home)
        self.faulty = self.stack.enter_context(faulty_disk())
        _, self.small = self.stack.enter_context(own_disk(megabytes=400))
        for name, place in (("cs1", self.faulty.mount_point), ("cs2", self.small)):
            os.mkdir(os.path.join(place, "cs"))
            os.symlink(os.path.join(place, "cs"), os.path.join(home, name))
        self.one = Cluster(cs=5, replicas="3:2", directory=directory,
                           extra=("--mds", "3", "--hosts"))
        self.stack.callback(self.one.down)
        self.one.pstorage("-q", "set-config", "mds.alloc.free_space_margin=0")
        self.one.pstorage("-q", "set-config", "mds.wd.offline_tout=4000")
        self.start_second()
        self.volume = ""
        self.new_volume()
        self.seed = 0

    def new_volume(self):
        self.volume += "v"
        self.one.pstorage("-q", "volume", "create", self.volume, "-s", "64M", "--format", "raw",
                          "--chunk-size", "4M")

    def make_use_of(self, number):
        """Some scenarios drive the data away from a server; the next one wants it there."""
        self.until(lambda: not self.server(number).get("slow", False), 60, "it is forgiven")
        if int(self.server(number).get("replicas", 0)) < 3:
            self.new_volume()

    def end(self):
        if self.second is not None:
            self.second.kill()
            self.second.wait()

    def start_second(self):
        """Another chunk server on the host of cs5."""
        repository = os.path.join(self.one.home, SECOND_CS)
        with open(f"/proc/{self.one.pid('cs5')}/environ", encoding="ascii") as file:
            environment = dict(entry.split("=", 1) for entry in file.read().split("\0") if entry)
        inside = ["nsenter", "-t", str(self.one.pid("cs5")), "-n"]
        if not os.path.exists(repository):
            run(*inside, os.path.join(BUILD, "bin", "pstorage"), "-q", "make-cs", "-r", repository,
                "-a", "192.168.0.5", "-s", "64", env=environment)
        with open(os.path.join(self.one.home, "logs", SECOND_CS + ".log"), "ab") as log:
            self.second = subprocess.Popen(
                [*inside, os.path.join(BUILD, "bin", "csd"), "-r", repository], env=environment,
                stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def status(self):
        return json.loads(self.one.pstorage("-q", "stat", "--json"))

    def server(self, number):
        return next((found for found in self.status()["services"]
                     if found["kind"] == "CS" and int(found["id"]) == number), None)

    def master(self):
        text = self.one.pstorage("-q", "list-services", "--all")
        return "mds" + re.search(r"MDS\s+(\d+)\s+\S+ \(master\)", text).group(1)

    def net(self, name, *rules):
        """What passes at this host's only interface: no rules = everything."""
        inside = ("nsenter", "-t", str(self.one.pid(name)), "-n", "nft")
        run(*inside, "delete table inet nemesis", ok=False)
        if rules:
            run(*inside, "table inet nemesis { " + " ".join(
                f"chain {hook} {{ type filter hook {hook} priority 0; {rule}; }};"
                for hook, rule in rules) + " }")

    @contextlib.contextmanager
    def load(self, seconds):
        """fio verify meanwhile; afterwards it has seen no error and everything is healthy."""
        self.seed += 1
        fio = subprocess.Popen(
            ["fio", "--name=verify", "--ioengine=nbd", f"--uri={self.one.uri(self.volume)}",
             "--rw=randrw", "--bs=4k-64k", "--iodepth=8", "--size=48M", "--verify=crc32c",
             "--verify_backlog=128", "--verify_fatal=1", "--verify_state_save=0",
             "--time_based=1", f"--runtime={seconds}", "--fsync=32", f"--randseed={self.seed}",
             "--rate_iops=600"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            time.sleep(1)
            yield fio
            output = fio.communicate(timeout=60)[0]
            check(fio.returncode == 0 and "err= 0" in output, f"fio verify failed:\n{output}")
            self.wait_healthy()
        except BaseException:
            self.one.logs()
            raise
        finally:
            fio.kill()
            fio.wait()

    def wait_healthy(self, patience=HEALTHY_PATIENCE):
        begin = time.monotonic()
        while True:
            state = self.status()
            chunks = int(state["chunk_count"])
            if chunks > 0 and int(state["chunks"]["healthy"]) == chunks:
                return
            check(time.monotonic() - begin < patience,
                  f"no full redundancy within {patience} s:\n{self.one.pstorage('-q', 'stat')}")
            time.sleep(0.2)

    def until(self, condition, patience, what):
        end = time.monotonic() + patience
        while not condition():
            check(time.monotonic() < end, f"not within {patience} s: {what}")
            time.sleep(0.2)

    def log_has(self, name, text):
        path = os.path.join(self.one.home, "logs", name + ".log")
        with open(path, encoding="utf-8", errors="replace") as file:
            return text in file.read()


LAB = None


def lab():
    global LAB
    if LAB is None:
        LAB = Lab()
    return LAB


# ------------------------------------------------------------------ processes and hosts


def kill():
    with lab().load(5):
        lab().one.kill("cs3")
        time.sleep(2)
        lab().one.start("cs3")


def stop():
    with lab().load(8):
        lab().one.stop("cs3")
        time.sleep(5)
        lab().one.cont("cs3")


def host_lost():
    """Both chunk servers of a host at once, and back."""
    with lab().load(7):
        lab().one.kill("cs5")
        lab().second.kill()
        lab().second.wait()
        time.sleep(3)
        lab().one.start("cs5")
        lab().start_second()


def master_and_chunk_server_at_once():
    one = lab().one
    with lab().load(8):
        master = lab().master()
        one.kill(master)
        one.kill("cs4")
        time.sleep(3)
        one.start("cs4")
        one.start(master)
    lab().until(lambda: one.pstorage("-q", "list-services", "--all").count(" avail ") == 3, 20,
                "three metadata servers")


# ------------------------------------------------------------------ network


def partition():
    """cs4 and the world do not hear each other."""
    with lab().load(8):
        lab().net("cs4", ("input", "iifname eth0 drop"), ("output", "oifname eth0 drop"))
        time.sleep(5)
        lab().net("cs4")


def one_way():
    """The world does not hear cs4, which hears the world."""
    with lab().load(8):
        lab().net("cs4", ("output", "oifname eth0 drop"))
        time.sleep(5)
        lab().net("cs4")


# ------------------------------------------------------------------ disks


def disk_full():
    with lab().load(8):
        filler = os.path.join(lab().small, "filler")
        fill(filler)
        time.sleep(3)
        os.remove(filler)


def eio():
    """Syncs and writes of one disk fail: it takes no more writes, says so, and is back after a
    restart on a disk that works again."""
    lab().make_use_of(1025)
    with lab().load(9):
        lab().faulty.spoil("fail sync 5", "fail write 5")
        lab().until(lambda: lab().server(1025)["state"] == "failed", 15, "cs1 failed")
        lab().faulty.spoil()
        lab().one.kill("cs1")
        lab().one.start("cs1")
    lab().until(lambda: lab().server(1025)["state"] == "active", 15, "cs1 active")


def read_errors():
    with lab().load(5):
        lab().faulty.spoil("fail read 5 chunks/")
        time.sleep(3)
        lab().faulty.spoil()


def slow_disk():
    """Slow but alive: dropped by its writers within seconds, flagged, and never an error."""
    lab().make_use_of(1025)
    with lab().load(14):
        begin = time.monotonic()
        lab().faulty.spoil("delay sync 1500")
        lab().until(lambda: lab().server(1025).get("slow", False), 20, "cs1 slow")
        print(f"  called slow after {time.monotonic() - begin:.1f} s", flush=True)
        lab().faulty.spoil()
    events = lab().one.pstorage("-q", "get-event")
    check("CS#1025 is slow" in events, f"no event tells of the slow disk:\n{events}")


def slow_disk_comes_back():
    slow_disk()
    lab().until(lambda: not lab().server(1025).get("slow", False), 120, "cs1 no longer slow")
    lab().wait_healthy()
    events = lab().one.pstorage("-q", "get-event")
    check(events.count("CS#1025 is slow") == events.count("CS#1025 is as quick"),
          f"the flag flaps:\n{events}")


def chunk_files(name):
    for folder, _, files in os.walk(os.path.join(lab().one.home, name, "chunks")):
        for file in files:
            yield os.path.join(folder, file)


def flip_bits(path, begin, end, count, rng):
    with open(path, "r+b") as file:
        for _ in range(count):
            at = rng.randrange(begin, end)
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([(byte[0] if byte else 0) ^ 1 << rng.randrange(8)]))


def bit_flips_in_chunk_files():
    """Of one replica, while it is read; what nobody reads, check finds."""
    rng = random.Random(4)
    with lab().load(6):
        for path in chunk_files("cs3"):
            size = os.stat(path).st_size
            if size > 256 << 10:
                flip_bits(path, 64 << 10, size, 20, rng)
        time.sleep(1)
    path = "/volumes/" + lab().volume
    lab().one.pstorage("-q", "check", "--repair", path)
    text = lab().one.pstorage("-q", "check", path)
    check(" 0 damaged" in text, f"damage is left:\n{text}")


def bit_flips_in_journal():
    """Of a chunk server that was killed with writes in it."""
    rng = random.Random(5)
    with lab().load(7):
        lab().one.kill("cs4")
        journal = os.path.join(lab().one.home, "cs4", "journal")
        flip_bits(journal, 8192, os.stat(journal).st_size, 3000, rng)
        time.sleep(1)
        lab().one.start("cs4")
    lab().one.pstorage("-q", "check", "/volumes/" + lab().volume)


def repository_deleted():
    """Under a running csd, which then dies: it does not start, is removed by force, and a new one
    takes its place."""
    one = lab().one
    repository = os.path.join(one.home, "cs4")
    with lab().load(10):
        for entry in os.listdir(repository):
            path = os.path.join(repository, entry)
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
        one.kill("cs4")
        one.devcluster("start", "cs4")
        lab().until(lambda: lab().log_has("cs4", "not a chunk server's repository"), 5,
                    "csd says what is wrong")
        one.pstorage("-q", "rm-cs", "--force", "--wait", "1028")
    os.rmdir(repository)
    one.devcluster("up")
    lab().wait_healthy()


if __name__ == "__main__":
    try:
        main(kill, stop, partition, one_way, host_lost, master_and_chunk_server_at_once, disk_full,
             read_errors, eio, bit_flips_in_chunk_files, bit_flips_in_journal, slow_disk,
             slow_disk_comes_back, repository_deleted)
    finally:
        if LAB is not None:
            LAB.stack.close()
