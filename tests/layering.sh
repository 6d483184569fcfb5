#!/usr/bin/env bash
# Arrows: core <- mds, cs, blockdev <- iscsi. Lists every include that points backwards, and every
# thread, clock or socket inside the pure folders.
set -euo pipefail
cd "$(dirname "$0")/.."

found=0
# $1: folder, $2: extended regex of what its files must not include.
forbid() {
  local matches
  matches=$(git ls-files "$1" | grep --extended-regexp '\.(h|cc)$' |
    xargs --no-run-if-empty grep --line-number --extended-regexp "^#include [\"<]($2)" || true)
  [ -z "$matches" ] && return
  echo "$matches"
  echo "  ^ $1 must not include this"
  found=1
}
forbid core '(mds|cs|blockdev|iscsi|tests)/'
forbid mds '(cs|blockdev|iscsi|tests)/'
forbid cs '(mds|blockdev|iscsi|tests)/'
forbid blockdev '(mds|cs|iscsi|tests)/'
forbid iscsi '(mds|cs|tests)/'
# The seams: logic sees time, disks and peers only through them.
impure='boost/asio|thread>|mutex|future>|sys/|unistd|fcntl|openssl|random>'
forbid core/client "$impure|chrono>"
forbid core/env 'boost/asio|thread>|sys/|unistd'
forbid mds/state "$impure"
forbid mds/planner "$impure"
forbid mds/raft "$impure"
forbid cs/replica "$impure"
forbid ':(glob)iscsi/*' "$impure|chrono>|libnbd|iscsi/(module|tool)/"
# tgtd is GPL-2.0-only: what it loads must not reach OpenSSL, so nothing of core that may.
forbid iscsi/module '(core/(auth|cli|client|config|net|runtime)|blockdev|iscsi/tool)/'
forbid ':(glob)iscsi/*' '(core/(auth|cli|client|config|net|runtime)|blockdev)/'
exit "$found"
