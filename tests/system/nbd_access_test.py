#!/usr/bin/python3
"""Who may talk to pstorage-nbd, and how: TLS with keys and certificates, networks, sockets of the
service manager; many volumes, many idle clients; a restart under load."""
import concurrent.futures
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import check, cluster, main, nbd, nbd_server, run, skip  # noqa: E402
from mount_test import Mount  # noqa: E402

MIB = 1 << 20
VOLUMES = 3000


def refused(what, action):
    try:
        action()
    except nbd.Error:
        return
    raise AssertionError(f"{what} was served")


def make_certificates(directory):
    """A CA, a server's certificate for localhost, a client's: with the names libnbd looks for."""
    def openssl(*arguments):
        run("openssl", *arguments, cwd=directory)
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=test ca",
            "-keyout", "ca-key.pem", "-out", "ca-cert.pem")
    for name, extra in (("server", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
                        ("client", "extendedKeyUsage=clientAuth")):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout",
                f"{name}-key.pem", "-out", f"{name}.csr")
        with open(os.path.join(directory, name + ".ext"), "w", encoding="ascii") as file:
            file.write(extra + "\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem",
                "-CAcreateserial", "-days", "30", "-extfile", f"{name}.ext", "-out",
                f"{name}-cert.pem")


def connect(port, tls, psk=None, user=None, certificates=None):
    handle = nbd.NBD()
    handle.set_export_name("vm1")
    handle.set_tls(tls)
    if psk:
        handle.set_tls_psk_file(psk)
        handle.set_tls_username(user)
    if certificates:
        handle.set_tls_certificates(certificates)
        handle.set_tls_verify_peer(True)
    handle.connect_tcp("localhost", str(port))
    return handle


def use(handle, byte):
    data = bytes([byte]) * (3 * MIB + 77)
    handle.pwrite(data, 12345)
    handle.flush()
    check(handle.pread(len(data), 12345) == data, "content over TLS")
    handle.shutdown()


def tls_and_networks():
    if not nbd.NBD().supports_tls():
        skip("this libnbd has no TLS")
    with cluster(cs=1, replicas="1:1") as one, tempfile.TemporaryDirectory() as directory:
        one.volume("vm1", "64M", "ploop")
        keys = os.path.join(directory, "keys.psk")
        with open(keys, "w", encoding="ascii") as file:
            file.write(f"alice:{os.urandom(32).hex()}\n")
        other = os.path.join(directory, "other.psk")
        with open(other, "w", encoding="ascii") as file:
            file.write(f"alice:{os.urandom(32).hex()}\n")
        with nbd_server(one, "--tls-psk", keys, "--tls-required") as port:
            handle = connect(port, nbd.TLS_REQUIRE, keys, "alice")
            check(handle.get_tls_negotiated(), "no TLS was negotiated")
            use(handle, 1)
            refused("a client in clear", lambda: connect(port, nbd.TLS_DISABLE))
            refused("a wrong key", lambda: connect(port, nbd.TLS_REQUIRE, other, "alice"))
            refused("an unknown user", lambda: connect(port, nbd.TLS_REQUIRE, keys, "bob"))
            code, text = run("nbdinfo", "--list", f"nbd://localhost:{port}", ok=False)
            check(code != 0 and "vm1" not in text, f"names are told in clear: {text}")
            text = run("nbdinfo", f"nbds://alice@localhost:{port}/vm1?tls-psk-file={keys}")[1]
            check("export-size: 67108864" in text, text)
            run("nbdcopy", f"nbds://alice@localhost:{port}/vm1?tls-psk-file={keys}",
                os.path.join(directory, "copy.raw"))
        make_certificates(directory)
        with nbd_server(one, "--tls-certificates", directory) as port:
            use(connect(port, nbd.TLS_REQUIRE, certificates=directory), 2)
            use(connect(port, nbd.TLS_DISABLE), 3)  # optional
            run("qemu-img", "compare", "--object",
                f"tls-creds-x509,id=t,endpoint=client,dir={directory}", "--image-opts",
                f"driver=nbd,host=localhost,port={port},export=vm1,tls-creds=t",
                f"driver=nbd,host=localhost,port={port},export=vm1")
            os.rename(os.path.join(directory, "client-cert.pem"), os.path.join(directory, "away"))
            refused("a client without its certificate",
                    lambda: connect(port, nbd.TLS_REQUIRE, certificates=directory).pread(1, 0))
        with nbd_server(one, "--allow", "10.0.0.0/8,fd00::/8") as port:
            refused("a network that is not allowed", lambda: connect(port, nbd.TLS_DISABLE))
        with nbd_server(one, "--allow", "127.0.0.0/8") as port:
            use(connect(port, nbd.TLS_DISABLE), 4)
        name = one.environment["PSTORAGE_NAME"]
        for wanted, words in (("--tls-required needs", ["--tls-required"]),
                              ("cannot use", ["--tls-certificates", "/nowhere"]),
                              ("bad network", ["--allow", "10.0.0.0/40"])):
            code, text = run("pstorage-nbd", "-c", name, "-U", directory + "/s", *words, ok=False,
                             env=one.environment)
            check(code == 1 and wanted in text and len(text.splitlines()) == 1, f"{words}: {text}")


