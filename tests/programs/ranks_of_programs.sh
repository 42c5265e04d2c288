#!/usr/bin/env bash
# Training decoding heads and rankers on several ranks: equal, byte for byte, to training on one.
set -euo pipefail
source "$(dirname "$0")/cases.sh"
source "$(dirname "$0")/shared/ranks.sh"

work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
bin=$BINADE_BUILD/examples

# ---- decoding heads ------------------------------------------------------------------------------
for i in {1..300}; do echo "Line $i: the quick brown fox jumps over the lazy dog, $((i * i)) times."; done \
  >"$work/text.txt"
expect "a language model to begin with" 0 "saved" "$bin/train_gpt" --text "$work/text.txt" --tokenizer bytes \
  --family llama --layers 1 --dim 16 --heads 2 --seq-len 32 --batch-size 4 --steps 20 --sample-tokens 0 \
  --device cpu --quiet --run-dir "$work/base" --save-hf "$work/model"
heads=(--text "$work/text.txt" --seq-len 24 --batch-size 8 --accumulation 4 --steps 12
  --warmup 2 --validate-every 5 --validation-batches 3 --checkpoint-every 6 --device cpu --quiet)
program=("$bin/finetune_medusa" --model "$work/model" "${heads[@]}" --heads 2)
same "Medusa heads: 1, 2 and 4 ranks are equal" --save "$work/medusa-RANKS" --ema 0.9
problem=
for n in 2 4; do
  diff -r "$work/medusa-1" "$work/medusa-$n" >"$case_output" 2>&1 || problem="of $n ranks they differ"
done
report "… and so are the saved heads" "$problem"
same "… from a file of hidden states, in fp16 that overflows at first" --hidden-cache "$work/cache-RANKS" \
  --precision fp16 --init-scale 16777216
some_skipped
same "… together with their model, by adapters, distilled" --joint --lora-rank 2 --self-distill --ramp
program=("$bin/finetune_mtp" --model "$work/model" "${heads[@]}" --depth 2)
same "recursive multi-token prediction" --precision bf16
same "sequential multi-token prediction, with its model" --kind sequential --format plain --joint --send-values update
program=("$bin/finetune_eagle" --model "$work/model" "${heads[@]}" --kind eagle1)
same "an EAGLE-1 head, with its noise"
expect "a language model of three layers" 0 "saved" "$bin/train_gpt" --text "$work/text.txt" --tokenizer bytes \
  --family llama --layers 3 --dim 16 --heads 2 --seq-len 32 --batch-size 4 --steps 20 --sample-tokens 0 \
  --device cpu --quiet --run-dir "$work/base-3" --save-hf "$work/model-3"
program=("$bin/finetune_eagle" --model "$work/model-3" "${heads[@]}" --draft-vocabulary 64 --draft-steps 3)
same "an EAGLE-3 head, whose values are sent behind the update" --ema 0.9 --send-values update

# ---- with a GPU for each rank --------------------------------------------------------------------
# on_gpus NAME PROGRAM ARGUMENTS...: two ranks with a GPU each are equal to one.
on_gpus() {
  local name=$1 n problem=
  program=("$bin/$2" "${heads[@]/#cpu/cuda}" --deterministic "${@:3}")
  for n in 0 1 2; do  # the first run chooses the matmul algorithms that the others find
    ranks $((n < 2 ? 1 : 2)) "gpu-$n" >"$case_output" 2>&1 || problem=${problem:-run $n ends with status $?}
  done
  [[ -n $problem ]] || problem=$(difference gpu-1 gpu-2)
  rm -rf "$work"/gpu-*
  report "$name, on two GPUs" "$problem"
}
if (($(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true) < 2)); then
  echo "skip heads with a GPU for each rank: there are no two GPUs"
else
  on_gpus "Medusa heads" finetune_medusa --model "$work/model" --heads 2
  on_gpus "Medusa heads with their model, which is its own teacher" finetune_medusa --model "$work/model" --heads 2 \
    --joint --self-distill
  on_gpus "Medusa heads with adapters, distilled" finetune_medusa --model "$work/model" --heads 2 --joint \
    --lora-rank 2 --self-distill
  on_gpus "multi-token prediction" finetune_mtp --model "$work/model" --depth 2
  on_gpus "an EAGLE-1 head" finetune_eagle --model "$work/model" --kind eagle1
  on_gpus "an EAGLE-3 head from a file of hidden states" finetune_eagle --model "$work/model-3" --draft-vocabulary 64 \
    --draft-steps 3 --hidden-cache "$work/gpu-cache"
