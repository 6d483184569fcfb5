#!/usr/bin/python3
"""The services under a systemd that runs: a Debian with our packages boots in a guest. Daemons start
with their host, are started again when they die, stop in order, and the journal tells of it."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import debian  # noqa: E402
from harness import check, main  # noqa: E402
from manual import blocks_of  # noqa: E402
from overview_test import PAGE, START_WITH_HOST  # noqa: E402

BEGIN = """
mds=pstorage-mdsd@pstorage-mds
cs="pstorage-csd@pstorage-disk1 pstorage-csd@pstorage-disk2"
of_clusters="pstorage-nbd@stor1 pstorage-iscsid@stor1"

fail() { echo "FAILED: $*"; systemctl --no-pager status 'pstorage*'; journalctl --no-pager -n 50; exit 1; }
until_() { # $1: seconds, $2...: a command
  local end=$((SECONDS + $1))
  shift
  until "$@"; do [ $SECONDS -lt $end ] || fail "not in time: $*"; sleep 0.2; done
}
value() { systemctl show --value --property "$2" "$1"; }
are() { # $1: a state, $2...: units
  local wanted=$1 unit
  shift
  for unit; do [ "$(value $unit ActiveState)" = $wanted ] || return 1; done
}
in_journal() { # $1: unit, $2: pattern
  journalctl --boot --no-pager --unit "$1" | grep --quiet --extended-regexp "$2" || fail "no '$2' in the journal of $1"
}
all_of() { pstorage -c stor1 stat | grep --quiet "CS nodes: *2 of 2"; }
"""

FIRST_BOOT = BEGIN + """
[ "$(systemctl is-system-running --wait)" = running ] || fail "the packages leave a failed unit"
echo secret | pstorage -c stor1 make-mds -I -P -a 127.0.0.1 -r /pstorage/mds
systemctl start pstorage-mdsd
are active $mds || fail "no metadata server"
for n in 1 2; do pstorage -q -c stor1 make-cs -r /pstorage/disk$n -s 64; done
pstorage -c stor1 set-attr -p / replicas=2:1 failure-domain=disk
service pstorage-csd start          # the same by the manual's words
until_ 20 all_of
systemctl start pstorage-nbd pstorage-iscsid
are active $mds $cs $of_clusters || fail "not all are active"
for unit in $mds $cs; do
  [ "$(ps -o user= -p "$(value $unit MainPID)")" = pstorage ] || fail "$unit does not run as its user"
  in_journal $unit "Started"
  in_journal $unit "is ready"
done

echo "== a disk on it, through the kernel"
modprobe nbd
pstorage -c stor1 volume create vm1 -s 64M
pstorage -c stor1 volume attach vm1 /dev/nbd0
mkfs.ext4 -q /dev/nbd0
mount /dev/nbd0 /mnt
cp --recursive /etc/init.d /mnt/kept
sync

echo "== killed"
for unit in $mds $cs pstorage-iscsid@stor1 pstorage-nbd@stor1; do
  before=$(value $unit MainPID)
  kill -KILL "$before"
  came_back() { are active $unit && [ "$(value $unit MainPID)" != "$before" ]; }
  until_ 30 came_back
  [ "$(value $unit NRestarts)" = 1 ] || fail "$unit: $(value $unit NRestarts) restarts"
  in_journal $unit "code=killed, status=9/KILL"
done
until_ 30 all_of
diff --recursive --no-dereference /etc/init.d /mnt/kept

echo "== restarted, stopped"
pid=$(value $mds MainPID)
systemctl restart pstorage-csd      # under the mounted file system
are active $cs || fail "restart"
[ "$(value $mds MainPID)" = "$pid" ] || fail "the restart of the chunk servers was one of the MDS, too"
in_journal pstorage-csd@pstorage-disk1 "I stopped"
until_ 30 all_of
echo 3 >/proc/sys/vm/drop_caches
diff --recursive --no-dereference /etc/init.d /mnt/kept
umount /mnt
pstorage -c stor1 volume detach vm1
for name in iscsid nbd csd mdsd; do systemctl stop pstorage-$name; done
are inactive $mds $cs $of_clusters || fail "not all are stopped"
for unit in $mds $cs $of_clusters; do
  [ "$(value $unit Result)" = success ] || fail "$unit stops with $(value $unit Result)"
  in_journal $unit "Deactivated successfully"
done
for unit in $mds $cs; do in_journal $unit "I stopped"; done
for repository in mds disk1 disk2; do
  tail -n 1 /pstorage/$repository/logs/log | grep --quiet "I stopped" || fail "$repository: no clean stop in its log"
done
! ps -e -o comm= | grep --extended-regexp "^(mdsd|csd|pstorage)" || fail "processes are left"
cp --recursive /etc/init.d /pstorage/kept
"""

# The manual's words, which are needed for the NBD server: the packages enable it not.
END = """
[ "$(systemctl is-enabled pstorage-nbd)" = enabled ] || fail "the manual's words do not enable it"
echo "all stopped"
"""

SECOND_BOOT = BEGIN + """
[ "$(systemctl is-system-running --wait)" = running ] || fail "a unit failed"
are active $mds $cs || fail "they do not start with the host"
until_ 20 all_of
are active pstorage-nbd@stor1 || fail "the NBD server does not start with the host"
modprobe nbd
pstorage -c stor1 volume attach vm1 /dev/nbd0
mount /dev/nbd0 /mnt
diff --recursive --no-dereference /pstorage/kept /mnt/kept
umount /mnt
pstorage -c stor1 volume detach vm1
mv /pstorage/mds/repository.json /pstorage/moved.json
! systemctl restart $mds || fail "a metadata server without its repository starts"
in_journal $mds "repository"
echo "started with the host"
"""


def daemons_live_and_die_under_systemd():
    with debian.installed() as host:
        enable = "\n".join(blocks_of(PAGE)[START_WITH_HOST])
        check("all stopped" in host.run(FIRST_BOOT + enable + END), "the first boot's end")
        check("started with the host" in host.run(SECOND_BOOT), "the second boot's end")


if __name__ == "__main__":
    main(daemons_live_and_die_under_systemd)
