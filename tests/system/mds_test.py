#!/usr/bin/python3
"""Three metadata servers: set up as the manual says on three hosts, then the master and the others
are killed, stopped and cut off in turn under NBD load. Running I/O does not notice."""
import os
import re
import shutil
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from failover_test import fio_verify  # noqa: E402
from harness import Writer, check, cluster, main, own_disk, own_hosts, run, verify_exact  # noqa: E402

GAP_OF_RUNNING_IO = 0.5
METADATA_BACK = 2.0      # median
LEADER_KILLS = 20


def mds_rows(one):
    """[(number, state, is master)] as list-services shows them."""
    rows = []
    for line in one.pstorage("-q", "list-services", "-a").splitlines():
        found = re.match(r"MDS\s+(\d+)\s+(\S+)( \(master\))?", line)
        if found:
            rows.append((int(found[1]), found[2], found[3] is not None))
    return rows


def master(one):
    return next(f"mds{number}" for number, _, is_master in mds_rows(one) if is_master)


def wait_all_avail(one, count=3, patience=30):
    end = time.monotonic() + patience
    rows = []
    while time.monotonic() < end:
        rows = mds_rows(one)
        if sum(state == "avail" for _, state, _ in rows) == count:
            return
        time.sleep(0.1)
    raise AssertionError(f"not all metadata servers are back: {rows}")


def the_manual_s_sequence_on_three_hosts():
    with own_hosts(3) as hosts:
        def on(number, *command, ok=True, **options):
            return hosts.run(number, *command, ok=ok, **options)

        here = {number: hosts.directory(number) for number in (1, 2, 3)}
        on(1, "pstorage", "-c", "stor1", "make-mds", "-I", "-p", "-P", "-a", "192.168.0.1:2510",
           "-r", f"{here[1]}/mds", input="secret\n")
        on(1, "service", "pstorage-mdsd", "start")
        for number in (2, 3):
            address = f"192.168.0.{number}:2510"
            code, text = on(number, "pstorage", "-c", "stor1", "make-mds", "-a", address,
                            "-r", f"{here[number]}/mds", ok=False)
            check(code == 1 and "auth-node" in text, f"make-mds before auth-node: {text}")
            on(number, "pstorage", "-c", "stor1", "auth-node", "-b", "192.168.0.1", "-P",
               input="secret\n")
            on(number, "pstorage", "-c", "stor1", "make-mds", "-a", address,
               "-r", f"{here[number]}/mds", "-b", "192.168.0.1")
            on(number, "service", "pstorage-mdsd", "start")
        for number in (1, 2, 3):
            on(number, "pstorage", "-c", "stor1", "make-cs", "-r", f"{here[number]}/cs", "-s", "64")
            on(number, "service", "pstorage-csd", "start")
            for service in ("pstorage-mdsd", "pstorage-csd"):
                check("runs (pid" in on(number, "service", service, "status")[1], service)
        on(1, "pstorage", "-c", "stor1", "set-attr", "-p", "/", "replicas=3:2")
        text = hosts.until(2, "MDS nodes: 3 of 3.*CS nodes: *3 of 3", "pstorage", "-c", "stor1",
                           "stat")
        check("MDSID" in text, text)
        on(3, "pstorage", "-c", "stor1", "volume", "create", "vm1", "-s", "64M")
        socket = f"{hosts.directory(2)}/nbd.sock"
        on(2, "pstorage-nbd", "-c", "stor1", "-U", socket, "-D", "vm1")
        payload = os.path.join(hosts.directory(1), "payload")
        with open(payload, "wb") as file:
            file.write(os.urandom(64 << 20))
        run("nbdcopy", payload, f"nbd+unix:///vm1?socket={socket}")
        run("nbdcopy", f"nbd+unix:///vm1?socket={socket}", payload + ".back")
        run("cmp", payload, payload + ".back")
        on(3, "service", "pstorage-csd", "restart")
        on(3, "service", "pstorage-mdsd", "stop")
        check(on(3, "service", "pstorage-mdsd", "status", ok=False)[0] == 3, "it was stopped")
        on(3, "service", "pstorage-mdsd", "start")
        hosts.until(2, "MDS nodes: 3 of 3.*CS nodes: *3 of 3", "pstorage", "-c", "stor1", "stat")
        with open(f"{hosts.etc(3)}/pstorage/clusters/stor1/bs.list", encoding="ascii") as file:
            known = file.read().split()
        check(sorted(known) == [f"192.168.0.{n}:2510" for n in (1, 2, 3)],
              f"host 3 does not know all metadata servers: {known}")


