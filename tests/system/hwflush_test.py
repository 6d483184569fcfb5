#!/usr/bin/env python3
"""pstorage-hwflush-check finds a disk that calls durable what a power cut takes away, and does not
accuse one that is honest."""
import contextlib
import os
import re
import signal
import subprocess

import harness
from harness import check, run

CHECK = os.path.join(harness.BUILD, "bin", "pstorage-hwflush-check")


class Server:
    """A running server; what it says is read line by line."""

    def __init__(self):
        self.process = subprocess.Popen([CHECK, "-l", "-p", "0"], stdout=subprocess.PIPE, text=True)
        self.port = re.search(r"port (\d+)", self.until("listening")).group(1)

    def until(self, part):
        seen = ""
        for line in self.process.stdout:
            seen += line
            if part in line:
                return line
        raise AssertionError(f"the server does not say '{part}':\n{seen}")

    def client(self, directory):
        return subprocess.Popen([CHECK, "-s", "127.0.0.1", "-p", self.port, "-d", directory, "-b",
                                 "4K", "-n", "32", "-t", "2"],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)


@contextlib.contextmanager
def server():
    one = Server()
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait()
        one.process.stdout.close()


def write_until_power_cut(disk, one):
    """A client writes several rounds; then it and what the disk has in its cache are gone."""
    client = one.client(disk.mount_point)
    try:
        check("writing" in client.stdout.readline(), "the client does not begin to write")
        one.until("100 durable writes")
    finally:
        client.kill()
        client.wait()
        client.stdout.close()
    one.until("gone after")
    disk.cut_power()


def an_honest_disk_is_not_accused():
    with harness.faulty_disk() as disk, server() as one:
        disk.spoil("cache write")
        write_until_power_cut(disk, one)
        client = one.client(disk.mount_point)
        try:
            one.until("kept all")
            client.send_signal(signal.SIGINT)
            check(client.wait(10) == 0, client.stdout.read())
        finally:
            client.kill()
            client.wait()
            client.stdout.close()
        check(one.stop() == 0, "the server ends with an error although nothing was lost")


def a_disk_that_lies_is_found():
    with harness.faulty_disk() as disk, server() as one:
        # Honest while the files are made, as a disk mostly is.
        client = one.client(disk.mount_point)
        check("writing" in client.stdout.readline(), "the client does not begin to write")
        client.send_signal(signal.SIGTERM)
        check(client.wait(10) == 0, client.stdout.read())
        client.stdout.close()
        one.until("gone after")
        disk.spoil("cache write", "lie sync")
        write_until_power_cut(disk, one)
        disk.spoil()
        client = one.client(disk.mount_point)
        text = client.communicate(timeout=20)[0]
        check(client.returncode == 1, f"exit {client.returncode}: {text}")
        check("cache error detected!" in text and "had called durable" in text, text)
        one.until("cache error detected!")
        check(one.stop() == 1, "the server does not end with an error")


def bad_input_gets_one_line():
    for arguments, code, what in (
            ((), 2, "give -l"), (("-s", "127.0.0.1"), 2, "-d DIR"),
            (("-l", "-s", "127.0.0.1"), 2, "excludes"),
            (("-s", "127.0.0.1", "-p", "1", "-d", "/tmp"), 1, "no pstorage-hwflush-check -l"),
            (("-s", "127.0.0.1", "-d", "/tmp", "-b", "1000"), 1, "multiple of 512"),
            (("-s", "127.0.0.1", "-d", "/nowhere"), 2, "nowhere")):
        status, text = run(CHECK, *arguments, ok=False)
        check(status == code and what in text and len(text.splitlines()) == 1,
              f"{arguments}: exit {status}: {text}")


if __name__ == "__main__":
    harness.main(bad_input_gets_one_line, an_honest_disk_is_not_accused, a_disk_that_lies_is_found)
