#!/usr/bin/env bash
# Installs what is missing, builds and runs the tests.
#
#   scripts/test.sh [--long] [--filter TAGS]
#
#   --long         the long tier, too: tests tagged [long] and the scripts in scripts/long
#   --filter TAGS  only the tests of binade_tests that Catch2 selects so, for example "[adamw]"
#
# The CUDA kernels are compiled where a toolkit is installed; GPU tests are skipped without a GPU.
# As many processes run side by side as there are processors: parts of binade_tests, then the scripts of
# tests/programs. The last line says `N passed, N failed, N skipped`. Logs
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

# Runs a command in the background. Its output goes to the log `$1`, which is told when it is complete,
# as "status log".
start() {
  local log=$logs/$1.log
  (
    status=0
    # The shell lets what it starts in the background ignore Ctrl-C; some scripts test it.
    BINADE_BUILD=$build env --default-signal=INT,QUIT "${@:2}" >"$log" 2>&1 </dev/null || status=$?
    echo "$status $log" >&"$ended"
  ) &
}

# Runs "name command..." of the lists that were queued, as many at a time as there are processors, and
# judges each when it has ended.
queue=()
queue() { queue+=("$(printf '%q ' "$@")"); }
run_queue() {
  local job running=0
  for job in "${queue[@]}"; do
    if ((running == $(nproc))); then
      judge_next
      running=$((running - 1))
    fi
    eval "start $job"
    running=$((running + 1))
  done
  for (( ; running > 0; --running)); do judge_next; done
  queue=()
}

# Waits for a job to end.
judge_next() {
  local name log status
  read -r status log <&"$ended"
  name=$(basename "$log" .log)
  say "$name"
  if [[ $name == binade_tests* ]]; then judge_tests; else judge_script; fi
}

# Adds the counts of the log's last line `N passed, N failed, N skipped`. A program that ends badly
# counts as one failure even if it reports none, for example when it crashes at its end.
judge_tests() {
  local counts bads=0
  sed -nE '/^(slowest tests|skipped|failed):$/,$p' "$log"
  counts=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -n 1 || true)
  if [[ $counts =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
    bads=${BASH_REMATCH[2]}
    passed=$((passed + BASH_REMATCH[1]))
    skipped=$((skipped + BASH_REMATCH[3]))
  fi
  if ((status != 0 && bads == 0)); then
    tail -n 100 "$log"
    say "$name ended with status $status"
    bads=1
    failures+=("$name ended with status $status")
  fi
  mapfile -t -O "${#failures[@]}" failures < <(sed -n '/^failed:$/,/^$/{/^failed:$/d;/^$/d;p}' "$log")
  failed=$((failed + bads))
}

# A script is one test, passed if it ends with status 0, unless it prints cases of its own
# (tests/programs/cases.sh).
judge_script() {
  local oks bads skips
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

# The ends of jobs, one a line, through a pipe without a name.
mkfifo "$logs/ended"
exec {ended}<>"$logs/ended"
rm "$logs/ended"

# Threads that spin while they wait would take the processors from other jobs.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
spec=$filter
if [[ $long == no ]]; then
  spec=${filter//,/\~[long],}~[long]  # leaves [long] out of each alternative of the filter
fi
shards=$(nproc)
[[ -z $filter ]] || shards=1
for ((shard = 1; shard <= shards; ++shard)); do
  queue "binade_tests-$shard" "$build/tests/binade_tests" ${spec:+"$spec"} --shard "$shard/$shards"
done

if [[ -z $filter ]]; then
  # Beginning with those of most lines, which take longest, so that no long one comes last. Each of their
  # programs has one thread.
  while read -r _ script; do
    [[ $script == */cases.sh ]] ||
      queue "$(basename "$script" .sh)" env OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" bash "$script"
  done < <(wc -l "$root"/tests/programs/*.sh | sort -rn | grep '\.sh$')
fi
run_queue
if [[ -z $filter && $long == yes ]]; then
  for script in "$root"/scripts/long/*.sh; do
    queue "$(basename "$script" .sh)" env OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" bash "$script"
    run_queue  # one by one: some measure
  done
fi

if ((${#failures[@]})); then
  say "failed:"
  printf '%s\n' "${failures[@]}"
fi
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