def each_metadata_server_fails_in_turn_under_fio_verify():
    with cluster(cs=3, replicas="3:2", extra=("--mds", "3", "--hosts")) as one:
        one.volume("verify", "128M")
        one.volume("gap", "64M")
        fio = fio_verify(one.uri("verify"), 26)
        writer = Writer(one, "gap", 2048, flush_every=64)
        writer.start()
        time.sleep(2)
        for who in ("master", "another"):
            for fault in ("kill", "stop", "cut"):
                chief = master(one)
                name = chief if who == "master" else next(
                    f"mds{n}" for n, _, is_master in mds_rows(one) if not is_master)
                since = time.monotonic()
                {"kill": one.kill, "stop": one.stop, "cut": one.cut_mds}[fault](name)
                one.pstorage("-q", "set-attr", "-p", "/volumes/gap", "client-ssd-cache=1")
                back = time.monotonic() - since
                time.sleep(0.5)
                gap = writer.longest_gap(since)
                {"kill": one.start, "stop": one.cont, "cut": one.mend_mds}[fault](name)
                wait_all_avail(one)
                print(f"  {fault} {who} ({name}): I/O paused {gap * 1000:.0f} ms, metadata back"
                      f" after {back * 1000:.0f} ms", flush=True)
                check(writer.error is None, f"the client saw an error: {writer.error}")
                check(gap < GAP_OF_RUNNING_IO, f"running I/O paused {gap:.2f} s")
        writer.finish()
        check(writer.error is None, f"the client saw an error: {writer.error}")
        output = fio.communicate(timeout=120)[0]
        check(fio.returncode == 0 and "err= 0" in output, f"fio verify failed:\n{output}")
        verify_exact(one.connect("gap"), writer)


def metadata_operations_are_back_soon_after_the_master_is_killed():
    with cluster(cs=1, replicas="1:1", extra=("--mds", "3")) as one:
        times = []
        for number in range(LEADER_KILLS):
            name = master(one)
            one.kill(name)
            since = time.monotonic()
            one.volume(f"v{number}", "1M")
            times.append(time.monotonic() - since)
            one.start(name)
            wait_all_avail(one)
        names = one.pstorage("-q", "volume", "ls")
        missing = [n for n in range(LEADER_KILLS) if not re.search(rf"^v{n} ", names, re.M)]
        check(not missing, f"acknowledged volumes are gone: {missing}\n{names}")
        median = statistics.median(times)
        print(f"  metadata back after {median * 1000:.0f} ms (median of {LEADER_KILLS}), at worst"
              f" {max(times) * 1000:.0f} ms", flush=True)
        check(median < METADATA_BACK, f"metadata operations resumed after {median:.2f} s")


def two_of_five_may_fail_and_without_a_majority_metadata_waits_and_says_why():
    with cluster(cs=3, replicas="3:2", extra=("--mds", "5")) as one:
        one.volume("v", "64M")
        writer = Writer(one, "v", 512)
        writer.start()
        time.sleep(1)
        since = time.monotonic()
        chief = master(one)
        gone = [chief, *[f"mds{n}" for n, _, is_master in mds_rows(one) if not is_master][:2]]
        for name in gone[:2]:
            one.kill(name)
        one.volume("with-three", "1M")
        one.kill(gone[2])
        code, text = run("pstorage", "-q", "volume", "create", "other", "-s", "1M",
                             "--format", "raw", ok=False,
                         env=one.environment)
        check(code == 1 and ("no MDS answers" in text) and text.count("\n") == 1,
              f"without a majority: exit {code}: {text}")
        check("leads now" in text or "refused" in text, f"the reason is missing: {text}")
        check(writer.longest_gap(since) < GAP_OF_RUNNING_IO, "running I/O paused")
        for name in gone:
            one.start(name)
        wait_all_avail(one, 5)
        one.volume("later", "1M")
        writer.finish()
        check(writer.error is None, f"the client saw an error: {writer.error}")
        verify_exact(one.connect("v"), writer)


