#!/usr/bin/env bash
# Every source file is as clang-format leaves it.
set -euo pipefail
cd "$(dirname "$0")/.."
git ls-files '*.h' '*.cc' | xargs clang-format --dry-run --Werror
