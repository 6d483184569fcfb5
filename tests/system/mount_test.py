#!/usr/bin/python3
"""pstorage-mount: two hosts share files by the rules, one host uses them like any file system, and
nothing that was flushed is lost when the mount, a chunk server or a host dies."""
import concurrent.futures
import contextlib
import errno
import mmap
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import check, cluster, main, own_hosts, run  # noqa: E402

FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE = 1, 2, 16


def until(condition, what, patience=40):
    end = time.monotonic() + patience
    while not condition():
        check(time.monotonic() < end, f"{what}: not within {patience} s")
        time.sleep(0.05)


def fails_with(code, what, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except OSError as error:
        check(error.errno == code, f"{what}: {error}, not {errno.errorcode[code]}")
        return
    raise AssertionError(f"{what}: no error, not {errno.errorcode[code]}")


class Mount:
    """pstorage-mount of a cluster on this host."""

    def __init__(self, one, name="mnt", extra=()):
        self.one = one
        self.extra = extra
        self.path = os.path.join(one.directory, name)
        self.log = os.path.join(one.home, f"{name}.log")
        self.process = None
        os.makedirs(self.path, exist_ok=True)

    def up(self):
        self.process = subprocess.Popen(
            ["pstorage-mount", "-f", "-l", self.log, *self.extra, self.path], env=self.one.environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: os.path.ismount(self.path) or self.process.poll() is not None, "mount")
        check(self.process.poll() is None, "pstorage-mount has ended")
        return self

    def down(self):
        """The ordinary end: everything is flushed and the process says so."""
        run("umount", self.path)
        check(self.process.wait(40) == 0, "pstorage-mount did not end in order")

    def kill(self):
        self.process.kill()
        self.process.wait(20)

    def clear(self):
        """What a dead mount has left."""
        run("umount", "-l", self.path)

    def text(self):
        with open(self.log, encoding="utf-8") as file:
            return file.read()

    def __truediv__(self, name):
        return os.path.join(self.path, name)


@contextlib.contextmanager
def mounted(one, name="mnt", extra=()):
    mount = Mount(one, name, extra).up()
    try:
        yield mount
    finally:
        if mount.process.poll() is None:
            run("umount", "-l", mount.path, ok=False)
            with contextlib.suppress(subprocess.TimeoutExpired):
                mount.process.wait(20)
            if mount.process.poll() is None:
                mount.kill()
        run("umount", "-l", mount.path, ok=False)


# ---------------------------------------------------------------- one host

def names(mnt):
    os.makedirs(mnt / "a/b")
    with open(mnt / "a/file", "w", encoding="ascii") as file:
        file.write("hello")
    os.rename(mnt / "a/file", mnt / "a/b/moved")
    check(os.listdir(mnt / "a") == ["b"], "rename left something")
    os.link(mnt / "a/b/moved", mnt / "hard")
    check(os.stat(mnt / "hard").st_nlink == 2, "hard link")
    os.symlink("a/b/moved", mnt / "soft")
    check(os.readlink(mnt / "soft") == "a/b/moved", "symbolic link")
    with open(mnt / "soft", encoding="ascii") as file:
        check(file.read() == "hello", "through a symbolic link")
    code, _ = run("mv", "--no-clobber", mnt / "hard", mnt / "soft", ok=False)
    check(os.path.exists(mnt / "hard"), f"RENAME_NOREPLACE: {code}")
    fails_with(errno.ENOTEMPTY, "rmdir", os.rmdir, mnt / "a")
    fails_with(errno.EINVAL, "into itself", os.rename, mnt / "a", mnt / "a/b/c")
    fails_with(errno.EISDIR, "unlink of a directory", os.unlink, mnt / "a")
    fails_with(errno.ENOTDIR, "rmdir of a file", os.rmdir, mnt / "hard")
    fails_with(errno.EILSEQ, "a name that is not UTF-8", os.mkdir,
               os.path.join(mnt.path.encode(), b"\xff\xfe"))
    fails_with(errno.EINVAL, "a name with a line break", os.mkdir, mnt / "a\nb")
    fails_with(errno.EOPNOTSUPP, "a pipe", os.mkfifo, mnt / "pipe")
    os.mkdir(mnt / "many")
    with concurrent.futures.ThreadPoolExecutor(16) as threads:  # the MDS stores many at once
        links = [mnt / f"many/link-{i}" for i in range(1100)]
        list(threads.map(lambda link: os.symlink("x", link), links))
        check(len(os.listdir(mnt / "many")) == 1100, "a directory of several pages")
        list(threads.map(os.unlink, links))
    os.rmdir(mnt / "many")
    with open(mnt / "open", "w+b") as file:
        file.write(b"still here")
        file.flush()
        os.unlink(mnt / "open")
        file.seek(0)
        check(file.read() == b"still here", "a file without a name is lost")
        check(os.fstat(file.fileno()).st_nlink == 0, "links of a removed file")
    fails_with(errno.ENOENT, "removed", os.stat, mnt / "open")
    shutil.rmtree(mnt / "a")


def attributes(mnt):
    path = mnt / "attributes"
    with open(path, "wb") as file:
        file.write(b"x" * 5000)
    os.chmod(path, 0o4750)
    os.chown(path, 12, 34)
    os.utime(path, ns=(5, 1_234_567_890_123_456_789))
    found = os.stat(path)
    check(stat.S_IMODE(found.st_mode) == 0o750, f"the owner's change keeps set-user-id: {found}")
    check((found.st_uid, found.st_gid, found.st_size) == (12, 34, 5000), f"{found}")
    check(found.st_mtime_ns == 1_234_567_890_123_456_789, f"time {found.st_mtime_ns}")
    time.sleep(0.4)  # the lease goes back with size and time
    check(os.stat(path).st_mtime_ns == 1_234_567_890_123_456_789, "time at the MDS")
    check(os.getxattr(path, "user.pstorage.replicas") == b"3:2", "replicas")
    os.setxattr(path, "user.pstorage.replicas", b"2:1")
    check(os.getxattr(path, "user.pstorage.replicas") == b"2:1", "replicas were not set")
    os.setxattr(path, "user.pstorage.failure-domain", b"disk")
    check(os.getxattr(path, "user.pstorage.failure-domain") == b"disk", "failure domain")
    check("user.pstorage.tier" in os.listxattr(path), "list of attributes")
    fails_with(errno.EINVAL, "nonsense", os.setxattr, path, "user.pstorage.replicas", b"x")
    fails_with(errno.EOPNOTSUPP, "another attribute", os.setxattr, path, "user.mine", b"x")
    shown = os.statvfs(mnt.path)
    shown_again = os.statvfs(mnt.path)
    check(0 < shown.f_bavail <= shown.f_blocks, f"free space {shown}")
    text = mnt.one.pstorage("-q", "stat")
    total = re.search(r"allocatable \S+ of (\d+)", text)
    unit = 10**9 if f"{total[1]}GB" in text else 10**12
    found_total = shown_again.f_blocks * shown_again.f_frsize
    check(abs(found_total / unit - int(total[1])) < 2 + found_total / unit / 10,
          f"total space {found_total}: {text}")


def holes(mnt):
    path = mnt / "sparse"
    with open(path, "w+b") as file:
        fd = file.fileno()
        os.pwrite(fd, b"a" * 8192, 1 << 20)
        os.pwrite(fd, b"b" * 4096, 200 << 20)
        check(os.lseek(fd, 0, os.SEEK_DATA) == 1 << 20, "first data")
        check(os.lseek(fd, 1 << 20, os.SEEK_HOLE) == (1 << 20) + 8192, "hole behind it")
        check(os.lseek(fd, 2 << 20, os.SEEK_DATA) == 200 << 20, "second data")
        fails_with(errno.ENXIO, "behind the data", os.lseek, fd, (200 << 20) + 4096, os.SEEK_DATA)
        run("fallocate", "--punch-hole", "--offset", str(1 << 20), "--length", "4096", path)
        check(os.lseek(fd, 0, os.SEEK_DATA) == (1 << 20) + 4096, "a hole was not punched")
        check(os.pread(fd, 8192, 1 << 20) == bytes(4096) + b"a" * 4096, "around the hole")
        os.posix_fallocate(fd, 0, 300 << 20)
        check(os.fstat(fd).st_size == 300 << 20, "fallocate makes it longer")
        code, _ = run("fallocate", "--keep-size", "--length", "1G", path, ok=False)
        check(code != 0, "nothing can be reserved")
        os.ftruncate(fd, (1 << 20) + 5000)
        os.ftruncate(fd, 2 << 20)
        check(os.pread(fd, 4096, (1 << 20) + 4096) == b"a" * 904 + bytes(3192),
              "what was cut off came back")
    os.unlink(path)


def random_operations(mnt, operations=5000, seed=int.from_bytes(os.urandom(4), "little")):
    """Like fsx: the file always equals a model in memory."""
    print(f"random_operations: seed {seed}", flush=True)
    draw = random.Random(seed)
    path, limit = mnt / "fsx", 3 << 20
    model = bytearray()
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    libc = __import__("ctypes").CDLL(None, use_errno=True)
    offset_type = __import__("ctypes").c_long

    def span():
        start = draw.randrange(limit)
        return start, min(limit - start, draw.choice((1, 511, 4096, 10000, 70000)) + draw.randrange(99))

    def extend(size):
        if len(model) < size:
            model.extend(bytes(size - len(model)))

    for number in range(operations):
        kind = draw.randrange(100)
        start, length = span()
        if kind < 35:
            data = draw.randbytes(length)
            os.pwrite(fd, data, start)
            extend(start + length)
            model[start:start + length] = data
        elif kind < 70:
            found = os.pread(fd, length, start)
            check(found == model[start:start + length], f"operation {number}: read {start}+{length}")
        elif kind < 80:
            os.ftruncate(fd, start)
            extend(start)
            del model[start:]
        elif kind < 90:
            keep = draw.random() < 0.5
            mode = FALLOC_ZERO_RANGE | (FALLOC_KEEP_SIZE if keep else 0)
            if draw.random() < 0.5:
                mode, keep = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, True
            check(libc.fallocate(fd, mode, offset_type(start), offset_type(length)) == 0, "fallocate")
            if not keep:
                extend(start + length)
            end = min(start + length, len(model))
            if start < end:
                model[start:end] = bytes(end - start)
        elif kind < 94 and model:
            with mmap.mmap(fd, 0) as view:
                at = draw.randrange(len(model))
                check(view[at] == model[at], f"operation {number}: mapping at {at}")
                view[at] = model[at] = draw.randrange(256)
        elif kind < 96:
            os.fsync(fd)
        elif kind < 97:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        elif kind < 98:
            os.close(fd)
            if draw.random() < 0.3:
                time.sleep(0.15)  # long enough for the lease to go back
            fd = os.open(path, os.O_RDWR)
        else:
            check(os.fstat(fd).st_size == len(model), f"operation {number}: size")
    check(os.pread(fd, limit * 2, 0) == bytes(model), "content at the end")
    os.close(fd)
    with open(path, "rb") as file:
        check(file.read() == bytes(model), "content after closing")
    os.unlink(path)


def fio_verify(mnt):
    run("fio", "--name=verify", "--verify_state_save=0", f"--filename={mnt / 'fio'}", "--rw=randwrite", "--bs=4k-64k",
        "--size=16m", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--ioengine=libaio",
        "--iodepth=8", "--direct=1", "--fsync=64", "--bs_unaligned=0", timeout=180)
    os.unlink(mnt / "fio")


def images(mnt):
    raw, image = mnt / "raw.img", mnt / "disk.qcow2"
    with open(raw, "wb") as file:
        file.truncate(32 << 20)
        for i in range(0, 32, 4):
            file.seek(i << 20)
            file.write(random.Random(i).randbytes(200_000))
    run("qemu-img", "create", "-q", "-f", "qcow2", image, "64M")
    run("qemu-img", "convert", "-O", "qcow2", raw, image)
    run("qemu-img", "check", "-q", image)
    run("qemu-img", "compare", "-q", raw, image)
    disk = mnt / "disk.hdd"
    os.mkdir(disk)
    run("pstorage-ploop", "init", "-s", "64M", "-t", "none", os.path.join(disk, "root.hds"),
        env=mnt.one.environment)
    run("pstorage-ploop", "check", os.path.join(disk, "root.hds"), env=mnt.one.environment)
    if shutil.which("ploop"):
        run("ploop", "check", "-f", os.path.join(disk, "root.hds"))
    for path in (raw, image):
        os.unlink(path)
    shutil.rmtree(disk)


def a_tree(mnt, files=int(os.environ.get("PSTORAGE_TREE_FILES", "300"))):
    """Packed on a local disk, unpacked here, packed again: the same."""
    source = os.path.join(mnt.one.directory, "tree")
    draw = random.Random(7)
    for number in range(files):
        folder = os.path.join(source, f"d{number % 23}")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"file {number}"), "wb") as file:
            file.write(draw.randbytes(draw.choice((0, 10, 3000, 9000))))
    archive = source + ".tar"
    run("tar", "-cf", archive, "-C", source, ".")
    os.mkdir(mnt / "tree")
    run("tar", "-xf", archive, "-C", mnt / "tree", timeout=300)
    run("diff", "-r", source, mnt / "tree", timeout=300)
    run("tar", "-df", archive, "-C", mnt / "tree", timeout=300)
    run("rm", "-r", mnt / "tree", timeout=300)


