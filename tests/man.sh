#!/usr/bin/env bash
# The manual pages are well formed and agree with the programs: what a page says about commands and
# options exists, what the programs have is in a page, and so are the settings of the cluster.
#
# A page of section 1 or 8 shows its commands as blocks ".Nm PROGRAM", ".Cm COMMAND ..." in its
# SYNOPSIS. Its ".It Fl" lists tell the options of all of them, or, below ".Ss COMMAND, COMMAND",
# of these. ".It Cm COMMAND ..." in COMMANDS names a command with all its options.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${PSTORAGE_BUILD:-build/release}/bin
readonly programs=(pstorage mdsd csd pstorage-ct pstorage-mount pstorage-nbd pstorage-ploop pstorage-iscsi
  pstorage-iscsid pstorage-hwflush-check)
command -v mandoc >/dev/null || {
  echo "man: there is no mandoc: run scripts/install-deps" >&2
  exit 1
}
for program in "${programs[@]}"; do
  [ -x "$bin/$program" ] || {
    echo "man: there is no $bin/$program: build it, or set PSTORAGE_BUILD" >&2
    exit 1
  }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
faults=0
fault() {
  echo "$*"
  faults=$((faults + 1))
}

# ---------------------------------------------------------------- what the programs say

declare -A help_cache accepted_cache
# Puts the --help of program $1, command $2 (several words possible) into `help`; asks once.
get_help() {
  local key="$1|$2"
  # shellcheck disable=SC2086 # a command of several words
  [ -n "${help_cache[$key]:-}" ] || help_cache[$key]=$("$bin/$1" $2 --help)
  help=${help_cache[$key]}
}
# Puts its options into `options`, one line an option, its forms separated by commas.
get_options() {
  get_help "$1" "$2"
  options=$(awk '/^  -/ { print $1 }' <<<"$help")
}
get_subcommands() {
  get_help "$1" "$2"
  subcommands=$(awk '/^Subcommands:/ { inside = 1; next } /^$/ { inside = 0 }
    inside && /^  [a-z]/ { print $1 }' <<<"$help")
}
# Every command of $1 below $2 that has none below itself; an empty line for a program without any.
commands_of() {
  local subcommands help name
  get_subcommands "$1" "$2"
  [ -n "$subcommands" ] || echo "$2"
  for name in $subcommands; do commands_of "$1" "${2:+$2 }$name"; done
}
# Puts all forms of all options that command $2 of program $1 takes, its own and those of what it is
# part of, into `accepted`, with a blank before and behind each.
get_accepted() {
  local key="$1|$2" path=$2 options
  if [ -z "${accepted_cache[$key]:-}" ]; then
    get_options "$1" "$path"
    accepted=" ${options//[$'\n,']/ } "
    while [ -n "$path" ]; do
      case $path in
        *\ *) path=${path% *} ;;
        *) path= ;;
      esac
      get_options "$1" "$path"
      accepted+="${options//[$'\n,']/ } "
    done
    accepted_cache[$key]=$accepted
  fi
  accepted=${accepted_cache[$key]}
}
takes() { # PROGRAM COMMAND OPTION
  get_accepted "$1" "$2"
  [[ $accepted == *" $3 "* ]]
}

# ---------------------------------------------------------------- what the pages say

# Of page $1, with | between the fields: "command|PROGRAM|COMMAND", "synopsis|PROGRAM|COMMAND|OPTION",
# "item|SCOPE|OPTION" (SCOPE: the title of its subsection), "overview|COMMAND|OPTION,...".
facts_of() {
  awk -v OFS='|' '
    # The options of a line from field i on, each with a comma behind it.
    function flags(i,    j, dashes, list) {
      for (; i <= NF; ++i) {
        if ($i != "Fl") continue
        for (dashes = ""; $i == "Fl"; ++i) dashes = dashes "-"
        if (dashes == "--") list = list dashes $i ","
        else for (j = 1; j <= length($i); ++j) list = list dashes substr($i, j, 1) ","
      }
      return list
    }
    function end_of_block(    i, count, all) {
      if (program == "") return
      print "command", program, command
      count = split(shown, all, ",")
      for (i = 1; i < count; ++i) print "synopsis", program, command, all[i]
      program = command = shown = ""
    }
    $1 == ".Sh" { end_of_block(); section = $2; scope = ""; next }
    $1 == ".Ss" { scope = substr($0, 5); next }
    section == "SYNOPSIS" && $1 == ".Nm" { end_of_block(); program = $2; next }
    section == "SYNOPSIS" && $1 == ".Cm" { command = substr($0, 5); next }
    section == "SYNOPSIS" && $1 == ".Fl" { $1 = "Fl" }
    section == "SYNOPSIS" { shown = shown flags(1); next }
    section == "COMMANDS" && $1 == ".It" && $2 == "Cm" {
      name = $3
      for (i = 4; $i ~ /^[a-z]/; ++i) name = name " " $i
      print "overview", name, "," flags(i)
    }
    $1 == ".It" && $2 == "Fl" {
      count = split(flags(2), told, ",")
      for (i = 1; i < count; ++i) print "item", scope, told[i]
    }' "$1"
}

