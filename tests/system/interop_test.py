#!/usr/bin/python3
"""Clients that nobody here wrote, against a cluster volume: nbdinfo, nbdcopy, qemu-img, qemu-io,
nbdsh, fio, mke2fs, nbdkit's proxy with filters."""
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import check, cluster, main, run  # noqa: E402


def sha(path):
    return run("sha256sum", path)[1].split()[0]


def real_clients_work():
    with cluster(cs=3, replicas="3:2") as one, \
            tempfile.TemporaryDirectory(prefix="pstorage-interop-") as directory:
        one.volume("vm1", "256M")
        one.volume("vm2", "256M")
        uri = one.uri("vm1")
        nbdinfo(one, uri)
        copy_in_and_out(one, uri, directory)
        qemu(one, directory)
        unaligned(one)
        space_returns(one)
        file_system(one, directory)
        through_nbdkit(one, directory)


def nbdinfo(one, uri):
    info = run("nbdinfo", uri)[1]
    for wanted in ("export-size: 268435456", "can_flush: true", "can_fua: true",
                   "can_multi_conn: true", "can_trim: true", "can_zero: true",
                   "base:allocation"):
        check(wanted in info, f"nbdinfo does not say {wanted}:\n{info}")
    listing = run("nbdinfo", "--list", f"nbd+unix:///?socket={one.socket}")[1]
    check('export="vm1"' in listing and 'export="vm2"' in listing, f"exports missing:\n{listing}")
    fresh = run("nbdinfo", "--map", uri)[1]
    check(re.search(r"0\s+268435456\s+3\s+hole,zero", fresh), f"a new volume has data:\n{fresh}")
    code, text = run("nbdinfo", one.uri("nobody"), ok=False)
    check(code != 0 and "nobody" in text, f"an unknown export was served: {text}")


def copy_in_and_out(one, uri, directory):
    source = os.path.join(directory, "source.raw")
    with open(source, "wb") as file:
        file.truncate(256 << 20)
        for offset in (0, 1 << 20, (64 << 20) - 4096, (128 << 20) + 512, (256 << 20) - 70000):
            file.seek(offset)
            file.write(os.urandom(65536 + 1234))
        file.truncate(256 << 20)
    run("nbdcopy", "--connections=4", source, uri)
    back = os.path.join(directory, "back.raw")
    run("nbdcopy", "--connections=4", uri, back)
    check(sha(source) == sha(back), "nbdcopy in and out: the bytes differ")
    mapped = run("nbdinfo", "--map=base:allocation", uri)[1]
    check("hole,zero" in mapped, f"nbdcopy of a sparse file left no holes:\n{mapped}")
    code, text = run("qemu-img", "compare", "-f", "raw", "-F", "raw", source, uri, ok=False)
    check(code == 0 and "identical" in text, f"qemu-img compare: {text}")


def qemu(one, directory):
    qcow = os.path.join(directory, "image.qcow2")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", one.uri("vm1"), qcow)
    run("qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", qcow, one.uri("vm2"))
    code, text = run("qemu-img", "compare", "-f", "raw", "-F", "raw", one.uri("vm1"),
                     one.uri("vm2"), ok=False)
    check(code == 0, f"the two volumes differ: {text}")


def unaligned(one):
    # Across blocks and across the border of the first 64 MiB chunk, down to one byte.
    commands = []
    for pattern, offset, length in ((0x11, 1, 1), (0x22, 4095, 2), (0x33, 67108863, 2),
                                    (0x44, 67108000, 70000), (0x55, 512, 512),
                                    (0x66, 268435455, 1), (0x77, 1048577, 3145727)):
        commands += ["-c", f"write -P {pattern} {offset} {length}",
                     "-c", f"read -P {pattern} {offset} {length}"]
    commands += ["-c", "write -z 67100000 20000", "-c", "read -P 0 67100000 20000",
                 "-c", "discard 0 1M", "-c", "write -f -P 9 8k 4k", "-c", "read -P 9 8k 4k",
                 "-c", "write -P 8 0 32M", "-c", "read -P 8 0 32M", "-c", "flush"]
    code, text = run("qemu-io", "-f", "raw", *commands, one.uri("vm2"), ok=False)
    check(code == 0 and "verification failed" not in text, f"qemu-io:\n{text}")
    script = ("h.connect_uri(uri)\n"
              "h.pwrite(b'x' * 100, 12345)\n"
              "assert h.pread(100, 12345) == b'x' * 100\n"
              "h.trim(4096 * 4, 4096 * 2)\n"
              "h.zero(8192, 1 << 20, nbd.CMD_FLAG_FAST_ZERO)\n"
              "assert h.pread(8192, 1 << 20) == bytes(8192)\n"
              "h.flush()\n")
    run("/usr/bin/python3", "-c", f"import nbd\nh = nbd.NBD()\nuri = '{one.uri('vm2')}'\n{script}")
    # nbdsh starts the first python3 of the PATH; libnbd's binding belongs to Debian's.
    done = subprocess.run(["nbdsh", "-u", one.uri("vm2"), "-c", "print(h.get_size())"],
                          stdout=subprocess.PIPE, text=True, check=True,
                          env=dict(os.environ, PATH="/usr/bin:/bin"))
    check(done.stdout.strip() == str(256 << 20), "nbdsh sees another size")


