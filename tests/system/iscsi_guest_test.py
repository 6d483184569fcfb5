#!/usr/bin/python3
"""LUNs as disks of a real Linux guest (guest.py): Debian's kernel, open-iscsi and multipath-tools.
Discovery, CHAP, file system, verified writes, trim, growth, logout; then two gateways, of which the
one that serves is killed while the guest writes."""
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from gateway import IQN, free_port, require  # noqa: E402
from guest import Guest  # noqa: E402
from harness import check, cluster, main, run  # noqa: E402

MIB = 1 << 20
PROGRAMS = ["fio", "mkfs.ext4", "e2fsck", "iscsid", "iscsiadm", "multipath", "multipathd"]
PLUGINS = ("checktur", "prioalua", "prioconst", "foreign-nvme")
ISCSID_CONF = """node.startup = manual
node.session.auth.authmethod = CHAP
node.session.auth.username = alice
node.session.auth.password = correct-horse-1
node.session.timeo.replacement_timeout = 5
node.conn[0].timeo.noop_out_interval = 2
node.conn[0].timeo.noop_out_timeout = 3
node.session.scan = auto
"""
MULTIPATH_CONF = """defaults {
  user_friendly_names no
  find_multipaths no
  uid_attribute ""
  path_checker tur
  prio alua
  detect_prio no
  detect_checker no
  path_grouping_policy group_by_prio
  failback immediate
  no_path_retry queue
  polling_interval 1
  max_polling_interval 2
  skip_kpartx yes
}
blacklist {
  devnode "^vd"
}
"""
# fio's: written once, read back with checksums, also later.
VERIFY = ("fio --name=verify --directory=/mnt --rw=randwrite --bs=4k --direct=1 --verify=crc32c "
          "--verify_fatal=1 --randseed=7 --eta=never --output=/tmp/fio --size=")

BEGIN = f"""
quietly() {{ "$@" >/tmp/said 2>&1 || {{ cat /tmp/said /tmp/*.log; exit 1; }}; }}
verify() {{ {VERIFY}"$@" || {{ cat /tmp/fio; exit 1; }}; }}
until_true() {{  # COMMAND...: at most 60 s
  tries=0
  until "$@"; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || {{ echo "never: $*"; cat /tmp/*.log; dmesg | tail -n 5; exit 1; }}
    usleep 100000
  done
}}
mkdir -p /etc/iscsi /run/lock/iscsi /var/lib/iscsi
setsid iscsid -f >/tmp/iscsid.log 2>&1 &
node() {{ iscsiadm -m node -T {IQN} -p 127.0.0.1:"$@"; }}
"""

ONE_PATH = """
discover() { iscsiadm -m discovery -t sendtargets -p 127.0.0.1:$first >/tmp/found 2>&1; }
until_true discover  # iscsid has just been started
grep pstorage:test /tmp/found
quietly node $first -o update -n node.session.auth.password -v battery-staple-1
if node $first --login >/tmp/said 2>&1; then echo "any secret will do"; exit 1; fi
quietly node $first -o update -n node.session.auth.password -v correct-horse-1
quietly node $first --login
until_true test -b /dev/sda
mkfs.ext4 -q -F /dev/sda
mount -t ext4 /dev/sda /mnt
verify 4M --fsync=64 --do_verify=1
fio --name=large --directory=/mnt --size=48M --rw=write --bs=1M --eta=never --output=/tmp/fio
sync
host note before
rm /mnt/large*
sync  # its blocks are free once the journal says so
fstrim /mnt
host note after
host grow
has_grown() {  # the target says so a moment later
  iscsiadm -m session --rescan >/tmp/said
  [ "$(blockdev --getsize64 /dev/sda)" = SIZE ]
}
until_true has_grown
verify 4M --verify_only
umount /mnt
quietly node $first --logout
is_gone() { [ ! -b /dev/sda ]; }
until_true is_gone
quietly node $first --login
until_true test -b /dev/sda
e2fsck -fn /dev/sda
quietly node $first --logout
until_true is_gone
"""

TWO_PATHS = """
quietly iscsiadm -m discovery -t sendtargets -p 127.0.0.1:$second
quietly node $first --login
quietly node $second --login
two_disks() { [ $(ls -d /sys/block/sd* | wc -l) = 2 ]; }
until_true two_disks
mkdir -p /run/udev/data  # there is no udevd; multipathd takes devices only that are known
for disk in /sys/block/sd*; do echo I:1 >/run/udev/data/b$(cat $disk/dev); done
multipathd -d -s >/tmp/multipathd.log 2>&1 &
until_true test -b /dev/dm-0
paths() { multipathd show paths format "%p %T %o" | grep -c "$1" | grep -qx "$2"; }
until_true paths "^50 .*ready" 1
until_true paths "^1 .*ghost" 1
multipath -ll
mount -t ext4 /dev/dm-0 /mnt
(verify 8M --rate_iops=100 --do_verify=1) &
writer=$!
sleep 4
host kill
wait $writer
until_true paths "^50 .*ready" 1
echo 3 >/proc/sys/vm/drop_caches
verify 8M --verify_only
umount /mnt
e2fsck -fn /dev/dm-0
multipath -ll
multipathd show paths format "%p %T %o"
"""


