#!/usr/bin/env bash
# Every shell script of the tree is clean.
set -euo pipefail
cd "$(dirname "$0")/.."
git ls-files scripts tests .ci | while read -r file; do
  if head --lines 1 "$file" | grep --quiet '^#!.*sh$'; then echo "$file"; fi
done | xargs shellcheck
