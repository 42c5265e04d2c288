#!/usr/bin/env bash
# Training on several ranks: equal, byte for byte, to training on one.
set -euo pipefail
source "$(dirname "$0")/cases.sh"
source "$(dirname "$0")/shared/ranks.sh"

work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
for i in {1..200}; do echo "Line $i: the quick brown fox jumps over the lazy dog, $((i * i)) times."; done \
  >"$work/text.txt"
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
bin=$BINADE_BUILD/examples
options=(--text "$work/text.txt" --tokenizer bytes --layers 2 --dim 32 --heads 2 --seq-len 24
  --batch-size 8 --sample-tokens 0 --device cpu --warmup 4 --schedule constant
  --validate-every 7 --validation-batches 5 --keep-checkpoints 9 --quiet)

program=("$bin/train_gpt" "${options[@]}")
made=(--steps 20 --checkpoint-every 10)

more=(--dropout 0.1 --ema 0.9)
same "1, 2 and 4 ranks with 4 micro-batches are equal in fp32" "${made[@]}" --accumulation 4 "${more[@]}"
same "… with 8 micro-batches" "${made[@]}" --accumulation 8 "${more[@]}"
same "… in fp16 that overflows at first" "${made[@]}" --accumulation 4 --precision fp16 --init-scale 16777216 \
  "${more[@]}"
some_skipped
same "… in bf16 with Muon, on Llama with recompute" "${made[@]}" --accumulation 4 --precision bf16 \
  --family llama --optimizer muon --recompute blocks
same "… with LoRA" "${made[@]}" --accumulation 4 --lora-rank 4 --lora-dropout 0.1
same "… with multi-token prediction" "${made[@]}" --accumulation 4 --mtp sequential:1

# In the other stages of ZeRO, and where values are sent behind the update, all have the rows and files
# of the run before.
for way in "--zero 0" "--zero 2" "--zero 1 --send-values update" "--zero 2 --send-values update"; do
  problem=
  # shellcheck disable=SC2086
  ranks 4 "run$way" --steps 20 --checkpoint-every 10 --accumulation 4 --mtp sequential:1 $way \
    --timeline --compare-ranks 3 >"$case_output" 2>&1 || problem="4 ranks end with status $?"
  [[ -n $problem ]] || problem=$(difference run-1 "run$way")
  [[ -n $problem ]] || (($(grep -c '"exposed_ms":' "$work/run$way/metrics.jsonl") == 20)) ||
    problem="not every step has its timeline"
  report "… and with $way, with a timeline and ranks that are compared" "$problem"
done

# What rank 0 does when a run has ended, with the averages.
problem=
for n in 1 4; do
  for extra in "" "--lora-rank 4"; do
    # shellcheck disable=SC2086
    [[ -n $problem ]] || ranks "$n" "saved-$n$extra" --steps 6 --accumulation 4 --precision fp16 --ema 0.9 \
      --save-hf "$work/model-$n$extra" $extra >"$case_output" 2>&1 ||
      problem="$n ranks end with status $?"
  done
done
for extra in "" "--lora-rank 4"; do
  [[ -n $problem ]] || problem=$(diff -r "$work/model-1$extra" "$work/model-4$extra" | head -n 5) || true
done
report "… and the models that are saved at the end" "$problem"

# ---- another number of ranks ---------------------------------------------------------------------
half=(--accumulation 4 --precision fp16 --init-scale 16777216 --dropout 0.1 --checkpoint-every 7)
problem=
ranks 1 whole --steps 21 "${half[@]}" >"$case_output" 2>&1 || problem="one rank ends with status $?"
steps=0
again=()
for n in 4 2 4; do
  steps=$((steps + 7))
  [[ -n $problem ]] || ranks "$n" parts --steps $steps "${half[@]}" "${again[@]}" >"$case_output" 2>&1 ||
    problem="$n ranks end with status $?"
  again=(--resume --send-values update)
done
[[ -n $problem ]] || problem=$(difference whole parts)
report "4 ranks, then 2, then 4 end where one does" "$problem"

# A checkpoint that cannot be written: files of more than 64 KiB fail in the middle.
problem=
ranks 4 full --steps 7 "${half[@]}" >"$case_output" 2>&1 || problem="status $? at first"
cp -r "$work/full/checkpoints" "$work/before"
small_files() { bash -c 'ulimit -f 64; exec "$@"' sh "$@"; }
status=0
[[ -n $problem ]] || small_files timeout 120 "$bin/binade-run" -n 4 "$bin/train_gpt" "${options[@]}" --steps 14 \
  "${half[@]}" --resume --run-dir "$work/full" >"$case_output" 2>&1 || status=$?
