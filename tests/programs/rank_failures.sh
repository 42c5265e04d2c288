#!/usr/bin/env bash
# What ranks and binade-run do when a rank ends, is silent or never comes, and when they are asked to
# stop: who is named, how soon, and what is left.
set -euo pipefail
source "$(dirname "$0")/cases.sh"

work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
bin=$BINADE_BUILD/examples
for i in {1..200}; do echo "Line $i: the quick brown fox jumps over the lazy dog, $((i * i)) times."; done \
  >"$work/text.txt"
endless=("$bin/train_gpt" --text "$work/text.txt" --tokenizer bytes --layers 2 --dim 32 --heads 2 --seq-len 24
  --batch-size 8 --sample-tokens 0 --device cpu --warmup 4 --schedule constant --validate-every 7
  --validation-batches 5 --keep-checkpoints 9 --quiet --steps 1000000 --accumulation 4 --checkpoint-every 5)

# start N OPTIONS...: begins a run in $run on N ranks, in the background, and waits for its 12th step.
start() {
  timeout 60 "$bin/binade-run" -n "$@" "${endless[@]}" --run-dir "$run" >"$case_output" 2>&1 &
  waited=$!
  for _ in {1..300}; do
    (($(wc -l 2>/dev/null <"$run/metrics.jsonl" || echo 0) < 12)) || break
    sleep 0.1
  done
  pid=$(pgrep -P $waited)
}
# The process of rank $1 of the run in the background. Numbers of processes say nothing: they begin
# anew.
process_of() {
  local process
  for process in $(pgrep -P "$pid"); do
    if tr '\0' '\n' <"/proc/$process/environ" | grep -qx "BINADE_RANK=$1"; then echo "$process"; fi
  done
}
# ends STATUS SECONDS: the run in the background ends so, in time.
ends() {
  local begin=$SECONDS status=0
  problem=
  wait "$waited" 2>/dev/null || status=$?
  ((status == $1)) || problem="exit status $status"
  ((SECONDS - begin <= $2)) || problem="it took $((SECONDS - begin)) s"
}
# named PATTERN RANKS...: the last line is PATTERN, and each of these ranks has said it as well.
named() {
  local pattern=$1 rank
  shift
  tail -n 1 "$case_output" | grep -qE "^$pattern" || problem=${problem:-the first failure is not the last line}
  for rank in "$@"; do
    grep -qE "^\[$rank\] error: $pattern" "$case_output" || problem=${problem:-rank $rank does not say so}
  done
}
# Each checkpoint of the run is whole: it goes on from the newest.
goes_on() {
  [[ -n $problem ]] || problem=$(complaint 0 "stopped by a signal" timeout --preserve-status -s TERM 4 \
    "$bin/binade-run" -n 2 "${endless[@]}" --run-dir "$run" --resume)
}
where='in step [0-9]+; last checkpoint: step [0-9]+'

# ---- ranks that end ------------------------------------------------------------------------------
for rank in 0 2; do
  run=$work/killed-$rank
  start 4
  others=(0 1 2 3)
  unset "others[$rank]"
  kill -KILL "$(process_of $rank)"
  ends 137 2
  named "rank $rank of 4 \\(.*, process [0-9]+\\) was ended by signal 9 \\(Killed\\) $where" "${others[@]}"
  goes_on
  report "rank $rank of 4 is killed: known to all in 2 s; the run goes on" "$problem"
done

run=$work/full
start 2
# What rank 0 writes next does not fit.
prlimit --pid "$(process_of 0)" --fsize=4096:unlimited
ends 2 30
for rank in 0 1; do
  grep -qE "^\[$rank\] error: .*no checkpoint was written at step .*File too large" "$case_output" ||
    problem=${problem:-rank $rank does not say so}
done
compgen -G "$run/checkpoints/step-*.safetensors" >/dev/null || problem=${problem:-no checkpoint is left}
goes_on
report "a full disk is an error on every rank, and costs no checkpoint that was there" "$problem"

# ---- ranks that are silent -----------------------------------------------------------------------
for rank in 0 1; do
  run=$work/silent-$rank
  start 4 --silent-seconds 2
  stopped=$(process_of $rank)
  kill -STOP "$stopped"
  sleep 4
  grep -qE "error: rank $rank of 4 \\(.*\\) has been silent for 2 s $where" "$case_output" && early= || early="the others have not ended"
  # It is still there, and gets 15 s from when the first of the others has ended.
  ((rank == 1)) || kill -KILL "$stopped"
  ends 137 15
  named "rank $rank of 4 \\(.*\\) has been silent for 2 s $where"
  report "rank $rank of 4 is silent: the others end, then it is killed" "${problem:-$early}"
done

# Without binade-run rank 0 serves the others.
by_hand() {
  RANK=$1 WORLD_SIZE=2 LOCAL_RANK=$1 MASTER_ADDR=${address:-127.0.0.1} MASTER_PORT=$port \
    BINADE_JOIN_SECONDS=${join:-20} BINADE_SILENT_SECONDS=2 timeout 30 "${endless[@]}" --run-dir "$run"
}
run=$work/by-hand port=$((20000 + $$ % 10000))
by_hand 0 >/dev/null 2>&1 &
first=$!
by_hand 1 >"$case_output" 2>&1 &
waited=$!
sleep 3
stopped=$(pgrep -f "train_gpt.*--run-dir $run" | xargs -n 1 sh -c 'grep -qz "^RANK=0" /proc/$0/environ && grep -qz "train_gpt" /proc/$0/comm && echo $0 || true')
kill -STOP $stopped
ends 2 6
kill -KILL $stopped
wait $first || true
grep -qE "^error: rank 0 of 2 .* has been silent for 2 s $where" "$case_output" || problem=${problem:-it is not named}
report "rank 0, which serves the store, is silent" "$problem"

# ---- ranks that never come -----------------------------------------------------------------------
join=1
expect "rank 0 that is not there" 2 "rank 1 of 2 has waited 1 s for rank 0 of 2 at 127.0.0.1" by_hand 1
address=192.0.2.1
expect "an address that cannot be reached" 2 "cannot reach 192.0.2.1 on port $port" by_hand 1
unset address
expect "a rank that ends before it joins" 3 "rank 1 of 2 ended with status 3" "$bin/binade-run" -n 2 --join-seconds 60 \
  sh -c '[ $BINADE_RANK = 0 ] || exit 3; exec "$@"' sh "${endless[@]}" --run-dir "$work/early"

# ---- asked to stop -------------------------------------------------------------------------------
run=$work/asked
start 4
kill -TERM "$(process_of 2)"
ends 0 10
last=$(sed -n 's/.*stopped by a signal at step \([0-9]*\):.*/\1/p' "$case_output")
[[ -s $run/checkpoints/step-$(printf %09d "${last:-0}").safetensors ]] ||
  problem=${problem:-no checkpoint of its last step}
report "SIGTERM to one rank stops all at one step, with a checkpoint" "$problem"

run=$work/all
start 2
kill -TERM "$pid"
ends 0 10
grep -q "stopped by a signal" "$case_output" || problem=${problem:-it does not say so}
report "SIGTERM to binade-run as well" "$problem"

run=$work/orphans
start 2
mapfile -t orphans < <(pgrep -P "$pid")
kill -KILL "$pid"
ends 137 1
for _ in {1..100}; do
  running=$(ps -o pid= -p "${orphans[*]}" || true)
  [[ -n $running ]] || break
  sleep 0.1
done
[[ -z $running ]] || problem=${problem:-ranks are left}
goes_on
report "ranks whose binade-run was killed stop, with a checkpoint" "$problem"