fi

# in_own_folder PROGRAM...: each rank in the folder of its number.
in_own_folder() {
  "$bin/binade-run" -n 2 sh -c 'cd "$0/$BINADE_RANK" && exec "$@"' "$work" "$@"
}
mkdir "$work/0" "$work/1"
cp -r "$work/model" "$work/0/model"
cp -r "$work/model" "$work/1/model"
# Another last byte of the weights.
weights=$work/1/model/model.safetensors
byte=$(tail -c 1 "$weights" | od -An -tu1)
truncate -s -1 "$weights"
printf "\\x$(printf %x $((byte ^ 1)))" >>"$weights"
expect "ranks with other model files" 2 "the ranks have different model files: weights with CRC-32C" \
  in_own_folder "$bin/finetune_medusa" "${heads[@]}" --model model --run-dir "$work/models"

# ---- rankers -------------------------------------------------------------------------------------
# Lists of 1 … 12 documents, some of which teach nothing.
make_lists() {
  awk -v seed="$1" -v lists="$2" 'BEGIN { srand(seed); for (q = 1; q <= lists; ++q) {
    n = 1 + int(rand() * 12); for (i = 1; i <= n; ++i) {
      y = int(rand() * 3); a = rand()
      printf "%d qid:%d 1:%.4f 2:%.4f 3:%.4f\n", y, q, y + 3 * a, 2 * a, rand() } } }'
}
mkdir "$work/fold"
make_lists 1 60 >"$work/fold/train.txt"
make_lists 2 20 >"$work/fold/vali.txt"
make_lists 3 20 >"$work/fold/test.txt"
ranker=(--batch-size 8 --accumulation 4 --hidden 16 --dim 16 --blocks 1 --validate-every 6 --device cpu --quiet)
program=("$bin/train_ranker" --fold "$work/fold" "${ranker[@]}")
same "a ranker: 1, 2 and 4 ranks are equal" --steps 24 --checkpoint-every 12 --save "$work/ranker-RANKS" \
  --test-scores "$work/scores-RANKS" --ema 0.9
problem=
for n in 2 4; do
  { cmp "$work/scores-1" "$work/scores-$n" && diff -r "$work/ranker-1" "$work/ranker-$n"; } >"$case_output" 2>&1 ||
    problem="of $n ranks they differ"
done
report "… and so are the saved ranker and its scores" "$problem"
same "… of attention, in fp16 that overflows at first" --steps 24 --checkpoint-every 12 --model attention --loss listnet \
  --dropout 0.2 --precision fp16 --init-scale 16777216
some_skipped

problem=
ranks 1 whole --schedule constant --steps 24 --checkpoint-every 6 >"$case_output" 2>&1 || problem="one rank ends with status $?"
again=()
for n in 4:6 2:12 1:18 4:24; do
  [[ -n $problem ]] || ranks "${n%:*}" parts --schedule constant --steps "${n#*:}" --checkpoint-every 6 "${again[@]}" \
    >"$case_output" 2>&1 || problem="${n%:*} ranks end with status $?"
  again=(--resume)
done
[[ -n $problem ]] || problem=$(difference whole parts)
report "4 ranks, then 2, 1 and 4 end where one does" "$problem"

expect "running statistics" 2 "which several ranks do not support" "$bin/binade-run" -n 2 "${program[@]}" \
  --norm batch --run-dir "$work/batch-norm"
expect "lists that the ranks cannot share out" 2 "it can among 1, 2, 4" "$bin/binade-run" -n 3 "${program[@]}" \
  --run-dir "$work/lanes"
cp -r "$work/fold" "$work/0/fold"
cp -r "$work/fold" "$work/1/fold"
sed -i 's/1:0/1:9/' "$work/1/fold/train.txt"
expect "ranks with other lists" 2 "the ranks have different data: 60 lists" \
  in_own_folder "$bin/train_ranker" --fold fold "${ranker[@]}" --steps 24 --run-dir "$work/lists"
expect "a program for one rank" 2 "this program runs on one rank" "$bin/binade-run" -n 2 \
  "$bin/train_fashion_mnist" --data "$work/none"
