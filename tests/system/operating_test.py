#!/usr/bin/env python3
"""What an administrator looks at: top on a terminal, stat, events, settings."""
import base64
import contextlib
import json
import os
import re
import subprocess
import tarfile
import tempfile
import time
import xml.etree.ElementTree

import harness
from harness import check, run


class Terminal:
    """A program in a terminal of 80 columns and 24 lines (a tmux of its own)."""

    def __init__(self, environment, *command):
        self.directory = tempfile.TemporaryDirectory(prefix="pstorage-tmux-")
        self.environment = dict(environment, TMUX_TMPDIR=self.directory.name, LC_ALL="C.UTF-8")
        self.environment.pop("TMUX", None)
        self.tmux("new-session", "-d", "-x", "80", "-y", "24", *command)

    def tmux(self, *arguments, ok=True):
        return run("tmux", "-f", "/dev/null", *arguments, env=self.environment, ok=ok)[1]

    def screen(self, *options):
        return self.tmux("capture-pane", "-p", *options, ok=False)

    def press(self, key):
        self.tmux("send-keys", key)

    def until(self, pattern, patience=20):
        """Until the screen matches; returns it."""
        end = time.monotonic() + patience
        while True:
            text = self.screen()
            if re.search(pattern, text, re.DOTALL):
                return text
            check(time.monotonic() < end, f"the screen does not show {pattern}:\n{text}")
            time.sleep(0.05)

    def until_gone(self, patience=10):
        end = time.monotonic() + patience
        while run("tmux", "-f", "/dev/null", "has-session", env=self.environment, ok=False)[0] == 0:
            check(time.monotonic() < end, f"the program does not end:\n{self.screen()}")
            time.sleep(0.05)

    def close(self):
        self.tmux("kill-server", ok=False)
        self.directory.cleanup()


@contextlib.contextmanager
def terminal(environment, *command):
    one = Terminal(environment, *command)
    try:
        yield one
    finally:
        one.close()


def top_shows_a_dead_chunk_server():
    with harness.cluster(cs=3, replicas="3:2") as one:
        one.volume("vm1", "128M")
        handle = one.connect("vm1")
        handle.pwrite(b"x" * 4096, 0)
        code, text = run("pstorage", "top", env=one.environment, ok=False,
                         stdin=subprocess.DEVNULL)
        check(code == 1 and "top needs a terminal" in text, text)
        with terminal(one.environment, "pstorage", "top", "-T", "200") as screen:
            screen.until(r"Cluster 'dev': healthy.*CS nodes:  3 of 3.*MDSID.*CSID.*CLID.*MESSAGE")
            # Written as long as it is looked at: the tables show how fast.
            end = time.monotonic() + 20
            while not re.search(r"write +\d+\w*B/s \( *[1-9]\d*ops/s\)", screen.screen()):
                handle.pwrite(b"y" * 4096, 0)
                check(time.monotonic() < end, f"no rate is shown:\n{screen.screen()}")
            # The clients' own view of how long that takes, not only the disks'.
            status = json.loads(one.pstorage("stat", "--json"))
            latencies = [client["io_latency_us"] for client in status["services"]
                         if client["kind"] == "CLIENT" and client["write_ops"]]
            check(latencies and all(latencies), f"no latency of the client: {latencies}")
            one.kill("cs3")
            text = screen.until(r"Cluster 'dev': degraded \(1 inactive")
            text = screen.until(r"1027 inactive")
            check("CS nodes:  2 of 3 (2 avail, 1 inactive, 0 offline)" in text, text)
            check(re.search(r"Chunks: \[WARN\] .*1 \(100%\) urgent", text, re.DOTALL), text)
            check(len(text.splitlines()) == 24, f"{len(text.splitlines())} lines:\n{text}")
            coloured = screen.screen("-e")
            check(re.search("\x1b\\[[0-9;]*33[0-9;]*m *1027 inactive", coloured),
                  f"a dead server is not coloured: {coloured!r}")
            screen.press("c")
            text = screen.until(r"CSID STATUS")
            check("MDSID" not in text, text)
            screen.press("i")
            screen.until(r"CSID STATUS +READ +WRITE")
            screen.press("i")
            screen.until(r"CSID STATUS.*VERSION.*FLAGS.*1025 active.*0\.1\.0.*JC")
            screen.press("m")
            screen.until(r"M +1 avail .*%")
            screen.press("?")
            screen.until(r"any key: back")
            screen.press("e")
            screen.press("e")
            screen.until(r"MESSAGE.*CS#1027.*inactive")
            screen.tmux("resize-window", "-x", "60", "-y", "16")
            screen.press("c")
            end = time.monotonic() + 10
            while len(screen.screen().splitlines()) != 16 or "1027 inactive" not in screen.screen():
                check(time.monotonic() < end, f"not resized:\n{screen.screen()}")
                time.sleep(0.05)
            screen.press("q")
            screen.until_gone()
        handle.shutdown()