def a_full_disk_of_one_harms_nobody():
    with own_disk(megabytes=256) as (_, small):
        with cluster(cs=1, replicas="1:1", extra=("--mds", "3")) as one:
            one.volume("before", "1M")
            victim = master(one)
            home = os.path.join(one.home, victim)
            one.kill(victim)
            shutil.move(home, f"{small}/{victim}")
            os.symlink(f"{small}/{victim}", home)
            one.start(victim)
            wait_all_avail(one)
            for _ in range(20):  # until it leads
                chief = master(one)
                if chief == victim:
                    break
                one.kill(chief)
                one.volume(f"chosen-{time.monotonic_ns()}", "1M")
                one.start(chief)
                wait_all_avail(one)
            check(master(one) == victim, "it was never elected again")
            with open(f"{small}/filler", "wb") as file:
                try:
                    while True:
                        file.write(bytes(1 << 20))
                        file.flush()
                except OSError:
                    pass
            for number in range(200):
                one.volume(f"v{number}", "1M")
            check("nearly full" in log_of(one, victim), "the full server does not say so")
            check(master(one) != victim, "the full server still leads")
            os.remove(f"{small}/filler")
            wait_all_avail(one)


def log_of(one, name):
    with open(f"{one.home}/logs/{name}.log", encoding="utf-8") as file:
        return file.read()


def a_spoilt_repository_harms_nobody_and_says_so():
    with cluster(cs=1, replicas="1:1", extra=("--mds", "3")) as one:
        one.volume("before", "1M")
        victim = next(f"mds{n}" for n, _, is_master in mds_rows(one) if not is_master)
        home = os.path.join(one.home, victim)
        one.kill(victim)
        shutil.copytree(home, home + ".old")
        one.start(victim)
        wait_all_avail(one)
        for number in range(30):
            one.volume(f"v{number}", "1M")

        def starts_not(expected):
            done = subprocess.run(["mdsd", "-r", home], env=one.environment, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30,
                                  check=False)
            lines = [line for line in done.stderr.splitlines() if line.startswith("mdsd: ")]
            check(done.returncode == 1 and len(lines) == 1 and re.search(expected, lines[0]),
                  f"expected '{expected}': exit {done.returncode}\n{done.stderr}")
            one.volume("with-" + expected.split()[0], "1M")
            print(f"  {lines[0]}", flush=True)

        one.kill(victim)
        shutil.move(home + "/raft", home + "/away")
        starts_not("damaged beyond repair: its files are gone.*Remove this server")
        shutil.move(home + "/away", home + "/raft")
        # An entry in the middle is damaged: it is fetched again before the server votes.
        with open(home + "/raft/segment-0000000000000001", "r+b") as file:
            file.seek(3 * 4096 + 60)
            file.write(b"\xff")
        one.start(victim)
        end = time.monotonic() + 20
        while "damaged" not in log_of(one, victim):
            check(time.monotonic() < end, "damage in the middle of the log was not noticed")
            time.sleep(0.1)
        wait_all_avail(one)
        # An old copy of itself: told of, and never counted.
        one.kill(victim)
        shutil.rmtree(home)
        shutil.copytree(home + ".old", home)
        one.start(victim)
        end = time.monotonic() + 20
        while "its repository is an old copy" not in one.pstorage("-q", "get-event"):
            check(time.monotonic() < end, f"an old copy was not noticed: {mds_rows(one)}")
            time.sleep(0.2)
        check("outdated" in str(mds_rows(one)), f"not shown: {mds_rows(one)}")
        one.pstorage("rm-mds", victim.removeprefix("mds"))
        check(len(mds_rows(one)) == 2, "rm-mds left it")
        names = one.pstorage("-q", "volume", "ls")
        check(len(names.splitlines()) >= 32, f"acknowledged volumes are gone:\n{names}")


if __name__ == "__main__":
    main(the_manual_s_sequence_on_three_hosts,
         each_metadata_server_fails_in_turn_under_fio_verify,
         metadata_operations_are_back_soon_after_the_master_is_killed,
         two_of_five_may_fail_and_without_a_majority_metadata_waits_and_says_why,
         a_full_disk_of_one_harms_nobody,
         a_spoilt_repository_harms_nobody_and_says_so)
