"""A Linux guest of the system tests: Debian's cloud kernel, an initramfs of busybox and what a test
needs, QEMU without hardware help. A script runs in it as its only program; what it says and its
exit code come back. It is the kernel's NBD and iSCSI initiator that a machine may lack itself.

    with guest.Guest(script, programs=["mkfs.ext4"], modules=["nbd"]) as one:
        output = one.run(timeout=120)

In the script: `host WORD...` calls the test's hook WORD with the other words and waits for it; the
host's loopback servers are at 10.0.2.2 (user networking), or, with loopback_is_host, at 127.0.0.1
itself. The script runs with `set -eu` in busybox's sh."""
import contextlib
import copy
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import threading
import time

from harness import BUILD, check, run, skip

KERNEL_PACKAGE = "linux-image-cloud-amd64"
QEMU = "qemu-system-x86_64"
PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
STRIPPED_FROM = 20 << 20  # bytes: debug information would fill the guest's memory
ALWAYS = ("virtio_pci", "virtio_net")

INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /etc /var /root /mnt /lib /bin
/bin/busybox --install -s /bin
export PATH=/usr/local/bin:/usr/sbin:/sbin:/usr/bin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
for one in /run /tmp /dev/shm; do mount -t tmpfs tmp $one; done
ln -s /proc/self/fd /dev/fd
ln -s /run /var/run
stty -F /dev/ttyS1 raw -echo
exec </dev/ttyS1 >/dev/ttyS1 2>&1
(set -e
 while read one; do insmod /modules/$one.ko; done </modules/order
 hostname guest
 ip link set lo up
 /network
) && sh -eu /script </dev/null && if [ -e /boot-from ]; then
  mount -t ext4 "$(cat /boot-from)" /mnt && exec switch_root /mnt /sbin/init NONCE
