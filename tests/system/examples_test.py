#!/usr/bin/env python3
"""The examples of the manual pages, every line of every literal display, run as they stand: on hosts of
their own, or in a guest with systemd and the kernel's clients. The plans say which page comes when and
where each line runs; a page or line that they do not name fails the test. Where no Debian can be
loaded it ends as skipped, after what needs none."""
import os

import debian
import manual
from harness import check, main
from manual import INTERRUPT, Fails, Until
from overview_test import PAGE as OVERVIEW  # a transcript with a test of its own, in CI

# What is made for a real disk is made smaller; nothing else of a line is changed, but for what is in
# /tmp, which every host here shares with this machine.
SMALLER = {"-s 1024": "-s 64"}
GUEST = "guest"


class Setup:
    """What the page takes for granted; {shared}: a directory that all hosts have."""
    def __init__(self, host, command):
        self.host, self.command = host, command


class Into:
    """The line is no command: it goes into this file of the host."""
    def __init__(self, host, path):
        self.host, self.path = host, path


class Behind:
    """Runs on while the page's next lines do; these begin when its output matches."""
    def __init__(self, host, pattern):
        self.host, self.pattern = host, pattern


class Outside:
    """On the host, with the network of this machine: it loads something."""
    def __init__(self, host):
        self.host = host


VM1 = "nbd+unix:///vm1?socket=/run/pstorage/stor1/nbd.sock"
HOLD = (f'import nbd, time; h = nbd.NBD(); h.connect_uri("{VM1}"); open("held", "w"); '
        'time.sleep(30)')
QUIT = "q"
DNS_RECORDS = """
awk '$2 == "SRV" { sub(/\\.$/, "", $6); printf "srv-host=%s.example.org,%s,%s,%s,%s\\n", $1, $6, $5, $3, $4 }
     $2 == "TXT" { gsub(/" "/, "\\",\\""); sub(/^[^"]*/, "txt-record=pstorage_clusters.example.org,"); print }
     ' records >dnsmasq.conf
for n in 1 2 3; do echo host-record=mds$n.example.org,192.168.0.$n; done >>dnsmasq.conf
dnsmasq --conf-file=dnsmasq.conf --user=root --pid-file= --listen-address=192.168.0.1 --bind-interfaces \\
  --no-resolv --no-hosts
"""
ASK_DNS = ("rm -f /etc/resolv.conf; printf 'nameserver 192.168.0.1\\nsearch example.org\\n' > "
           "/etc/resolv.conf; rm -r /etc/pstorage/clusters/stor1")
SSH_SERVER = """
mkdir -p -m 700 .ssh /etc/dropbear
dropbear -E -R -p 22
until ssh-keyscan 192.168.0.1 >scanned 2>/dev/null && test -s scanned; do sleep 0.1; done
"""
SSH_KEY = ("mkdir -p -m 700 .ssh; ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519; "
           "ssh-keyscan 192.168.0.1 > .ssh/known_hosts; cp .ssh/id_ed25519.pub {shared}/")
# The mount before it may still be giving up its cache.
FSTAB = ("until mount /mnt/stor1; do sleep 0.2; done; findmnt -n -t fuse.pstorage /mnt/stor1; "
         "umount /mnt/stor1; rm /etc/fstab")
# A network namespace has a /sys of its own, without them.
CGROUPS = """
if grep -q '^0::' /proc/self/cgroup && ! grep -q '^[1-9]' /proc/self/cgroup; then
  mount -t cgroup2 none /sys/fs/cgroup
else
  mount -t tmpfs none /sys/fs/cgroup
  for one in $(cut -d: -f2 /proc/self/cgroup); do
    mkdir /sys/fs/cgroup/${one#name=}
    case $one in name=*) options=none,$one ;; *) options=$one ;; esac
    mount -t cgroup -o $options none /sys/fs/cgroup/${one#name=}
  done
fi
"""
IN_RUNC = ("runc spec; sed -i 's|\"path\": \"rootfs\"|\"path\": \"/vz/root/101\"|' config.json; "
           "grep -q /vz/root/101 config.json; pstorage-ct -c stor1 mount 101")
START_CS = "service pstorage-csd start"

