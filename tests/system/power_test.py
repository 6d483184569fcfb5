#!/usr/bin/python3
"""Everything dies at once: every process by kill -9, or the file systems below all repositories by
shutdown (which discards what was not synced, as a power failure does). What an answered FLUSH
covers is there afterwards."""
import contextlib
import os
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import (Writer, check, cluster, main, own_disk, run,  # noqa: E402
                     verify_after_power_loss, verify_exact)

DAEMONS = ("nbd", "cs1", "cs2", "cs3", "mds1")


def pids_of_everything(one):
    return [one.pid(name) for name in DAEMONS]


def kill_everything(pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it may have given up
            os.kill(pid, signal.SIGKILL)


def start_everything(one):
    for name in ("mds1", "cs1", "cs2", "cs3", "nbd"):
        one.start(name)


def kill_of_every_process_loses_nothing():
    with cluster(cs=3, replicas="3:2") as one:
        one.volume("v", "128M")
        writers = [Writer(one, "v", 1024, seed=1)]
        writers[0].start()
        for _ in range(2):
            time.sleep(3)
            kill_everything(pids_of_everything(one))
            writer = writers[-1]
            writer.join(30)
            check(writer.error is not None, "the writer did not notice")
            start_everything(one)
            # Without a power failure even unflushed writes are there.
            verify_exact(one.connect("v"), writer)
            fresh = Writer(one, "v", 1024, seed=len(writers) + 1)
            fresh.start()
            # It overwrites with versions from 1 again: wait until every block is its own.
            writers.append(fresh)
            time.sleep(0.2)
            fresh.finish()
            check(fresh.error is None, f"no writes after the restart: {fresh.error}")
            zero_all(one)
            fresh = Writer(one, "v", 1024, seed=len(writers) + 1)
            fresh.start()
            writers.append(fresh)
        writers[-1].finish()


def zero_all(one):
    handle = one.connect("v")
    handle.zero(1024 * 4096, 0)
    handle.flush()


def shutdown_cycles(kind, cycles=2):
    with own_disk(kind, 2048) as (image, disk), cluster(cs=3, replicas="3:2", directory=disk,
                                                        extra=("--journal-mb", "64")) as one:
        one.volume("v", "64M")
        for cycle in range(cycles):
            run("sync", "-f", disk)  # the devcluster's own notes; the daemons sync theirs
            writer = Writer(one, "v", 1024, flush_every=16 << cycle, seed=cycle + 1)
            writer.start()
            time.sleep(3)
            pids = pids_of_everything(one)  # nothing can be read afterwards
            run("xfs_io", "-x", "-c", "shutdown", disk)
            time.sleep(0.3)
            kill_everything(pids)
            writer.join(30)
            for _ in range(100):
                if run("umount", disk, ok=False)[0] == 0:
                    break
                time.sleep(0.1)
            run("mount", "-o", "loop", image, disk)
            start_everything(one)
            verify_after_power_loss(one.connect("v"), writer)
            check(writer.durable, "nothing was flushed before the cut")
            print(f"  {kind} cycle {cycle + 1}: {writer.writes} writes,"
                  f" {len(writer.durable)} blocks flushed, all intact", flush=True)
            zero_all(one)


def power_failure_of_all_repositories_on_ext4():
    shutdown_cycles("ext4")


def power_failure_of_all_repositories_on_xfs():
    shutdown_cycles("xfs")


if __name__ == "__main__":
    main(kill_of_every_process_loses_nothing, power_failure_of_all_repositories_on_ext4,
         power_failure_of_all_repositories_on_xfs)
