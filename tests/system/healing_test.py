#!/usr/bin/python3
"""Five chunk servers under fio verify: one is lost for good, one is away for a moment, one is
removed with rm-cs, replicas= changes, damage is found and repaired. A new server fills up to the
level of the others."""
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

import nbd

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Cluster, check, cluster, main, own_disk, run  # noqa: E402

LOAD_SECONDS = 14


def fio_verify(uri, seconds):
    return subprocess.Popen(
        ["fio", "--name=verify", "--ioengine=nbd", f"--uri={uri}", "--rw=randrw", "--bs=4k-32k",
         "--iodepth=8", "--size=96M", "--verify=crc32c", "--verify_backlog=256",
         "--verify_fatal=1", "--verify_state_save=0", "--time_based=1", f"--runtime={seconds}",
         "--rate_iops=400"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def status(one):
    return json.loads(one.pstorage("-q", "stat", "--json"))


def service(state, kind, number):
    for found in state["services"]:
        if found["kind"] == kind and int(found["id"]) == number:
            return found
    return None


def written_bytes(state):
    return sum(int(found.get("write_bytes", 0)) for found in state["services"]
               if found["kind"] == "CLIENT")


def wait_for(condition, patience, what):
    end = time.monotonic() + patience
    while not condition():
        check(time.monotonic() < end, f"not within {patience} s: {what}")
        time.sleep(0.2)


def all_chunks_healthy(one):
    state = status(one)
    return int(state["chunks"]["healthy"]) == int(state["chunk_count"]) > 0


def chunk_files(one, name):
    folder = os.path.join(one.home, name, "chunks")
    return sum(len(files) for _, _, files in os.walk(folder))


def servers_are_lost_return_and_are_removed_under_fio_verify():
    with cluster(cs=5, replicas="3:2") as one:
        one.pstorage("-q", "set-config", "mds.wd.offline_tout=2000")
        one.pstorage("-q", "volume", "create", "v", "-s", "80M", "--format", "raw",
                     "--chunk-size", "4M")
        fio = fio_verify(one.uri("v"), LOAD_SECONDS)
        time.sleep(2)

        begin = time.monotonic()
        one.kill("cs1")  # for good
        wait_for(lambda: service(status(one), "CS", 1025)["state"] == "offline", 20, "cs1 offline")
        wait_for(lambda: all_chunks_healthy(one), 20, "full redundancy without cs1")
        print(f"  without cs1: full redundancy after {time.monotonic() - begin:.1f} s", flush=True)

        before = status(one)
        one.kill("cs2")
        time.sleep(1.0)
        one.start("cs2")
        wait_for(lambda: service(status(one), "CS", 1026)["state"] == "active", 10, "cs2 active")
        wait_for(lambda: all_chunks_healthy(one), 20, "cs2 up to date")
        after = status(one)
        time.sleep(1.5)  # its heartbeat tells
        # A new process counts from zero.
        pulled = int(service(status(one), "CS", 1026).get("pulled_bytes", 0))
        written = written_bytes(after) - written_bytes(before)
        print(f"  cs2 was away: {pulled >> 10} KiB copied, {written >> 10} KiB written meanwhile",
              flush=True)
        check(0 < pulled <= 2 * written, "what was copied is not what had changed")
        check(pulled < 48 << 20, "everything was copied")

        check(one.pstorage("-q", "ok-to-stop", "cs", "1027").startswith("yes"), "ok-to-stop")
        code, text = run("pstorage", "-q", "ok-to-stop", "cs", "1026", "1027", "1028",
                         ok=False, env=one.environment)
        check(code == 1 and text.startswith("no"), f"ok-to-stop of three: {code} {text}")

        begin = time.monotonic()
        one.pstorage("-q", "rm-cs", "--force", "--wait", "1025")
        one.pstorage("-q", "rm-cs", "--wait", "1027")
        print(f"  rm-cs of a dead and a live server: {time.monotonic() - begin:.1f} s", flush=True)
        check(service(status(one), "CS", 1027) is None, "a removed server is still listed")
        log = os.path.join(one.home, "logs", "cs3.log")
        wait_for(lambda: "has been removed from the cluster" in open(log, encoding="utf-8").read(),
                 5, "the removed server says so")
        code, text = run("pstorage", "-q", "rm-cs", "1028", ok=False, env=one.environment)
        check(code == 1 and "only 2 would remain" in text, f"rm-cs below the norm: {text}")

        output = fio.communicate(timeout=60)[0]
        check(fio.returncode == 0 and "err= 0" in output, f"fio verify failed:\n{output}")
        wait_for(lambda: all_chunks_healthy(one), 10, "healthy at the end")
        chunks = int(status(one)["chunk_count"])
        left = ("cs2", "cs4", "cs5")
        wait_for(lambda: all(chunk_files(one, name) == chunks for name in left), 10,
                 f"{chunks} chunk files on each server")
        one.pstorage("-q", "set-attr", "-p", "/volumes/v", "replicas=2:1")
        wait_for(lambda: sum(chunk_files(one, name) for name in left) == 2 * chunks, 20,
                 "surplus replicas are deleted")


def a_volume_whose_user_died_is_repaired_though_nobody_opens_it():
    with cluster(cs=4, replicas="3:2") as one:
        one.pstorage("-q", "set-config", "mds.wd.offline_tout=2000")
        one.pstorage("-q", "volume", "create", "v", "-s", "32M", "--format", "raw",
                     "--chunk-size", "4M")
        content = os.urandom(8 << 20)
        handle = one.connect("v")
        handle.pwrite(content, 0)
        handle.flush()
        handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(os.urandom(4 << 20))), 0)
        one.kill("nbd")
        one.kill("cs1")  # for good
        begin = time.monotonic()
        wait_for(lambda: service(status(one), "CS", 1025)["state"] == "offline", 20, "cs1 offline")
        check(not all_chunks_healthy(one), "nothing was lost with cs1")
        wait_for(lambda: all_chunks_healthy(one), 75, "full redundancy with nobody there")
        print(f"  full redundancy after {time.monotonic() - begin:.1f} s", flush=True)
        one.start("nbd")
        check(one.connect("v").pread(4 << 20, 4 << 20) == content[4 << 20:], "another content")


