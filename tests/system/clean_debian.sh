#!/usr/bin/env bash
# A clean Debian in the new directory DIR, from where this machine gets its own packages, with PACKAGEs:
#   clean_debian.sh DIR [PACKAGE]...
# Exit 77, with the reason, where this cannot be.
set -euo pipefail

root=$1
shift
skip() {
  echo "SKIP: $*"
  exit 77
}
[ "$(id --user)" -eq 0 ] || skip "needs root for debootstrap and a chroot"

# shellcheck disable=SC2016 # for apt-get
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
  awk '{ print; exit }')
[ -n "$mirror" ] || skip "apt knows no package source (run apt-get update)"
suite=${mirror##* }
log=$(debootstrap --variant=minbase "$suite" "$root" "${mirror% *}" 2>&1) || {
  tail -n 5 <<<"$log"
  skip "debootstrap does not work here"
}
rm --force "$root/etc/apt/sources.list"
cp --recursive --no-target-directory /etc/apt "$root/etc/apt"
cp --recursive /usr/share/keyrings/. "$root/usr/share/keyrings/"
cp /etc/resolv.conf "$root/etc/resolv.conf"

in_it() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
in_it apt-get update --quiet --quiet
[ $# -eq 0 ] || in_it apt-get install --yes --quiet --quiet --no-install-recommends "$@" >/dev/null 2>&1 ||
  skip "apt cannot install $*"