# What the pages' lines there take for granted: the pages' host 192.168.0.1 with its cluster.
IN_GUEST = f"""
ip address add 192.168.0.1/24 dev eth0
echo {manual.PASSWORD} | pstorage -c stor1 make-mds -I -P -a 192.168.0.1 -r /pstorage/mds --start
pstorage -q -c stor1 make-cs -r /pstorage/disk1/cs -s 64 --start
for volume in vm1 vm2; do pstorage -c stor1 volume create $volume -s 64M; done
service pstorage-nbd start
"""
CONTAINER = """
mkdir -p /tmp/rootfs/usr /tmp/rootfs/bin /tmp/rootfs/etc /tmp/rootfs/root /mnt/stor1
cp /bin/dash /tmp/rootfs/bin/sh
ldd /bin/dash | grep -o '/lib[^ ]*' | xargs cp --parents --target-directory=/tmp/rootfs
cp /etc/os-release /etc/passwd /tmp/rootfs/etc
pstorage-mount -c stor1 /mnt/stor1
pstorage-ct -c stor1 create 101 -s 1G --template /tmp/rootfs
pstorage-ct -c stor1 mount 101
"""
TARGET = """
export PSTORAGE_NAME=stor1
pstorage-iscsi create -n kvm1 -a 192.168.0.1
pstorage-iscsi lun-add -t kvm1 -l 1 -s 64M
pstorage-iscsi start -t kvm1
systemctl start iscsid
"""
LOGGED_IN = """
until lsblk --noheadings --output VENDOR | grep PSTORAGE; do sleep 0.2; done
iscsiadm -m node --logout
pstorage-iscsi stop -t kvm1
"""

