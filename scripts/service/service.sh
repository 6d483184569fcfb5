# shellcheck shell=dash
# What the init scripts share: they set `daemon` and `list`, then read this file.
# shellcheck disable=SC2154,SC2317
set -u
etc=${PSTORAGE_ETC:-/etc/pstorage}
stop_seconds=30
failed=0

say() { echo "pstorage-$daemon: $*"; }

repositories() { cat "$etc"/clusters/*/"$list" 2>/dev/null || true; }

# The pid of the daemon of repository $1, if it runs.
pid_of() {
  pid=
  read -r pid 2>/dev/null <"$1/$daemon.pid" || return 1
  [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$daemon" ] || return 1
  echo "$pid"
}

start_one() {
  if pid_of "$1" >/dev/null; then
    say "$1 runs already"
  elif "$daemon" -r "$1" -D; then
    say "$1 started"
  else
    failed=1 # it has said why
  fi
}

stop_one() {
  pid=$(pid_of "$1") || return 0
  kill -TERM "$pid" 2>/dev/null
  waited=0
  while pid_of "$1" >/dev/null; do
    if [ "$waited" -ge $((stop_seconds * 10)) ]; then
      say "$1 does not stop within $stop_seconds s (pid $pid): see $1/logs/log"
      failed=1
      return 0
    fi
    sleep 0.1
    waited=$((waited + 1))
  done
  say "$1 stopped"
}

status_one() {
  if pid=$(pid_of "$1"); then
    say "$1 runs (pid $pid)"
  else
    say "$1 does not run"
    failed=3
  fi
}

for_each() {
  all=$(repositories)
  if [ -z "$all" ]; then
    say "no repository is known on this host ($etc/clusters/*/$list)"
    return 0
  fi
  # A path may hold blanks: one a line.
  while IFS= read -r repository; do
    [ -z "$repository" ] || "$1" "$repository"
  done <<LIST
$all
LIST
}

case ${1:-} in
  start) for_each start_one ;;
  stop) for_each stop_one ;;
  restart | force-reload)
    for_each stop_one
    for_each start_one
    ;;
  status) for_each status_one ;;
  *)
    say "usage: start|stop|restart|status"
    exit 2
    ;;
esac
exit "$failed"
