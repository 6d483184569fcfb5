#!/usr/bin/env python3
"""The examples of the manual pages, run line by line as they stand on hosts of their own. PLAN says
which page comes when and on which host each line runs; a page or line that it does not name fails the
test, and what this machine cannot run is printed with the reason."""
import fcntl
import os
import pty
import re
import select
import subprocess
import termios
import time

from harness import ROOT, check, main, own_hosts

PASSWORD = "secret"
PATIENCE = 20
# What is made for a real disk is made smaller; nothing else of a line is changed, but for what is in
# /tmp, which every host here shares with this machine.
SMALLER = {"-s 1024": "-s 64"}


class Skip:
    def __init__(self, reason):
        self.reason = reason


class Until:
    """On host `host` until its output matches, then `keys` are pressed."""
    def __init__(self, host, pattern, keys):
        self.host, self.pattern, self.keys = host, pattern, keys


class Fails:
    """With status 1, as its page says, because it has something to tell."""
    def __init__(self, host, pattern):
        self.host, self.pattern = host, pattern


class Setup:
    """What the page takes for granted."""
    def __init__(self, host, command):
        self.host, self.command = host, command


VM1 = "nbd+unix:///vm1?socket=/run/pstorage/stor1/nbd.sock"
HOLD = (f'import nbd, time; h = nbd.NBD(); h.connect_uri("{VM1}"); open("held", "w"); '
        'time.sleep(30)')
QUIT, INTERRUPT = "q", "\x03"
NO_SYSTEMD = Skip("no systemd runs here")
NO_NBD = Skip("this kernel has no nbd driver: tests/system/guest_test.py")
MEANT = "tests/system/iscsi_failover_test.py does this with an address of its own"