# (page, what is done with each line of it in turn: where it runs; Setup between)
PLAN = [
    ("pstorage-make-mds.1", [1, 1, 2, 2, 2]),
    ("pstorage-auth-node.1", [
        3, Setup(3, "rm /etc/pstorage/clusters/stor1/auth_digest.key; "
                    f"echo {manual.PASSWORD} > /etc/pstorage/password"), 3]),
    ("pstorage-discover.1", [3, 3]),
    ("pstorage-discovery.7", [Into(1, "records")] * 4 + [
        Setup(1, DNS_RECORDS), Setup(3, ASK_DNS), 3, 3]),
    ("pstorage-make-cs.1", [1, 1]),
    ("pstorage-get-config.1", [1, 1]),
    ("pstorage-configure-cs.1", [
        Setup(1, "service pstorage-csd stop; pstorage configure-cs -r /pstorage/disk1/cs -d; "
                 + START_CS), 1, 1, 1,
        Setup(1, "service pstorage-csd stop"), 1]),
    ("csd.8", [1]),
    ("mdsd.8", [Setup(2, "service pstorage-mdsd stop"), 2]),
    ("pstorage-volume.1", [
        Setup(2, f"pstorage -c stor1 make-cs -r /pstorage/disk1/cs -s 64; {START_CS}"),
        Setup(3, f"pstorage -c stor1 make-cs -r /pstorage/disk1/cs -s 64; {START_CS}"),
        Setup(1, "qemu-img create -f qcow2 disk.qcow2 64M; truncate -s 64M disk.img"),
        1, 1, 1, 1, 1, 1, 1, 1, 1, GUEST, GUEST, 1,
        Setup(1, f"service pstorage-nbd start; setsid /usr/bin/python3 -c '{HOLD}' & "
                 "until test -e held; do sleep 0.1; done"),
        1]),
    ("pstorage.1", [
        Setup(1, "service pstorage-nbd stop; pstorage -c stor1 volume rename vm1 other"),
        1, 1, Until(1, "CSID", QUIT), 1, 1]),
    ("pstorage-nbd.1", [
        1, 1, Until(1, "VNC server running", INTERRUPT), GUEST, GUEST, GUEST,
        Setup(1, "umask 077; echo client1:$(printf '%064d' 7) > /etc/pstorage/nbd.psk"),
        Until(1, "serving NBD", INTERRUPT),
        Setup(1, "until pstorage -c stor1 volume rm --now vm1; do sleep 0.2; done; "
                 "pstorage -c stor1 volume create vm1 -s 64M"), 1]),
    ("pstorage-nbd.7", [1, 1, Setup(GUEST, "nbd-client -d /dev/nbd0"), GUEST,
                        Setup(GUEST, "pstorage -c stor1 volume detach vm1")]),
    ("pstorage-why.1", [
        # Three replicas, so that it does not depend on where the only one is.
        Setup(1, "pstorage -c stor1 set-attr -R -p / replicas=3:2; "
                 "until pstorage -c stor1 ok-to-stop cs 1025; do sleep 0.2; done"),
        1, Fails(1, "no: .* could not be"), 1, 1, 1]),
    ("pstorage-stat.1", [1, 1, 1, Until(1, "MDS", INTERRUPT), Until(1, "chunk", INTERRUPT)]),
    ("pstorage-top.1", [Until(1, "CSID", QUIT), Until(1, "CSID", QUIT)]),
    ("pstorage-metrics.7", [
        1, Setup(1, SSH_SERVER), Setup(3, SSH_KEY),
        Setup(1, "cp {shared}/id_ed25519.pub .ssh/authorized_keys; chmod 600 .ssh/authorized_keys"),
        Behind(3, None),
        Setup(3, "until curl --fail http://localhost:2512/healthz; do sleep 0.1; done")]),
    ("pstorage-doctor.1", [Fails(1, "findings need you"), 1]),
    ("pstorage-completion.1", [1, 1]),
    ("pstorage-advise-configuration.1", [
        Setup(1, "mkdir -p /pstorage/cs1 /pstorage/cs2 /mnt/stor1; truncate -s 3G ssd.img; "
                 "mkfs.ext4 -q ssd.img; mount -o loop ssd.img /ssd"),
        1, 1, Setup(1, "findmnt /mnt/stor1; umount /mnt/stor1; test -e /pstorage/cs1/repository.json")]),
    ("pstorage-ploop.1", [1, 1, 1, 1, 1, 1]),
    ("pstorage-config-files.7", [1, 1]),
    ("pstorage-mount.1", [
        Setup(1, "pstorage-mount -c stor1 /mnt/stor1"),
        1, Setup(1, "losetup -j /mnt/stor1/.disks/vm1 | cut -d: -f1 | xargs losetup -d; "
                    "umount /mnt/stor1"),
        1, 1, 1, 1, Into(1, "/etc/fstab"), Setup(1, FSTAB)]),
    ("pstorage-ssd.7", [
        Setup(2, "mkdir -p /mnt/stor1"), 2, 2, 2, Setup(2, "umount /mnt/stor1"),
        Into(2, "/etc/fstab"), Setup(2, FSTAB)]),
    ("pstorage-ct.1", [
        1, Outside(1), 1, 1, Until(1, r"[#$] $", "exit\n"), 1,
        Setup(1, CGROUPS), Setup(1, IN_RUNC), Until(1, r"[#$] $", "exit\n"),
        Setup(1, "pstorage-ct -c stor1 umount 101; umount /mnt/stor1"),
        Setup(GUEST, CONTAINER), Until(GUEST, r"# $", "exit\n"), Setup(GUEST, "pstorage-ct -c stor1 umount 101")]),
    ("pstorage-hwflush-check.8", [Behind(1, "listening"), Until(2, "writing", INTERRUPT)]),
    ("pstorage-security.7", [1, 1]),
    ("pstorage-set-attr.1", [1, 1, 1, 1]),
    ("pstorage-rm-cs.1", [
        # It was revoked, and would wait for its next user (README.md, known gaps).
        Setup(1, "pstorage -c stor1 volume rm --now other"),
        Setup(1, "pstorage -c stor1 set-attr -R -p / replicas=1:1 failure-domain=host tier=0; "
                 "pstorage -c stor1 set-attr -p /volumes/vm1 failure-domain=host tier=0"),
        1, 1, Setup(3, "service pstorage-csd stop"), 1]),
    ("pstorage-rm-mds.1", [
        Setup(3, "pstorage -c stor1 make-mds -a 192.168.0.3 -r /pstorage/mds; "
                 "service pstorage-mdsd start; "
                 "until pstorage -c stor1 stat | grep 'MDS nodes: 3 of 3'; do sleep 0.2; done"),
        1, 1]),
]


