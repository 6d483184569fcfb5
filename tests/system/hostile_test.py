#!/usr/bin/python3
"""Bad input and bad luck: one clear line each, no crash, nothing lost."""
import json
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import (BLOCK, Writer, block_content, check, cluster, fill, main,  # noqa: E402
                     own_disk, run, verify_exact)


def one_line(code, text, *words):
    """A failure told in one line that has all of `words` in it."""
    check(code != 0, f"it did not fail: {text}")
    lines = [line for line in text.splitlines() if line.strip()]
    check(len(lines) == 1, f"not one line but {len(lines)}:\n{text}")
    for word in words:
        check(word.lower() in text.lower(), f"'{word}' is not in: {text}")


def listening_ports(one):
    """TCP ports of the cluster's daemons."""
    pids = {one.pid(name) for name in ("mds1", *one.cs_names)}
    ports = set()
    for line in run("ss", "-Hltnp")[1].splitlines():
        if any(f"pid={pid}," in line for pid in pids):
            ports.add(int(line.split()[3].rsplit(":", 1)[1]))
    return sorted(ports)


def garbage(port):
    for payload in (b"", b"\0" * 64, os.urandom(4096), b"GET / HTTP/1.0\r\n\r\n",
                    b"\x16\x03\x01\xff\xff" + os.urandom(200), b"\x16\x03\x01\x00\x05hello",
                    b"PSTSALT1" * 100, b"PST1" + b"\xff" * 60, os.urandom(200000)):
        with socket.socket() as client:
            client.settimeout(0.3)
            try:
                client.connect(("127.0.0.1", port))
                client.sendall(payload)
                while client.recv(65536):
                    pass
            except OSError:
                pass


def garbage_on_every_port_harms_nobody():
    with cluster(cs=3, replicas="3:2") as one:
        one.volume("v", "64M")
        writer = Writer(one, "v", 512)
        writer.start()
        pids = {name: one.pid(name) for name in ("mds1", "nbd", *one.cs_names)}
        ports = listening_ports(one)
        check(len(ports) >= 4, f"too few ports found: {ports}")
        for port in ports:
            garbage(port)
        for path in [one.socket] + [os.path.join(folder, name)
                                    for folder, _, names in os.walk(one.home) for name in names
                                    if name.endswith(".sock")]:
            for payload in (b"\0" * 64, os.urandom(70000)):
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(0.3)
                    try:
                        client.connect(path)
                        client.sendall(payload)
                        while client.recv(65536):
                            pass
                    except OSError:
                        pass
        # Half-open connections must not keep others out.
        idle = [socket.create_connection(("127.0.0.1", port)) for port in ports for _ in range(50)]
        one.pstorage("-q", "stat")
        for each in idle:
            each.close()
        for name, pid in pids.items():
            check(os.path.exists(f"/proc/{pid}"), f"{name} has died")
        writer.finish()
        check(writer.error is None, f"the client saw an error: {writer.error}")
        verify_exact(one.connect("v"), writer)


def wrong_passwords_and_names_are_refused_in_one_line():
    with cluster(cs=1, replicas="1:1") as one, tempfile.TemporaryDirectory() as other:
        name = one.environment["PSTORAGE_NAME"]
        with open(os.path.join(one.environment["PSTORAGE_ETC"], "clusters", name, "bs.list"),
                  encoding="ascii") as file:
            server = file.read().split()[0]
        environment = dict(one.environment, PSTORAGE_ETC=other)

        def pstorage(*arguments, **options):
            return run("pstorage", "-q", *arguments, ok=False, env=environment, **options)

        one_line(*pstorage("-c", name, "auth-node", "-P", "-b", server, input="not the password\n"),
                 "password")
        check(not os.path.exists(os.path.join(other, "clusters", name, "auth_digest.key")),
              "a refused auth-node left a key")
        one_line(*pstorage("-c", "another", "auth-node", "-P", "-b", server, input="secret\n"),
                 "cluster")
        one_line(*pstorage("-c", name, "stat"), "auth-node")
        key = os.path.join(one.environment["PSTORAGE_ETC"], "clusters", name, "auth_digest.key")
        check(stat.S_IMODE(os.stat(key).st_mode) == 0o600, "the key may be read by others")
        check(os.stat(key).st_size == 48, "the key file is not 48 bytes")
        # A key of the right form but of another password.
        os.makedirs(os.path.join(other, "clusters", name))
        with open(key, "rb") as file:
            salt = file.read()[32:]
        forged = os.path.join(other, "clusters", name, "auth_digest.key")
        with open(forged, "wb") as file:
            file.write(os.urandom(32) + salt)
        os.chmod(forged, 0o600)
        with open(os.path.join(other, "clusters", name, "bs.list"), "w", encoding="ascii") as file:
            file.write(server + "\n")
        one_line(*pstorage("-c", name, "stat"), "authentication")