# (page, what is done with each line of it in turn: a host's number, Until or Skip; Setup between)
PLAN = [
    ("pstorage-make-mds.1", [1, 1, 2, 2, 2]),
    ("pstorage-auth-node.1", [
        3, Setup(3, "rm /etc/pstorage/clusters/stor1/auth_digest.key; "
                    "echo secret > /etc/pstorage/password"), 3]),
    ("pstorage-discover.1", [3, 3]),
    ("pstorage-discovery.7", [
        3, Skip("needs a name server with the records: tests/system/discovery_test.py")]),
    ("pstorage-make-cs.1", [1, 1]),
    ("pstorage-get-config.1", [1, 1]),
    ("pstorage-configure-cs.1", [
        Setup(1, "service pstorage-csd stop; pstorage configure-cs -r /pstorage/disk1/cs -d; "
                 "service pstorage-csd start"), 1, 1, 1,
        Setup(1, "service pstorage-csd stop"), 1]),
    ("csd.8", [1]),
    ("mdsd.8", [Setup(2, "service pstorage-mdsd stop"), 2]),
    ("pstorage-volume.1", [
        Setup(2, "pstorage -c stor1 make-cs -r /pstorage/disk1/cs -s 64; "
                 "service pstorage-csd start"),
        Setup(3, "pstorage -c stor1 make-cs -r /pstorage/disk1/cs -s 64; "
                 "service pstorage-csd start"),
        Setup(1, "qemu-img create -f qcow2 disk.qcow2 64M; truncate -s 64M disk.img"),
        1, 1, 1, 1, 1, 1, 1, 1, 1, NO_NBD, NO_NBD, 1,
        Setup(1, f"service pstorage-nbd start; setsid /usr/bin/python3 -c '{HOLD}' & "
                 "until test -e held; do sleep 0.1; done"),
        1]),
    ("pstorage.1", [
        Setup(1, "service pstorage-nbd stop; pstorage -c stor1 volume rename vm1 other"),
        1, 1, Until(1, "CSID", QUIT), 1, 1]),
    ("pstorage-nbd.1", [
        1, 1, Skip("a virtual machine that would not end"), NO_NBD, NO_NBD, NO_NBD,
        Setup(1, "umask 077; echo client1:$(printf '%064d' 7) > /etc/pstorage/nbd.psk"),
        Until(1, "serving NBD", INTERRUPT),
        Setup(1, "pstorage -c stor1 volume rm --now vm1; "
                 "pstorage -c stor1 volume create vm1 -s 64M"), 1]),
    ("pstorage-nbd.7", [1, 1, NO_NBD]),
    ("pstorage-why.1", [
        # Three replicas, so that it does not depend on where the only one is.
        Setup(1, "pstorage -c stor1 set-attr -R -p / replicas=3:2; "
                 "until pstorage -c stor1 ok-to-stop cs 1025; do sleep 0.2; done"),
        1, Fails(1, "no: .* could not be"), 1, 1, 1]),
    ("pstorage-stat.1", [1, 1, 1, Until(1, "MDS", INTERRUPT), Until(1, "chunk", INTERRUPT)]),
    ("pstorage-top.1", [Until(1, "CSID", QUIT), Until(1, "CSID", QUIT)]),
    ("pstorage-metrics.7", [1, Skip("no ssh server runs here")]),
    ("pstorage-doctor.1", [Fails(1, "findings need you"), 1]),
    ("pstorage-completion.1", [1, 1]),
    ("pstorage-advise-configuration.1", [
        Setup(1, "mkdir -p /pstorage/cs1 /pstorage/cs2"), 1,
        Skip("--apply on disks of its own: tests/system/operating_test.py")]),
    ("pstorage-ploop.1", [1, 1, 1, 1, 1, 1]),
    ("pstorage-config-files.7", [1, 1]),
    ("pstorage-mount.1", [1, 1, 1, 1]),
    ("pstorage-ssd.7", [
        Setup(1, "umount -q /mnt/stor1 || true; mkdir -p /mnt/stor1"), 1, 1, 1,
        Setup(1, "umount /mnt/stor1")]),
    ("pstorage-ct.1", [Skip("the whole page is what tests/system/ct_test.py does, with a template "
                            "of its own; debootstrap loads it from the network")] * 8),
    ("pstorage-hwflush-check.8", [Skip("runs until the power is cut: "
                                       "tests/system/hwflush_test.py")] * 2),
    ("pstorage-iscsi.8", [NO_SYSTEMD] + [Skip("tests/system/iscsi_test.py")] * 10 +
     [Skip("tests/system/iscsi_failover_test.py")] +
     [Skip("no kernel initiator here: tests/system/iscsi_guest_test.py")] * 2),
    ("pstorage-iscsid.8", [Skip(MEANT)] * 6),
    ("pstorage-security.7", [1, 1]),
    ("pstorage-set-attr.1", [1, 1, 1, 1]),
    ("pstorage-rm-cs.1", [
        # It was revoked, and would wait for its next user (README.md, known gaps).
        Setup(1, "pstorage -c stor1 volume rm --now other"),
        Setup(1, "pstorage -c stor1 set-attr -R -p / replicas=1:1 failure-domain=host tier=0; "
                 "pstorage -c stor1 set-attr -p /volumes/vm1 failure-domain=host tier=0"),
        1, 1, Setup(3, "service pstorage-csd stop"),
        Skip("1026 is removed already, by the line above")]),
    ("pstorage-rm-mds.1", [
        Setup(3, "pstorage -c stor1 make-mds -a 192.168.0.3 -r /pstorage/mds; "
                 "service pstorage-mdsd start; "
                 "until pstorage -c stor1 stat | grep 'MDS nodes: 3 of 3'; do sleep 0.2; done"),
        1, 1]),
]


def examples_of(page):
    """Its commands: the lines of the literal blocks below EXAMPLES, continued ones joined."""
    with open(os.path.join(ROOT, "man", page), encoding="utf-8") as file:
        text = file.read().replace("\\e\n", "\\\n").replace("\\(dq", '"')
    section = re.search(r"^\.Sh EXAMPLES\n(.*?)(?=^\.Sh |\Z)", text, re.M | re.S)
    if section is None:
        return []
    blocks = re.findall(r"^\.Bd.*?\n(.*?)^\.Ed", section.group(1), re.M | re.S)
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    return [line for line in lines if not line.startswith("pstorage://")]  # a line of fstab