def damage_is_found_and_repaired_by_check():
    with cluster(cs=3, replicas="3:2") as one:
        one.pstorage("-q", "volume", "create", "v", "-s", "8M", "--format", "raw",
                     "--chunk-size", "4M")
        handle = one.connect("v")
        content = os.urandom(1 << 20)
        handle.pwrite(content, 0)
        handle.flush()
        handle.shutdown()
        one.pstorage("-q", "check", "/volumes/v")
        time.sleep(4)  # applied to the chunk files
        with open(chunk_path(one, "cs2"), "r+b") as file:
            at = file.read().find(content[10 * 4096:11 * 4096])
            check(at > 0, "the data is not in the chunk file")
            file.seek(at + 100)
            file.write(b"damage")
        code, text = run("pstorage", "-q", "check", "/volumes/v", ok=False, env=one.environment)
        check(code == 1 and "1 damaged blocks" in text, f"check finds nothing: {text}")
        one.pstorage("-q", "check", "--repair", "/volumes/v")
        text = one.pstorage("-q", "check", "/volumes/v")
        check(" 0 damaged" in text and "0 chunks differ" in text, text)
        print("  " + text.strip().splitlines()[-1], flush=True)


def crc32c(content):
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


class Stopped:
    """A chunk server that is stopped in order, so that its chunk file says all (cs/format.md)."""
    data_at = 64 << 10  # of chunks of 4 MiB

    def __init__(self, one, name):
        self.one, self.name = one, name

    def __enter__(self):
        pid = self.one.pid(self.name)
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not os.path.exists(f"/proc/{pid}"), 10, f"{self.name} stops")
        self.file = open(chunk_path(self.one, self.name), "r+b")
        return self

    def __exit__(self, *_):
        self.file.close()
        self.one.start(self.name)

    def block(self, number):
        """(table entry, content)"""
        self.file.seek(4096 + 16 * number)
        entry = self.file.read(16)
        self.file.seek(self.data_at + 4096 * number)
        return entry, self.file.read(4096)

    def put(self, number, entry, content):
        self.file.seek(4096 + 16 * number)
        self.file.write(entry)
        self.file.seek(self.data_at + 4096 * number)
        self.file.write(content)

    def forge(self, number, content):
        """Another content with the checksum that fits it, and the same stamp."""
        entry, old = self.block(number)
        mixed = int.from_bytes(entry[8:12], "little") ^ crc32c(old) ^ crc32c(content)
        self.put(number, entry[:8] + mixed.to_bytes(4, "little") + entry[12:], content)


def write_at(one, content, offset):
    handle = one.connect("v")
    handle.pwrite(content, offset)
    handle.flush()
    handle.shutdown()


