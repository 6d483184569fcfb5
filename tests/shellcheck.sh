#!/usr/bin/env bash
# Every shell script of the tree is clean.
set -euo pipefail
cd "$(dirname "$0")/.."
git ls-files scripts tests .ci | while read -r file; do
  head --lines 1 "$file" | grep --quiet '^#!.*\(bash\|sh\)$' && echo "$file"
done | xargs shellcheck
