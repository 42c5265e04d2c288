#!/usr/bin/env bash
# Kills a checkpointing run (kill -9) at 20 random moments, every second one inside a checkpoint's
# write, and resumes it each time: the last checkpoint must equal an uninterrupted run's, byte for
# byte.
#
# Usage: scripts/long/kill.sh [BUILD FOLDER]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

build=${1:-${BINADE_BUILD:-$root/build}}
program=$build/examples/train_gpt
[[ -x $program ]] || die "build the target train_gpt first, or name the build folder"
RANDOM=${KILL_SEED:-$((RANDOM))}
kills=20 steps=240

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
run=$work/killed
checkpoints=$run/checkpoints
export OMP_NUM_THREADS=2
# FP16 with dropout and a moving scale: weights, moments, scaler and random numbers must all be
# carried over. A checkpoint has some 8 MB, so that writing it takes a while.
options=(--text "$root/core" --tokenizer bytes --layers 2 --dim 128 --heads 4 --seq-len 16
  --batch-size 2 --dropout 0.1 --precision fp16 --growth-interval 20 --ema 0.9 --device cpu --quiet
  --steps "$steps" --checkpoint-every 2 --validate-every 0 --validation-batches 1
  --sample-tokens 0)

# The last step in the metrics, 0 if there is none.
progress() {
  local last
  last=$(tail -n 1 "$run/metrics.jsonl" 2>/dev/null | sed -n 's/^{"step":\([0-9]*\),.*/\1/p')
  echo "${last:-0}"
}

writing() { compgen -G "$checkpoints/*.writing-*" >/dev/null; }
# Starts the run, or goes on with it once there is one.
start_or_resume() {
  local resume=()
  [[ -e $run/config.json ]] && resume=(--resume)
  exec "$program" "${options[@]}" --run-dir "$run" "${resume[@]}" >"$work/killed.log" 2>&1
}
alive() { kill -0 "$pid" 2>/dev/null; }

say "the uninterrupted run"
"$program" "${options[@]}" --run-dir "$work/whole" >"$work/whole.log" 2>&1 ||
  die "the run failed: $(tail -n 1 "$work/whole.log")"

inside=0
for ((i = 1; i <= kills; ++i)); do
  start=$(progress)
  start_or_resume &
  pid=$!
  target=$((start + 1 + RANDOM % (steps / kills - 4)))
  until (($(progress) >= target)); do
    alive || die "the run ended by itself: $(tail -n 1 "$work/killed.log")"
    sleep 0.01
  done
  if ((i % 2)); then
    until writing || ! alive; do :; done
  else
    sleep "0.0$((RANDOM % 10))"
  fi
  kill -KILL "$pid" 2>/dev/null || die "the run ended by itself: $(tail -n 1 "$work/killed.log")"
  wait "$pid" 2>/dev/null || true
  where="between writes"
  if writing; then
    where="inside a checkpoint's write"
    inside=$((inside + 1))
  fi
  echo "kill $i after step $(progress), $where"
done

say "the last resume"
(start_or_resume) ||
  die "the resumed run failed: $(tail -n 1 "$work/killed.log")"
((inside >= 5)) || die "only $inside kills fell inside a checkpoint's write; run it again"
last=checkpoints/step-$(printf %09d "$steps").safetensors
cmp "$work/whole/$last" "$run/$last" || die "the runs differ"
echo "$kills kills, $inside of them inside a checkpoint's write: the last checkpoints are equal"
