"""Real clusters for the system tests: starts them with scripts/devcluster, talks NBD to them with
libnbd, keeps the ledger of what was written, and always cleans up. Runs under /usr/bin/python3,
where libnbd's binding is."""
import contextlib
import errno
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("PSTORAGE_BUILD", os.path.join(ROOT, "build", "release"))
BLOCK = 4096
os.umask(0o022)  # daemons that run as a user of their own must reach what is made here


def skip(reason):
    """This machine cannot run the test: said loudly, counted as skipped."""
    print(f"SKIP: {reason}", flush=True)
    sys.exit(77)


try:
    import nbd
except ImportError:
    print("python3-libnbd is missing for /usr/bin/python3; run scripts/install-deps",
          file=sys.stderr)
    sys.exit(1)


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def run(*command, ok=True, env=None, timeout=120, **options):
    """Runs a command; returns (exit code, output with errors)."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=env, timeout=timeout, check=False, **options)
    if ok and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}")
    return done.returncode, done.stdout


class Cluster:
    """A devcluster under a directory of its own."""

    def __init__(self, cs=3, replicas="3:2", directory=None, extra=()):
        self.own_directory = directory is None
        self.directory = directory or tempfile.mkdtemp(prefix="pstorage-test-")
        self.home = os.path.join(self.directory, "cluster")
        self.environment = dict(os.environ, PSTORAGE_BUILD=BUILD)
        try:
            self.devcluster("up", "--cs", str(cs), "--replicas", replicas, *extra)
        except BaseException:
            self.down()
            raise
        for line in self.devcluster("env").splitlines():
            key, _, value = line.removeprefix("export ").partition("=")
            self.environment[key] = os.path.expandvars(value.strip("'\""))
        self.socket = self.environment["PSTORAGE_NBD_SOCKET"]
        self.cs_names = [f"cs{i + 1}" for i in range(cs)]

    def devcluster(self, verb, *arguments):
        command = [os.path.join(ROOT, "scripts", "devcluster"), verb, self.home, *arguments]
        return run(*command, env=self.environment, timeout=180)[1]

    def pid(self, name):
        with open(os.path.join(self.home, "pids", name + ".pid"), encoding="ascii") as file:
            return int(file.read())

    def kill(self, name):
        self.devcluster("kill", name)

    def stop(self, name):
        os.kill(self.pid(name), signal.SIGSTOP)

    def cont(self, name):
        os.kill(self.pid(name), signal.SIGCONT)

    def start(self, name):
        self.devcluster("start", name)

    def cut_mds(self, name):
        """With --hosts: nothing passes to or from this metadata server."""
        rules = "".join(
            f"chain {hook} {{ type filter hook {hook} priority 0; "
            "tcp dport { 2510, 2511 } drop; tcp sport { 2510, 2511 } drop; }; "
            for hook in ("input", "output"))
        run("nsenter", "-t", str(self.pid(name)), "-n", "nft", f"table inet cut {{ {rules} }}")

    def mend_mds(self, name):
        run("nsenter", "-t", str(self.pid(name)), "-n", "nft", "delete table inet cut")

    def pstorage(self, *arguments, ok=True, **options):
        return run("pstorage", *arguments, ok=ok, env=self.environment, **options)[1]

    def volume(self, name, size, image_format="raw"):
        """Raw unless asked: most tests count chunks of one file."""
        self.pstorage("-q", "volume", "create", name, "-s", size, "--format", image_format)

    def uri(self, export):
        return f"nbd+unix:///{export}?socket={self.socket}"

    def connect(self, export, patience=40):
        """Retries: a server that was just started waits for its predecessor's lease to end."""
        end = time.monotonic() + patience
        while True:
            handle = nbd.NBD()
            try:
                handle.connect_uri(self.uri(export))
                return handle
            except nbd.Error:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def wait_healthy(self, patience=60):
        """Until every chunk has all its replicas and every CS is active."""
        end = time.monotonic() + patience
        text = ""
        while time.monotonic() < end:
            text = self.pstorage("-q", "stat", ok=False)
            if "healthy" in text.splitlines()[0] if text else False:
                if "Chunks: [OK]" in text and " 0 (0%) replicating" in text:
                    return
            time.sleep(0.2)
        raise AssertionError(f"the cluster does not become healthy in {patience} s:\n{text}")

    def logs(self, lines=30):
        """The ends of the daemons' logs, for a failed test."""
        for folder, _, files in os.walk(self.home):
            for name in sorted(files):
                if name.endswith(".log") or name == "log":
                    path = os.path.join(folder, name)
                    try:
                        with open(path, encoding="utf-8", errors="replace") as file:
                            tail = file.readlines()[-lines:]
                    except OSError as error:
                        tail = [str(error)]
                    print(f"---- {path}\n{''.join(tail)}", flush=True)

    def down(self):
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.devcluster("down")
        if self.own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)


