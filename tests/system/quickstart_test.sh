#!/usr/bin/env bash
# scripts/quickstart as a newcomer runs it: a volume with a file tree on it, again, and all gone.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
directory=$(mktemp --directory --tmpdir pstorage-quickstart-XXXXXX)
export PSTORAGE_QUICKSTART_DIR=$directory/state
trap '"$here/scripts/quickstart" --down >/dev/null 2>&1 || true; rm -rf "$directory"' EXIT

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

"$here/scripts/quickstart" | tee "$directory/first"
grep --quiet "It works" "$directory/first" || fail "it does not say that it works"
grep --quiet "pstorage" "$directory/first" || fail "it does not say what to do next"
"$here/scripts/quickstart" >"$directory/second" || fail "a second run fails"
"$here/scripts/quickstart" --down
[ ! -e "$PSTORAGE_QUICKSTART_DIR" ] || fail "--down leaves $PSTORAGE_QUICKSTART_DIR"
if pgrep --full "$PSTORAGE_QUICKSTART_DIR"; then fail "--down leaves processes"; fi
echo "ok quickstart"
