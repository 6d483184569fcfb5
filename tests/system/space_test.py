#!/usr/bin/python3
"""The cluster is full: it says so, writes without room get an error or wait as the volume's on-full
says, overwriting, trimming and deleting go on, and what waited goes on when there is room. The
journal of a chunk server moves to another disk and back."""
import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import nbd  # noqa: E402
from harness import (BLOCK, Cluster, block_content, check, cluster, main, own_disk,  # noqa: E402
                     run)

MEGABYTE = 1 << 20


def leave_free(disk, megabytes):
    """Takes the disk's space but for so much."""
    status = os.statvfs(disk)
    size = status.f_bavail * status.f_frsize - megabytes * MEGABYTE
    with open(os.path.join(disk, "filler"), "wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def write_until_full(handle, limit):
    """Bytes that went in before no space was left."""
    for offset in range(0, limit, MEGABYTE):
        try:
            handle.pwrite(os.urandom(MEGABYTE), offset)
        except nbd.Error as error:
            check(error.errnum == 28, f"not ENOSPC but {error}")
            return offset
    raise AssertionError(f"{limit >> 20} MB went into a cluster that should be full")


class Waiting_write(threading.Thread):
    def __init__(self, handle, content, offset):
        super().__init__(daemon=True)
        self.action = lambda: handle.pwrite(content, offset)
        self.error = None
        self.start()

    def run(self):
        try:
            self.action()
        except nbd.Error as error:
            self.error = error

    def must_wait(self, seconds):
        self.join(seconds)
        check(self.is_alive(), f"a write without room did not wait: {self.error or 'answered'}")

    def must_finish(self, seconds):
        self.join(seconds)
        check(not self.is_alive(), f"a write still waits after {seconds} s with room again")
        check(self.error is None, f"a write that waited failed: {self.error}")


def until(condition, patience, what):
    end = time.monotonic() + patience
    while not condition():
        check(time.monotonic() < end, f"not within {patience} s: {what}")
        time.sleep(0.2)


def a_full_cluster_says_so_and_recovers_by_itself():
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="pstorage-space-"))
        home = os.path.join(directory, "cluster")
        os.mkdir(home)
        disks = []
        for name in ("cs1", "cs2", "cs3"):
            _, disk = stack.enter_context(own_disk(megabytes=520))
            os.mkdir(os.path.join(disk, "cs"))
            os.symlink(os.path.join(disk, "cs"), os.path.join(home, name))
            disks.append(disk)
        one = Cluster(cs=3, replicas="3:2", directory=directory)
        stack.callback(one.down)
        one.pstorage("-q", "set-config", "mds.alloc.free_space_margin=150")
        for name in ("errors", "waits", "old"):
            one.pstorage("-q", "volume", "create", name, "-s", "256M", "--format", "raw",
                         "--chunk-size", "4M")
        one.pstorage("-q", "set-attr", "-p", "/volumes/waits", "on-full=wait")
        check("on-full=wait" in one.pstorage("-q", "get-attr", "-p", "/volumes/waits"), "get-attr")
        old = one.connect("old")
        for offset in range(0, 96 * MEGABYTE, MEGABYTE):  # more than is written past the margin
            old.pwrite(os.urandom(MEGABYTE), offset)
        old.flush()
        old.shutdown()
        for disk in disks:
            leave_free(disk, 210)
        errors, waits = one.connect("errors"), one.connect("waits")
        written = write_until_full(errors, 256 * MEGABYTE)
        check(written > 0, "there was no room from the start")
        until(lambda: "Space: [FULL]" in one.pstorage("-q", "stat"), 10, "stat says FULL")
        until(lambda: "The cluster is full" in one.pstorage("-q", "get-event"), 10, "an event of it")

        waiting = Waiting_write(waits, block_content(7, 1), 7 * BLOCK)
        errors.pwrite(block_content(3, 7), 3 * BLOCK)  # overwriting needs no room
        errors.flush()
        check(errors.pread(BLOCK, 3 * BLOCK) == block_content(3, 7), "an overwrite is lost")
        waiting.must_wait(3)

        one.pstorage("-q", "volume", "rm", "--now", "old")  # deleting works, and gives room
        waiting.must_finish(40)
        check(waits.pread(BLOCK, 7 * BLOCK) == block_content(7, 1), "what waited is not there")
        errors.flush()
        for disk in disks:
            os.remove(os.path.join(disk, "filler"))
        until(lambda: "Space: [FULL]" not in one.pstorage("-q", "stat"), 10, "stat forgets FULL")
        errors.pwrite(bytes([1]) * MEGABYTE, written)
        one.wait_healthy()