((status == 2)) || problem=${problem:-"status $status where nothing can be written"}
for rank in 0 1 2 3; do
  grep -qE "^\[$rank\] error: .*no checkpoint was written at step 14" "$case_output" ||
    problem=${problem:-"rank $rank does not say so"}
done
problem=${problem:-$(diff -r "$work/before" "$work/full/checkpoints" | head -n 5)} || true
[[ -n $problem ]] || ranks 2 full --steps 21 "${half[@]}" --resume --zero 0 >"$case_output" 2>&1 ||
  problem="status $? afterwards"
[[ -n $problem ]] || cmp "$work"/{whole,full}/checkpoints/step-000000021.safetensors >"$case_output" 2>&1 ||
  problem="it ends elsewhere"
report "a checkpoint that cannot be written is an error on every rank and leaves the one before" "$problem"

gpu_count() { nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true; }
# train_on_gpus N FOLDER ARGUMENTS...
train_on_gpus() {
  local n=$1 folder=$2 as_hosts=()
  shift 2
  [[ -z ${GPU_RANKS_AS_HOSTS:-} ]] ||
    as_hosts=(sh -c 'NCCL_HOSTID=host-$BINADE_RANK exec "$@"' sh)
  timeout 300 "$bin/binade-run" -n "$n" "${as_hosts[@]}" "$bin/train_gpt" "${options[@]/#cpu/cuda}" --steps 20 \
    --precision fp16 --init-scale 16777216 --accumulation 4 --dropout 0.1 --ema 0.9 --deterministic \
    --run-dir "$work/$folder" "$@"
}

# ---- bad input -----------------------------------------------------------------------------------
launch() { timeout 120 "$bin/binade-run" "$@"; }
train=("$bin/train_gpt" "${options[@]}" --steps 4)
refused "no number of ranks" "--ranks" launch true
refused "no ranks at all" "--ranks" launch -n 0 true
refused "no program" "give the program to run" launch -n 2
refused "a program that is not there" "cannot run $work/none: No such file" launch -n 2 "$work/none"
refused "an unknown option of binade-run" "did you mean --restarts" launch -n 2 --restart 1 true
expect "micro-batches that the ranks cannot share out" 2 "it can among 1, 2, 4" \
  launch -n 3 "${train[@]}" --run-dir "$work/lanes" --accumulation 4
expect "ranks with other options" 2 "the ranks have different options: learning-rate" \
  launch -n 2 sh -c 'exec "$@" --learning-rate "0.$BINADE_RANK"' sh "${train[@]}" \
  --run-dir "$work/options" --accumulation 2
# in_own_folder N COMMAND...: each rank in the folder of its number.
in_own_folder() { launch -n "$1" sh -c 'cd "$0/$BINADE_RANK" && exec "$@"' "$work" "${@:2}"; }
mkdir "$work/0" "$work/1"
expect "ranks that share no folder" 0 "[0] done at step 4" in_own_folder 2 "${train[@]}" --run-dir own --accumulation 2
expect "a run to go on with that one rank does not see" 2 \
  "the ranks have different run folders: a run to go on with in own on rank 0, no run in own on rank 1" \
  in_own_folder 2 "$bin/train_gpt" --run-dir own --resume
cp -r "$work/0/own/." "$work/1/own"
rm "$work"/1/own/checkpoints/step*
expect "checkpoints that one rank does not see" 2 "bytes in own, rank 1 sees none; all have to see one run folder" \
  in_own_folder 2 "$bin/train_gpt" --run-dir own --resume
expect "a run folder that holds a run" 2 "[0] error: the run folder" \
  launch -n 2 "${train[@]}" --run-dir "$work/whole" --accumulation 2
refused "half of a launcher's variables" "BINADE_RANKS, BINADE_LOCAL_RANK is missing" \
  env BINADE_RANK=0 "${train[@]}" --run-dir "$work/half"
expect "an absent rank is told with those who came" 2 "not all 2 ranks are there; there are: rank 0" \
  launch -n 2 --join-seconds 2 sh -c '[ $BINADE_RANK = 0 ] || exec sleep 4; exec "$@"' sh \
  "${train[@]}" --run-dir "$work/absent" --accumulation 2
