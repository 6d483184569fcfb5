# shellcheck shell=dash
# What the init scripts share: they set `daemon`, then read this file. Under systemd the units of the
# same names do the work; this file then only tells them what there is to start (`start-units`).
# shellcheck disable=SC2154,SC2317
set -u
service=${daemon}
case $daemon in
  pstorage-*) ;;
  *) service=pstorage-$daemon ;;
esac

# Who runs the daemons and with which options: PSTORAGE_USER, MDSD_OPTIONS, CSD_OPTIONS, NBD_OPTIONS,
# ISCSI_OPTIONS.
PSTORAGE_USER=pstorage MDSD_OPTIONS='' CSD_OPTIONS='' NBD_OPTIONS='' ISCSI_OPTIONS=''
id -u pstorage >/dev/null 2>&1 || PSTORAGE_USER=root # as after 'cmake --install'
defaults=${PSTORAGE_DEFAULTS:-/etc/default/pstorage}
# shellcheck disable=SC1090
[ ! -r "$defaults" ] || . "$defaults"

etc=${PSTORAGE_ETC:-/etc/pstorage}
stop_seconds=60
failed=0

say() { echo "$service: $*"; }

# What there is to start: repositories, or clusters that this host has the key of. One a line.
things() {
  case $daemon in
    mdsd) cat "$etc"/clusters/*/mds.list 2>/dev/null ;;
    csd) cat "$etc"/clusters/*/cs.list 2>/dev/null ;;
    *)
      for key in "$etc"/clusters/*/auth_digest.key; do
        [ ! -e "$key" ] || basename "$(dirname "$key")"
      done
      ;;
  esac
}

# The file that holds the process id of the daemon of $1, without its ending.
base_of() {
  case $daemon in
    pstorage-nbd) echo "/run/pstorage/$1/nbd" ;;
    pstorage-iscsid) echo "/run/pstorage/iscsi/$1/iscsid" ;;
    *) echo "$1/$daemon" ;;
  esac
}

# The pid in file $1, if it is that of such a daemon.
running() {
  pid=
  read -r pid 2>/dev/null <"$1" || return 1
  [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$daemon" ] || return 1
  echo "$pid"
}

# The pid of the daemon of $1, if it runs.
pid_of() { running "$(base_of "$1").pid"; }
# The pid of the process that would start it again.
keeper_of() { running "$(base_of "$1").keeper"; }

# The options are words of a configuration file.
# shellcheck disable=SC2086
run_daemon() {
  case $daemon in
    mdsd) mdsd -r "$1" -u "$PSTORAGE_USER" -D --respawn $MDSD_OPTIONS ;;
    csd) csd -r "$1" -u "$PSTORAGE_USER" -D --respawn $CSD_OPTIONS ;;
    pstorage-iscsid)
      mkdir -p "/var/log/pstorage/$1" &&
        pstorage-iscsid -c "$1" -l "/var/log/pstorage/$1/iscsid.log" -D --respawn $ISCSI_OPTIONS
      ;;
    *)
      mkdir -p "/var/log/pstorage/$1" &&
        pstorage-nbd -c "$1" -l "/var/log/pstorage/$1/nbd.log" -D --respawn $NBD_OPTIONS
      ;;
  esac
}

start_one() {
  if pid_of "$1" >/dev/null; then
    say "$1 runs already"
  elif keeper_of "$1" >/dev/null; then
    say "$1 has failed and will be started again"
  elif run_daemon "$1"; then
    say "$1 started"
  else
    failed=1 # it has said why
  fi
}

stop_one() {
  pid=$(keeper_of "$1" || pid_of "$1") || return 0
  kill -TERM "$pid" 2>/dev/null
  waited=0
  while pid_of "$1" >/dev/null || keeper_of "$1" >/dev/null; do
    if [ "$waited" -ge $((stop_seconds * 10)) ]; then
      say "$1 does not stop within $stop_seconds s (pid $pid): see its log"
      failed=1
      return 0
    fi
    sleep 0.1
    waited=$((waited + 1))
  done
  say "$1 stopped"
}

restart_running() {
  { pid_of "$1" || keeper_of "$1"; } >/dev/null || return 0
  stop_one "$1"
  start_one "$1"
}

status_one() {
  if pid=$(pid_of "$1"); then
    say "$1 runs (pid $pid)"
  elif keeper_of "$1" >/dev/null; then
    say "$1 has failed and will be started again"
    failed=3
  else
    say "$1 does not run"
    failed=3
  fi
}

# systemctl start, of the unit of $1.
start_unit() {
  unit=$(systemd-escape --template="$service@.service" ${path:+--path} -- "$1") &&
    systemctl start "$unit" || failed=1
}

for_each() {
  all=$(things)
  if [ -z "$all" ]; then
    say "nothing is known on this host to start ($etc/clusters)"
    return 0
  fi
  # A path may hold blanks: one a line.
  while IFS= read -r thing; do
    [ -z "$thing" ] || "$1" "$thing"
  done <<LIST
$all
LIST
}

path=1
case $daemon in
  pstorage-*) path= ;;
esac
case ${1:-} in
  start | stop | restart | force-reload | status)
    if [ -d /run/systemd/system ]; then
      [ "$1" != force-reload ] || set -- restart
      exec systemctl "$1" "$service.service"
    fi
    ;;
esac
case ${1:-} in
  start) for_each start_one ;;
  stop) for_each stop_one ;;
  restart | force-reload)
    for_each stop_one
    for_each start_one
    ;;
  try-restart) for_each restart_running ;;
  status) for_each status_one ;;
  start-units) for_each start_unit ;;
  *)
    say "usage: start|stop|restart|status"
    exit 2
    ;;
esac
exit "$failed"
