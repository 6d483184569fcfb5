#!/usr/bin/env python3
"""What an administrator looks at: top on a terminal, stat, events, settings."""
import contextlib
import json
import os
import re
import subprocess
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
            while not re.search(r"write +\d+\w*B/s \([1-9]\d*ops/s\)", screen.screen()):
                handle.pwrite(b"y" * 4096, 0)
                check(time.monotonic() < end, f"no rate is shown:\n{screen.screen()}")
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


if __name__ == "__main__":
    harness.main(top_shows_a_dead_chunk_server)
