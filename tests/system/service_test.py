#!/usr/bin/env python3
"""The services of a host: by the init scripts with real daemons (started again, stopped under load,
under a user of their own), and the systemd units as systemd reads them."""
import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time

from harness import BUILD, check, main, own_hosts, run

UNITS = [f"pstorage-{name}{at}.service" for name in ("mdsd", "csd", "nbd", "iscsid")
         for at in ("", "@")] + ["pstorage-stop@.service"]
CLUSTER = f"services{os.getpid()}"  # its name is in /run and /var/log of this machine
EXPOSURE_MAX = 4.5  # of systemd-analyze security: 10 is a service without any restriction


def units_are_as_systemd_wants_them():
    with tempfile.TemporaryDirectory(prefix="pstorage-units-") as root:
        run("cmake", "--install", BUILD, "--prefix", "/usr", env=dict(os.environ, DESTDIR=root))
        directory = f"{root}/usr/lib/systemd/system"
        # Templates are looked at with an instance; a name without one is refused by nothing else.
        names = [re.sub("@", "@pstorage-disk1", name) for name in UNITS]
        for plain, name in zip(UNITS, names):
            with open(f"{directory}/{plain}", encoding="utf-8") as unit:
                text = unit.read()
            # The programs are where the package puts them: below this root they are, too.
            for path in re.findall(r"^ExecStart=(\S+)", text, re.M):
                check(os.access(root + path, os.X_OK), f"{plain}: {path} is not installed")
            with open(f"{directory}/{name}", "w", encoding="utf-8") as unit:
                unit.write(re.sub(r"^ExecStart=(/\S+)", rf"ExecStart={root}\1", text, flags=re.M))
        paths = [f"{directory}/{name}" for name in names]
        text = run("systemd-analyze", "verify", "--man=no", *paths)[1]
        check("pstorage" not in text, f"systemd-analyze verify has something to say:\n{text}")
        for path in paths:
            if re.match("pstorage-(?!stop).*@", os.path.basename(path)):  # it is a daemon's
                run("systemd-analyze", "security", "--offline=true", "--no-pager",
                    f"--threshold={EXPOSURE_MAX * 10:.0f}", path)


def everybody_can_search(path):
    return path == "/" or (os.stat(path).st_mode & 0o001
                           and everybody_can_search(os.path.dirname(path)))


def pid_in(path):
    with open(path, encoding="ascii") as file:
        return int(file.read())


def until(condition, what, patience=20):
    end = time.monotonic() + patience
    while not condition():
        check(time.monotonic() < end, f"not within {patience} s: {what}")
        time.sleep(0.05)


def owner(path):
    return os.stat(path).st_uid


def add_user(hosts, number):
    """A user 'pstorage' that only this host's /etc knows."""
    uid = 64999
    check(all(entry.pw_uid != uid for entry in pwd.getpwall()), f"the uid {uid} is taken")
    with open(f"{hosts.etc(number)}/passwd", "a", encoding="ascii") as file:
        file.write(f"pstorage:x:{uid}:{uid}::/nonexistent:/usr/sbin/nologin\n")
    with open(f"{hosts.etc(number)}/group", "a", encoding="ascii") as file:
        file.write(f"pstorage:x:{uid}:\n")
    return uid


def make_host(hosts, home):
    """A cluster of one host with one MDS and two chunk servers; nothing runs yet but the MDS."""
    def on(*command, ok=True, **options):
        return hosts.run(1, *command, ok=ok, **options)
    on("pstorage", "-c", CLUSTER, "make-mds", "-I", "-p", "-P", "-a", "192.168.0.1",
       "-r", f"{home}/mds", input="secret\n")
    text = on("service", "pstorage-mdsd", "start")[1]
    check(f"{home}/mds started" in text, text)
    on("pstorage", "-c", CLUSTER, "set-attr", "-p", "/", "replicas=2:1", "failure-domain=disk")
    for number in (1, 2):
        on("pstorage", "-c", CLUSTER, "make-cs", "-r", f"{home}/cs{number}", "-s", "64")
    on("service", "pstorage-csd", "start")
    on("service", "pstorage-nbd", "start")
    return on


def look_at_users(on, home, uid):
    for daemon in ("mds/mdsd", "cs1/csd", "cs2/csd"):
        pid = pid_in(f"{home}/{daemon}.pid")
        check(owner(f"/proc/{pid}") == uid, f"{daemon} does not run as its user")
    check(owner(f"{home}/cs1/journal") == uid and owner(f"{home}/mds/raft") == uid, "not given")
    code, text = on("pstorage-nbd", "-c", CLUSTER, "-D", "--respawn", ok=False)
    check(code == 1 and "another program listens" in text, f"a second server: {text}")


def kill_and_wait(home, daemon):
    path = f"{home}/{daemon}.pid"
    before = pid_in(path)
    os.kill(before, signal.SIGKILL)
    until(lambda: pid_in(path) not in (0, before) and os.path.exists(f"/proc/{pid_in(path)}"),
          f"{daemon} is started again")