class Appender(threading.Thread):
    """Appends numbered records, a fsync each, and remembers how many were flushed."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.flushed, self.error = path, 0, None
        self.stopping = threading.Event()

    @staticmethod
    def record(number):
        return f"{number:010d}".encode().ljust(511, b".") + b"\n"

    def run(self):
        try:
            fd = os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            while not self.stopping.is_set():
                os.write(fd, self.record(self.flushed))
                os.fsync(fd)
                self.flushed += 1
            os.close(fd)
        except OSError as error:
            self.error = error

    def finish(self):
        self.stopping.set()
        self.join(60)
        check(not self.is_alive(), "a request was not answered within 60 s")

    def verify(self):
        with open(self.path, "rb") as file:
            for number in range(self.flushed):
                check(file.read(512) == self.record(number), f"record {number} is lost")


def a_chunk_server_dies_under_load(mnt):
    writer = Appender(mnt / "log")
    writer.start()
    until(lambda: writer.flushed > 20, "writing")
    mnt.one.kill("cs2")
    seen = writer.flushed
    until(lambda: writer.flushed > seen + 50, "writing goes on without cs2")
    mnt.one.start("cs2")
    writer.finish()
    check(writer.error is None, f"a write failed: {writer.error}")
    writer.verify()
    os.unlink(writer.path)


def killed_under_load(mnt):
    writer = Appender(mnt / "log")
    writer.start()
    until(lambda: writer.flushed > 50, "writing")
    mnt.kill()
    writer.finish()
    check(writer.error is not None and writer.error.errno in (errno.ENOTCONN, errno.ECONNABORTED),
          f"a write after the kill: {writer.error}")
    fails_with(errno.ENOTCONN, "a dead mount", os.listdir, mnt.path)
    code, text = run("pstorage-mount", "-f", mnt.path, env=mnt.one.environment, ok=False)
    check(code == 1 and "umount -l" in text, f"over a dead mount: {text}")
    mnt.clear()
    mnt.up()
    writer.verify()  # waits until the lease of the dead one has ended
    check(os.stat(writer.path).st_size >= writer.flushed * 512, "size")
    with open(writer.path, "ab") as file:
        file.write(b"more")


def like_any_file_system():
    with cluster(cs=3, replicas="3:2") as one, mounted(one) as mnt:
        for part in (names, attributes, holes, random_operations, fio_verify, images, a_tree,
                     a_chunk_server_dies_under_load, killed_under_load):
            begin = time.monotonic()
            part(mnt)
            print(f"  {part.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
        left = mnt / "left"
        with open(left, "wb") as file:
            file.write(b"written just before the end")
        mnt.down()
        check("everything is flushed" in mnt.text(), "the log does not tell of the end")
        mnt.up()
        with open(left, "rb") as file:
            check(file.read() == b"written just before the end", "lost at umount")


# ---------------------------------------------------------------- read cache

def counted(mnt, name):
    """Of the last end in order."""
    return int(re.findall(rf"read cache closed.*\b{name}=(\d+)", mnt.text())[-1])


def read_whole(mnt, size):
    """Not from the kernel's pages."""
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("1\n")
    with open(mnt / "data", "rb") as file:
        text = file.read()
    check(len(text) == size, f"{len(text)} bytes")
    return text


