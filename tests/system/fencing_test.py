#!/usr/bin/python3
"""One writer a volume: the second is told who holds it, takes over when the first has died or is
frozen, and the first, thawed, cannot change a byte."""
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import nbd  # noqa: E402
from harness import BLOCK, block_content, check, cluster, content_version, main, run  # noqa: E402


class Server:
    """A pstorage-nbd of its own, beside the one of the devcluster."""

    def __init__(self, one, name, *volumes):
        self.socket = os.path.join(one.home, name + ".sock")
        self.log = os.path.join(one.home, name + ".log")
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                ["pstorage-nbd", "-c", one.environment["PSTORAGE_NAME"], "-U", self.socket,
                 *volumes], env=one.environment, stdout=log, stderr=log)
        for _ in range(100):
            if os.path.exists(self.socket):
                break
            time.sleep(0.05)

    def uri(self, export):
        return f"nbd+unix:///{export}?socket={self.socket}"

    def connect(self, export):
        handle = nbd.NBD()
        handle.connect_uri(self.uri(export))
        return handle

    def connect_within(self, export, seconds):
        begin = time.monotonic()
        while True:
            try:
                return self.connect(export), time.monotonic() - begin
            except nbd.Error as error:
                check(time.monotonic() - begin < seconds,
                      f"not served after {seconds} s: {error.string}")
                time.sleep(0.25)

    def stop(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


def a_second_writer_is_refused_by_name_and_takes_over_after_death():
    with cluster(cs=3, replicas="3:2") as one:
        one.volume("v", "64M")
        first = Server(one, "first")
        second = Server(one, "second")
        try:
            handle = first.connect("v")
            handle.pwrite(block_content(1, 1), BLOCK)
            code, text = run("nbdinfo", second.uri("v"), ok=False)
            check(code != 0, "two servers serve one volume")
            holder = f"pstorage-nbd[{first.process.pid}]"
            with open(second.log, encoding="utf-8") as log:
                said = text + log.read()
            check(holder in said, f"the holder {holder} is not named:\n{said}")
            first.process.kill()
            first.process.wait()
            taken, waited = second.connect_within("v", 15)
            print(f"  taken over {waited:.1f} s after kill -9", flush=True)
            check(content_version(1, taken.pread(BLOCK, BLOCK)) == 1, "the write is gone")
            taken.pwrite(block_content(1, 2), BLOCK)
        finally:
            first.stop()
            second.stop()


def a_frozen_writer_cannot_change_a_byte_after_the_take_over():
    with cluster(cs=3, replicas="3:2") as one:
        one.volume("v", "192M")
        first = Server(one, "first")
        second = Server(one, "second")
        try:
            old = first.connect("v")
            for number in range(64):  # chunk 0 only: chunk 1 and 2 are new to both
                old.pwrite(block_content(number, 1), number * BLOCK)
            old.flush()
            first.process.send_signal(signal.SIGSTOP)
            # These reach the frozen server's socket and run when it thaws.
            cookies = [old.aio_pwrite(nbd.Buffer.from_bytearray(
                bytearray(block_content(number, 666))), number * BLOCK) for number in range(64)]
            fresh, waited = second.connect_within("v", 15)
            print(f"  taken over {waited:.1f} s after SIGSTOP", flush=True)
            for number in range(0, 64, 2):
                fresh.pwrite(block_content(number, 2), number * BLOCK)
            fresh.flush()
            first.process.send_signal(signal.SIGCONT)
            errors = 0
            deadline = time.monotonic() + 20
            while cookies and time.monotonic() < deadline:
                try:
                    old.poll(100)
                    for cookie in list(cookies):
                        try:
                            done = old.aio_command_completed(cookie)
                        except nbd.Error:
                            errors += 1
                            done = True
                        if done:
                            cookies.remove(cookie)
                except nbd.Error:
                    errors += len(cookies)
                    cookies = []
            check(not cookies, "the old writer's requests are not answered")
            check(errors == 64, f"only {errors} of 64 late writes were refused")
            for number in range(64):
                version = content_version(number, fresh.pread(BLOCK, number * BLOCK))
                check(version == (2 if number % 2 == 0 else 1),
                      f"block {number} was changed by the old writer: version {version}")
        finally:
            first.stop()
            second.stop()


if __name__ == "__main__":
    main(a_second_writer_is_refused_by_name_and_takes_over_after_death,
         a_frozen_writer_cannot_change_a_byte_after_the_take_over)
