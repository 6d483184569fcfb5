#!/usr/bin/env bash
# The Debian packages on a clean Debian: installed by apt, six commands to a replicated volume in use,
# upgraded under load, removed and purged without leftovers.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
skip() {
  echo "SKIP: $*"
  exit 77
}
fail() {
  echo "FAILED: $*" >&2
  exit 1
}
[ "$(id --user)" -eq 0 ] || skip "needs root for debootstrap and a chroot"
unshare --mount --pid --net --fork true 2>/dev/null || skip "cannot make namespaces here"

work=$(mktemp --directory --tmpdir pstorage-packages-XXXXXX)
root=$work/root
init= # the first process of the chroot's namespaces: with it all others end
finish() {
  local status=$?
  # Its loop device is this machine's, and would outlive the namespaces.
  [ -z "${sleeper:-}" ] || inside pstorage-ct -c stor1 umount 101 >/dev/null 2>&1 || true
  if [ -n "$init" ]; then
    kill -KILL "$init" 2>/dev/null || true
    wait "$init" 2>/dev/null || true
  fi
  [ "$status" -eq 0 ] || [ ! -d "$root/pstorage" ] || tail -n 20 "$root"/pstorage/*/logs/log >&2 || true
  rm --recursive --force --one-file-system "$work"
}
trap finish EXIT

# ---- a clean Debian
"$here/tests/system/clean_debian.sh" "$root" || exit

mkdir "$root/debs"
"$here/scripts/packages/build" "$root/debs" >/dev/null
version=$(dpkg-deb --field "$root"/debs/pstorage-client_*.deb Version)

# ---- namespaces of its own; the network is only there for apt, before they are entered
in_network() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
echo "== 1: apt install ./*.deb"
in_network sh -c 'cd /debs && apt-get install --yes --quiet --quiet ./*.deb' >"$work/apt.log" 2>&1 || {
  tail -n 20 "$work/apt.log" >&2
  fail "apt install ./*.deb"
}
# shellcheck disable=SC2016 # for the shell in there
unshare --mount --pid --net --fork --kill-child sh -c '
  mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && mount --rbind /sys "$1/sys" && ip link set lo up &&
  echo up >"$2/ready" && exec chroot "$1" sleep infinity' - "$root" "$work" &
init=$!
until [ -s "$work/ready" ]; do
  kill -0 "$init" 2>/dev/null || fail "no namespaces"
  sleep 0.1
done
sleeper=$(pgrep --parent "$init")
inside() {
  nsenter --target "$sleeper" --mount --pid --net chroot "$root" \
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive "$@"
}

# ---- README.md's commands
echo "== 2: make-mds --start"
printf 'secret\n' | inside pstorage -c stor1 make-mds -I -P -a 127.0.0.1 -r /pstorage/mds --start
echo "== 3: make-cs --start, three times"
# shellcheck disable=SC2016
inside sh -c 'for n in 1 2 3; do pstorage -c stor1 make-cs -r /pstorage/disk$n --start; done'
echo "== 4: set-attr"
inside pstorage -c stor1 set-attr -p / replicas=3:2 failure-domain=disk
echo "== 5: pstorage-mount"
inside mkdir -p /mnt/stor1
inside pstorage-mount -c stor1 /mnt/stor1
echo "== 6: pstorage-ct create and mount"
inside pstorage-ct -c stor1 create 101 -s 10G
inside pstorage-ct -c stor1 mount 101
inside cp --recursive /usr/share/doc /vz/root/101/
inside pstorage-ct -c stor1 umount 101
inside pstorage-ct -c stor1 mount 101
inside diff --recursive --no-dereference /usr/share/doc /vz/root/101/doc || fail "not read back as written"
inside pstorage-ct -c stor1 umount 101
inside umount /mnt/stor1

echo "== a volume for virtual machines"
inside pstorage -c stor1 volume create vm1 -s 1G
inside service pstorage-nbd start

for daemon in mds/mdsd disk1/csd disk2/csd disk3/csd; do
  pid=$(cat "$root/pstorage/$daemon.pid")
  # shellcheck disable=SC2016
  [ "$(inside stat --format %U "/proc/$pid")" = pstorage ] || fail "$daemon does not run as pstorage"
done

# The outside has the NBD client; the socket is a file.
uri="nbd+unix:///vm1?socket=$root/run/pstorage/stor1/nbd.sock"
mke2fs -q -t ext4 -d "$here/scripts" "$work/image" 64M
nbdcopy --flush "$work/image" "$uri"
compare() {
  rm --force "$work/back"
  nbdcopy "$uri" "$work/back"
  cmp --bytes="$(stat --format %s "$work/image")" "$work/back" "$work/image" ||
    fail "$1: what was written is lost"
}
compare "after writing"
inside pstorage -c stor1 -q stat | grep --quiet "3 (100%) healthy\|(100%) healthy" ||
  fail "the volume's chunks are not healthy: $(inside pstorage -c stor1 stat)"

# ---- an upgrade keeps the repositories; the volume stays in use
echo "== upgrade from $version"
mkdir "$work/newer"
for deb in "$root"/debs/*.deb; do
  dpkg-deb --raw-extract "$deb" "$work/unpacked"
  sed -i "s/$version/$version+1/" "$work/unpacked/DEBIAN/control"
  dpkg-deb --root-owner-group --build "$work/unpacked" "$work/newer" >/dev/null
  rm --recursive "$work/unpacked"
done
rm "$root"/debs/*.deb
mv "$work"/newer/*.deb "$root/debs/"
before=$(cat "$root/pstorage/disk1/csd.pid")
nbdcopy "$uri" null: &
reader=$!
inside sh -c 'dpkg --install /debs/*.deb' >"$work/dpkg.log" 2>&1 || {
  cat "$work/dpkg.log" >&2
  fail "the upgrade"
}
wait "$reader" || fail "a reader was cut off by the upgrade"
[ "$(cat "$root/pstorage/disk1/csd.pid")" != "$before" ] || fail "the upgrade did not restart csd"
compare "after the upgrade"

# ---- removed: stopped, the data is kept; purged with the data gone: nothing is left
echo "== remove and purge"
inside dpkg --purge pstorage-gateway pstorage-server pstorage-client >"$work/dpkg.log" 2>&1 || {
  cat "$work/dpkg.log" >&2
  fail "purge"
}
grep --quiet "/etc/pstorage stays" "$work/dpkg.log" || fail "purge took the key of a repository that is there"
# (What has ended and nobody waits for has no program any more.)
left=$(inside sh -c 'ls -l /proc/[0-9]*/exe' 2>/dev/null |
  grep --extended-regexp 'bin/(mdsd|csd|pstorage)' || true)
[ -z "$left" ] || fail "purge leaves processes: $left"
inside sh -c 'dpkg --install /debs/*.deb && service pstorage-mdsd start && service pstorage-csd start &&
  service pstorage-nbd start' >"$work/dpkg.log" 2>&1 || {
  cat "$work/dpkg.log" >&2
  fail "installing again"
}
compare "after removing and installing again"
inside dpkg --remove pstorage-gateway pstorage-server pstorage-client >/dev/null 2>&1
rm --recursive --force "$root/pstorage"
inside dpkg --purge pstorage-gateway pstorage-server pstorage-client >/dev/null 2>&1
inside getent passwd pstorage && fail "purge leaves the user"
# What apt has installed besides is its business; of ours nothing may be there.
find "$root/etc" "$root/usr" "$root/var" "$root/run" -xdev -name '*pstorage*' -not -path '*/var/lib/apt/*' \
  -not -path '*/var/lib/systemd/*' >"$work/left"
[ ! -s "$work/left" ] || fail "purge leaves $(tr '\n' ' ' <"$work/left")"
echo "ok packages"