# ---------------------------------------------------------------- the comparisons

check_form() {
  local page=$1 target
  grep --quiet --fixed-strings --line-regexp "  ${page#man/}" man/CMakeLists.txt ||
    fault "$page: it is not in man/CMakeLists.txt, so it would not be installed"
  target=$(sed -n 's/^\.so man[178]\///p' "$page")
  if [ -n "$target" ]; then
    [ -e "man/$target" ] || fault "$page: it stands for $target, which does not exist"
    return
  fi
  mandoc -T lint -W warning "$page" || fault "$page: see above"
  while read -r name section; do
    [ -e "man/$name.$section" ] || fault "$page: it refers to $name($section), which does not exist"
  done < <(awk '$1 == ".Xr" && $2 ~ /^(pstorage.*|mdsd|csd)$/ { print $2, $3 }' "$page")
}

# The line of command $2 in page $1 has all its options, in one of their forms, and no others.
check_overview() {
  local page=$1 path=$2 list=$3 forms form option told options
  echo "$path" >>"$work/overview"
  get_options pstorage "$path"
  for forms in $options; do
    told=
    for form in ${forms//,/ }; do
      [[ $list != *",$form,"* ]] || told=1
    done
    [ -n "$told" ] || [[ $forms == -h,* ]] || fault "$page: COMMANDS: '$path' has $forms, too"
  done
  for option in ${list//,/ }; do
    [[ ",${options//$'\n'/,}," == *",$option,"* ]] ||
      fault "$page: COMMANDS: '$path' has no option $option"
  done
}

# Does a list in the subsection $2 (empty: in none) tell of command $1?
tells_of() { [[ -z $2 || ", $2, " == *", $1, "* ]]; }

# Each option in the lists $items of page $1 is one of a command of $blocks.
check_items() {
  local item block option scope told
  for item in "${items[@]}"; do
    scope=${item%%|*} option=${item#*|} told=
    for block in "${blocks[@]}"; do
      tells_of "${block#*|}" "$scope" && takes "${block%%|*}" "${block#*|}" "$option" && told=1
    done
    [ -n "$told" ] || fault "$1: ${scope:+$scope: }there is no option $option"
  done
}

# Each option of the commands $blocks is in the lists $items of page $1.
check_completeness() {
  local block program path option options item told
  for block in "${blocks[@]}"; do
    program=${block%%|*} path=${block#*|}
    get_options "$program" "$path"
    for option in ${options//,/ }; do
      case $option in
        -h | --help | -v | -V | --version) continue ;; # the same everywhere
      esac
      told=
      for item in "${items[@]}"; do
        [ "${item#*|}" = "$option" ] && tells_of "$path" "${item%%|*}" && told=1
      done
      [ -n "$told" ] || fault "$page: '$program${path:+ $path}' has an option $option, too"
    done
  done
}

check_against_programs() {
  local page=$1 kind first second third blocks=() items=()
  facts_of "$page" >"$work/facts"
  while IFS='|' read -r kind first second third; do
    case $kind in
      overview) check_overview "$page" "$first" "$second" ;;
      command) blocks+=("$first|$second") ;;
      item) items+=("$first|$second") ;;
      synopsis)
        takes "$first" "$second" "$third" ||
          fault "$page: SYNOPSIS: '$first${second:+ $second}' has no option $third"
        ;;
    esac
  done <"$work/facts"
  [ "${#blocks[@]}" -ne 0 ] || fault "$page: its SYNOPSIS shows no command"
  printf '%s\n' "${blocks[@]}" >>"$work/described"
  check_items "$page"
  check_completeness "$page"
}

