#!/usr/bin/env bash
# Ranks that are killed in every phase of a checkpoint, and calls that fail there: it is there whole or
# not at all, all ranks end, and the run goes on to the same end.
set -euo pipefail
source "$(dirname "$0")/cases.sh"
source "$(dirname "$0")/shared/ranks.sh"

work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
bin=$BINADE_BUILD/examples
for i in {1..200}; do echo "Line $i: the quick brown fox jumps over the lazy dog, $((i * i)) times."; done \
  >"$work/text.txt"
program=("$bin/train_gpt" --text "$work/text.txt" --tokenizer bytes --layers 1 --dim 32 --heads 2 --seq-len 24
  --batch-size 8 --sample-tokens 0 --device cpu --warmup 2 --validation-batches 2
  --keep-checkpoints 2 --quiet --steps 8 --accumulation 2 --checkpoint-every 2 --precision fp16 --ema 0.9)

if ! ${CC:-cc} -shared -fPIC -O1 -o "$work/at_event.so" "$(dirname "$0")/shared/at_event.c" -ldl >"$case_output" 2>&1; then
  if command -v "${CC:-cc}" >/dev/null; then report "the library that is preloaded" "it does not compile"; fi
  echo "skip ranks that are killed while they save: there is no C compiler"
  exit 0
fi
# In its first life rank 0 has the events of $EVENT_PATH; every rank leaves its number.
cat >"$work/watched.sh" <<'END_OF_SCRIPT'
echo $$ >"$PIDS/$BINADE_RANK"
[ "$BINADE_RANK" = 0 ] && [ -z "${BINADE_RESTART:-}" ] && export LD_PRELOAD=$EVENTS
exec "$@"
END_OF_SCRIPT
# watched N FOLDER OPTIONS...: as ranks(), with the options of binade-run's.
watched() {
  local n=$1 folder=$2
  shift 2
  PIDS=$work EVENTS=$work/at_event.so timeout -k 10 60 "$bin/binade-run" -n "$n" --join-seconds 20 "$@" sh \
    "$work/watched.sh" "${program[@]}" --validate-every "$validate" --run-dir "$work/$folder"
}

# ---- the phases of a checkpoint ------------------------------------------------------------------
export EVENT_PATH=/checkpoints/
validate=2
problem=$(EVENT_LOG=$work/events complaint 0 "" watched 2 whole)
# Those of step 6's, which becomes the best one, and the third: the first is removed.
mapfile -t events < <(sed 's|/.*/||' "$work/events")
first=0 last=0
for ((i = 0; i < ${#events[@]}; ++i)); do
  [[ ${events[i]} != *step-000000008* ]] || break
  [[ ${events[i]} != "open step-000000006"* ]] || first=$i
  last=$i
done
phases=()
for ((i = first; i <= last; ++i)); do
  # Of several alike in a row the first and the last.
  [[ $i -gt $first && $i -lt $last && ${events[i]} == "${events[i - 1]}" && ${events[i]} == "${events[i + 1]}" ]] ||
    phases+=("$i")
done
for name in open write fsync rename "link best" "remove step"; do
  printf '%s\n' "${events[@]:first:last-first+1}" | grep -q "^$name" || problem=${problem:-no $name}
done
report "a run that saves is watched" "$problem"

# killed VICTIM PHASE: in the first life of the run a rank ends there.
killed() {
  local run=killed-$1-$2
  local call=${events[$2]}
  problem=$(EVENT_NUMBER=$(($2 + 1)) EVENT_ACTION=kill EVENT_VICTIM=$work/$1 complaint 0 "starting again (1 of 1)" \
    watched 2 "$run" --restarts 1)
  grep -qE "^rank $1 of 2 \(.*\) was ended by signal 9 \(Killed\) in step 6; last checkpoint: step 4" "$case_output" ||
    problem=${problem:-it is not named}
  [[ -n $problem ]] || problem=$(difference whole "$run")
  report "rank $1 is killed in front of rank 0's call $(($2 - first + 1)) of a save: ${call/%-[0-9][0-9]*/}" "$problem"
}
for phase in "${phases[@]}"; do killed 0 "$phase"; done
killed 1 "${phases[0]}"
killed 1 "${phases[2]}"

# failing PHASE: in the first life of the run there is no room for that.
failing() {
  local run=failing-$1 call=${events[$1]} rank
  problem=$(EVENT_NUMBER=$(($1 + 1)) EVENT_ACTION=fail complaint 0 "" watched 2 "$run" --restarts 1)
  if [[ $call == *" step-"*writing* ]]; then
    for rank in 0 1; do
      grep -qE "^\[$rank\] error: .*no checkpoint was written at step 6: cannot write .*: No space left on device;" \
        "$case_output" || problem=${problem:-rank $rank does not say so}
    done
  else
    ! grep -q "starting again" "$case_output" || problem=${problem:-the run ends}
  fi
  [[ -n $problem ]] || problem=$(difference whole "$run")
  report "there is no room for rank 0's call $(($1 - first + 1)) of a save: ${call/%-[0-9][0-9]*/}" "$problem"
}
for phase in "${phases[@]}"; do failing "$phase"; done

# ---- a rank that does not go on ------------------------------------------------------------------
where="in step 3; last checkpoint: step 2"
# Behind the row of step 2: what comes with a validation or a checkpoint is waited for.
problem=$(validate=0 EVENT_PATH=/metrics.jsonl EVENT_NUMBER=5 EVENT_ACTION=hang complaint 137 "" watched 2 stuck --stuck-seconds 1)
tail -n 1 "$case_output" | grep -qE "^rank 0 of 2 \(.*\) has been stuck for [0-9]+ s while others wait for it $where" ||
  problem=${problem:-it is not named}
grep -qE "^\[1\] error: rank 0 of 2 .* has been stuck for .* $where" "$case_output" || problem=${problem:-rank 1 does not say so}
report "a rank whose program hangs in a step is named, and killed at last" "$problem"
