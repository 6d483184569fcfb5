#!/usr/bin/python3
"""Two gateways: the host that serves a target is cut off from everybody while an initiator writes
stamped blocks. The other one takes target, address and reservations over; no error reaches the
initiator, no block is wrong, and the first one, back again, serves nothing."""
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from gateway import load_result, require  # noqa: E402
from harness import BUILD, check, main, own_hosts  # noqa: E402

PORTAL = "192.168.0.100"
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
            self.on(number, "pstorage-nbd", "-c", "stor1", "-U", self.socket(number), "-D")

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
            path = f"{self.hosts.directory(number)}/iscsid.log"
            if os.path.exists(path):
                with open(path, encoding="utf-8") as file:
                    text += f"---- host {number}\n{file.read()}"
        return text

    def do(self, initiator, *words):
        lines = self.on(1, os.path.join(BUILD, "bin", "iscsi_do"), URL,
                        "iqn.2026-11.test:" + initiator, *words)[1].splitlines()
        return [line for line in lines if not line.startswith("UNIT ATTENTION")]


def a_target_moves_to_the_other_gateway_when_its_host_is_cut_off():
    with own_hosts(3) as hosts:
        own = Gateways(hosts)
        own.iscsi(2, "create", "-n", "moving", "-a", PORTAL, "--failover", "on", "--device", "eth0")
        own.iscsi(2, "lun-add", "-t", "moving", "-l", "1", "-s", "64M")
        own.watch(2)
        own.watch(3)
        own.on(2, "ip", "address", "add", f"{PORTAL}/32", "dev", "eth0")
        own.iscsi(2, "start", "-t", "moving")
        own.wait("host 2 does not hold it", lambda: json.loads(own.iscsi(
            3, "list", "-t", "moving", "--json")[1])["served_by"] != "")
        check(own.do("a", "register", "0", "11") == ["GOOD"], "a cannot register")

        load = subprocess.Popen(
            ["nsenter", "-t", str(hosts.keepers[1]), "-n", "-m",
             os.path.join(BUILD, "bin", "iscsi_load"), URL, "stamp", "4096", "4", "18", "16"],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
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
            result = load_result(load)
        finally:
            load.kill()
            load.wait()
        print(f"  {result['commands']} writes, {result['checked']} blocks read back, longest"
              f" {result['longest_ms']} ms", flush=True)
        check(result["errors"] == 0 and result["wrong"] == 0 and result["exit"] == 0,
              f"{result['output']}\n{own.logs()}")
        check(own.do("c", "keys") == ["11"], "the registration did not follow")
        check(own.served_by(3), "host 3 gave it up again")

        # A gateway that is ended in order gives its targets to the others at once.
        code, text = own.on(3, "pkill", "--ns", str(hosts.keepers[3]), "--nslist", "net",
                            "pstorage-iscsid", ok=False)
        check(code == 0, f"cannot end pstorage-iscsid of host 3: {text}")
        own.wait("host 2 does not get it back", lambda: own.served_by(2), 15)


if __name__ == "__main__":
    require()
    main(a_target_moves_to_the_other_gateway_when_its_host_is_cut_off)