def cluster_setups(cs_of, replicas):
    """A cluster of three hosts; cs_of: host -> how many chunk servers."""
    setups = [Setup(1, "pstorage -c stor1 make-mds -I -p -a 192.168.0.1 -r /pstorage/mds; "
                       "service pstorage-mdsd start")]
    for host in (2, 3):
        setups.append(Setup(host, "pstorage -c stor1 auth-node -b 192.168.0.1; "
                            f"pstorage -c stor1 make-mds -a 192.168.0.{host} -r /pstorage/mds; "
                            "service pstorage-mdsd start"))
    for host, count in cs_of.items():
        setups += [Setup(host, f"pstorage -c stor1 make-cs -r /pstorage/disk{number}/cs -s 64")
                   for number in range(1, count + 1)]
        setups.append(Setup(host, START_CS))
    return setups + [Setup(1, f"pstorage -c stor1 set-attr -p / {replicas}")]


# CS 1025 is on host 1, 1026 and 1027 on host 2, 1028 and 1029 on host 3, which is lost in the end.
LOST_HOST = "88c6ed794dc44d32"
KILL = "pkill --signal KILL --nslist net --ns $$"
RECOVERY = [
    ("pstorage-recovery.7", [
        Setup(3, f"mkdir -p /etc/pstorage; echo {LOST_HOST} > /etc/pstorage/host_id"),
        *cluster_setups({1: 1, 2: 2, 3: 2}, "replicas=2:1"),
        Setup(2, "export PSTORAGE_NAME=stor1"), Setup(3, "export PSTORAGE_NAME=stor1"),
        Setup(1, "pstorage -c stor1 volume create vm1 -s 64M; service pstorage-nbd start; "
                 f"truncate -s 64M disk; mkfs.ext4 -q disk; nbdcopy disk '{VM1}'"),
        Setup(3, "service pstorage-nbd start; pstorage-iscsi create -n kvm1 -a 192.168.0.3; "
                 "pstorage-iscsi lun-add -t kvm1 -l 1 -s 64M; pstorage-iscsi start -t kvm1"),
        1, 1, 1,
        Setup(2, "service pstorage-csd stop"), 2,
        1, Setup(1, "pstorage -c stor1 set-config mds.wd.offline_tout=300000"),
        Setup(1, "until pstorage -c stor1 stat | grep '(100%) healthy'; do sleep 0.2; done"), 1,
        Setup(2, "service pstorage-csd stop"), 1,
        Setup(2, "rm -r /pstorage/disk2/cs; sed -i /disk/d /etc/pstorage/clusters/stor1/cs.list"),
        2, 2,
        Setup(2, "service pstorage-mdsd stop"), 1, 2, 2, 2,
        Setup(1, "until pstorage -c stor1 stat | grep 'MDS nodes: 3 of 3'; do sleep 0.2; done"),
        # Nothing of its client's may be open: such chunks wait for their next user, as the page says.
        Setup(3, f"{KILL} tgtd; service pstorage-nbd stop; {KILL} 'csd|pstorage'"), 1,
        1, Setup(1, f"setsid /usr/bin/python3 -c '{HOLD}' & until test -e held; do sleep 0.1; done"), 1,
        2, 2, 2, 2, Setup(2, "service pstorage-nbd start"), 2,
        Setup(2, "iscsi-ls iscsi://192.168.0.2 | grep kvm1; pstorage-iscsi stop -t kvm1")]),
]

ISCSI = [
    ("pstorage-iscsi.8", [
        *cluster_setups({1: 1, 2: 1, 3: 1}, "replicas=3:2"), GUEST, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        Setup(1, "pstorage-iscsi stop -t kvm1"), Setup(2, "service pstorage-nbd start"),
        Setup(2, "export PSTORAGE_NAME=stor1"), 2,
        Setup(1, "pstorage-iscsi start -t kvm1; pstorage-iscsi stop -t kvm1; "
                 "pstorage-iscsi lun-del -t kvm1 -l 1; pstorage-iscsi delete -t kvm1; "
                 "service pstorage-nbd stop; service pstorage-csd status"),
        Setup(2, "service pstorage-nbd stop"),
        Setup(GUEST, TARGET), GUEST, GUEST, Setup(GUEST, LOGGED_IN)]),
    ("pstorage-iscsi.7", [Into(1, "/etc/multipath.conf")] * 10 + [
        Setup(1, "multipath -t > shown 2> errors; grep -A20 PSTORAGE shown | grep -w 'no_path_retry 60'; "
                 "! grep multipath.conf errors")]),
    ("pstorage-iscsid.8", [1, 1, 1, 1, 1, 1]),
]