def bad_commands_are_refused_and_leave_nothing_behind():
    with cluster(cs=1, replicas="1:1") as one, tempfile.TemporaryDirectory() as other:
        def pstorage(*arguments):
            return run("pstorage", "-q", *arguments, ok=False, env=one.environment)

        code, text = pstorage("volume", "create", "v", "-s", "ten gigabytes")
        check(code == 2 or code == 1, text)
        one_line(code, text, "ten gigabytes")
        one_line(*pstorage("volume", "info", "nobody"), "nobody")
        one_line(*pstorage("set-config", "mds.wd.offline_tot=1"), "mds.wd.offline_tout")
        one_line(*pstorage("set-attr", "-p", "/", "replicas=0"), "replicas")
        code, text = pstorage("no-such-command")
        check(code == 2, f"exit {code} for an unknown command: {text}")
        used = os.path.join(other, "used")
        os.mkdir(used)
        with open(os.path.join(used, "precious"), "w", encoding="ascii") as file:
            file.write("data")
        one_line(*pstorage("make-cs", "-r", used), "empty")
        check(os.listdir(used) == ["precious"], "make-cs touched a directory that was not empty")
        one_line(*pstorage("make-cs", "-r", "/proc/no-such-dir"), "/proc/no-such-dir")
        services = json.loads(pstorage("list-services", "--json")[1])
        check(len([s for s in services["services"] if s["kind"] == "CS"]) == 1,
              f"a refused make-cs left a chunk server behind: {services}")


def a_full_chunk_server_refuses_and_recovers():
    with own_disk() as (_, disk), cluster(cs=1, replicas="1:1", directory=disk,
                                          extra=("--journal-mb", "64")) as one:
        one.volume("v", "1G")
        import nbd
        handle = one.connect("v")
        written = 0
        failure = None
        while failure is None and written < 1 << 30:
            try:
                handle.pwrite(os.urandom(1 << 20), written)
                written += 1 << 20
                if written % (64 << 20) == 0:
                    handle.flush()
            except nbd.Error as error:
                failure = error
        check(failure is not None and failure.errnum == 28,
              f"not ENOSPC but {failure} after {written} bytes")
        handle.flush()
        handle.pwrite(block_content(3, 7), 3 * BLOCK)  # overwrites still work
        handle.flush()
        # Room for a whole new chunk above the reserve, wherever the writes have ended.
        handle.trim(192 << 20, 64 << 20)
        handle.flush()
        for _ in range(50):
            try:
                handle.pwrite(block_content(1, 1), written + BLOCK)
                break
            except nbd.Error:
                time.sleep(0.3)
        else:
            check(False, "no write succeeds although space was trimmed")
        check(handle.pread(BLOCK, 3 * BLOCK) == block_content(3, 7), "an overwrite is lost")
        one.pstorage("-q", "stat")


def a_full_disk_below_everything_loses_nothing_and_says_so():
    with own_disk() as (_, disk), cluster(cs=1, replicas="1:1", directory=disk,
                                          extra=("--journal-mb", "64")) as one:
        one.volume("v", "64M")
        handle = one.connect("v")
        handle.pwrite(block_content(1, 1), BLOCK)
        handle.flush()
        time.sleep(5)  # until it has left the journal: in its chunk file it has its blocks
        filler = os.path.join(disk, "filler")
        fill(filler)
        time.sleep(2)  # the metadata server looks once a second
        one_line(*run("pstorage", "-q", "volume", "create", "w", "-s", "64M",
                      "--format", "raw", ok=False,
                      env=one.environment), "disk", "full")
        handle.pwrite(block_content(1, 2), BLOCK)  # overwrites need no room
        handle.flush()
        check(handle.pread(BLOCK, BLOCK) == block_content(1, 2), "an overwrite is lost")
        os.remove(filler)
        time.sleep(2)
        one.volume("w", "64M")
        check(one.connect("v").pread(BLOCK, BLOCK) == block_content(1, 2), "data is lost")


def unusable_directories_and_journals_are_refused_in_one_line():
    with own_disk(megabytes=64) as (image, disk), cluster(cs=1, replicas="1:1") as one:
        def make_cs(*arguments):
            return run("pstorage", "-q", "make-cs", *arguments, ok=False, env=one.environment)

        target = os.path.join(os.path.dirname(image), "cs")
        journal = os.path.join(disk, "journal")
        one_line(*make_cs("-r", target, "-j", journal, "-s", "4096"), disk, "free")
        check(not os.path.exists(journal), "a journal that does not fit was left behind")
        check(not os.path.exists(target) or not os.listdir(target),
              "a refused make-cs left files behind")
        run("mount", "-o", "remount,ro", disk)
        one_line(*make_cs("-r", os.path.join(disk, "cs")), "read-only")
        one_line(*run("pstorage", "-q", "-c", "other", "make-mds", "-I", "-P", "-a",
                      "127.0.0.1", "-r", os.path.join(disk, "mds"), ok=False,
                      env=one.environment, input="secret\n"), "read-only")
        services = json.loads(one.pstorage("-q", "list-services", "--json"))
        check(len([s for s in services["services"] if s["kind"] == "CS"]) == 1,
              f"a refused make-cs left a chunk server behind: {services}")


def no_secret_is_in_an_argument_list_or_a_log():
    with cluster(cs=1, replicas="1:1") as one:
        key = os.path.join(one.environment["PSTORAGE_ETC"], "clusters",
                           one.environment["PSTORAGE_NAME"], "auth_digest.key")
        with open(key, "rb") as file:
            secret = file.read()[:32]
        for folder, _, files in os.walk(one.home):
            for name in files:
                path = os.path.join(folder, name)
                if re.search(r"(log|\.txt|\.json)$", name):
                    with open(path, "rb") as file:
                        text = file.read()
                    check(secret not in text and secret.hex().encode() not in text,
                          f"the key is in {path}")


if __name__ == "__main__":
    main(garbage_on_every_port_harms_nobody, wrong_passwords_and_names_are_refused_in_one_line,
         bad_commands_are_refused_and_leave_nothing_behind,
         a_full_chunk_server_refuses_and_recovers,
         a_full_disk_below_everything_loses_nothing_and_says_so,
         unusable_directories_and_journals_are_refused_in_one_line, no_secret_is_in_an_argument_list_or_a_log)
