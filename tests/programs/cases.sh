# Test cases written in bash. A script in this folder that sources this file runs its cases one by
# one; each prints a line `ok NAME`, `not ok NAME` or `skip NAME: reason`, which scripts/test.sh
# counts. The build folder is in $BINADE_BUILD.

case_output=$(mktemp)
trap 'rm -f "$case_output"' EXIT

# Prints the verdict on a case: `problem` is empty if there is none.
report() {
  local name=$1 problem=$2
  if [[ -z $problem ]]; then
    printf 'ok %s\n' "$name"
  else
    printf 'not ok %s: %s\n' "$name" "$problem"
    sed 's/^/    /' "$case_output"
  fi
}

# verdict NAME: a case that is good if nothing was written to $case_output.
verdict() {
  local problem=
  [[ ! -s $case_output ]] || problem="found"
  report "$1" "$problem"
}

# Runs a command and says what is wrong unless it ends with this status and prints this text.
complaint() {
  local status=$1 text=$2 actual=0
  shift 2
  "$@" >"$case_output" 2>&1 </dev/null || actual=$?
  if [[ $actual != "$status" ]]; then
    echo "exit status $actual, expected $status"
  elif [[ -n $text ]] && ! grep -qF -- "$text" "$case_output"; then
    echo "the output lacks \"$text\""
  fi
}

# expect NAME STATUS TEXT COMMAND...: the command ends with this exit status, and what it prints
# contains this text (which may be empty).
expect() {
  local problem
  problem=$(complaint "${@:2}") || problem="the case itself ended early"
  report "$1" "$problem"
}

# refused NAME TEXT COMMAND...: bad input is answered with exit status 2 and one line that contains
# this text.
refused() {
  local problem
  problem=$(complaint 2 "${@:2}") || problem="the case itself ended early"
  [[ -n $problem || $(wc -l <"$case_output") == 1 ]] || problem="more than one line"
  report "$1" "$problem"
}