def chunk_space(one):
    return int(run("du", "-s", "--block-size=1", one.home)[1].split()[0])


def space_returns(one):
    one.volume("trim", "256M")
    handle = one.connect("trim")
    before = chunk_space(one)
    for offset in range(0, 96 << 20, 8 << 20):
        handle.pwrite(os.urandom(8 << 20), offset)
    handle.flush()
    full = chunk_space(one)
    check(full - before > 250 << 20, f"3 x 96 MiB took only {full - before} bytes")
    for offset in range(0, 96 << 20, 32 << 20):
        handle.trim(32 << 20, offset)
    handle.flush()
    handle.shutdown()
    for _ in range(100):
        if chunk_space(one) - before < 60 << 20:
            break
        run("sleep", "0.2")
    left = chunk_space(one) - before
    check(left < 60 << 20, f"after the trim {left} bytes are still taken")
    for _ in range(50):  # the server keeps an export for 2 s after its last client
        if run("pstorage", "-q", "volume", "rm", "trim", ok=False, env=one.environment)[0] == 0:
            return
        run("sleep", "0.2")
    check(False, "the volume cannot be removed")


def file_system(one, directory):
    """A real file system made over the socket: mke2fs on a sparse copy, checked by e2fsck."""
    image = os.path.join(directory, "ext4.raw")
    tree = os.path.join(directory, "tree")
    shutil.copytree(os.path.dirname(os.path.abspath(__file__)), tree)
    with open(image, "wb") as file:
        file.truncate(256 << 20)
    run("mke2fs", "-q", "-t", "ext4", "-d", tree, image)
    run("nbdcopy", image, one.uri("vm1"))
    back = os.path.join(directory, "ext4.back")
    run("nbdcopy", one.uri("vm1"), back)
    run("e2fsck", "-fn", back)
    out = os.path.join(directory, "out")
    os.mkdir(out)
    run("debugfs", "-R", f"rdump / {out}", back)
    shutil.rmtree(os.path.join(out, "lost+found"), ignore_errors=True)
    run("diff", "--recursive", tree, out)


def through_nbdkit(one, directory):
    """nbdkit's proxy before the server, with filters that are slow, fail, and connect again."""
    source = os.path.join(directory, "proxied.raw")
    with open(source, "wb") as file:
        file.write(os.urandom(8 << 20))
    again = ["--filter=retry", "--filter=error", "--filter=delay", "nbd", f"uri={one.uri('vm2')}",
             "retries=20", "retry-delay=1", "retry-exponential=no"]
    for faults in (["delay-read=3ms", "delay-write=3ms"], ["error=EIO", "error-rate=4%"]):
        script = f'nbdcopy --requests=8 {source} "$uri" && nbdcopy --requests=8 "$uri" {source}.back'
        if faults[0] == "error=EIO":  # without the filter that tries again it fails
            code, text = run("nbdkit", "-U", "-", "--filter=error", "nbd", f"uri={one.uri('vm2')}",
                             "error=EIO", "error-rate=100%", "--run", script, ok=False)
            check(code != 0 and "Input/output error" in text, f"the filter does not fail: {text}")
        run("nbdkit", "-U", "-", *again, *faults, "--run", script)
        run("cmp", "--bytes", str(8 << 20), source, source + ".back")
        os.unlink(source + ".back")


