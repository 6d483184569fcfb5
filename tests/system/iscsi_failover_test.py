#!/usr/bin/python3
"""Two gateways: the host that serves a target is cut off from everybody while an initiator writes
stamped blocks. The other one takes target, address and reservations over; no error reaches the
initiator, no block is wrong, and the first one, back again, serves nothing. A second target has a
portal on each gateway: initiators see two paths, one of them active."""
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from gateway import load_result, require  # noqa: E402
from harness import BUILD, check, main, own_hosts  # noqa: E402

PORTAL = "192.168.0.100"
PATHS = {n: f"iscsi://192.168.0.{n}/iqn.2014-04.com.pstorage:paths/1" for n in (2, 3)}
STANDBY = ["CHECK CONDITION 2/040b"]
ACTIVE_BY = {2: ["1 0", "2 2"], 3: ["1 2", "2 0"]}
URL = f"iscsi://{PORTAL}/iqn.2014-04.com.pstorage:moving/1"


class Gateways:
    """A cluster on three hosts; hosts 2 and 3 are gateways, host 1 is the initiator."""

    def __init__(self, hosts):
        self.hosts = hosts
        self.on(1, "pstorage", "-c", "stor1", "make-mds", "-I", "-P", "-a", "192.168.0.1:2510",
                "-r", f"{hosts.directory(1)}/mds", input="secret\n")
        self.on(1, "service", "pstorage-mdsd", "start")
        for number in (1, 2, 3):
            if number != 1:
                self.on(number, "pstorage", "-c", "stor1", "auth-node", "-b", "192.168.0.1", "-P",
                        input="secret\n")
            self.on(number, "pstorage", "-c", "stor1", "make-cs", "-r",
                    f"{hosts.directory(number)}/cs", "-s", "64")
            self.on(number, "service", "pstorage-csd", "start")
        hosts.until(1, "CS nodes: *3 of 3", "pstorage", "-c", "stor1", "stat")
        self.on(1, "pstorage", "-c", "stor1", "set-attr", "-p", "/", "replicas=3:2")
        for number in (2, 3):
            self.on(number, "pstorage-nbd", "-c", "stor1", "-U", self.socket(number), "-D",
                    "-l", f"{hosts.directory(number)}/nbd.log")

    def on(self, number, *command, ok=True, **options):
        return self.hosts.run(number, *command, ok=ok, **options)

    def socket(self, number):
        return f"{self.hosts.directory(number)}/nbd.sock"

    def iscsi(self, number, *words, ok=True, program="pstorage-iscsi"):
        where = self.hosts.directory(number)
        return self.on(number, "env", f"PSTORAGE_ISCSI_DIR={where}", program, "-c", "stor1",
                       "--nbd-socket", self.socket(number), *words, ok=ok)

    def watch(self, number):
        self.iscsi(number, "-l", f"{self.hosts.directory(number)}/iscsid.log", "-D",
                   program="pstorage-iscsid")

    def served_by(self, number):
        """Does this host's tgtd run, and has the host the address?"""
        listed = json.loads(self.iscsi(number, "list", "-t", "moving", "--json")[1])
        address = self.on(number, "ip", "-brief", "address", "show", "dev", "eth0")[1]
        return listed["status"] == "running" and f"{PORTAL}/32" in address

    def wait(self, what, condition, patience=40):
        end = time.monotonic() + patience
        while not condition():
            check(time.monotonic() < end, f"{what}\n{self.logs()}")
            time.sleep(0.2)

    def logs(self):
        text = ""
        for number in (2, 3):
            for name in ("iscsid", "nbd"):
                path = f"{self.hosts.directory(number)}/{name}.log"
                if os.path.exists(path):
                    with open(path, encoding="utf-8") as file:
                        text += f"---- host {number}: {name}\n{file.read()}"
        return text

    def do(self, initiator, *words, url=URL):
        lines = self.on(1, os.path.join(BUILD, "bin", "iscsi_do"), url,
                        "iqn.2026-11.test:" + initiator, *words)[1].splitlines()
        return [line for line in lines if not line.startswith("UNIT ATTENTION")]


    def start_tool(self, tool, *words):
        """On the initiator's host."""
        return subprocess.Popen(["nsenter", "-t", str(self.hosts.keepers[1]), "-n", "-m",
                                 os.path.join(BUILD, "bin", tool), *words],
                                text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


class Paths:
    """The target with a portal on each gateway."""

    def __init__(self, own):
        self.own = own
        self.watches = []
        own.iscsi(2, "create", "-n", "paths", "-a", "192.168.0.2", "--failover", "on")
        own.iscsi(2, "lun-add", "-t", "paths", "-l", "1", "-s", "64M")
        own.iscsi(3, "portal", "add", "-t", "paths", "-a", "192.168.0.3")

    def do(self, number, *words):
        return self.own.do("a", *words, url=PATHS[number])

    def check_before_the_cut(self):
        self.own.wait("host 3 does not stand by", lambda: self.own.on(
            3, "iscsi-ls", "iscsi://192.168.0.3", ok=False)[0] == 0)
        found = self.own.on(1, "iscsi-ls", "iscsi://192.168.0.3")[1]
        check("pstorage:paths" in found, f"the standby is not discovered: {found}")
        for number in (2, 3):
            check(self.do(number, "groups") == ACTIVE_BY[2], f"groups at host {number}")
            check(self.do(number, "path") == ["TPGS 1", f"port {number - 1}", f"group {number - 1}"],
                  f"host {number} describes its path as {self.do(number, 'path')}")
            check(self.do(number, "capacity") == [str(64 << 20)], f"no size at host {number}")
        check(self.do(2, "identity") == self.do(3, "identity"), "two disks, not two paths")
        check(self.do(3, "ready") == STANDBY, f"the standby says {self.do(3, 'ready')}")
        check(self.do(2, "ready") == ["GOOD"], "the active one is not ready")
        check(self.do(2, "write", "5", "55") == ["GOOD"], "the active one cannot be written")
        self.watch(3)

    def watch(self, number):
        """The session stays: what does it learn?"""
        watch = self.own.start_tool("iscsi_do", PATHS[number], "iqn.2026-11.test:w", "watch-ready")
        check("CHECK CONDITION 6/2900" in watch.stdout.readline(), "no session")
        check(watch.stdout.readline().strip() == STANDBY[0], "the watched path is not in standby")
        self.watches.append(watch)

    def check_is_active(self, number, byte):
        lines = self.watches[-1].communicate(timeout=40)[0].split("\n")
        check(lines == ["CHECK CONDITION 6/2a06", "GOOD", ""],
              f"the session saw {lines}\n{self.own.logs()}")
        check(self.do(number, "read", "5") == [byte], "the block is wrong")
        check(self.do(number, "groups") == ACTIVE_BY[number], "the groups are others")


def a_target_moves_to_the_other_gateway_when_its_host_is_cut_off():
    with own_hosts(3) as hosts:
        own = Gateways(hosts)
        own.iscsi(2, "create", "-n", "moving", "-a", PORTAL, "--failover", "on", "--device", "eth0")
        own.iscsi(2, "lun-add", "-t", "moving", "-l", "1", "-s", "64M")
        paths = Paths(own)
        own.watch(2)
        own.watch(3)
        own.iscsi(2, "start", "-t", "paths")
        own.on(2, "ip", "address", "add", f"{PORTAL}/32", "dev", "eth0")
        own.iscsi(2, "start", "-t", "moving")
        own.wait("host 2 does not hold it", lambda: json.loads(own.iscsi(
            3, "list", "-t", "moving", "--json")[1])["served_by"] != "")
        check(own.do("a", "register", "0", "11") == ["GOOD"], "a cannot register")
        paths.check_before_the_cut()

        load = own.start_tool("iscsi_load", URL, "stamp", "4096", "4", "18", "16")
        try:
            time.sleep(1)
            own.on(2, "ip", "link", "set", "eth0", "down")
            cut = time.monotonic()
            own.wait("host 3 does not take over", lambda: own.served_by(3))
            print(f"  served by the other host {time.monotonic() - cut:.1f} s after the cut",
                  flush=True)
            own.on(2, "ip", "link", "set", "eth0", "up")
            own.wait("host 2 goes on serving", lambda: f"{PORTAL}/32" not in own.on(
                2, "ip", "-brief", "address", "show", "dev", "eth0")[1])
            paths.check_is_active(3, "55")
            check(paths.do(3, "write", "5", "66") == ["GOOD"], "it cannot be written")
            result = load_result(load)
            own.wait("host 2 does not stand by", lambda: own.on(
                1, os.path.join(BUILD, "bin", "iscsi_do"), PATHS[2], "iqn.2026-11.test:a", "ready",
                ok=False)[1].splitlines()[-1:] == STANDBY)
        finally:
            load.kill()
            load.wait()
        print(f"  {result['commands']} writes, {result['checked']} blocks read back, longest"
              f" {result['longest_ms']} ms", flush=True)
        check(result["errors"] == 0 and result["wrong"] == 0 and result["exit"] == 0,
              f"{result['output']}\n{own.logs()}")
        check(own.do("c", "keys") == ["11"], "the registration did not follow")
        check(own.served_by(3), "host 3 gave it up again")

        paths.watch(2)
        # A gateway that is ended in order gives its targets to the others at once.
        code, text = own.on(3, "pkill", "--ns", str(hosts.keepers[3]), "--nslist", "net",
                            "pstorage-iscsid", ok=False)
        check(code == 0, f"cannot end pstorage-iscsid of host 3: {text}")
        own.wait("host 2 does not get it back", lambda: own.served_by(2), 15)
        paths.check_is_active(2, "66")


if __name__ == "__main__":
    require()
    main(a_target_moves_to_the_other_gateway_when_its_host_is_cut_off)
