#!/usr/bin/env bash
# Runs that are stopped from outside: signals of users, terminals and batch systems, outputs that go
# away, full disks. Programs start with the default actions of signals, whatever the parent of this
# script ignores.
set -euo pipefail
source "$(dirname "$0")/cases.sh"

work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
run=$work/run
for _ in {1..400}; do echo "The quick brown fox jumps over the lazy dog, again and again."; done \
  >"$work/text.txt"
options=(--text "$work/text.txt" --tokenizer bytes --run-dir "$run" --layers 1 --dim 16 --heads 2
  --seq-len 16 --batch-size 4 --sample-tokens 0 --device cpu)
program=$BINADE_BUILD/examples/train_gpt
total=4  # steps
train() { env --default-signal "$program" "${options[@]}" --steps "$total" --checkpoint-every 2 "$@"; }
endless=(--steps 1000000 --checkpoint-every 0 --validate-every 0)

rows() { wc -l 2>/dev/null <"$run/metrics.jsonl" || echo 0; }
# Waits for a run in the background to have so many rows of metrics.
wait_for_rows() {
  for _ in {1..600}; do
    (($(rows) < $1)) || return 0
    sleep 0.1
  done
}

# stopped NAME STATUS: the run in the background, process $pid, ends with this status and has
# written a checkpoint of its last step; sets $steps to it.
stopped() {
  local status=0 problem=
  wait "$pid" || status=$?
  ((status == $2)) || problem="exit status $status"
  grep -q "stopped by a signal at step" "$case_output" || problem="it does not say so"
  steps=$(sed -n 's/stopped by a signal at step \([0-9]*\):.*/\1/p' "$case_output")
  [[ -s $run/checkpoints/step-$(printf %09d "${steps:-0}").safetensors ]] ||
    problem="no checkpoint of its last step"
  report "$1" "$problem"
}

# ---- signals ------------------------------------------------------------------------------------
for signal in INT TERM HUP QUIT XCPU USR1 USR2 ALRM VTALRM PROF IO PWR STKFLT RTMIN+3; do
  env --default-signal "$program" "${options[@]}" "${endless[@]}" >"$case_output" 2>&1 &
  pid=$!
  wait_for_rows 5
  kill -"$signal" "$pid"
  stopped "SIG$signal writes a checkpoint and ends the run" 0
  [[ $signal != @(INT|TERM|HUP) ]] || total=$((steps + 2)) expect "… from which it goes on" 0 \
    "resumed at step $steps" train --resume --validate-every 0
  rm -rf "$run"
done

# `timeout` passes a signal on twice: to the process and to its group.
env --default-signal timeout --preserve-status 600 "$program" "${options[@]}" "${endless[@]}" \
  >"$case_output" 2>&1 &
pid=$!
wait_for_rows 5
kill -TERM "$pid"
stopped "timeout ends a run with a checkpoint" 0
rm -rf "$run"

env --default-signal nohup "$program" "${options[@]}" "${endless[@]}" >"$case_output" 2>&1 &
pid=$!
wait_for_rows 5
kill -HUP "$pid"
wait_for_rows $(($(rows) + 20))
problem=
kill -0 "$pid" 2>/dev/null || problem="it ended"
report "a run under nohup goes on after a hang-up" "$problem"
kill -TERM "$pid"
stopped "… and still ends at SIGTERM" 0
rm -rf "$run"

# ---- outputs that go away -----------------------------------------------------------------------
# unread NAME COMMAND...: the command trains to the end, and files have nothing but what is theirs.
unread() {
  local status=0 problem=
  "${@:2}" || status=$?
  ((status == 0)) || problem="exit status $status"
  [[ -s $run/checkpoints/step-000000004.safetensors && -s $run/chart.svg && -d $work/hf ]] ||
    problem="something is missing"
  grep -qv '^{.*}$' "$run/metrics.jsonl" && problem="something else in metrics.jsonl"
  [[ ! -s $run/lock ]] || problem="something in the lock"
  : >"$case_output"
  report "$1" "$problem"
  rm -rf "$run" "$work/hf"
}
into_a_pipe() {
  train --save-hf "$work/hf" 2>&1 | true
  return "${PIPESTATUS[0]}"
}
onto_a_full_disk() { train --save-hf "$work/hf" >/dev/full 2>&1; }
without_outputs() { train --save-hf "$work/hf" >&- 2>&- <&-; }
unread "a reader that goes away does not end a run" into_a_pipe
unread "a full disk under the output does not" onto_a_full_disk
unread "closed outputs do not, and nothing is printed into files" without_outputs

# ---- full disks ---------------------------------------------------------------------------------
# Files beyond 64 KiB fail as on a full disk; checkpoints are larger, everything else is smaller.
on_a_small_disk() {
  (
    ulimit -f "$1"
    train "${@:2}"
  ) 2>&1 | cat
  return "${PIPESTATUS[0]}"
}
expect "training goes on when a checkpoint does not fit" 0 "done at step 4" on_a_small_disk 64
grep -q "no checkpoint was written at step 2: .*File too large" "$case_output" && problem= ||
  problem="no warning"
[[ -z $(ls "$run/checkpoints") ]] || problem="something was left in checkpoints/"
report "… says so, and leaves nothing half-written" "$problem"
rm -rf "$run"
expect "a disk without room for the configuration is an error" 2 "File too large" on_a_small_disk 0
expect "a model folder that does not fit is an error" 2 "model.safetensors: File too large" \
  on_a_small_disk 20 --save-hf "$work/hf"