expect "one rank runs as without a launcher" 3 "" launch -n 1 sh -c 'exit 3'

# ---- a run that is started again ------------------------------------------------------------------
# Rank 1 kills itself in its first life.
cat >"$work/once.sh" <<'END'
if [ "$BINADE_RANK" = 1 ] && [ -z "${BINADE_RESTART:-}" ]; then
  "$@" &
  until [ "$(wc -l 2>/dev/null <"$RUN/metrics.jsonl" || echo 0)" -ge 9 ]; do sleep 0.05; done
  kill -KILL $!
  wait $!
  exit 1
fi
exec "$@"
END
run=$work/again
problem=$(RUN=$run complaint 0 "starting again (1 of 2)" launch -n 2 --restarts 2 sh "$work/once.sh" \
  "$bin/train_gpt" "${options[@]}" --steps 21 --run-dir "$run" "${half[@]}")
[[ -n $problem ]] || problem=$(difference whole again)
report "a run that is started again ends where one that was not does" "$problem"

# ---- ranks with GPUs -----------------------------------------------------------------------------
# same_on_gpus NAME LAUNCHED...: two ranks, started through LAUNCHED, have the rows and checkpoint of
# one, captured and eager, in all stages of ZeRO and with values that are sent behind the update.
same_on_gpus() {
  local name=$1 mode problem=
  shift
  for mode in "" --eager "--zero 0" "--zero 0 --eager" "--zero 2" "--zero 2 --eager" \
    "--send-values update" "--send-values update --eager" "--send-values update --zero 2"; do
    # shellcheck disable=SC2086
    problem=$("$@" complaint 0 "" train_on_gpus 2 "gpu-2${mode// /}$1" $mode)
    [[ -n $problem ]] || problem=$(difference gpu-1 "gpu-2${mode// /}$1")
    [[ -z $problem ]] || break
  done
  report "$name" "${problem:+${mode:-captured}: $problem}"
}
# NCCL takes ranks that say they are on different hosts, and they talk through the loopback.
on_one_gpu() {
  CUDA_VISIBLE_DEVICES=0 BINADE_SHARED_GPU=1 NCCL_SOCKET_IFNAME=lo NCCL_IB_DISABLE=1 \
    GPU_RANKS_AS_HOSTS=1 "$@"
}
on_two_gpus() { "$@"; }
on_two_gpus_through_nccl() { BINADE_PEER_COPIES=0 "$@"; }
on_two_hosts() {
  NCCL_P2P_DISABLE=1 NCCL_SHM_DISABLE=1 NCCL_SOCKET_IFNAME=lo NCCL_IB_DISABLE=1 GPU_RANKS_AS_HOSTS=1 "$@"
}

problem=$(complaint 0 "" train_on_gpus 1 gpu-0)
if grep -qF "cannot be used" "$case_output" || (($(gpu_count) < 1)); then
  echo "skip ranks with GPUs: there is no GPU"
else
  # The first run has chosen the matmul algorithms that the others find.
  [[ -n $problem ]] || problem=$(complaint 0 "" train_on_gpus 1 gpu-1)
  [[ -n $problem ]] || problem=$(complaint 0 "" train_on_gpus 1 gpu-1-eager --eager)
  [[ -n $problem ]] || problem=$(difference gpu-1 gpu-1-eager)
  report "one rank with a GPU, captured and eager" "$problem"
  same_on_gpus "two ranks on one GPU are equal to one" on_one_gpu
  expect "two ranks on one GPU are refused otherwise" 2 "have the same GPU" \
    env CUDA_VISIBLE_DEVICES=0 "$bin/binade-run" -n 2 "${train[@]/#cpu/cuda}" --accumulation 2 \
    --run-dir "$work/gpu-shared"
fi
if (($(gpu_count) < 2)); then
  echo "skip two ranks with a GPU each: there are no two GPUs"
else
  same_on_gpus "two ranks with a GPU each are equal to one" on_two_gpus
  same_on_gpus "… and through NCCL alone" on_two_gpus_through_nccl
  same_on_gpus "two hosts with a GPU each, which have no way but the network, are equal to one" on_two_hosts
  expect "more ranks than GPUs are refused" 2 "start fewer ranks" \
    launch -n $(($(gpu_count) + 1)) "${train[@]/#cpu/cuda}" --accumulation \
    $(($(gpu_count) + 1)) --run-dir "$work/gpu-many"
fi
