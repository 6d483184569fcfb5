"""The manual pages as their readers use them: the lines of a page, and hosts on whose terminals these
are typed as they stand."""
import contextlib
import fcntl
import os
import pty
import re
import select
import subprocess
import termios
import time

from harness import ROOT, check, own_hosts

PASSWORD = "secret-secret"  # long enough for CHAP, too
PATIENCE = 20
INTERRUPT = "\x03"
# A host of its own has these to itself; all share the rest with this machine.
OWN = ("/pstorage", "/ssd", "/vz", "/mnt", "/run", "/var/log", "/root")


def pages():
    return sorted(page for page in os.listdir(os.path.join(ROOT, "man"))
                  if re.search(r"\.[178]$", page))


def blocks_of(page):
    """The literal displays of a page, each a list of lines; continued lines are joined."""
    with open(os.path.join(ROOT, "man", page), encoding="utf-8") as file:
        text = file.read().replace("\\e\n", "\\\n").replace("\\(dq", '"')
    check(".Dl" not in text, f"{page}: a display of one line (.Dl), which nobody would run")
    displays = re.findall(r"^\.Bd([^\n]*)\n(.*?)^\.Ed", text, re.M | re.S)
    check(all("-literal" in kind for kind, _ in displays), f"{page}: a display of another kind")
    return [display.replace("\\\n", "").splitlines() for _, display in displays]


class Until:
    """On host `host` until its output matches, then `keys` are pressed."""
    def __init__(self, host, pattern, keys):
        self.host, self.pattern, self.keys = host, pattern, keys


class Fails:
    """With status 1, as its page says, because it has something to tell."""
    def __init__(self, host, pattern):
        self.host, self.pattern = host, pattern


class Terminal:
    """One line that runs in a shell on a terminal of its own; passwords are typed when they are asked
    for. `inside`: the command that enters the host."""

    def __init__(self, inside, line, script, environment):
        self.line = line
        self.text = ""
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\x18\0\x50\0\0\0\0\0")
        self.process = subprocess.Popen(
            [*inside, "bash", "-ec", script], stdin=slave, stdout=slave, stderr=slave,
            env=environment, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)

    def talk(self, pattern=None, keys="", patience=PATIENCE):
        """Until the line has ended; or, if there is a pattern, until it is seen, and `keys` are
        pressed. Says whether it was seen."""
        answered = 0
        end = time.monotonic() + patience
        while self.process.poll() is None or select.select([self.master], [], [], 0)[0]:
            check(time.monotonic() < end, f"'{self.line}' does not end:\n{self.text[-2000:]}")
            # What is typed before the echo is off gets lost.
            is_asked = re.search(r"(assword[^\n]*|Secret of [^\n]*|Once more): ?$", self.text[answered:])
            if is_asked and not termios.tcgetattr(self.master)[3] & termios.ECHO:
                answered = len(self.text)
                os.write(self.master, (PASSWORD + "\n").encode())
            if not select.select([self.master], [], [], 0.05)[0]:
                continue
            try:
                self.text += os.read(self.master, 65536).decode("utf-8", "replace")
            except OSError:  # the other end is closed
                self.process.wait(PATIENCE)
                break
            if pattern and re.search(pattern, self.text):
                os.write(self.master, keys.encode())
                return True
        return False

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)


class Lab:
    """Hosts 192.168.0.1 .. with an /etc and everything of OWN each. `changed`: what of a line is
    replaced by what, on a host or on all."""

    def __init__(self, hosts, changed=None):
        self.hosts = hosts
        self.changed = changed or {}
        self.said = {}  # host -> what its shell has been told: export, source
        self.behind = []
        for number in hosts.names:
            private = os.path.join(hosts.root, f"own{number}")
            for path in OWN:
                os.makedirs(private + path)
            os.makedirs(private + "/tmp")
            self.said[number] = ["cd /root"]
            for path in OWN:
                hosts.run(number, "mount", "--bind", private + path, path)
            # Where init scripts and mount(8) look for them.
            for path in ("/usr/bin", "/sbin"):
                real = os.path.realpath(path)
                hosts.run(number, "mount", "-t", "overlay", "-o",
                          f"lowerdir={hosts.root}/installed{path}:{real}", "overlay", real)

    def terminal(self, number, line, network=True):
        """Types the line on the host; without `network` its network is this machine's."""
        for old, new in self.changed.items():
            line = line.replace(old, new)
        is_ours = re.escape(os.path.basename(self.hosts.root))
        line = re.sub(f"/tmp/(?!{is_ours}/)", f"{self.hosts.root}/own{number}/tmp/", line)
        script = "\n".join(self.said[number] + [line])
        if line.startswith(("export ", "source ")):
            self.said[number].append(line)
        inside = ["nsenter", "-t", str(self.hosts.keepers[number]), "-m", *(["-n"] if network else [])]
        return Terminal(inside, line, script, dict(os.environ, TERM="xterm", HOME="/root"))

    def run(self, number, line, step=None, **options):
        """On a terminal, as it stands; what it says. `step`: Until or Fails."""
        one = self.terminal(number, line, **options)
        try:
            is_seen = True
            if isinstance(step, Until):
                is_seen = one.talk(step.pattern, step.keys)
            one.talk(patience=PATIENCE if not options else 300)
            code, text = one.process.returncode, one.text
        finally:
            one.close()
        if isinstance(step, Fails):
            is_right = code == 1 and re.search(step.pattern, text)
        else:
            is_right = is_seen and (code == 0 or isinstance(step, Until) and step.keys == INTERRUPT)
        check(is_right, f"'{line}' ends with {code}:\n{text[-2000:]}")
        return text

    def leave_running(self, number, line, pattern):
        """Goes on when the line's output matches, at once if it says nothing (None); the line runs
        until end_those_left()."""
        one = self.terminal(number, line)
        self.behind.append(one)
        check(pattern is None or one.talk(pattern), f"'{line}' has ended:\n{one.text[-2000:]}")

    def end_those_left(self):
        for one in self.behind:
            with contextlib.suppress(OSError):
                os.write(one.master, INTERRUPT.encode())
            one.close()
        self.behind = []


@contextlib.contextmanager
def lab(count, **options):
    made = [path for path in OWN if not os.path.exists(path)]
    for path in made:
        os.mkdir(path)
    try:
        with own_hosts(count) as hosts:
            one = Lab(hosts, **options)
            try:
                yield one
            finally:
                one.end_those_left()
    finally:
        for path in made:
            os.rmdir(path)
