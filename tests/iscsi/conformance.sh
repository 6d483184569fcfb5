#!/usr/bin/env bash
# libiscsi's iscsi-test-cu, all of it, against bs_pstorage.so in Debian's tgtd.
#   conformance.sh [BUILD_DIR]                     over nbdkit's memory disk
#   conformance.sh BUILD_DIR NBD_URI SIZE_BYTES    over any NBD server (its data is overwritten)
# Last line: the count. Fails when a test fails that is not in the list below, or when more are
# skipped than the commands we do not have.
# shellcheck disable=SC1091,SC2154 # lab.sh and the variables that it sets
set -euo pipefail
here=$(dirname "$(realpath "$0")")
. "$here/lab.sh"

# GetLBAStatus.UnmapSingle expects 512-byte physical blocks; WriteSame10.UnmapUntilEnd writes 0xff with
# UNMAP=1 and expects zeros; tgtd itself ignores the DataSN that iSCSIDataSnInvalid gets wrong.
known_failures=(GetLBAStatus.UnmapSingle WriteSame10.UnmapUntilEnd iSCSIdatasn.iSCSIDataSnInvalid)
skipped_max=40

lab_require iscsi-test-cu
lab_up "${1:-build/release}/tgt"
uri=${2:-}
size=${3:-$((128 << 20))}
if [ -z "$uri" ]; then
  lab_nbdkit "$lab_dir/nbd.sock" memory "$size"
  uri="nbd+unix:///?socket=$lab_dir/nbd.sock"
fi
lab_tgtd
lab_target
lab_lun 1 "$uri" "$size" 6a1f0f4e-2f0b-4f0e-9b53-0d2f3c0a9d11 \
  "reservations=$lab_dir/reservations.json"

mapfile -t suites < <(iscsi-test-cu --list | awk -F. '$1 == "ALL" && NF == 2 { print $2 }')
[ "${#suites[@]}" -gt 50 ] || lab_die "iscsi-test-cu lists only ${#suites[@]} suites"
for suite in "${suites[@]}"; do
  paths=("$(lab_url 1)")
  [ "$suite" != MultipathIO ] || paths+=("$(lab_url 1)")
  status=0
  timeout 120 iscsi-test-cu --dataloss --test="ALL.$suite" "${paths[@]}" >"$lab_dir/$suite.out" 2>&1 ||
    status=$?
  # 1: some test has failed, which is counted from the output.
  [ "$status" -le 1 ] || echo "  Test: crashed, status $status ...FAILED" >>"$lab_dir/$suite.out"
  awk -v suite="$suite" '
    function finish() {
      if (name == "") return
      print (bad ? "failed" : skip ? "skipped" : "passed"), suite "." name
    }
    /^  Test: / {
      finish()
      name = $2; bad = 0; skip = 0
    }
    /\[SKIPPED\]/ { skip = 1 }
    /(^|\.\.\.)FAILED/ { bad = 1 }
    END { finish() }' "$lab_dir/$suite.out" >>"$lab_dir/results"
done

count() { grep --count "^$1 " "$lab_dir/results" || true; }
unexpected=0
while read -r _ name; do
  case " ${known_failures[*]} " in
    *" $name "*) echo "known failure: $name" ;;
    *)
      echo "FAILED: $name"
      sed -n '/FAILED/p' "$lab_dir/${name%%.*}.out" | head -n 5
      unexpected=1
      ;;
  esac
done < <(grep '^failed ' "$lab_dir/results")
skipped=$(count skipped)
if [ "$skipped" -gt "$skipped_max" ]; then
  grep '^skipped ' "$lab_dir/results"
  unexpected=1
fi
kill -0 "$lab_tgtd_pid" 2>/dev/null || {
  tail -n 20 "$lab_dir/tgtd.log"
  echo "tgtd has died"
  unexpected=1
}
echo "$(count passed) passed, $skipped skipped, $(count failed) failed"
exit "$unexpected"