def sockets_of_the_service_manager():
    with cluster(cs=1, replicas="1:1") as one:
        one.volume("vm1", "64M")
        with nbd_server(one, wrapper=["systemd-socket-activate", "-l", "127.0.0.1:PORT", "-E",
                                  "PSTORAGE_ETC", "-E", "PATH"]) as port:
            use(connect(port, nbd.TLS_DISABLE), 5)


def name_it(one, count):
    """v0001, ...: hard links to v0000, which is what takes the least time."""
    view = Mount(one).up()
    with concurrent.futures.ThreadPoolExecutor(16) as many:
        list(many.map(lambda number: os.link(view / "volumes/v0000",
                                             view / f"volumes/v{number:04}"), range(1, count)))
    view.down()


def many_volumes_and_idle_clients():
    with cluster(cs=1, replicas="1:1") as one:
        one.volume("v0000", "64M")
        name_it(one, VOLUMES)
        begin = time.monotonic()
        handle = nbd.NBD()
        handle.set_opt_mode(True)
        handle.connect_unix(one.socket)
        names = []
        handle.opt_list(lambda name, description: names.append(name))
        handle.opt_abort()
        check(sorted(names) == [f"v{number:04}" for number in range(VOLUMES)],
              f"{len(names)} names: {names[:5]}")
        print(f"   list of {VOLUMES}: {time.monotonic() - begin:.2f} s", flush=True)

        def resident():
            with open(f"/proc/{one.pid('nbd')}/status", encoding="ascii") as file:
                return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

        first = one.connect("v0000")
        before = resident()
        idle = [one.connect("v0000") for _ in range(100)]
        each = (resident() - before) / 100
        print(f"   an idle connection takes {each:.0f} KiB", flush=True)
        check(each < 100, f"100 idle connections take {each * 100 / 1024:.1f} MiB")
        for handle in [first, *idle]:
            handle.shutdown()


def a_restart_under_load_loses_nothing():
    """The server is stopped in order, then killed, under a client that connects again (what qemu's
    reconnect-delay does): everything flushed is there, everything else old or new."""
    with cluster(cs=2, replicas="2:1") as one:
        one.volume("vm1", "64M", "ploop")
        flushed, newest = {}, {}
        stop = threading.Event()
        faults = []

        def guest():
            number = 0
            handle = one.connect("vm1")
            while not stop.is_set():
                number += 1
                offset = number % 4000 * 16384
                newest[offset] = number
                while True:
                    try:
                        handle.pwrite(number.to_bytes(8, "little") * 64, offset)
                        if number % 16 == 0:
                            covered = dict(newest)
                            handle.flush()
                            flushed.update(covered)
                        break
                    except nbd.Error:
                        if stop.is_set():
                            return
                        handle = one.connect("vm1")  # and the same request again
                        for old, value in list(newest.items()):
                            if flushed.get(old, 0) < value:
                                handle.pwrite(value.to_bytes(8, "little") * 64, old)

        thread = threading.Thread(target=guest)
        thread.start()
        for how in (signal.SIGTERM, signal.SIGKILL):
            time.sleep(1)
            pid = one.pid("nbd")
            os.kill(pid, how)
            end = time.monotonic() + 30
            while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
                with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                    if file.read().split()[2] == "Z":
                        break
                time.sleep(0.05)
            one.start("nbd")
        time.sleep(3)
        stop.set()
        thread.join()
        check(not faults and len(flushed) > 100, f"{faults} {len(flushed)}")
        handle = one.connect("vm1")
        for offset, value in flushed.items():
            found = int.from_bytes(handle.pread(8, offset), "little")
            check(value <= found <= newest[offset], f"{offset}: {found}, flushed {value}")
        handle.shutdown()


if __name__ == "__main__":
    main(tls_and_networks, sockets_of_the_service_manager, many_volumes_and_idle_clients,
         a_restart_under_load_loses_nothing)
