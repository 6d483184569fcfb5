# shellcheck shell=bash
# A target of our own for tests: nbdkit (or any NBD server) behind tgtd with bs_pstorage.so, in a
# private mount namespace, on a free port of 127.0.0.1. Source it, then: lab_up, lab_nbdkit,
# lab_tgtd, lab_target, lab_lun; everything ends with lab_down (also at exit).

lab_iqn=iqn.2014-04.com.pstorage:lab
lab_pids=()

lab_die() {
  echo "$0: $*" >&2
  exit 1
}

# Says why and ends with 77 when this machine cannot run it.
lab_require() {
  local tool
  [ "$(id -u)" -eq 0 ] || {
    echo "SKIP: needs root for a mount namespace"
    exit 77
  }
  for tool in tgtd tgtadm nbdkit unshare "$@"; do
    command -v "$tool" >/dev/null || {
      echo "SKIP: $tool is not installed: run scripts/install-deps"
      exit 77
    }
  done
}

lab_up() { # MODULE_DIR
  lab_module_dir=$(realpath "$1")
  lab_dir=$(mktemp -d)
  trap lab_down EXIT
  export TGT_IPC_SOCKET="$lab_dir/tgtd"
  lab_control=$((RANDOM % 30000 + 1))
  lab_port=$((RANDOM % 20000 + 30000))
  while (exec 3<>"/dev/tcp/127.0.0.1/$lab_port") 2>/dev/null; do lab_port=$((lab_port + 1)); done
}

lab_down() {
  local pid
  for pid in "${lab_pids[@]}"; do
    kill -CONT "$pid" 2>/dev/null || true
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  lab_pids=()
  rm -rf "${lab_dir:?}"
}

lab_wait() { # SECONDS COMMAND...
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.05
  done
}

lab_nbdkit() { # SOCKET PLUGIN ARGUMENTS...
  local socket=$1
  shift
  nbdkit --foreground --unix "$socket" "$@" &
  lab_nbdkit_pid=$!
  lab_pids+=("$lab_nbdkit_pid")
  lab_wait 10 test -S "$socket" || lab_die "nbdkit does not come up"
}

lab_tgtd() {
  # shellcheck disable=SC2016
  unshare --mount --propagation slave bash -ec '
    mkdir --parents /usr/lib/tgt/backing-store # a mount point; Debian ships it with tgt-rbd only
    mount --bind "$1" /usr/lib/tgt/backing-store
    exec tgtd --foreground --control-port "$2" --iscsi "portal=127.0.0.1:$3"' \
    tgtd "$lab_module_dir" "$lab_control" "$lab_port" >>"$lab_dir/tgtd.log" 2>&1 &
  lab_tgtd_pid=$!
  lab_pids+=("$lab_tgtd_pid")
  lab_wait 10 lab_adm --op show --mode system || {
    cat "$lab_dir/tgtd.log" >&2
    lab_die "tgtd does not come up"
  }
}

lab_adm() { tgtadm --control-port "$lab_control" --lld iscsi "$@"; }

lab_target() {
  lab_adm --op new --mode target --tid 1 --targetname "$lab_iqn"
  local parameter
  for parameter in MaxRecvDataSegmentLength=262144 MaxXmitDataSegmentLength=262144 \
    MaxBurstLength=1048576 FirstBurstLength=262144 InitialR2T=No MaxOutstandingR2T=4; do
    lab_adm --op update --mode target --tid 1 --name "${parameter%=*}" --value "${parameter#*=}"
  done
  lab_adm --op bind --mode target --tid 1 --initiator-address ALL
}

lab_lun() { # LUN NBD_URI SIZE UUID [OPTIONS]
  lab_adm --op new --mode logicalunit --tid 1 --lun "$1" --bstype pstorage \
    --backing-store "$2" --bsopts "size=$3;uuid=$4${5:+;$5}"
}

lab_url() { echo "iscsi://127.0.0.1:$lab_port/$lab_iqn/$1"; }
