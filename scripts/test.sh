#!/usr/bin/env bash
# Installs what is missing, builds and runs the tests.
#
#   scripts/test.sh [--long] [--filter TAGS]
#
#   --long         the long tier, too: tests tagged [long] and the scripts in scripts/long
#   --filter TAGS  only the tests of binade_tests that Catch2 selects so, for example "[adamw]"
#
# The CUDA kernels are compiled where a toolkit is installed; GPU tests are skipped without a GPU.
# The scripts of tests/programs run side by side. The last line says `N passed, N failed, N skipped`. Logs
# are in build/test-logs.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

long=no
filter=
while (($#)); do
  case $1 in
    --long) long=yes && shift ;;
    --filter) filter=${2:-} && shift 2 || die "--filter wants Catch2 tags, for example \"[adamw]\"" ;;
    --help) usage && exit ;;
    *) die "unknown option $1; see --help" ;;
  esac
done

build=$root/build
logs=$build/test-logs
"$root/scripts/setup.sh"
configure "$build" "$(find_nvcc)"
build "$build"
mkdir -p "$logs"

passed=0 failed=0 skipped=0
failures=()  # what failed, told again at the end

# Adds the counts of a log's last line `N passed, N failed, N skipped`. A program that ends badly
# counts as one failure even if it reports none, for example when it crashes at its end.
count_catch() {
  local log=$1 status=$2 counts bads=0
  counts=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -n 1 || true)
  if [[ $counts =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
    bads=${BASH_REMATCH[2]}
    passed=$((passed + BASH_REMATCH[1]))
    skipped=$((skipped + BASH_REMATCH[3]))
  fi
  if ((status != 0 && bads == 0)); then
    say "binade_tests ended with status $status"
    bads=1
    failures+=("binade_tests ended with status $status")
  fi
  mapfile -t -O "${#failures[@]}" failures < <(sed -n '/^failed:$/,/^$/{/^failed:$/d;/^$/d;p}' "$log")
  failed=$((failed + bads))
}

# Runs the scripts, as many at a time as there are processors, and judges each when it has ended.
run_scripts() {
  local processors script running=0
  processors=$(nproc)
  # Their programs share the processors: threads that spin while they wait would take them from others.
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
  for script in "$@"; do
    if ((running == processors)); then
      judge_next
      running=$((running - 1))
    fi
    run_script "$script" &
    running=$((running + 1))
  done
  for (( ; running > 0; --running)); do judge_next; done
}

# Its output goes to its log. The name of the log is told when it is complete, as "status log".
run_script() {
  local status=0 log
  log=$logs/$(basename "$1" .sh).log
  # The shell lets what it starts in the background ignore Ctrl-C; some scripts test it.
  BINADE_BUILD=$build env --default-signal=INT,QUIT bash "$1" >"$log" 2>&1 </dev/null || status=$?
  echo "$status $log" >&"$ended"
}

# Waits for a script to end. It is one test, passed if it ends with status 0, unless it prints cases
# of its own (tests/programs/cases.sh).
judge_next() {
  local name log status oks bads skips
  read -r status log <&"$ended"
  name=$(basename "$log" .log)
  say "$name"
  oks=$(grep -c '^ok ' "$log" || true)
  bads=$(grep -c '^not ok ' "$log" || true)
  skips=$(grep -c '^skip ' "$log" || true)
  if ((oks + bads + skips == 0 && status == 0)); then
    oks=1
  elif ((bads == 0 && status != 0)); then
    bads=1
  fi
  grep '^skip ' "$log" || true
  if ((bads)); then
    say "$name failed (status $status):"
    tail -n 100 "$log"
    failures+=("$name (status $status)")
    mapfile -t -O "${#failures[@]}" failures < <(grep '^not ok ' "$log" || true)
  fi
  passed=$((passed + oks)) failed=$((failed + bads)) skipped=$((skipped + skips))
}

say "binade_tests"
spec=$filter
if [[ $long == no ]]; then
  spec=${filter//,/\~[long],}~[long]  # leaves [long] out of each alternative of the filter
fi
status=0
"$build/tests/binade_tests" ${spec:+"$spec"} 2>&1 </dev/null | tee "$logs/binade_tests.log" || status=$?
count_catch "$logs/binade_tests.log" "$status"

if [[ -z $filter ]]; then
  scripts=()
  for script in "$root"/tests/programs/*.sh; do
    [[ $script == */cases.sh ]] || scripts+=("$script")
  done
  # The ends of scripts, one a line, through a pipe without a name.
  mkfifo "$logs/ended"
  exec {ended}<>"$logs/ended"
  rm "$logs/ended"
  run_scripts "${scripts[@]}"
  if [[ $long == yes ]]; then
    for script in "$root"/scripts/long/*.sh; do
      run_script "$script"  # one by one: some measure
      judge_next
    done
  fi
fi

if ((${#failures[@]})); then
  say "failed:"
  printf '%s\n' "${failures[@]}"
fi
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