def play(lab, page, steps):
    """Returns (how many lines were run, what failed); goes on after a line that fails."""
    lines = iter([line for block in manual.blocks_of(page) for line in block])
    done, faults = 0, []
    for step in steps:
        if isinstance(step, Setup):
            if step.host != GUEST:
                command = step.command.replace("{shared}", lab.hosts.root)
                lab.run(step.host, command)  # its failure ends the test
            continue
        line = next(lines, None)
        check(line is not None, f"{page} has fewer lines than the plan")
        if step == GUEST or getattr(step, "host", None) == GUEST:
            continue
        done += 1
        try:
            do_step(lab, step, line)
        except AssertionError as error:
            print(f"  FAILED {page}: {error}", flush=True)
            faults.append(line)
    left = list(lines)
    check(not left, f"{page}: the plan does not say where to run {left}")
    lab.end_those_left()
    return done, faults


def do_step(lab, step, line):
    if isinstance(step, Into):
        path = os.path.join(f"{lab.hosts.root}/own{step.host}/root", step.path)
        if step.path.startswith("/etc/"):
            path = lab.hosts.etc(step.host) + step.path.removeprefix("/etc")
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    elif isinstance(step, Behind):
        lab.leave_running(step.host, line, step.pattern)
    elif isinstance(step, Outside):
        lab.run(step.host, line, network=False)
    elif isinstance(step, int):
        lab.run(step, line)
    else:
        lab.run(step.host, line, step)


def scene(plan):
    with manual.lab(3, changed=SMALLER) as lab:
        played = [play(lab, page, steps) for page, steps in plan]
    faults = [line for _, failed in played for line in failed]
    check(not faults, f"{len(faults)} examples do not work: {faults}")
    print(f"  {sum(count for count, _ in played)} lines of {len(plan)} pages", flush=True)


def steps_of_guest(plan):
    """[(a page's line or none, the command)] of what runs in the guest."""
    found = []
    for page, steps in plan:
        lines = iter([line for block in manual.blocks_of(page) for line in block])
        for step in steps:
            line = None if isinstance(step, Setup) else next(lines)
            if step == GUEST:
                found.append((line, line))
            elif getattr(step, "host", None) != GUEST:
                continue
            elif isinstance(step, Setup):
                found.append((None, step.command))
            else:  # Until: typed as soon as it reads
                found.append((line, f"printf '%s' '{step.keys}' | script --quiet --return --command "
                                    f"'{line}' /dev/null"))
    return found


def no_page_is_forgotten():
    known = {page for page, _ in PLAN + RECOVERY + ISCSI} | {OVERVIEW}
    found = {page for page in manual.pages() if manual.blocks_of(page)}
    check(found == known, f"the plans' pages are not those with displays: {sorted(found ^ known)}")


def lines_run_where_the_plan_says():
    scene(PLAN)


def what_is_lost_is_recovered():
    scene(RECOVERY)


def gateways_serve():
    scene(ISCSI)


def the_rest_runs_in_a_guest():
    steps = steps_of_guest(PLAN + ISCSI)
    script = IN_GUEST
    for line, command in steps:
        said = f"== {line}" if line else "-- a setup"
        script += f"cat <<'LINE'\n{said}\nLINE\n{command}\n"  # the first that fails ends it
    with debian.installed() as host:
        text = host.run(script)
    count = sum(line is not None for line, _ in steps)
    check(text.count("\n== ") == count, f"not every line was reached:\n{text}")
    print(f"  {count} lines", flush=True)


if __name__ == "__main__":
    main(no_page_is_forgotten, what_is_lost_is_recovered, gateways_serve, the_rest_runs_in_a_guest,
         lines_run_where_the_plan_says)