def replicas_that_differ_are_made_to_agree():
    """Every block valid by its own checksum: one server lost a write and its own memory of it, on
    another a block was changed together with its checksum. First nobody uses the volume, then it
    is written to meanwhile."""
    with cluster(cs=3, replicas="3:2") as one:
        one.pstorage("-q", "volume", "create", "v", "-s", "4M", "--format", "raw",
                     "--chunk-size", "4M")
        truth = bytearray(os.urandom(1 << 20))
        write_at(one, bytes(truth), 0)
        stop_nbd(one)
        with Stopped(one, "cs2") as second:
            old = second.block(10)
        one.start("nbd")
        truth[10 * 4096:11 * 4096] = os.urandom(4096)
        write_at(one, bytes(truth[10 * 4096:11 * 4096]), 10 * 4096)
        stop_nbd(one)
        with Stopped(one, "cs2") as second:
            second.put(10, *old)
        with Stopped(one, "cs1") as first:
            first.forge(20, os.urandom(4096))

        def repair():
            text = one.pstorage("-q", "check", "--repair", "/volumes/v")
            check("its replicas differed, and agree now" in text
                  and "1 chunks differ, 1 repaired" in text, text)

        code, text = run("pstorage", "-q", "check", "/volumes/v", ok=False, env=one.environment)
        check(code == 1 and "its replicas differ" in text and "0 damaged" in text, text)
        repair()
        text = one.pstorage("-q", "check", "/volumes/v")
        check("0 chunks differ" in text, text)

        with Stopped(one, "cs1") as first:
            first.forge(30, os.urandom(4096))
        one.start("nbd")
        handle = one.connect("v")
        ends, written = threading.Event(), []

        def write_on():
            while not ends.is_set() or len(written) < 100:
                content = os.urandom(4096)
                handle.pwrite(content, 2 << 20)
                written.append(content)

        writer = threading.Thread(target=write_on)
        writer.start()
        wait_for(lambda: len(written) > 10, 10, "the volume is written to")
        repair()
        ends.set()
        writer.join()
        check(handle.pread(1 << 20, 0) == truth, "another content than what was acknowledged")
        check(handle.pread(4096, 2 << 20) == written[-1], "a write was undone")
        handle.flush()
        handle.shutdown()
        text = one.pstorage("-q", "check", "/volumes/v")
        check("0 chunks differ" in text, text)


def stop_nbd(one):
    pid = one.pid("nbd")
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), 10, "the NBD server stops")


def chunk_path(one, name):
    """The chunk file that holds data."""
    found = []
    for folder, _, files in os.walk(os.path.join(one.home, name, "chunks")):
        found += [os.path.join(folder, file) for file in files]
    return max(found, key=lambda path: os.stat(path).st_blocks)


def percent_full(server):
    total = int(server["total_bytes"])
    return 100 * (total - int(server.get("free_bytes", 0))) / total


def an_empty_server_fills_up_to_the_level_of_the_others():
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="pstorage-balance-"))
        for name in ("cs1", "cs2", "cs3"):
            _, disk = stack.enter_context(own_disk(megabytes=420))
            os.makedirs(os.path.join(directory, "cluster"), exist_ok=True)
            os.symlink(os.path.join(disk, "cs"), os.path.join(directory, "cluster", name))
            os.mkdir(os.path.join(disk, "cs"))
        one = Cluster(cs=2, replicas="2:1", directory=directory)
        stack.callback(one.down)
        one.pstorage("-q", "set-config", "mds.alloc.free_space_margin=0")
        one.pstorage("-q", "volume", "create", "v", "-s", "80M", "--format", "raw",
                     "--chunk-size", "4M")
        handle = one.connect("v")
        for offset in range(0, 80 << 20, 4 << 20):
            handle.pwrite(os.urandom(4 << 20), offset)
        handle.flush()
        one.devcluster("up", "--cs", "3")

        def levels():
            return [percent_full(found) for found in status(one)["services"]
                    if found["kind"] == "CS" and int(found.get("total_bytes", 0))]

        time.sleep(1.5)
        first = levels()
        begin = time.monotonic()
        try:
            wait_for(lambda: len(levels()) == 3 and max(levels()) - min(levels()) <= 5, 25,
                     "percent-full within 5 points")
        except AssertionError:
            print(levels(), one.pstorage("-q", "stat"))
            one.logs()
            raise
        print(f"  percent-full {[round(level) for level in first]} -> "
              f"{[round(level) for level in levels()]} in {time.monotonic() - begin:.1f} s",
              flush=True)
        handle.shutdown()


if __name__ == "__main__":
    main(servers_are_lost_return_and_are_removed_under_fio_verify,
         a_volume_whose_user_died_is_repaired_though_nobody_opens_it,
         damage_is_found_and_repaired_by_check,
         replicas_that_differ_are_made_to_agree,
         an_empty_server_fills_up_to_the_level_of_the_others)
