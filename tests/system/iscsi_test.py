#!/usr/bin/python3
"""LUNs over iSCSI: tgtd with our module over a real cluster. Daemons are killed and frozen under
load; no error reaches the initiator, no block is wrong, reservations outlive everything."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from gateway import IQN, free_port, gateway, load_result, require  # noqa: E402
from harness import BUILD, check, cluster, main, run  # noqa: E402

MIB = 1 << 20


def stamped_blocks_survive_kills_of_tgtd_and_of_the_nbd_server():
    with cluster(cs=3, replicas="3:2") as one:
        one.volume("v", "128M")
        with gateway({1: (one.uri("v"), 128 * MIB)}) as target:
            load = target.start_load("stamp", 4096, 16, 14, 8)
            time.sleep(1)
            one.kill("nbd")
            one.start("nbd")  # waits for its predecessor's session to end: 10 s
            one.connect("v").shutdown()
            time.sleep(0.5)
            target.kill()
            time.sleep(0.2)
            target.start()
            result = load_result(load)
            print(f"  {result['commands']} writes, {result['checked']} blocks read back,"
                  f" longest {result['longest_ms']} ms", flush=True)
            check(result["errors"] == 0 and result["wrong"] == 0 and result["exit"] == 0,
                  f"{result['output']}")
            check(result["checked"] > 500, "too little was written to mean anything")


def two_initiators_count_up_with_compare_and_write():
    with nbdkit(64 * MIB) as server, gateway({1: (server.uri, 64 * MIB)}) as target:
        output = run(os.path.join(BUILD, "bin", "iscsi_do"), target.url(), "-", "race", "500")[1]
        print("  " + output.strip(), flush=True)


def reservations_survive_login_and_death():
    with nbdkit(64 * MIB) as server, gateway({1: (server.uri, 64 * MIB)}) as target:
        check(target.do("a", "register", 0, 11) == ["GOOD"], "a cannot register")
        check(target.do("b", "register", 0, 22) == ["GOOD"], "b cannot register")
        check(target.do("a", "reserve", 11, 1) == ["GOOD"], "a cannot reserve")
        for death in (False, True):
            if death:
                target.kill()
                target.start()
            check(target.do("a", "write", 5, 77) == ["GOOD"], "the holder is refused")
            check(target.do("b", "write", 5, 99) == ["RESERVATION CONFLICT"], "b is let in")
            check(target.do("b", "read", 5) == ["77"], "b cannot read, or the block is wrong")
            check(target.do("c", "keys") == ["11", "22"], "the keys are others")
            check(target.do("c", "holder") == ["11 type 1"], "the holder is another")
        check(target.do("b", "preempt", 22, 11, 1) == ["GOOD"], "b cannot preempt")
        check(target.do("a", "write", 5, 1) == ["RESERVATION CONFLICT"], "a is not fenced")
        check(target.do("b", "write", 5, 2) == ["GOOD"], "b is refused what it holds")


def reservations_follow_the_lun_to_another_gateway():
    with cluster(cs=3, replicas="3:2") as one:
        one.volume("v", "64M")
        one.volume("reservations", "1M")

        def serve():
            return gateway({1: (one.uri("v"), 64 * MIB)}, reservations_uri=one.uri("reservations"))

        with serve() as target:
            check(target.do("a", "register", 0, 11) == ["GOOD"], "a cannot register")
            check(target.do("b", "register", 0, 22) == ["GOOD"], "b cannot register")
            check(target.do("a", "reserve", 11, 1) == ["GOOD"], "a cannot reserve")
            one.kill("nbd")  # the whole gateway host is gone
            target.kill()
        one.start("nbd")  # another one; it gets the volumes when the first one's session has ended
        for name in ("v", "reservations"):
            one.connect(name).shutdown()
        with serve() as target:
            check(target.do("c", "keys") == ["11", "22"], "the keys are others")
            check(target.do("b", "write", 5, 99) == ["RESERVATION CONFLICT"], "b is let in")
            check(target.do("a", "write", 5, 77) == ["GOOD"], "the holder is refused")
            check(target.do("b", "preempt", 22, 11, 1) == ["GOOD"], "b cannot preempt")
            check(target.do("a", "write", 5, 1) == ["RESERVATION CONFLICT"], "a is not fenced")


def a_lun_grows_under_its_initiators():
    with nbdkit(64 * MIB) as server, gateway({1: (server.uri, 64 * MIB)}) as target:
        load = target.start_load("stamp", 4096, 8, 2, 4)
        watch = target.start_tool("iscsi_do", 1, "iqn.2026-11.test:w", "watch-capacity")
        time.sleep(0.5)
        target.resize(1, 128 * MIB)  # before the server knows: nothing changes, nothing waits
        time.sleep(0.5)
        check(target.do("a", "capacity") == [str(64 * MIB)], "it grew before the volume did")
        os.truncate(server.base + ".img", 128 * MIB)
        lines = watch.communicate(timeout=30)[0].splitlines()
        check(lines[-1] == str(128 * MIB), f"the initiator saw {lines}")
        check("UNIT ATTENTION 2a09" in lines, f"no unit attention: {lines}")
        check(target.do("a", "write", 128 * MIB // 512 - 1, 7) == ["GOOD"], "the end is missing")
        check(target.do("a", "read", 128 * MIB // 512 - 1) == ["7"], "the end is wrong")
        result = load_result(load)
        check(result["exit"] == 0, result["output"])


def a_frozen_server_stops_nobody_else():
    with nbdkit(64 * MIB) as frozen, nbdkit(64 * MIB) as alive:
        with gateway({1: (frozen.uri, 64 * MIB), 2: (alive.uri, 64 * MIB)}, patience=3) as target:
            stuck = target.start_load("stamp", 4096, 4, 1, 4, lun=1)
            time.sleep(0.5)
            frozen.process.send_signal(signal.SIGSTOP)
            result = target.load("read", 4096, 1, 2, lun=2)
            print(f"  {result['commands']} reads of the other LUN, longest"
                  f" {result['longest_ms']} ms", flush=True)
            check(result["exit"] == 0 and result["longest_ms"] < 1000, result["output"])
            # A LUN of the frozen server is added without waiting for it.
            begin = time.monotonic()
            target.luns[3] = (frozen.uri, 64 * MIB)
            target.uuids[3] = "00000000-0000-4000-8000-000000000003"
            target.add(3)
            check(time.monotonic() - begin < 1, "adding a LUN waited for the frozen server")
            begin = time.monotonic()
            check(target.do("x", "identity", lun=2) != [], "no answer")
            check(time.monotonic() - begin < 1, "the target waited for the frozen server")
            frozen.process.send_signal(signal.SIGCONT)
            result = load_result(stuck)
            check(result["errors"] == 0 and result["wrong"] == 0, result["output"])


def without_a_server_commands_are_not_ready_and_never_fail():
    with nbdkit(64 * MIB) as server, gateway({1: (server.uri, 64 * MIB)}, patience=1) as target:
        load = target.start_load("stamp", 4096, 4, 3, 4)
        time.sleep(0.5)
        server.stop()
        time.sleep(1.7)
        server.start()
        result = load_result(load)
        check(result["repeated"] > 0, "nothing was answered NOT READY")
        check(result["errors"] == 0, result["output"])


def the_command_makes_serves_and_deletes_targets():
    portal = f"127.0.0.1:{free_port()}"
    with cluster(cs=1, replicas="1") as one, tempfile.TemporaryDirectory() as directory:
        one.environment["PSTORAGE_ISCSI_DIR"] = directory
        secrets = os.path.join(directory, "secret")
        with open(secrets, "w", encoding="ascii") as file:
            file.write("correct-horse-1\n")

        def iscsi(*words, ok=True, host=None):
            environment = dict(one.environment)
            if host:
                environment["PSTORAGE_HOST_ID"] = host
            return run("pstorage-iscsi", *words, ok=ok, env=environment)

        def inquiry(user="", name="iqn.2026-11.test:i"):
            url = f"iscsi://{user}{portal}/{IQN}/1"
            return run("iscsi-inq", "-i", name, url, ok=False)[0] == 0

        try:
            iscsi("create", "-n", "test", "-a", portal)
            iscsi("lun-add", "-t", "test", "-l", "1", "-s", "64M")
            iscsi("start", "-t", IQN)
            check(inquiry(), "the target does not answer")
            listed = json.loads(iscsi("list", "-t", "test", "--json")[1])
            check(listed["status"] == "running" and listed["luns"][0]["size"] == 64 * MIB,
                  f"{listed}")
            code, why = iscsi("register", "-t", "test", ok=False, host="00000000000000aa")
            check(code == 1 and "is registered on host" in why, f"two hosts have it: {why}")

            iscsi("lun-grow", "-t", "test", "-l", "1", "-s", "128M")
            url = f"iscsi://{portal}/{IQN}/1"
            end = time.monotonic() + 10
            while run("iscsi-readcapacity16", "-s", url)[1].strip() != str(128 * MIB):
                check(time.monotonic() < end, "the LUN does not grow")
                time.sleep(0.2)

            iscsi("account", "add", "-u", "alice", "--secret-file", secrets)
            iscsi("account", "bind", "-t", "test", "-u", "alice")
            iscsi("acl", "add", "-t", "test", "-i", "iqn.2026-11.test:i")
            for again in (False, True):  # the cluster remembers it all
                if again:
                    iscsi("stop", "-t", "test")
                    iscsi("start", "-t", "test")
                check(inquiry("alice%correct-horse-1@"), "the right secret is refused")
                check(not inquiry(), "no secret is needed")
                check(not inquiry("alice%battery-staple@"), "any secret will do")
                check(not inquiry("alice%correct-horse-1@", "iqn.2026-11.test:other"),
                      "any initiator is let in")
            check(iscsi("delete", "-t", "test", ok=False)[0] == 1, "a running target was deleted")
            iscsi("stop", "-t", "test")
            iscsi("unregister", "-t", "test")
            iscsi("register", "-t", "test", host="00000000000000aa")
            check(iscsi("start", "-t", "test", ok=False)[0] == 1, "started on the wrong host")
            iscsi("unregister", "-t", "test", host="00000000000000aa")
            iscsi("lun-del", "-t", "test", "-l", "1")
            iscsi("delete", "-t", "test")
            check(json.loads(iscsi("list", "-a", "--json")[1]) == [], "the target is still there")
        finally:
            iscsi("stop", "-t", "test", ok=False)


def luns_have_limits_and_snapshots():
    portal = f"127.0.0.1:{free_port()}"
    url = f"iscsi://{portal}/{IQN}/"
    with cluster(cs=1, replicas="1") as one, tempfile.TemporaryDirectory() as directory:
        one.environment["PSTORAGE_ISCSI_DIR"] = directory

        def iscsi(verb, *words, ok=True):
            answer = run("pstorage-iscsi", verb, "-t", "test", *words, ok=ok, env=one.environment)
            return json.loads(answer[1]) if "--json" in words and ok else answer

        def do(lun, *words):
            lines = run(os.path.join(BUILD, "bin", "iscsi_do"), url + lun, "iqn.2026-11.test:a",
                        *words)[1].splitlines()
            return [line for line in lines if not line.startswith("UNIT ATTENTION")]

        def reads_of_a_second():
            load = subprocess.run([os.path.join(BUILD, "bin", "iscsi_load"), url + "1", "read",
                                   "4096", "4", "1"], capture_output=True, text=True, check=True)
            return json.loads(load.stdout)["commands"]

        run("pstorage-iscsi", "create", "-n", "test", "-a", portal, env=one.environment)
        iscsi("lun-add", "-l", "1", "-s", "64M")
        one.volume("there-already", "64M", image_format="ploop")
        iscsi("lun-add", "-l", "2", "--volume", "there-already")
        iscsi("lun-add", "-l", "3", "-s", "64M", "--format", "raw")
        try:
            iscsi("start")
            check([lun["format"] for lun in iscsi("list", "--json")["luns"]] ==
                  ["ploop", "ploop", "raw"], "the formats are others")
            check(do("2", "write", "5", "1") == ["GOOD"], "a volume of before is not served")
            check(do("1", "write", "5", "11") == ["GOOD"], "it cannot be written")
            made = iscsi("snapshot-create", "-l", "1", "-n", "monday", "--json")
            check(made["snapshot"] == "monday", f"{made}")
            check(do("1", "write", "5", "22") == ["GOOD"], "it is stopped by the snapshot")
            listed = iscsi("snapshot-list", "-l", "1", "--json")
            check([one["name"] for one in listed] == ["monday"], f"{listed}")
            code, why = iscsi("snapshot-create", "-l", "3", ok=False)
            check(code == 1 and "raw volume" in why, why)
            code, why = iscsi("snapshot-switch", "-l", "1", "-u", "monday", ok=False)
            check(code == 1 and "is running" in why, f"a running LUN was switched: {why}")

            limits = iscsi("lun-limit", "-l", "1", "--iops", "25", "--mbps", "1.5", "--json")
            check(limits["iops"] == 25 and limits["bytes_per_s"] == 3 * MIB // 2, f"{limits}")
            limited = reads_of_a_second()
            check(limited <= 75, f"{limited} reads in 1 s at 25 a second, burst 1 s")
            iscsi("lun-limit", "-l", "1", "--iops", "0", "--mbps", "0")
            free = reads_of_a_second()
            print(f"  {limited} reads in 1 s with a limit of 25/s, {free} without", flush=True)
            check(free > limited, "the limit is still there")

            iscsi("lun-grow", "-l", "1", "-s", "100M")
            end = time.monotonic() + 10
            while do("1", "capacity") != [str(100 * MIB)]:
                check(time.monotonic() < end, "the LUN does not grow")
                time.sleep(0.2)
            iscsi("stop")
            iscsi("snapshot-switch", "-l", "1", "-u", listed[0]["guid"])
            iscsi("snapshot-delete", "-l", "1", "-u", "monday")
            check(iscsi("snapshot-list", "-l", "1", "--json") == [], "the snapshot is still there")
            iscsi("lun-add", "-l", "4", "-s", "64M")
            iscsi("lun-del", "-l", "4")
            left = [one["name"] for one in json.loads(one.pstorage("volume", "ls", "--json"))]
            check("iscsi/test/lun1" in left and "iscsi/test/lun4" not in left,
                  f"not the volume of LUN 4 was deleted: {left}")
            iscsi("start")
            check(do("1", "read", "5") == ["11"], "it has not gone back")
            check(do("1", "capacity") == [str(100 * MIB)], "a LUN has become smaller")
        finally:
            iscsi("stop", ok=False)


class Nbdkit:
    """A memory disk that outlives its server: the data is in a file of /dev/shm."""

    def __init__(self, size):
        self.base = f"/dev/shm/pstorage-iscsi-{os.getpid()}-{id(self)}"
        with open(self.base + ".img", "wb") as file:
            file.truncate(size)
        self.uri = f"nbd+unix:///?socket={self.base}.sock"
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(["nbdkit", "--foreground", "--unix", self.base + ".sock",
                                         "file", self.base + ".img"])
        end = time.monotonic() + 10
        while not os.path.exists(self.base + ".sock"):
            check(time.monotonic() < end, "nbdkit does not come up")
            time.sleep(0.02)

    def stop(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        if os.path.exists(self.base + ".sock"):
            os.remove(self.base + ".sock")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        os.remove(self.base + ".img")


def nbdkit(size):
    return Nbdkit(size)


if __name__ == "__main__":
    require()
    main(two_initiators_count_up_with_compare_and_write, reservations_survive_login_and_death,
         reservations_follow_the_lun_to_another_gateway,
         a_frozen_server_stops_nobody_else, without_a_server_commands_are_not_ready_and_never_fail,
         a_lun_grows_under_its_initiators, the_command_makes_serves_and_deletes_targets,
         luns_have_limits_and_snapshots,
         stamped_blocks_survive_kills_of_tgtd_and_of_the_nbd_server)