def lines_of(one, count, *command):
    """The first lines of a command that does not end by itself."""
    process = subprocess.Popen(["pstorage", *command], stdout=subprocess.PIPE, text=True,
                               env=one.environment)
    try:
        for _ in range(count):
            yield process.stdout.readline()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def check_stat(one):
    status = json.loads(one.pstorage("stat", "--json"))
    check(len([s for s in status["services"] if s["kind"] == "CS"]) == 2, status)
    tree = xml.etree.ElementTree.fromstring(one.pstorage("stat", "-X"))
    check(tree.tag == "status" and tree.findtext("cluster") == "dev", tree.tag)
    check(len(tree.findall("services")) == len(status["services"]), "not all services are there")
    check(tree.findtext("chunks/healthy") == str(status["chunks"]["healthy"]), "chunks")
    text = one.pstorage("-q", "stat", "-n")
    check(re.search(r"1025 active .* 127\.0\.0\.1", text), text)
    for line in lines_of(one, 3, "stat", "--watch=0.1", "--json"):
        check(json.loads(line)["cluster"] == "dev", line)
    text = "".join(lines_of(one, 8, "-q", "stat", "--watch"))
    check(text.startswith("Cluster 'dev': ") and "Chunks: " in text, text)
    config = os.path.join(one.home, "etc", "pstorage.conf")
    with open(config, "w", encoding="ascii") as file:
        file.write("numeric.addrs=1\ncs.sort=csid=inv\n")
    text = one.pstorage("-q", "stat")
    check(re.search(r"1026 active .* 127\.0\.0\.1.*1025 active", text, re.DOTALL), text)
    with open(config, "a", encoding="ascii") as file:
        file.write("cs.short=csid\n")
    text = one.pstorage("stat", ok=False)
    check("pstorage.conf: line 3" in text and "did you mean 'cs.sort'?" in text, text)
    os.remove(config)
    check("did you mean 'stat'?" in one.pstorage("stta", ok=False), "stta")
    check("did you mean '--watch'?" in one.pstorage("stat", "--wach", ok=False), "--wach")
    text = one.pstorage("stat", "-X", "--json", ok=False)
    check("excludes" in text, text)


def check_events(one):
    events = json.loads(one.pstorage("get-event", "--json"))
    numbers = [event["number"] for event in events]
    check(numbers == sorted(numbers) and numbers, numbers)
    everything = one.pstorage("-q", "get-event", "--since", "1h").splitlines()
    check(len(everything) == len(events) + 1, everything)
    text = one.pstorage("-q", "get-event", "--since", "2099-01-31 12:34:56")
    check(text.split() == ["TIME", "SYS", "SEV", "MESSAGE"], text)
    for severity in ("WRN", "err"):
        text = one.pstorage("-q", "get-event", "--severity", severity)
        check(" INF " not in text, text)
    check("bad time 'noon'" in one.pstorage("get-event", "--since", "noon", ok=False), "noon")
    follower = lines_of(one, 1000, "get-event", "-f", "--json", "--after", str(numbers[-1]))
    one.pstorage("set-config", "cs.log.level=3")
    check("cs.log.level set to 3" in json.loads(next(follower))["text"], "not followed")
    one.pstorage("set-config", "cs.log.level=0")
    check("cs.log.level set to 0" in json.loads(next(follower))["text"], "not followed")
    follower.close()
    text = one.pstorage("set-config", "mds.wd.ofline_tout=1000", ok=False)
    check("did you mean 'mds.wd.offline_tout'?" in text, text)


def state_and_events_are_told_in_every_form():
    with harness.cluster(cs=2, replicas="2:1") as one:
        check_stat(one)
        check_events(one)
        check_doctor(one)
        check_report(one)
        check_completion(one)


def check_doctor(one):
    text = one.pstorage("doctor", ok=False)
    check("[OK]    health   all services answer" in text, text)
    check(re.search(r"\[WARN\]  mds +1 metadata server.*\n +do: make-mds", text), text)
    check("findings need you" in text, text)
    findings = json.loads(run("pstorage", "doctor", "--json", ok=False, env=one.environment,
                              )[1].rsplit("pstorage: ", 1)[0])
    checks = {finding["check"] for finding in findings}
    check({"health", "chunks", "space", "clocks", "domains", "mds", "unique", "versions",
           "flush"} <= checks, checks)
    flush = [finding for finding in findings if finding["check"] == "flush"]
    check(len(flush) == 3, flush)  # one MDS, two CS
    check(not [name for name in os.listdir(os.path.join(one.home, "cs1"))
               if name.startswith(".doctor")], "doctor has left its file behind")