@contextlib.contextmanager
def cluster(**options):
    one = Cluster(**options)
    try:
        yield one
    except BaseException:
        one.logs()
        raise
    finally:
        one.down()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Nbd_server:
    """A pstorage-nbd of its own on a TCP port of 127.0.0.1, that can be ended and started again."""

    def __init__(self, one, *arguments, wrapper=()):
        self.port = free_port()
        where = [] if wrapper else ["-a", f"127.0.0.1:{self.port}"]
        self.command = [*(word.replace("PORT", str(self.port)) for word in wrapper), "pstorage-nbd",
                        *where, "-c", one.environment["PSTORAGE_NAME"], *arguments]
        self.environment = one.environment
        self.log = os.path.join(one.home, f"nbd-{self.port}.log")
        self.start()

    def start(self):
        with open(self.log, "a", encoding="utf-8") as output:
            self.process = subprocess.Popen(self.command, env=self.environment, stdout=output,
                                            stderr=output)
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            with open(self.log, encoding="utf-8") as file:
                check(self.process.poll() is None and time.monotonic() < end, file.read())
            time.sleep(0.05)

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(30)


@contextlib.contextmanager
def nbd_server(one, *arguments, wrapper=()):
    server = Nbd_server(one, *arguments, wrapper=wrapper)
    try:
        yield server.port
    finally:
        server.end()