fi
code=$?
printf '\\n%s exit %s\\n' NONCE $code
while :; do sleep 1000; done
"""
NETWORK = """#!/bin/sh -e
ip link set eth0 up
ip address add ADDRESS dev eth0
"""
# 127/8 goes out to user networking, which connects to 127.0.0.1 of the host.
LOOPBACK_IS_HOST = """
ip address del 127.0.0.1/8 dev lo
echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet
ip route flush table local 127.0.0.0/8
ip route add 127.0.0.0/8 via 10.0.2.2 src 10.0.2.15
"""
HOST = """#!/bin/sh
printf '\\n%s host %s\\n' NONCE "$*" >/dev/ttyS1
read -r answer </dev/ttyS1
[ "$answer" = done ]
"""


def missing():
    """Why no guest can run here; None if one can."""
    for tool in (QEMU, "busybox", "apt-get", "dpkg-deb"):
        if not shutil.which(tool, path=PATH):
            return f"{tool} is not installed: run scripts/install-deps"
    return None


def kernel():
    """(kernel, folder of its modules): fetched by apt once, then kept in the build directory."""
    cache = os.path.join(BUILD, "guest-kernel")
    if not os.path.isdir(cache):
        with tempfile.TemporaryDirectory(prefix="guest-kernel-", dir=BUILD) as directory:
            fetch_kernel(directory)
            os.chmod(directory, 0o755)
            os.rename(os.path.join(directory, "unpacked"), cache)
    image = [name for name in os.listdir(os.path.join(cache, "boot")) if name.startswith("vmlinuz")]
    release = os.listdir(os.path.join(cache, "lib", "modules"))
    return os.path.join(cache, "boot", image[0]), os.path.join(cache, "lib", "modules", release[0])


def fetch_kernel(directory):
    for attempt in ("apt's lists", "new lists"):
        text = run("apt-cache", "depends", KERNEL_PACKAGE, ok=False)[1]
        names = re.findall(r"Depends: (linux-image-[0-9]\S+)", text)
        if names and run("apt-get", "download", "--quiet", names[-1], cwd=directory, ok=False)[0] == 0:
            break
        if attempt == "new lists" or run("apt-get", "update", "--quiet", ok=False)[0] != 0:
            skip(f"apt cannot fetch {KERNEL_PACKAGE} (no network?) and no earlier one is kept")
    package = [name for name in os.listdir(directory) if name.endswith(".deb")][0]
    run("dpkg-deb", "--extract", package, "unpacked", cwd=directory)


def with_dependencies(folder, wanted):
    """[(name, path)] of these modules and what they need, in the order of loading."""
    paths = {}
    for place, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".ko"):
                paths[name[:-3].replace("-", "_")] = os.path.join(place, name)
    with open(os.path.join(folder, "modules.builtin"), encoding="ascii") as file:
        builtin = {os.path.basename(line.strip())[:-3].replace("-", "_") for line in file}
    order = []

    def add(name):
        name = name.replace("-", "_")
        if name in builtin or name in (known for known, _ in order):
            return
        check(name in paths, f"the guest's kernel has no module {name}")
        with open(paths[name], "rb") as file:
            needs = re.search(rb"\0depends=([^\0]*)\0", file.read())
        for one in needs.group(1).decode().split(",") if needs else []:
            if one:
                add(one)
        order.append((name, paths[name]))

    for name in wanted:
        add(name)
    return order


def libraries(program):
    """What a program loads, its interpreter included."""
    code, text = run("ldd", program, ok=False)
    return re.findall(r"(/\S+) \(0x", text) if code == 0 else []


class Archive:
    """A cpio archive (newc) of files, made in memory-sized pieces; parents come by themselves."""

    def __init__(self, path):
        self.file = open(path, "wb")
        self.known = set()

    def entry(self, name, mode, size):
        name = name.strip("/").encode() + b"\0"
        fields = (len(self.known), mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields)
        self.file.write(header + name + bytes(-(len(header) + len(name)) % 4))

    def parents(self, name):
        folder = os.path.dirname(name)
        if folder not in ("", "/") and folder not in self.known:
            self.parents(folder)
            self.known.add(folder)
            self.entry(folder, 0o040755, 0)

    def content(self, name, data, mode=0o755):
        if name in self.known:
            return
        self.parents(name)
        self.known.add(name)
        self.entry(name, 0o100000 | mode, len(data))
        self.file.write(data)
        self.file.write(bytes(-len(data) % 4))

    def copy(self, name, source):
        with open(source, "rb") as file:
            self.content(name, file.read(), os.stat(source).st_mode & 0o777)

    def program(self, name, target=None):
        """A program of this machine, at the same path, and its libraries."""
        source = name if "/" in name else shutil.which(name, path=PATH)
        if source is None:
            skip(f"{name} is not installed: run scripts/install-deps")
        target = target or f"/usr/local/bin/{os.path.basename(name)}"
        if os.path.getsize(source) > STRIPPED_FROM and target not in self.known:
            run("strip", "-o", self.file.name + ".stripped", source)
            self.copy(target, self.file.name + ".stripped")
        else:
            self.copy(target, source)
        for library in libraries(source):
            self.copy(library, library)

    def close(self):
        self.entry("TRAILER!!!", 0, 0)
        self.file.close()


class Guest:
    """One guest. `programs`: names or paths on this machine; `files`: path in the guest -> text,
    bytes, or ("from", path here); `modules`: what is loaded before the script; `hooks`: what
    `host WORD...` calls; `prefix`: a command that QEMU is started with (ip netns exec ...), whose
    network it then has; `tap`: the name of a tap device instead of user networking, with
    `address`; `arguments`: more for QEMU; `boot_from`: after the script, the guest goes on from the
    ext4 on this device: its /sbin/init, given a nonce, ends with a line "NONCE exit CODE"."""

    def __init__(self, script, programs=(), files=None, modules=(), hooks=None, prefix=(), tap=None,
                 address="10.0.2.15/24", loopback_is_host=False, arguments=(), memory_mb=512,
                 boot_from=None):
        reason = missing()
        if reason:
            skip(reason)
        self.directory = tempfile.TemporaryDirectory(prefix="pstorage-guest-")
        self.nonce = secrets.token_hex(8)
        self.hooks = hooks or {}
        self.lines = []
        self.code = None
        self.trouble = None
        self.process = None
        self.kernel, folder = kernel()
        network = NETWORK.replace("ADDRESS", address) + (LOOPBACK_IS_HOST if loopback_is_host else "")
        files = dict(files or {}, **({"/boot-from": boot_from} if boot_from else {}))
        self.pack(script, programs, files, with_dependencies(folder, [*ALWAYS, *modules]),
                  network)
        net = f"tap,ifname={tap},script=no,downscript=no" if tap else "user"
        self.command = [
            *prefix, QEMU, "-M", "q35,smm=off", "-accel", "tcg,thread=multi,tb-size=256",
            "-cpu", "max,-smap,-smep,-pku,-la57,-svm", "-m", str(memory_mb), "-nodefaults",
            "-display", "none", "-no-reboot", "-kernel", self.kernel, "-initrd", self.path("initrd"),
            "-append", "console=ttyS0 quiet panic=-1 oops=panic",
            "-serial", "file:" + self.path("console"), "-chardev", "stdio,id=script,signal=off",
            "-serial", "chardev:script", "-netdev", net + ",id=net0",
            "-device", "virtio-net-pci,netdev=net0,romfile=", *arguments]

    def path(self, name):
        return os.path.join(self.directory.name, name)

    def pack(self, script, programs, files, modules, network):
        archive = Archive(self.path("initrd"))
        archive.copy("/bin/busybox", shutil.which("busybox", path=PATH))
        for library in libraries(shutil.which("busybox", path=PATH)):
            archive.copy(library, library)
        archive.content("/init", INIT.replace("NONCE", self.nonce).encode())
        archive.content("/network", network.encode())
        archive.content("/usr/local/bin/host", HOST.replace("NONCE", self.nonce).encode())
        archive.content("/script", script.encode())
        archive.content("/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", 0o644)
        archive.content("/etc/group", b"root:x:0:\n", 0o644)
        archive.content("/etc/mtab", b"", 0o644)
        for name, path in modules:
            archive.copy(f"/modules/{name}.ko", path)
        order = "".join(name + "\n" for name, _ in modules)
        archive.content("/modules/order", order.encode())
        for program in programs:
            archive.program(program)
        for name, what in files.items():
            if isinstance(what, tuple):
                archive.copy(name, what[1])
            else:
                archive.content(name, what.encode() if isinstance(what, str) else what)
        archive.close()

    def twin(self):
        """The same machine once more, not started: where this one migrates to."""
        one = copy.copy(self)
        one.directory = tempfile.TemporaryDirectory(prefix="pstorage-guest-")
        one.lines = []
        one.process = None
        one.command = ["file:" + one.path("console") if word.startswith("file:") else word
                       for word in self.command]
        return one

    def start(self, *arguments):
        """Starts QEMU, with more `arguments`."""
        self.process = subprocess.Popen([*self.command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, bufsize=0)
        self.reader = threading.Thread(target=self.listen, daemon=True)
        self.reader.start()

    def listen(self):
        """The script's words, until its end or QEMU's."""
        for raw in self.process.stdout:
            line = raw.decode(errors="replace").rstrip("\r\n")
            head, _, rest = line.partition(" ")
            if head != self.nonce:
                self.lines.append(line)
            elif rest.startswith("exit "):
                self.code = int(rest.split()[1])
                return
            else:
                self.call(rest.split()[1:])

    def call(self, words):
        answer = b"done\n"
        try:
            self.hooks[words[0]](*words[1:])
        except Exception as error:  # the script fails, and the test tells why
            self.trouble = error
            answer = b"failed\n"
        with contextlib.suppress(OSError):
            self.process.stdin.write(answer)

    def console(self):
        with contextlib.suppress(OSError), open(self.path("console"), encoding="utf-8",
                                                errors="replace") as file:
            return file.read()
        return ""

    def output(self):
        return "\n".join(self.lines)

    def wait(self, timeout=120):
        """(exit code, output) of the script. A guest that dies or takes longer fails the test."""
        self.reader.join(timeout)
        if self.reader.is_alive() or self.code is None:
            what = "does not end" if self.reader.is_alive() else "died"
            raise AssertionError(f"the guest {what} (limit {timeout} s)\n{self.output()}\n"
                                 f"---- its console\n{self.console()[-3000:]}")
        return self.code, self.output()

    def run(self, timeout=120):
        """The script's output; a script that fails, or a kernel that complains, fails the test."""
        begin = time.monotonic()
        self.start()
        code, output = self.wait(timeout)
        if self.trouble:
            raise AssertionError(f"a hook failed: {self.trouble}\n{output}") from self.trouble
        console = self.console()
        check(code == 0, f"the guest's script: exit {code}\n{output}\n---- its console\n"
              f"{console[-3000:]}")
        check(not re.search(r"BUG:|WARNING:|Call Trace", console), f"the kernel:\n{console[-5000:]}")
        print(f"   guest: {time.monotonic() - begin:.1f} s", flush=True)
        return output

    def down(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.reader.join(5)
            self.process.stdin.close()
            self.process.stdout.close()
        self.directory.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.down()