class Lab:
    def __init__(self, hosts):
        self.hosts = hosts
        self.said = {}  # host -> what its shell has been told: export, source
        for number in hosts.names:
            private = os.path.join(hosts.root, f"own{number}")
            binds = ["/pstorage", "/ssd", "/mnt", "/vz", "/run", "/var/log"]
            for path in binds:
                os.makedirs(private + path)
            os.makedirs(private + "/tmp")
            os.makedirs(private + "/home")
            self.said[number] = [f"cd {private}/home"]
            for path in binds:
                hosts.run(number, "mount", "--bind", private + path, path)

    def run(self, number, line, step=None):
        """On a terminal, as it stands; the password is typed when it is asked for. `step`: Until or
        Fails."""
        for old, new in SMALLER.items():
            line = line.replace(old, new)
        line = re.sub(r"/tmp/", os.path.join(self.hosts.root, f"own{number}/tmp/"), line)
        script = "\n".join(self.said[number] + [line])
        if line.startswith(("export ", "source ")):
            self.said[number].append(line)
        master, slave = pty.openpty()
        environment = dict(os.environ, TERM="xterm",
                           PATH=f"{self.hosts.root}/installed/usr/bin:{os.environ['PATH']}")
        process = subprocess.Popen(
            ["nsenter", "-t", str(self.hosts.keepers[number]), "-n", "-m", "bash", "-ec", script],
            stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)
        try:
            return self.talk(process, master, line, step)
        finally:
            process.kill()
            process.wait()
            os.close(master)

    def talk(self, process, master, line, step):
        text, answered, pressed = "", 0, False
        keys = step.keys if isinstance(step, Until) else ""
        end = time.monotonic() + PATIENCE
        while process.poll() is None or select.select([master], [], [], 0)[0]:
            check(time.monotonic() < end, f"'{line}' does not end:\n{text[-2000:]}")
            # What is typed before the echo is off gets lost.
            is_asked = re.search(r"(assword[^\n]*|Once more): ?$", text[answered:])
            if is_asked and not termios.tcgetattr(master)[3] & termios.ECHO:
                answered = len(text)
                os.write(master, (PASSWORD + "\n").encode())
            if not select.select([master], [], [], 0.05)[0]:
                continue
            try:
                text += os.read(master, 65536).decode("utf-8", "replace")
            except OSError:  # the other end is closed
                process.wait(PATIENCE)
                break
            if keys and not pressed and re.search(step.pattern, text):
                pressed = True
                os.write(master, keys.encode())
        code = process.returncode
        if isinstance(step, Fails):
            is_right = code == 1 and re.search(step.pattern, text)
        else:
            is_right = pressed == bool(keys) and (code == 0 or keys == INTERRUPT)
        check(is_right, f"'{line}' ends with {code}:\n{text[-2000:]}")
        return text


def play(lab, page, steps, faults):
    """Counts what was run; goes on after a line that fails."""
    lines = iter(examples_of(page))
    done = 0
    for step in steps:
        if isinstance(step, Setup):
            lab.run(step.host, step.command)  # its failure ends the test
            continue
        line = next(lines, None)
        check(line is not None, f"{page} has fewer lines than the plan")
        if isinstance(step, Skip):
            print(f"  SKIPPED {page}: {line.strip()}: {step.reason}", flush=True)
            continue
        try:
            if isinstance(step, int):
                lab.run(step, line)
            else:
                lab.run(step.host, line, step)
        except AssertionError as error:
            print(f"  FAILED {page}: {error}", flush=True)
            faults.append(page)
        done += 1
    left = list(lines)
    check(not left, f"{page}: the plan does not say where to run {left}")
    return done


def every_example_works_as_it_stands():
    pages = {page for page in os.listdir(os.path.join(ROOT, "man"))
             if re.search(r"\.[178]$", page) and examples_of(page)}
    check(pages == {page for page, _ in PLAN}, "the plan's pages are not the pages with examples: "
          f"{sorted(pages ^ {page for page, _ in PLAN})}")
    made = [path for path in ("/pstorage", "/ssd", "/vz") if not os.path.exists(path)]
    for path in made:
        os.mkdir(path)
    try:
        with own_hosts(3) as hosts:
            lab = Lab(hosts)
            faults = []
            count = sum(play(lab, page, steps, faults) for page, steps in PLAN)
            check(not faults, f"{len(faults)} examples do not work")
            print(f"  {count} examples of {len(PLAN)} pages run", flush=True)
    finally:
        for path in made:
            os.rmdir(path)


if __name__ == "__main__":
    main(every_example_works_as_it_stands)