class Hosts:
    """Network namespaces 192.168.0.1 .. with the product installed and an /etc each."""

    def __init__(self, count):
        self.root = tempfile.mkdtemp(prefix="pstorage-hosts-")
        self.keepers = {}
        self.names = {n: f"pst{os.getpid()}-{n}" for n in range(1, count + 1)}
        self.bridge = f"pst{os.getpid()}"

    def up(self):
        if os.geteuid() != 0:
            skip("network namespaces need root")
        run("ip", "link", "add", self.bridge, "type", "bridge")
        run("ip", "link", "set", self.bridge, "up")
        for number, name in self.names.items():
            run("ip", "netns", "add", name)
            link = f"{self.bridge}h{number}"
            run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "link", "set", link, "master", self.bridge, "up")
            run("ip", "-netns", name, "address", "add", f"192.168.0.{number}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                run("ip", "-netns", name, "link", "set", device, "up")
            os.makedirs(self.directory(number))
            self.keep(number)

    def keep(self, number):
        """A process that holds the host's mounts: an /etc of its own, and what is installed."""
        installed = os.path.join(self.root, "installed")
        if not os.path.exists(installed):
            run("cmake", "--install", BUILD, "--prefix", "/usr",
                env=dict(os.environ, DESTDIR=installed))
        run("cp", "--archive", "/etc", self.etc(number))
        run("cp", "--archive", f"{installed}/etc/.", self.etc(number))
        os.makedirs("/usr/lib/pstorage", exist_ok=True)
        script = (f"mount --bind {self.etc(number)} /etc && "
                  f"mount --bind {installed}/usr/lib/pstorage /usr/lib/pstorage && "
                  "echo ready && exec sleep infinity")
        keeper = subprocess.Popen(
            ["ip", "netns", "exec", self.names[number], "unshare", "--mount", "sh", "-c", script],
            stdout=subprocess.PIPE, text=True)
        check(keeper.stdout.readline() == "ready\n", "cannot make a host's mounts")
        self.keepers[number] = keeper.pid

    def directory(self, number):
        return os.path.join(self.root, f"host{number}")

    def etc(self, number):
        return os.path.join(self.root, f"etc{number}")

    def run(self, number, *command, ok=True, **options):
        environment = dict(os.environ, PATH=f"{self.root}/installed/usr/bin:{os.environ['PATH']}")
        return run("nsenter", "-t", str(self.keepers[number]), "-n", "-m", *command, ok=ok,
                   env=environment, **options)

    def until(self, number, pattern, *command, patience=30):
        """Repeats the command until its output matches."""
        end = time.monotonic() + patience
        while True:
            text = self.run(number, *command, ok=False)[1]
            if re.search(pattern, text, re.DOTALL):
                return text
            check(time.monotonic() < end, f"{' '.join(command)} does not show {pattern}:\n{text}")
            time.sleep(0.2)

    def pids(self):
        return [int(pid) for name in self.names.values()
                for pid in run("ip", "netns", "pids", name, ok=False)[1].split()]

    def down(self):
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal_number)
            end = time.monotonic() + 5
            while self.pids() and time.monotonic() < end:
                time.sleep(0.05)
        for name in self.names.values():
            run("ip", "netns", "delete", name, ok=False)
        run("ip", "link", "delete", self.bridge, ok=False)
        shutil.rmtree(self.root, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rmdir("/usr/lib/pstorage")


@contextlib.contextmanager
def own_hosts(count):
    hosts = Hosts(count)
    try:
        hosts.up()
        yield hosts
    finally:
        hosts.down()


@contextlib.contextmanager
def own_disk(kind="ext4", megabytes=700):
    """A file system of its own in a loop-mounted file: yields (image, mount point)."""
    with tempfile.TemporaryDirectory(prefix="pstorage-disk-") as directory:
        image = os.path.join(directory, "disk.img")
        with open(image, "wb") as file:
            file.truncate(megabytes << 20)
        run("mkfs." + kind, *(["-q", "-F", "-m", "0"] if kind == "ext4" else ["-q", "-f"]), image)
        mount_point = os.path.join(directory, "disk")
        os.mkdir(mount_point)
        code, output = run("mount", "-o", "loop", image, mount_point, ok=False)
        if code != 0:
            skip(f"cannot mount a loop device here: {output.strip()}")
        try:
            yield image, mount_point
        finally:
            subprocess.run(["umount", "--lazy", mount_point], check=False)


class Faulty_disk:
    """A mounted tests/tools/faultfs: a disk that can be made slow, hung, failing."""

    def __init__(self, directory):
        self.backing = os.path.join(directory, "backing")
        self.mount_point = os.path.join(directory, "disk")
        self.control = os.path.join(directory, "control")
        os.mkdir(self.backing)
        os.mkdir(self.mount_point)
        self.spoil()
        self.mount()

    def mount(self):
        self.process = subprocess.Popen(
            [os.path.join(BUILD, "bin", "faultfs"), self.backing, self.mount_point, self.control],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + 10
        while not os.path.ismount(self.mount_point):
            if self.process.poll() is not None:
                skip(f"FUSE does not work here: {self.process.stderr.read().strip()}")
            check(time.monotonic() < end, "faultfs is not mounted within 10 s")
            time.sleep(0.02)

    def spoil(self, *lines):
        """Faults from now on, as tests/tools/faultfs.cc has them; none: it is healthy."""
        with open(self.control + ".new", "w", encoding="ascii") as file:
            file.write("".join(line + "\n" for line in lines))
        os.rename(self.control + ".new", self.control)

    def cut_power(self):
        """What is in its cache ("cache write") is lost; then it is there again."""
        self.process.kill()
        self.process.wait()
        run("umount", "--lazy", self.mount_point)
        self.mount()

    def down(self):
        self.spoil()
        subprocess.run(["umount", "--lazy", self.mount_point], check=False)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def faulty_disk():
    with tempfile.TemporaryDirectory(prefix="pstorage-faulty-") as directory:
        disk = Faulty_disk(directory)
        try:
            yield disk
        finally:
            disk.down()


def fill(path):
    """Takes every free block of the file system."""
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
                    os.fsync(file.fileno())
            except OSError as error:
                check(error.errno == errno.ENOSPC, f"unexpected: {error}")


def block_content(number, version):
    """4096 bytes that tell which block and which write they are."""
    head = number.to_bytes(8, "little") + version.to_bytes(8, "little")
    return head + random.Random(number << 32 | version).randbytes(BLOCK - 16)


class Writer(threading.Thread):
    """Writes stamped blocks over NBD, flushes now and then, and remembers what must survive. Stops
    at the first error (kept in `error`) or when told."""

    def __init__(self, cluster_of, export, blocks, flush_every=32, seed=1):
        super().__init__(daemon=True)
        self.connect = lambda: cluster_of.connect(export)
        self.blocks = blocks
        self.flush_every = flush_every
        self.random = random.Random(seed)
        self.submitted = {}   # block -> versions sent since (and with) the last durable one
        self.durable = {}     # block -> version covered by an answered flush
        self.answered = {}    # block -> last answered version
        self.gaps = []        # (end, seconds) of pauses between two answers
        self.writes = 0
        self.error = None
        self.stopping = threading.Event()

    def run(self):
        try:
            self.work(self.connect())
        except nbd.Error as error:
            self.error = error

    def work(self, handle):
        version = 0
        last = time.monotonic()
        while not self.stopping.is_set():
            version += 1
            block = self.random.randrange(self.blocks)
            self.submitted.setdefault(block, []).append(version)
            handle.pwrite(block_content(block, version), block * BLOCK)
            self.answered[block] = version
            self.writes += 1
            if version % self.flush_every == 0:
                covered = dict(self.answered)
                handle.flush()
                for number, newest in covered.items():
                    if self.durable.get(number, 0) < newest:
                        self.durable[number] = newest
                        self.submitted[number] = [v for v in self.submitted[number] if v >= newest]
            now = time.monotonic()
            self.gaps.append((now, now - last))
            last = now

    def finish(self):
        self.stopping.set()
        self.join(60)
        check(not self.is_alive(), "a request was not answered within 60 s")

    def longest_gap(self, since):
        return max((gap for end, gap in self.gaps if end >= since), default=0.0)


def content_version(number, content):
    """The version of a block as found; 0 for zeros. Fails for anything that was never written."""
    if content == bytes(BLOCK):
        return 0
    version = int.from_bytes(content[8:16], "little")
    check(content == block_content(number, version), f"block {number} is damaged")
    return version


def verify_after_power_loss(handle, writer):
    """Each block holds its last flushed version or a later submitted one."""
    for block in range(writer.blocks):
        version = content_version(block, handle.pread(BLOCK, block * BLOCK))
        flushed = writer.durable.get(block, 0)
        allowed = [v for v in writer.submitted.get(block, []) if v >= flushed]
        check(version == flushed or version in allowed,
              f"block {block}: version {version}, but {flushed} was flushed"
              f" (later ones: {allowed})")


def verify_exact(handle, writer):
    """Each block holds what was answered last (or the one write under way at the end)."""
    for block in range(writer.blocks):
        version = content_version(block, handle.pread(BLOCK, block * BLOCK))
        newest = writer.submitted.get(block, [0])[-1:] or [0]
        check(version in (writer.answered.get(block, 0), newest[0]),
              f"block {block}: version {version}, answered {writer.answered.get(block, 0)}")


def main(*tests):
    """Runs the functions named on the command line, or all; one line each."""
    names = sys.argv[1:]
    if unknown := sorted(set(names) - {test.__name__ for test in tests}):
        sys.exit(f"no such test: {' '.join(unknown)}; there are "
                 f"{' '.join(test.__name__ for test in tests)}")
    for test in tests:
        if names and test.__name__ not in names:
            continue
        begin = time.monotonic()
        test()
        print(f"ok {test.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