# The literal blocks of page $1, a command a line.
examples_of() {
  awk '$1 == ".Bd" { inside = 1; next } $1 == ".Ed" { inside = 0 }
    inside { if (sub(/ *\\e$/, "")) printf "%s", $0; else print }' "$1"
}

# The commands and options that the examples use exist. (That they work: system/examples_test.py.)
check_examples() {
  local page=$1 line word words program path subcommands
  while IFS= read -r line; do
    line=${line#until }
    while [[ $line =~ ^[A-Z_]+=[^\ ]+\ (.*) ]]; do line=${BASH_REMATCH[1]}; done
    read -ra words <<<"${line%%[;<>|]*}"
    program=${words[0]:-} path=
    [[ " ${programs[*]} " == *" $program "* ]] || continue
    examples=$((examples + 1))
    get_subcommands "$program" ""
    for word in "${words[@]:1}"; do
      if [[ $'\n'$subcommands$'\n' == *$'\n'"$word"$'\n'* ]]; then
        path+=${path:+ }$word
        get_subcommands "$program" "$path"
      fi
    done
    [ -z "$subcommands" ] || fault "$page: example '$line': no command of $program"
    for word in "${words[@]:1}"; do
      [[ $word != -* ]] || takes "$program" "$path" "${word%%=*}" ||
        fault "$page: example '$line': '$program${path:+ $path}' has no option $word"
    done
  done < <(examples_of "$page")
}

check_all_commands() {
  local program path subcommands
  sort --unique "$work/described" >"$work/described.sorted"
  for program in "${programs[@]}"; do
    { commands_of "$program" "" && echo; } | sort --unique >"$work/commands"
    while IFS= read -r path; do
      grep --quiet --line-regexp --fixed-strings -e "$program|$path" \
        "$work/described.sorted" || fault "man: no page shows '$program${path:+ $path}'"
    done <"$work/commands"
    while IFS='|' read -r _ path; do
      grep --quiet --line-regexp --fixed-strings -e "$path" "$work/commands" ||
        fault "man: a page shows '$program $path', which does not exist"
    done < <(grep "^$program|" "$work/described.sorted")
  done
  commands_of pstorage "" | sort >"$work/commands"
  sort "$work/overview" | diff "$work/commands" - ||
    fault "man/pstorage.1: COMMANDS are not (>) those of the program (<)"
  get_subcommands pstorage ""
  for path in $subcommands; do
    [ -e "man/pstorage-$path.1" ] || fault "man: there is no pstorage-$path.1"
    grep --quiet "^\.Xr pstorage-$path 1" man/pstorage.1 ||
      fault "man/pstorage.1: it does not refer to pstorage-$path(1)"
  done
}

# The settings with their defaults, as the program has them and as the page has them.
check_settings() {
  sed -n 's/^ *{"\([a-z._-]*\)", "\([0-9]*\)", .*/\1=\2/p' mds/state/settings.cc |
    sort >"$work/settings"
  sed -n 's/^\.It Va \([a-z._-]*\) Ns = Ns \([0-9]*\)$/\1=\2/p' man/pstorage-get-config.1 |
    sort >"$work/settings-told"
  [ -s "$work/settings" ] || fault "man: no settings found in mds/state/settings.cc"
  diff "$work/settings" "$work/settings-told" ||
    fault "man/pstorage-get-config.1: its settings (>) are not those of the program (<)"
}

: >"$work/described"
: >"$work/overview"
examples=0
for page in man/*.[178]; do
  check_form "$page"
  check_examples "$page"
  case $page in
    *.7) ;;
    *) grep --quiet '^\.so ' "$page" || check_against_programs "$page" ;;
  esac
done
check_all_commands
check_settings
if [ "$faults" -ne 0 ]; then
  echo "man: $faults faults"
  exit 1
fi
echo "man: $(find man -name '*.[178]' | wc -l) pages with $examples examples agree with the programs"