class Qemu_io:
    """A qemu-io that stays, on a volume, and waits for the server when that is away."""

    def __init__(self, one, name):
        self.process = subprocess.Popen(
            ["qemu-io", "--image-opts", "driver=nbd,reconnect-delay=60,server.type=unix,"
             f"server.path={one.socket},export={name}"],
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def say(self, *commands):
        for command in commands:
            self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def end(self):
        """All that it said; a verification that fails is in it."""
        text = self.process.communicate("quit\n", timeout=120)[0]
        check(self.process.returncode == 0 and
              not re.search("fail|error|verif", text, re.IGNORECASE), f"qemu-io:\n{text}")
        return text


def qemu_connects_again():
    """qemu's reconnect-delay, through kill -9 and restarts of the server under load: no request
    fails, and everything answered is there."""
    with cluster(cs=2, replicas="2:1") as one:
        one.volume("vm1", "64M", "ploop")
        guest = Qemu_io(one, "vm1")
        rounds = 3
        for number in range(rounds):
            # What is sent before the server dies, and what finds it dead.
            guest.say(*(f"aio_write -P {1 + (number * 7 + at) % 250} {at * 500}k 64k"
                        for at in range(60)))
            one.kill("nbd")
            guest.say("aio_flush", *(f"read -P {1 + (number * 7 + at) % 250} {at * 500}k 64k"
                                     for at in range(60)), "flush")
            one.start("nbd")
        text = guest.end()
        check(text.count("wrote 65536") == rounds * 60 and text.count("read 65536") == rounds * 60,
              f"requests are missing:\n{text}")
        check_pattern(one, rounds)


def check_pattern(one, rounds):
    """By another client, on a connection of its own."""
    commands = [word for at in range(60) for word in
                ("-c", f"read -P {1 + ((rounds - 1) * 7 + at) % 250} {at * 500}k 64k")]
    text = run("qemu-io", "-f", "raw", "-r", *commands, one.uri("vm1"))[1]
    check("fail" not in text and text.count("read 65536") == 60, text)


class Extended_client:
    """NBD with extended headers, which no client of Debian 12 knows. One request at a time."""

    def __init__(self, path, export):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        check(self.take(">QQH") == (0x4e42444d41474943, 0x49484156454f5054, 3), "greeting")
        self.socket.sendall(struct.pack(">I", 3))
        name = struct.pack(">I", len(export)) + export.encode()
        query = b"base:allocation"
        self.option(11)
        self.option(10, name + struct.pack(">II", 1, len(query)) + query)
        self.option(7, name + struct.pack(">H", 0))

    def bytes(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            check(part, "the server has hung up")
            data += part
        return data

    def take(self, form):
        return struct.unpack(form, self.bytes(struct.calcsize(form)))

    def option(self, number, data=b""):
        self.socket.sendall(struct.pack(">QII", 0x49484156454f5054, number, len(data)) + data)
        while True:
            magic, option, kind, length = self.take(">QIII")
            text = self.bytes(length)
            check(magic == 0x3e889045565a9 and option == number and kind < 1 << 31,
                  f"option {number}: {kind:x} {text}")
            if kind == 1:
                return

    def ask(self, command, offset, length, flags=0, data=b""):
        """The type and data of the only chunk of the reply."""
        self.socket.sendall(struct.pack(">IHHQQQ", 0x21e41c71, flags, command, 42, offset, length)
                            + data)
        magic, done, kind, cookie, at, size = self.take(">IHHQQQ")
        check((magic, done, cookie, at) == (0x6e8a278c, 1, 42, offset), f"{magic:x} {cookie} {at}")
        return kind, self.bytes(size)

    def status(self, offset, length):
        kind, data = self.ask(7, offset, length)
        context, count = struct.unpack_from(">II", data)
        check(kind == 6 and context == 1 and len(data) == 8 + 16 * count, f"{kind} {data[:40]}")
        return [struct.unpack_from(">QQ", data, 8 + 16 * i) for i in range(count)]


def extended_headers():
    gib = 1 << 30
    with cluster(cs=3, replicas="3:2") as one:
        for image_format in ("raw", "ploop"):
            one.volume(image_format, "12G", image_format=image_format)
            client = Extended_client(one.socket, image_format)
            check(client.status(0, 12 * gib) == [(12 * gib, 3)], "a new volume is one hole")
            data = os.urandom(1 << 20)
            for place in (0, 5 * gib, 12 * gib - len(data)):
                check(client.ask(1, place, len(data), 1 << 5, data) == (0, b""), "write")
                kind, back = client.ask(0, place, len(data))
                check(kind == 1 and back == struct.pack(">Q", place) + data, "read")
            mib = len(data)
            check(client.status(0, 12 * gib) == [(mib, 0), (5 * gib - mib, 3), (mib, 0),
                                                 (7 * gib - 2 * mib, 3), (mib, 0)], "block status")
            text = run("nbdinfo", "--map", one.uri(image_format))[1]
            check(len(text.splitlines()) == 5, f"libnbd beside it sees something else:\n{text}")
            check(client.ask(4, mib, 12 * gib - mib) == (0, b""), "trim")
            check(client.status(0, 12 * gib) == [(mib, 0), (12 * gib - mib, 3)], "after the trim")
            check(client.ask(6, 0, 12 * gib, 1) == (0, b""), "write zeroes, FUA")
            check(client.status(0, 12 * gib) == [(12 * gib, 3)], "after the zeroes")
            kind, back = client.ask(0, 0, mib)
            check(kind == 1 and back[8:] == bytes(mib), "zeros read back")


if __name__ == "__main__":
    main(real_clients_work, extended_headers, qemu_connects_again)
