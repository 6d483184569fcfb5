#!/usr/bin/env bash
# g++ 12 silently miscompiles coroutine expressions with temporaries: in an expression with co_await
# only named operands are allowed (core/README.md). Lists every line that breaks the rule.
set -euo pipefail
cd "$(dirname "$0")/.."

found=0
while IFS= read -r match; do
  echo "$match: only named operands in an expression with co_await"
  found=1
done < <(git ls-files '*.h' '*.cc' | xargs grep --line-number --with-filename 'co_await' |
  grep --invert-match --extended-regexp \
    '(^[^:]*:[0-9]+: *//)|co_await [A-Za-z_:][A-Za-z0-9_:.>-]*(\([A-Za-z0-9_:., >-]*(std::move\([A-Za-z_]+\))?[A-Za-z0-9_:., >-]*\))?;' ||
  true)
# A condition or a switch that contains co_await is miscompiled too.
while IFS= read -r match; do
  echo "$match: name the result of co_await before it is tested"
  found=1
done < <(git ls-files '*.h' '*.cc' |
  xargs grep --line-number --with-filename --extended-regexp \
    '(if|while|switch|return) *\(.*co_await|\?.*co_await' || true)
exit "$found"
