#!/usr/bin/env python3
"""Finding a cluster: by DNS records of a real name server (dnsmasq), by multicast DNS, and what
'discover' says when something is missing or wrong."""
import contextlib
import json
import os
import re
import subprocess
import time

from harness import check, main, own_hosts, run

DOMAIN = "example.test"


@contextlib.contextmanager
def name_server(hosts, *records):
    """dnsmasq on host 1 with these records; the hosts ask it."""
    for number in hosts.names:
        path = f"{hosts.etc(number)}/resolv.conf"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with open(path, "w", encoding="ascii") as file:
            file.write(f"nameserver 192.168.0.1\nsearch {DOMAIN}\n")
    process = subprocess.Popen(
        ["nsenter", "-t", str(hosts.keepers[1]), "-n", "-m", "dnsmasq", "--keep-in-foreground",
         "--conf-file=/dev/null", "--user=root", "--pid-file=", "--bind-interfaces",
         "--listen-address=192.168.0.1", "--no-resolv", "--no-hosts", "--log-facility=-",
         f"--local=/{DOMAIN}/", *records], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 10
        while run("nsenter", "-t", str(hosts.keepers[1]), "-n", "bash", "-c",
                  "exec 3<>/dev/tcp/192.168.0.1/53", ok=False)[0] != 0:
            check(process.poll() is None and time.monotonic() < end, "dnsmasq does not serve")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


def a_host_finds_its_cluster_in_dns():
    with own_hosts(2) as hosts:
        def on(number, *command, ok=True, **options):
            return hosts.run(number, *command, ok=ok, **options)[1]
        on(1, "pstorage", "-c", "stor1", "make-mds", "-I", "-p", "-P", "-a", "192.168.0.1",
           "-r", f"{hosts.directory(1)}/mds", input="secret\n")
        on(1, "service", "pstorage-mdsd", "start")
        with name_server(
                hosts, f"--txt-record=pstorage_clusters.{DOMAIN},stor1,gone", "--txt-record="
                f"pstorage_clusters.{DOMAIN},a/b",
                f"--srv-host=_pstorage._tcp.stor1.{DOMAIN},mds9.{DOMAIN},2510,5,1",
                f"--srv-host=_pstorage._tcp.stor1.{DOMAIN},mds1.{DOMAIN},2510,0,1",
                f"--host-record=mds1.{DOMAIN},192.168.0.1",
                f"--host-record=mds9.{DOMAIN},192.168.0.2"):
            text = on(2, "pstorage", "discover", "-v")
            check("TXT records of pstorage_clusters: 3 clusters" in text, text)
            check("'a/b' is no name of a cluster" in text, text)
            check(re.search(r"bs\.list: there is no file \S+/stor1/bs\.list", text), text)
            check(re.search(r"DNS: 2 metadata servers, \d+ ms", text), text)
            first, second = text.index("mds1.example.test:2511: answers"), text.index("mds9")
            check(first < second and "mds9.example.test:2511: connection refused" in text, text)
            check(re.search(r"DNS: DNS (has no records of|does not answer for) _pstorage._tcp.gone",
                            text), text)
            check(re.search(r"^stor1 +DNS +1 of 2 +no$", text, re.M), text)
            check(re.search(r"^gone +not found +0 of 0 +no$", text, re.M), text)
            found = json.loads(on(2, "pstorage", "-c", "stor1", "discover", "--json"))
            check(found["clusters"][0]["way"] == "DNS" and found["clusters"][0]["answering"] == 1,
                  str(found))
            # No -b anywhere: DNS is enough, and afterwards bs.list is there.
            on(2, "pstorage", "-c", "stor1", "auth-node", "-P", input="secret\n")
            check("MDS nodes: 1 of 1" in on(2, "pstorage", "-c", "stor1", "stat"), "stat")
            text = on(2, "pstorage", "-c", "stor1", "discover", "-v")
            check("not used: an earlier way has worked" in text, text)
            check(re.search(r"^stor1 +bs\.list +\S+ of \S+ +yes$", text, re.M), text)
        # Without a name server -b is enough, and what needs DNS says so.
        text = on(2, "pstorage", "-b", "192.168.0.1", "-c", "stor1", "discover", "-v")
        check("-b: 1 metadata server" in text, text)
        check("DNS does not answer for _pstorage._tcp.stor1" in text, text)
        code, text = hosts.run(2, "pstorage", "-c", "stor2", "stat", ok=False)
        check(code == 1 and "where is cluster stor2?" in text and "DNS does not answer" in text
              and len(text.splitlines()) == 1, text)


def a_host_finds_its_cluster_by_multicast():
    """No name server, no avahi: two hosts on one network, and a third server on the first."""
    with own_hosts(2) as hosts:
        for number in hosts.names:
            path = f"{hosts.etc(number)}/resolv.conf"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            with open(path, "w", encoding="ascii") as file:
                file.write("nameserver 127.0.0.1\n")  # refuses at once

        def on(number, *command, ok=True, **options):
            return hosts.run(number, *command, ok=ok, **options)[1]
        on(1, "pstorage", "-c", "stor1", "make-mds", "-I", "-p", "-P", "-a", "192.168.0.1",
           "-r", f"{hosts.directory(1)}/mds", input="secret\n")
        on(1, "service", "pstorage-mdsd", "start")
        code, text = hosts.run(2, "pstorage", "-c", "stor1", "auth-node", "-P", ok=False,
                               input="secret\n")
        check(code == 1 and "nobody answers by mDNS for _pstorage._tcp.stor1.local" in text, text)
        on(1, "service", "pstorage-mdsd", "stop")
        with open(f"{hosts.etc(1)}/default/pstorage", "a", encoding="ascii") as file:
            file.write('MDSD_OPTIONS="--mdns"\n')
        on(1, "service", "pstorage-mdsd", "start")
        text = on(2, "pstorage", "discover", "-v")
        check("mDNS: 1 cluster\n" in text, text)
        ways = [re.search(f"  {way}: ", text).start() for way in (r"bs\.list", "DNS", "mDNS")]
        check(ways == sorted(ways), f"not the order of the manual page:\n{text}")
        check(re.search(r"  mDNS: 1 metadata server, \d+ ms", text), text)
        check("192.168.0.1:2511: answers" in text, text)
        check(re.search(r"^stor1 +mDNS +1 of 1 +no$", text, re.M), text)
        check("mDNS: 1 metadata server" in on(1, "pstorage", "-c", "stor1", "discover", "-v"),
              "the server's own host does not hear it")
        on(2, "pstorage", "-c", "stor1", "auth-node", "-P", input="secret\n")
        check("MDS nodes: 1 of 1" in on(2, "pstorage", "-c", "stor1", "stat"), "stat")


if __name__ == "__main__":
    main(a_host_finds_its_cluster_in_dns, a_host_finds_its_cluster_by_multicast)