def check_report(one):
    """What is secret is in no file of it, under no name."""
    path = os.path.join(one.directory, "report.tar")
    secret = os.path.join(one.home, "etc", "clusters", "dev", "password.txt")
    with open(secret, "w", encoding="ascii") as file:
        file.write("hunter2-hunter2")
    one.pstorage("make-report", "-o", path)
    check("exists" in one.pstorage("make-report", "-o", path, ok=False), "overwritten")
    check(os.stat(path).st_mode & 0o777 == 0o600, "others may read the report")
    with tarfile.open(path) as archive:
        names = archive.getnames()
        content = b"".join(archive.extractfile(name).read() for name in names)
    for name in ("status.json", "config.json", "events.json", "doctor.txt", "etc/dev/bs.list",
                 "cs1/directory", "host/proc/meminfo"):
        check(name in names, f"{name} is not in {names}")
    check(b"1025" in content, "no state")
    with open(os.path.join(one.home, "etc", "clusters", "dev", "auth_digest.key"), "rb") as file:
        key = file.read()
    for what in (key[:32], key[:32].hex().encode(), base64.b64encode(key[:32])[:40],
                 b"hunter2", b"auth_digest"):
        check(what not in content, f"a secret is in the report: {what}")
    check(not [name for name in names if "key" in name or "password" in name], names)
    one.kill("mds1")
    run("pstorage", "-b", "127.0.0.1:1", "make-report", "-o", path + "2", env=one.environment)
    with tarfile.open(path + "2") as archive:
        text = archive.extractfile("status.json").read()
        check(b"no answer" in text, text)
        check("host/proc/meminfo" in archive.getnames(), "no host")


def check_completion(one):
    script = one.pstorage("completion", "bash")
    run("bash", "-n", "/dev/stdin", input=script)

    def complete(*words):
        quoted = " ".join(f"'{word}'" for word in ("pstorage", *words))
        test = (f"{script}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _pstorage; "
                "printf '%s\\n' \"${COMPREPLY[@]}\"")
        return run("bash", "-c", test, env=one.environment)[1].split()

    check(complete("get-e") == ["get-event"], complete("get-e"))
    check({"stat", "top", "volume"} <= set(complete("")), complete(""))
    check({"create", "ls", "snapshot"} <= set(complete("volume", "")), complete("volume", ""))
    check(complete("get-event", "--sev") == ["--severity"], complete("get-event", "--sev"))
    check(complete("get-event", "--severity", "W") == ["WRN"], "values")
    check(complete("-c", "") == ["dev"], complete("-c", ""))
    check(complete("-c", "stat", "list") == ["list-services"], "a value is no command")
    check(complete("volume", "create", "vm1", "--rep") == ["--replicas"], "behind an argument")
    check(complete("completion", "b") == ["bash"], complete("completion", "b"))
    # Whatever the parser has is offered: the same source.
    words = re.findall(r"^  ([a-z][a-z-]*) ", one.pstorage("--help"), re.MULTILINE)
    check(set(words) <= set(complete("")) and len(words) > 20, words)


def an_ssd_is_shared_as_advised():
    with harness.cluster(cs=1, replicas="1") as one, harness.own_disk(megabytes=420) as (_, ssd):
        directory = os.path.join(one.directory, "advised")
        text = one.pstorage("advise-configuration", "--ssd", ssd, "-w", "--cs", directory,
                            directory + "2", ok=False)
        check("less than 256 MB for each journal" in text, text)
        text = one.pstorage("-q", "advise-configuration", "--ssd", ssd, "-w", "--cs", directory,
                            "-m", "/mnt/dev")
        wanted = (rf"pstorage -c dev make-cs -r {directory} -j {ssd} -s 256\n"
                  rf"pstorage-mount -c dev /mnt/dev -C {ssd}/dev.cache -R \d+\n")
        check(re.fullmatch(wanted, text), text)
        check("required" in one.pstorage("advise-configuration", "--ssd", ssd, ok=False), "no -w")
        text = one.pstorage("-q", "advise-configuration", "--ssd", ssd, "-w", "--cs", directory)
        check(re.fullmatch(rf"pstorage -c dev make-cs -r {directory} -j {ssd} -s 320\n", text), text)
        check(not os.path.exists(directory), "done without --apply")
        one.pstorage("advise-configuration", "--ssd", ssd, "-w", "--cs", directory, "--apply")
        check(os.path.exists(os.path.join(directory, "repository.json")), "no repository was made")
        journals = [name for name in os.listdir(ssd) if name.endswith(".journal")]
        check(len(journals) == 1, journals)
        advice = json.loads(one.pstorage("advise-configuration", "--ssd", "/tmp", "-w", "--json",
                                         "--cs", directory))
        check("configure-cs" in advice["commands"][0], advice)


if __name__ == "__main__":
    harness.main(top_shows_a_dead_chunk_server, state_and_events_are_told_in_every_form,
                 an_ssd_is_shared_as_advised)
