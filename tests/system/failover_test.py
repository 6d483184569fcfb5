#!/usr/bin/python3
"""Chunk servers and the metadata server are killed, stopped and restarted under load: no error
reaches the client, no byte is wrong, and the pauses stay short."""
import os
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Writer, block_content, check, cluster, main, verify_exact  # noqa: E402

GAP_AFTER_KILL = 0.5
GAP_AFTER_STOP = 4.0


def fio_verify(uri, seconds):
    return subprocess.Popen(
        ["fio", "--name=verify", "--ioengine=nbd", f"--uri={uri}", "--rw=randrw", "--bs=4k-64k",
         "--iodepth=16", "--size=128M", "--verify=crc32c", "--verify_backlog=256",
         "--verify_fatal=1", "--verify_state_save=0", "--time_based=1", f"--runtime={seconds}"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def each_chunk_server_fails_in_turn_under_fio_verify():
    with cluster(cs=3, replicas="3:2") as one:
        one.volume("verify", "256M")
        one.volume("gap", "64M")
        fio = fio_verify(one.uri("verify"), 45)
        writer = Writer(one, "gap", 2048, flush_every=64)
        writer.start()
        time.sleep(3)
        for name in one.cs_names:
            for fault in ("kill", "stop", "restart"):
                since = time.monotonic()
                if fault == "kill":
                    one.kill(name)
                    time.sleep(1.5)
                    gap = writer.longest_gap(since)
                    one.start(name)
                    limit = GAP_AFTER_KILL
                elif fault == "stop":
                    one.stop(name)
                    time.sleep(3.5)
                    gap = writer.longest_gap(since)
                    one.cont(name)
                    limit = GAP_AFTER_STOP
                else:
                    os.kill(one.pid(name), signal.SIGTERM)
                    time.sleep(1.0)
                    one.start(name)
                    gap = writer.longest_gap(since)
                    limit = GAP_AFTER_KILL
                print(f"  {fault} {name}: longest pause {gap * 1000:.0f} ms", flush=True)
                check(writer.error is None, f"the client saw an error: {writer.error}")
                check(fio.poll() is None or fio.returncode == 0, "fio has failed")
                check(gap < limit, f"{fault} {name}: requests paused {gap:.2f} s, limit {limit} s")
                one.wait_healthy()
        writer.finish()
        check(writer.error is None, f"the client saw an error: {writer.error}")
        output = fio.communicate(timeout=120)[0]
        check(fio.returncode == 0 and "err= 0" in output, f"fio verify failed:\n{output}")
        verify_exact(one.connect("gap"), writer)
        print(f"  {writer.writes} writes", flush=True)


def metadata_server_restarts_under_load():
    with cluster(cs=3, replicas="3:2") as one:
        one.volume("v", "64M")
        writer = Writer(one, "v", 1024)
        writer.start()
        time.sleep(1)
        one.kill("mds1")
        since = time.monotonic()
        time.sleep(2)
        check(writer.longest_gap(since) < 0.5, "running I/O paused while the MDS was away")
        one.start("mds1")
        one.kill("cs1")  # needs the MDS to drop the replica
        time.sleep(3)
        one.start("cs1")
        writer.finish()
        check(writer.error is None, f"the client saw an error: {writer.error}")
        verify_exact(one.connect("v"), writer)


def writes_wait_below_the_minimum_and_go_on_afterwards():
    with cluster(cs=3, replicas="3:2") as one:
        one.volume("v", "64M")
        # A read of the block that is being written would rightly wait with it.
        handle = one.connect("v")
        apart = 200
        handle.pwrite(block_content(apart, 1), apart * 4096)
        writer = Writer(one, "v", apart)
        writer.start()
        time.sleep(1)
        one.kill("cs1")
        time.sleep(1)
        one.kill("cs2")
        time.sleep(1)
        frozen = writer.writes
        time.sleep(2)
        check(writer.writes <= frozen + 1, "writes went on with one replica of at least two")
        timer = threading.Timer(20, lambda: os.kill(os.getpid(), signal.SIGALRM))
        timer.start()
        check(handle.pread(4096, apart * 4096) == block_content(apart, 1), "another content")
        timer.cancel()  # reads go on
        one.start("cs1")
        one.start("cs2")
        one.wait_healthy()
        time.sleep(1)
        check(writer.writes > frozen + 1, "writes did not go on after the replicas returned")
        writer.finish()
        check(writer.error is None, f"the client saw an error: {writer.error}")
        verify_exact(one.connect("v"), writer)


if __name__ == "__main__":
    main(each_chunk_server_fails_in_turn_under_fio_verify, metadata_server_restarts_under_load,
         writes_wait_below_the_minimum_and_go_on_afterwards)
