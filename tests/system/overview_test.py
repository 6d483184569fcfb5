#!/usr/bin/env python3
"""The transcript of pstorage-overview(7), taken from the page and typed word for word on three hosts and
a fourth that only uses the cluster; the services are started by `service`, as the page says."""
import os
import re

from harness import check, main, run
from manual import blocks_of, lab

PAGE = "pstorage-overview.7"
# On which hosts each display is typed, one host after the other.
START_WITH_HOST = 5
WHERE = [
    [1],        # make the cluster
    [2, 3],     # "with their own addresses in the place of 192.168.0.2"
    [1, 2, 3],  # a CS for each disk
    [1, 2, 3],  # started
    [2],        # three replicas; look
    [1, 2, 3],  # start with the host
    [1],        # a volume, served on the host that uses it
    [4],        # a host that is not one of the three
]
MAKES_MDS = "pstorage -c stor1 make-mds -a 192.168.0.2"


def type_in(one, block, number):
    """Returns what the lines say."""
    said = ""
    for line in block:
        if line.startswith(MAKES_MDS):
            line = line.replace("192.168.0.2", f"192.168.0.{number}")
        said += one.run(number, line)
    return said


def write_and_read(one):
    """The volume that the transcript has made and serves."""
    socket = os.path.join(one.hosts.root, "own1/run/pstorage/stor1/nbd.sock")
    uri = f"nbd+unix:///vm1?socket={socket}"
    check(run("nbdinfo", "--size", uri)[1].strip() == str(10 << 30), "not 10 GiB")
    data = os.path.join(one.hosts.root, "data")
    with open(data, "wb") as file:
        file.write(os.urandom(64 << 20))
    run("nbdcopy", "--flush", data, uri)
    run("nbdcopy", uri, data + ".back", "--sparse=4096")
    run("cmp", f"--bytes={64 << 20}", data, data + ".back")


def the_transcript_works_word_for_word():
    blocks = blocks_of(PAGE)
    check(len(blocks) == len(WHERE), f"{PAGE} has {len(blocks)} displays: say in WHERE where they run")
    with lab(4) as one:
        said = ["".join(type_in(one, block, number) for number in numbers)
                for block, numbers in zip(blocks, WHERE)]
        # What the page promises, of the very command that it shows: at once, or a moment later,
        # when the metadata servers that were added last have learnt what the first one knows.
        for pattern in ("Cluster 'stor1': healthy", "MDS nodes: 3 of 3", "CS nodes: +3 of 3"):
            if not re.search(pattern, said[4]):
                one.hosts.until(3, pattern, "pstorage", "-c", "stor1", "stat")
        check("10 GiB" in said[6], f"qemu-img sees another volume:\n{said[6]}")
        check("healthy" in one.run(4, "pstorage -c stor1 stat"), "the fourth host is not let in")
        for number in (1, 2, 3):
            started = os.listdir(f"{one.hosts.etc(number)}/rc2.d")
            check({"S01pstorage-mdsd", "S01pstorage-csd", "S01pstorage-nbd"} <= set(started),
                  f"not all start with host {number}: {started}")
        write_and_read(one)
        text = one.hosts.until(3, r"\(100%\) healthy", "pstorage", "-c", "stor1", "stat")
        check(re.search(r"Replication: +3 norm, +2 limit", text), text)
        # "To stop all of it: first the clients, then the CS, then the MDS."
        for service, numbers in (("nbd", [1]), ("csd", [1, 2, 3]), ("mdsd", [1, 2, 3])):
            for number in numbers:
                check("stopped" in one.run(number, f"service pstorage-{service} stop"), service)


if __name__ == "__main__":
    main(the_transcript_works_word_for_word)
