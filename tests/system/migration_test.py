#!/usr/bin/python3
"""Live migration: a volume goes from one host's pstorage-nbd to another's while a guest uses it.
The hosts are network namespaces."""
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import Guest  # noqa: E402
from harness import (BLOCK, block_content, check, cluster, content_version, main,  # noqa: E402
                     nbd, run, skip)

BLOCKS = 256


class Host_server:
    """pstorage-nbd on host `number` of a cluster with --hosts, at a unix socket."""

    def __init__(self, one, number):
        self.socket = os.path.join(one.home, f"nbd{number}.sock")
        self.log = os.path.join(one.home, f"nbd-host{number}.log")
        self.prefix = ["nsenter", "-t", str(one.pid(f"cs{number}")), "-n"]
        environment = dict(one.environment, PSTORAGE_HOST_ID=f"00000000de7{number:05x}")
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [*self.prefix, "pstorage-nbd", "-c", one.environment["PSTORAGE_NAME"], "-U",
                 self.socket, "--wait", "1"], env=environment, stdout=log, stderr=log)
        end = time.monotonic() + 30
        while not os.path.exists(self.socket):
            check(self.process.poll() is None and time.monotonic() < end, self.said())
            time.sleep(0.02)

    def said(self):
        with open(self.log, encoding="utf-8") as file:
            return file.read()

    def uri(self, export):
        return f"nbd+unix:///{export}?socket={self.socket}"

    def connect(self, export):
        handle = nbd.NBD()
        handle.connect_uri(self.uri(export))
        return handle

    def down(self):
        self.process.terminate()
        self.process.wait()


@contextlib.contextmanager
def two_hosts(image_format):
    if os.geteuid() != 0:
        skip("network namespaces need root")
    with cluster(cs=2, replicas="2:1", extra=["--hosts"]) as one:
        one.volume("vm1", "64M", image_format)
        servers = [Host_server(one, 1), Host_server(one, 2)]
        try:
            yield one, *servers
        finally:
            for server in servers:
                server.down()


def refused(what, action):
    try:
        action()
    except nbd.Error:
        return
    raise AssertionError(what)


def one_after_the_other():
    for image_format in ("ploop", "raw"):
        with two_hosts(image_format) as (one, source, target):
            hand_over(one, source, target)


def hand_over(one, source, target):
    here = source.connect("vm1")
    for block in range(BLOCKS):
        here.pwrite(block_content(block, 1), block * BLOCK)
    refused("a second host serves a volume in use", lambda: target.connect("vm1"))
    one.pstorage("-q", "volume", "allow-migration", "vm1", "--for", "0")
    refused("migration is over", lambda: target.connect("vm1"))
    one.pstorage("-q", "volume", "allow-migration", "vm1")
    there = target.connect("vm1")
    check(there.get_size() == 64 << 20, "size before the disk has come")
    # Reading on either side, and writing at the source, goes on until the target writes.
    for version in (1, 2, 3):
        for block in range(BLOCKS):
            here.pwrite(block_content(block, version), block * BLOCK)
        here.flush()
        for block in range(0, BLOCKS, 16):
            found = content_version(block, there.pread(BLOCK, block * BLOCK))
            check(found == version, f"block {block}: {found}, not {version}")
    there.pwrite(block_content(7, 4), 7 * BLOCK)
    refused("the source writes after the target", lambda: here.pwrite(bytes(BLOCK), 0))
    refused("the source reads after the target", lambda: source.connect("vm1").pread(BLOCK, 0))
    for block in range(BLOCKS):
        found = content_version(block, there.pread(BLOCK, block * BLOCK))
        check(found == (4 if block == 7 else 3), f"block {block}: {found}")
    # And back, with a migration of its own.
    one.pstorage("-q", "volume", "allow-migration", "vm1")
    back = source.connect("vm1")
    back.pwrite(block_content(8, 5), 8 * BLOCK)
    check(content_version(7, back.pread(BLOCK, 7 * BLOCK)) == 4, "the target's write")
    refused("the first target writes", lambda: there.pwrite(bytes(BLOCK), 0))
    back.shutdown()


WRITING_GUEST = """
fio --name=verify --filename=/dev/vda --size=8M --rw=randwrite --bs=4k --direct=1 --fsync=32 \
    --verify=crc32c --do_verify=1 --verify_fatal=1 --rate_iops=150 --eta=never --output=/tmp/fio &
writer=$!
while [ "$(cut -d ' ' -f 7 /sys/block/vda/stat | tr -d ' ')" = 0 ]; do usleep 100000; done
host migrate
wait $writer || { cat /tmp/fio; exit 1; }
fio --name=verify --filename=/dev/vda --size=8M --rw=randwrite --bs=4k --direct=1 \
    --verify=crc32c --verify_only --verify_fatal=1 --eta=never --output=/tmp/fio || {
  cat /tmp/fio; exit 1; }
"""


class Monitor:
    """QEMU's QMP socket."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("rw", encoding="utf-8")
        self.file.readline()
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        json.dump({"execute": command, "arguments": arguments}, self.file)
        self.file.write("\n")
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if "event" not in answer:
                check("return" in answer, f"{command}: {answer}")
                return answer["return"]


def two_real_qemus():
    """A guest writes and verifies; QEMU moves it, its disk goes along; it notices nothing."""
    with two_hosts("ploop") as (one, source, target), \
            tempfile.TemporaryDirectory(prefix="pstorage-migration-") as directory:
        def machine(server, name):
            drive = (f"if=virtio,format=raw,cache=none,file={server.uri('vm1')}")
            return ["-drive", drive, "-qmp", f"unix:{directory}/{name},server=on,wait=off"]

        with Guest(WRITING_GUEST, programs=["fio"], modules=["virtio_blk"]) as first, \
                first.twin() as second:
            def migrate():
                one.pstorage("-q", "volume", "allow-migration", "vm1")
                second.start(*machine(target, "second"), "-incoming", f"unix:{directory}/stream")
                end = time.monotonic() + 30
                while not os.path.exists(f"{directory}/stream"):
                    check(time.monotonic() < end, "the second QEMU does not start")
                    time.sleep(0.05)
                Monitor(f"{directory}/first").ask("migrate", uri=f"unix:{directory}/stream")

            first.hooks["migrate"] = migrate
            first.start(*machine(source, "first"))
            code, output = second_ends(first, second)
            check(code == 0, f"the guest after the migration: exit {code}\n{output}")
            status = Monitor(f"{directory}/first").ask("query-migrate")
            check(status["status"] == "completed", f"{status}")
            print(f"   guest stopped for {status['downtime']} ms", flush=True)
        check("handed a volume over" in source.said() and "took a volume over" in target.said(),
              "the volume did not move")
        refused("the source writes on", lambda: source.connect("vm1").pwrite(bytes(512), 0))


def second_ends(first, second, patience=180):
    end = time.monotonic() + patience
    while second.process is None or second.code is None:
        if first.code is not None or first.trouble or time.monotonic() > end:
            raise AssertionError(f"{first.code} {first.trouble}\n{first.output()}\n"
                                 f"{first.console()[-2000:]}\n{second.console()[-2000:]}")
        time.sleep(0.1)
    return second.code, second.output()


if __name__ == "__main__":
    main(one_after_the_other, two_real_qemus)