class Gateway_host:
    """As on a host of its own: its own host id, NBD server, run directory and pstorage-iscsid."""

    def __init__(self, one, directory, number):
        self.base = os.path.join(directory, f"gateway{number}")
        self.port = free_port()
        self.environment = dict(one.environment, PSTORAGE_ISCSI_DIR=self.base,
                                PSTORAGE_HOST_ID=f"00000000000000a{number}",
                                PSTORAGE_NBD_SOCKET=self.base + ".nbd")
        self.name = one.environment["PSTORAGE_NAME"]
        self.processes = [self.spawn("pstorage-nbd", "-U", self.base + ".nbd")]
        end = time.monotonic() + 20
        while not os.path.exists(self.base + ".nbd"):
            check(time.monotonic() < end, self.log())
            time.sleep(0.05)

    def spawn(self, *words):
        with open(self.base + ".log", "ab") as log:
            return subprocess.Popen([words[0], "-c", self.name, *words[1:]], env=self.environment,
                                    stdout=log, stderr=log)

    def watch(self):
        self.processes.append(self.spawn("pstorage-iscsid"))

    def iscsi(self, *words, ok=True):
        return run("pstorage-iscsi", *words, ok=ok, env=self.environment)

    def used(self):
        return json.loads(self.iscsi("list", "-t", "test", "--json")[1])["luns"][0]

    def log(self):
        with open(self.base + ".log", encoding="utf-8") as file:
            return f"---- {self.base}\n{file.read()}"

    def kill(self):
        """All at once, as when the host dies."""
        pids = [process.pid for process in self.processes]
        with contextlib.suppress(OSError), open(f"{self.base}/run/{self.name}/test.pid",
                                                encoding="ascii") as file:
            pids.append(int(file.read()))
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()
        self.processes = []


@contextlib.contextmanager
def gateways(one):
    with tempfile.TemporaryDirectory(prefix="pstorage-gateways-") as directory:
        both = []
        try:
            for number in (1, 2):
                both.append(Gateway_host(one, directory, number))
            secret = os.path.join(directory, "secret")
            with open(secret, "w", encoding="ascii") as file:
                file.write("correct-horse-1\n")
            first, second = both
            first.iscsi("create", "-n", "test", "-a", f"127.0.0.1:{first.port}", "--failover", "on")
            first.iscsi("lun-add", "-t", "test", "-l", "1", "-s", "256M")
            first.iscsi("account", "add", "-u", "alice", "--secret-file", secret)
            first.iscsi("account", "bind", "-t", "test", "-u", "alice")
            second.iscsi("portal", "add", "-t", "test", "-a", f"127.0.0.1:{second.port}")
            for each in both:
                each.watch()
            first.iscsi("start", "-t", "test")
            yield both
        except BaseException:
            for each in both:
                print(each.log(), flush=True)
            raise
        finally:
            for each in both:
                each.kill()


def a_linux_guest_on_two_gateways():
    with cluster(cs=2, replicas="2:1") as one, gateways(one) as (first, second):
        allocated = {}
        killed = []

        def note(when):
            usage = one.pstorage("volume", "du", "--json", "iscsi/test/lun1")
            allocated[when] = json.loads(usage)[0]["allocated_bytes"]

        def grow():
            first.iscsi("lun-grow", "-t", "test", "-l", "1", "-s", "320M")

        def kill():
            killed.append(time.monotonic())
            first.kill()

        files = {f"/lib/multipath/lib{name}.so": ("from", f"/lib/multipath/lib{name}.so")
                 for name in PLUGINS}
        files |= {"/etc/iscsi/iscsid.conf": ISCSID_CONF, "/etc/multipath.conf": MULTIPATH_CONF,
                  "/etc/iscsi/initiatorname.iscsi": "InitiatorName=iqn.2026-11.test:guest\n"}
        script = (f"first={first.port}\nsecond={second.port}\n" + BEGIN +
                  ONE_PATH.replace("SIZE", str(320 * MIB)) + TWO_PATHS)
        with Guest(script, programs=PROGRAMS, files=files, loopback_is_host=True,
                   modules=["iscsi_tcp", "sd_mod", "dm_multipath", "dm_service_time", "crc32c_generic"],
                   hooks={"note": note, "grow": grow, "kill": kill}) as guest:
            text = guest.run(timeout=420)
        print("\n".join(text.splitlines()[-8:]), flush=True)
        check(allocated["before"] - allocated["after"] >= 40 * MIB, f"fstrim: {allocated}")
        check(killed and second.used()["size"] == 320 * MIB, "it has not grown")


if __name__ == "__main__":
    require()
    main(a_linux_guest_on_two_gateways)