def a_full_chunk_server_lets_writes_wait():
    with own_disk(megabytes=520) as (_, disk), cluster(
            cs=1, replicas="1:1", directory=disk, extra=("--journal-mb", "64")) as one:
        one.pstorage("-q", "set-config", "mds.alloc.free_space_margin=0")
        one.pstorage("-q", "volume", "create", "v", "-s", "512M", "--format", "raw",
                     "--chunk-size", "128M")
        handle = one.connect("v")
        handle.pwrite(block_content(0, 1), 0)
        handle.flush()
        time.sleep(1.5)
        leave_free(disk, 100)
        time.sleep(1.5)  # the chunk server looks once a second
        written = write_until_full(handle, 128 * MEGABYTE)
        check(written > 8 * MEGABYTE, f"only {written} bytes had room")
        one.pstorage("-q", "set-attr", "-p", "/volumes/v", "on-full=wait")  # of an open volume
        time.sleep(0.5)
        content = os.urandom(2 * MEGABYTE)
        waiting = Waiting_write(one.connect("v"), content, 120 * MEGABYTE)
        waiting.must_wait(2)
        handle.trim(8 * MEGABYTE, 0)
        handle.flush()
        waiting.must_finish(40)
        check(handle.pread(len(content), 120 * MEGABYTE) == content, "what waited is lost")


def a_journal_moves_to_another_disk_and_back():
    with own_disk(megabytes=300) as (_, ssd), cluster(cs=2, replicas="2:1") as one:
        one.volume("v", "64M")
        handle = one.connect("v")
        repository = os.path.join(one.home, "cs1")

        def configure(*arguments):
            return run("pstorage", "configure-cs", "-r", repository, *arguments, ok=False,
                       env=one.environment)

        def stop():
            os.kill(one.pid("cs1"), signal.SIGTERM)
            until(lambda: "cs1 down" in one.devcluster("status"), 20, "cs1 stops")

        code, text = configure("-a", ssd)
        check(code == 1 and len(text.splitlines()) == 1, f"not refused while csd runs: {text}")
        one.kill("cs1")
        code, text = configure("-a", ssd)
        check(code == 1 and "SIGTERM" in text, f"not refused after a kill: {text}")
        one.start("cs1")
        until(lambda: json.loads(one.pstorage("-q", "stat", "--json"))["health"] == "healthy", 20,
              "healthy")
        version = 0
        for arguments, external in ((("-a", ssd, "-s", "128"), True),
                                    (("-m", os.path.join(ssd, "j2"), "-s", "64"), True),
                                    (("-d",), False)):
            version += 1
            handle.pwrite(block_content(version, version), version * BLOCK)
            handle.flush()
            stop()
            code, text = configure(*arguments)
            check(code == 0, f"configure-cs {' '.join(arguments)}: {text}")
            check(os.path.exists(os.path.join(repository, "journal")) != external, text)
            journals = [name for name in os.listdir(ssd) if name != "lost+found"]
            check(len(journals) == (1 if external else 0), f"journals on the SSD: {journals}")
            one.start("cs1")
            one.wait_healthy()
        code, text = configure("-d", "-m", ssd)
        check(code == 1 and "give one of" in text, text)
        one.kill("cs2")  # cs1 alone must have everything
        for number in range(1, version + 1):
            check(handle.pread(BLOCK, number * BLOCK) == block_content(number, number),
                  "data is lost")


if __name__ == "__main__":
    main(a_full_cluster_says_so_and_recovers_by_itself, a_full_chunk_server_lets_writes_wait,
         a_journal_moves_to_another_disk_and_back)