def what_is_read_stays_on_the_ssd_and_is_never_stale():
    size = 8 << 20
    with cluster(cs=3, replicas="3:2") as one:
        one.pstorage("set-attr", "-p", "/", "client-ssd-cache=1")
        ssd = os.path.join(one.directory, "ssd.cache")
        with mounted(one, extra=("-C", ssd, "-R", "64")) as mnt, mounted(one, "other") as other:
            written = os.urandom(size)
            with open(mnt / "data", "wb") as file:
                file.write(written)
                os.fsync(file.fileno())
            check(read_whole(mnt, size) == written, "read as written")
            mnt.down()
            check(counted(mnt, "fills") >= size >> 16, "nothing was kept")
            # Across an end in order, and after a kill: from the cache.
            mnt.up()
            check(read_whole(mnt, size) == written, "after an end in order")
            mnt.down()
            check(counted(mnt, "hits") > 0 and counted(mnt, "misses") == 0, mnt.text()[-400:])
            mnt.up()
            check(read_whole(mnt, size) == written, "before a kill")
            mnt.kill()
            mnt.clear()
            mnt.up()
            check(read_whole(mnt, size) == written, "after a kill")
            mnt.down()
            check(counted(mnt, "hits") > 0, "nothing was found after a kill")
            # Another host has written meanwhile, then this one, then both in turn.
            for turn in range(3):
                with open(other / "data", "r+b") as file:
                    file.seek(turn << 20)
                    file.write(f"other {turn}".encode())
                mnt.up()
                written = read_whole(other, size)
                check(read_whole(mnt, size) == written, f"turn {turn}: stale after another writer")
                with open(mnt / "data", "r+b") as file:
                    file.seek(5000 + turn)
                    file.write(b"own")
                now = read_whole(mnt, size)
                check(now[5000 + turn:5003 + turn] == b"own", "stale after an own write")
                check(read_whole(other, size) == now, f"turn {turn}: the other reads otherwise")
                mnt.down()
            # Rot on the SSD is not served; an odd command line is refused.
            with open(ssd, "r+b") as file:
                file.seek(-(64 << 20), os.SEEK_END)
                for _ in range(1024):
                    file.write(b"rot")
                    file.seek(65533, os.SEEK_CUR)
            mnt.up()
            check(read_whole(mnt, size) == now, "rot was served")
            code, text = run("pstorage-mount", "-C", ssd, "-R", "64", other.path, ok=False,
                             env=one.environment)
            check(code == 1 and "uses this" in text, f"two mounts on one cache: {text}")
            code, text = run("pstorage-mount", "-C", ssd, other.path, ok=False, env=one.environment)
            check(code == 1 and "-R" in text, text)
            mnt.down()