def look_at_the_gateway(on):
    on("service", "pstorage-iscsid", "start")
    run_directory = f"/run/pstorage/iscsi/{CLUSTER}"
    kill_and_wait(run_directory, "iscsid")
    text = on("service", "pstorage-iscsid", "status")[1]
    check(f"{CLUSTER} runs (pid" in text, text)
    text = on("service", "pstorage-iscsid", "stop")[1]
    check(f"{CLUSTER} stopped" in text, text)
    check(os.listdir(run_directory) == ["iscsid.lock"], f"left: {os.listdir(run_directory)}")
    shutil.rmtree(run_directory)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(run_directory))


def stop_under_load(on, hosts):
    socket = "/run/pstorage/" + CLUSTER + "/nbd.sock"
    uri = f"nbd+unix:///vm1?socket={socket}"
    on("pstorage", "-c", CLUSTER, "volume", "create", "vm1", "-s", "256M", "--format", "raw")
    home = hosts.directory(1)
    load = subprocess.Popen(
        ["fio", "--name=load", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite", "--bs=64k",
         "--iodepth=16", "--size=256M", "--time_based", "--runtime=30", "--output=/dev/null"],
        cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: "ops" in on("pstorage", "-q", "-c", CLUSTER, "stat")[1] and any(
            int(found) > 100 for found in re.findall(
                r"write +\S+ \( *(\d+)ops\)", on("pstorage", "-q", "-c", CLUSTER, "stat")[1])),
              "there is load")
        text = on("service", "pstorage-csd", "restart")[1]
        check(text.count("stopped") == 2 and text.count("started") == 2, text)
        check(load.poll() is None, "the load ended when the chunk servers were restarted")
        text = on("service", "pstorage-nbd", "stop")[1]
        check(f"{CLUSTER} stopped" in text, text)
    finally:
        load.kill()
        load.wait()


def services_of_a_host():
    with own_hosts(1) as hosts:
        os.chmod(hosts.root, 0o755)
        uid = add_user(hosts, 1)
        home = hosts.directory(1)
        on = make_host(hosts, home)
        look_at_users(on, home, uid)
        for daemon in ("mds/mdsd", "cs1/csd"):
            kill_and_wait(home, daemon)
        hosts.until(1, "CS nodes: *2 of 2", "pstorage", "-c", CLUSTER, "stat")
        look_at_the_gateway(on)
        stop_under_load(on, hosts)
        for name in ("csd", "mdsd"):
            on("service", f"pstorage-{name}", "stop")
            code, text = on("service", f"pstorage-{name}", "status", ok=False)
            check(code == 3 and "does not run" in text, text)
        check(not [pid for pid in hosts.pids() if pid != hosts.keepers[1]], "processes are left")
        for directory in ("mds", "cs1", "cs2"):
            check(not [name for name in os.listdir(f"{home}/{directory}")
                       if name.endswith((".pid", ".keeper"))], f"{directory}: files of processes")
            with open(f"{home}/{directory}/logs/log", encoding="utf-8") as log:
                check(log.read().rstrip().endswith("I stopped"), f"{directory}: no clean stop")
        for directory in ("/run/pstorage", "/var/log/pstorage"):
            shutil.rmtree(f"{directory}/{CLUSTER}")
            with contextlib.suppress(OSError):
                os.rmdir(directory)


def a_daemon_that_cannot_start_says_why_and_is_left_alone():
    with own_hosts(1) as hosts:
        home = hosts.directory(1)
        on = lambda *command, **options: hosts.run(1, *command, ok=False, **options)
        on("pstorage", "-c", CLUSTER, "make-mds", "-I", "-p", "-P", "-a", "192.168.0.1",
           "-r", f"{home}/mds", input="secret\n")
        code, text = on("mdsd", "-r", f"{home}/mds", "-D", "-u", "nobody-of-this-name")
        check(code == 1 and "there is no user" in text, text)
        add_user(hosts, 1)
        code, text = on("service", "pstorage-mdsd", "start")
        check(code == 1 and "cannot reach" in text and "chmod o+x" in text, text)
        with open(f"{hosts.etc(1)}/default/pstorage", "a", encoding="ascii") as file:
            file.write("PSTORAGE_USER=root\n")
        os.rename(f"{home}/mds/mds.json" if os.path.exists(f"{home}/mds/mds.json")
                  else f"{home}/mds/repository.json", f"{home}/moved.json")
        code, text = on("service", "pstorage-mdsd", "start")
        check(code == 1 and "repository" in text, text)
        check(not os.path.exists(f"{home}/mds/mdsd.keeper"), "somebody would start it again")


if __name__ == "__main__":
    if not everybody_can_search(tempfile.gettempdir()):
        tempfile.tempdir = "/var/tmp"  # the daemons run as a user of their own
    main(units_are_as_systemd_wants_them, services_of_a_host,
         a_daemon_that_cannot_start_says_why_and_is_left_alone)