# ---------------------------------------------------------------- two hosts

def mount_process(hosts, number):
    mounts = [int(pid) for pid in run("ip", "netns", "pids", hosts.names[number])[1].split()
              if os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "pstorage-mount"]
    check(len(mounts) == 1, f"mounts of host {number}: {mounts}")
    return mounts[0]


def waits_for_fuse(pid):
    with open(f"/proc/{pid}/wchan", encoding="ascii") as file:
        return file.read() == "request_wait_answer"


def a_reader_is_not_heard(hosts, shell, mnt):
    """It loses its share without hearing of it: what is opened then waits, for what a writer left."""
    inside = ["nsenter", "-t", str(hosts.keepers[2]), "-n", "-m"]

    def start(script):
        return subprocess.Popen([*inside, "sh", "-c", script], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)

    keeper = start(f"exec 3< {mnt[2]}/test; cat <&3 >/dev/null; echo ready; exec sleep 60")
    check(keeper.stdout.readline() == "ready\n", "the reader of host 2")
    # Host 2 gives up what it appended when nobody writes there any more.
    until(lambda: shell(1, f"cat {mnt[1]}/test", ok=False)[1] == "new\nx\n", "two readers")
    # The chunk servers hear it all the time.
    run(*inside, "nft", "table inet cut { chain c { type filter hook output priority 0; "
                        "tcp dport 2511 drop; }; }")
    try:
        until(lambda: shell(1, f"echo late >> {mnt[1]}/test", ok=False)[0] == 0, "a writer")
        reader = start(f"exec cat {mnt[2]}/test")
        until(lambda: reader.poll() is not None or waits_for_fuse(reader.pid), "an open")
        check(reader.poll() is None, "a reader that nobody hears believes what it knew")
    finally:
        run(*inside, "nft", "delete table inet cut")
    text, _ = reader.communicate(timeout=40)
    check(text == "new\nx\nlate\n", f"when it is heard again: {text}")
    keeper.kill()
    keeper.wait()


def two_hosts_share_files_by_the_rules():
    with own_hosts(2) as hosts:
        def on(number, *command, ok=True, **options):
            return hosts.run(number, *command, ok=ok, **options)

        def shell(number, script, ok=True):
            return on(number, "sh", "-c", script, ok=ok)

        here = hosts.directory(1)
        on(1, "pstorage", "-c", "stor1", "make-mds", "-I", "-p", "-P", "-a", "192.168.0.1:2510",
           "-r", f"{here}/mds", input="secret\n")
        on(1, "service", "pstorage-mdsd", "start")
        on(1, "pstorage", "-c", "stor1", "make-cs", "-r", f"{here}/cs", "-s", "64")
        on(1, "service", "pstorage-csd", "start")
        on(2, "pstorage", "-c", "stor1", "auth-node", "-b", "192.168.0.1", "-P", input="secret\n")
        hosts.until(1, "CS nodes: *1 of 1", "pstorage", "-c", "stor1", "stat")
        mnt = {number: f"{hosts.directory(number)}/mnt" for number in (1, 2)}
        log = {number: f"{hosts.directory(number)}/mount.log" for number in (1, 2)}
        for number in (1, 2):
            on(number, "mkdir", mnt[number])
        on(1, "pstorage-mount", "-c", "stor1", "-l", log[1], mnt[1])
        helper = os.path.join(hosts.root, "installed/sbin/mount.fuse.pstorage")
        on(2, helper, "pstorage://stor1", mnt[2], "-o", f"rw,nosuid,_netdev,log={log[2]}")
        text = on(2, "cat", "/proc/mounts")[1]
        check(f"pstorage://stor1 {mnt[2]} fuse.pstorage rw,nosuid" in text, text)

        shell(1, f"date > {mnt[1]}/test; date +%s >> {mnt[1]}/test")
        written = on(1, "cat", f"{mnt[1]}/test")[1]
        check(on(2, "cat", f"{mnt[2]}/test")[1] == written, "the other host reads something else")
        # Each appends what the other sees at its next open, and a replaced name is seen at once.
        for i in range(6):
            shell(1 + i % 2, f"echo line {i} >> {mnt[1 + i % 2]}/test")
            check(shell(2 - i % 2, f"tail -n 1 {mnt[2 - i % 2]}/test")[1] == f"line {i}\n", f"{i}")
        shell(1, f"echo new > {mnt[1]}/next; mv {mnt[1]}/next {mnt[1]}/test")
        check(on(2, "cat", f"{mnt[2]}/test")[1] == "new\n", "the old file is still there")

        # Many readers or one writer, and whoever is refused is told by whom.
        script = "exec 3< {}/test; cat <&3; sleep 4"
        reader = threading.Thread(target=shell, args=(1, script.format(mnt[1])))
        reader.start()
        time.sleep(0.5)
        check(on(2, "cat", f"{mnt[2]}/test")[1] == "new\n", "two readers")
        code, text = shell(2, f"echo x >> {mnt[2]}/test", ok=False)
        check(code != 0 and "busy" in text.lower(), f"a writer beside a reader: {text}")
        reader.join()
        shell(2, f"echo x >> {mnt[2]}/test")
        a_reader_is_not_heard(hosts, shell, mnt)
        holder = subprocess.Popen(
            ["nsenter", "-t", str(hosts.keepers[1]), "-n", "-m", "sh", "-c",
             f"exec 3>> {mnt[1]}/test; echo kept >&3; sync {mnt[1]}/test; echo ready; sleep 60"],
            stdout=subprocess.PIPE, text=True)
        check(holder.stdout.readline() == "ready\n", "the writer of host 1")
        for command in (f"cat {mnt[2]}/test", f"echo y >> {mnt[2]}/test", f"rm {mnt[2]}/test"):
            code, text = shell(2, command, ok=False)
            check(code != 0 and "busy" in text.lower(), f"{command}: {text}")
        with open(log[2], encoding="utf-8") as file:
            text = file.read()
        check("in use by pstorage-mount[" in text, f"the log does not name the holder:\n{text}")
        # The holder's mount dies: host 2 waits for the end of its lease, and has the file then.
        os.kill(mount_process(hosts, 1), signal.SIGKILL)
        text = hosts.until(2, "kept\n", "cat", f"{mnt[2]}/test", patience=40)
        check(text == "new\nx\nlate\nkept\n", text)
        holder.kill()
        holder.wait()
        on(1, "umount", "-l", mnt[1])
        on(2, "umount", mnt[2])


if __name__ == "__main__":
    main(two_hosts_share_files_by_the_rules, like_any_file_system,
         what_is_read_stays_on_the_ssd_and_is_never_stale)
