#!/usr/bin/env bash
# export_heads from layout to layout, and what it says to bad input.
set -euo pipefail
source "$(dirname "$0")/cases.sh"

work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
for _ in {1..400}; do echo "The quick brown fox jumps over the lazy dog, again and again."; done \
  >"$work/text.txt"
model() {
  "$BINADE_BUILD/examples/train_gpt" --text "$work/text.txt" --tokenizer bytes --family llama --layers 1 \
    --dim 16 --heads 2 --seq-len 32 --batch-size 4 --steps 10 --sample-tokens 0 --device cpu --quiet \
    --run-dir "$work/base$1" --seed "$1" --save-hf "$work/model$1"
}
train_heads() {  # NAME OPTIONS...
  "$BINADE_BUILD/examples/finetune_medusa" --model "$work/model1" --text "$work/text.txt" --device cpu \
    --seq-len 32 --batch-size 4 --heads 2 --steps 4 --run-dir "$work/run_$1" --quiet --save "$work/$1" "${@:2}"
}
expect "a language model to begin with" 0 "saved" model 1
expect "another one" 0 "saved" model 2
expect "heads to begin with" 0 "saved" train_heads heads
expect "heads without an output of their own" 0 "saved" train_heads shared --shared-output --save-dtype fp32

base=$work/model1
heads() { "$BINADE_BUILD/examples/export_heads" --model "$base" "$@"; }
expect "heads are shown" 0 "1.0.linear.weight  (16, 16)" heads --from "$work/heads"
expect "heads go to vLLM's layout, bit by bit" 0 "equal bit by bit" \
  heads --from "$work/heads" --to "$work/vllm" --layout vllm
expect "… and back" 0 "equal bit by bit" heads --from "$work/vllm" --to "$work/back" --layout original
problem=
cmp -s "$work/heads/medusa_lm_head.safetensors" "$work/back/medusa_lm_head.safetensors" ||
  problem="the files differ"
report "… to the same file" "$problem"
expect "rounded weights are said to be" 0 "rounded to bf16" \
  heads --from "$work/heads" --to "$work/bf16" --layout vllm --dtype bf16
expect "heads without an output of their own go there" 0 "equal bit by bit" \
  heads --from "$work/shared" --to "$work/shared_vllm" --layout vllm
expect "… and back" 0 "equal bit by bit" \
  heads --from "$work/shared_vllm" --to "$work/shared_back" --layout original
problem=
cmp -s "$work/shared/medusa_lm_head.safetensors" "$work/shared_back/medusa_lm_head.safetensors" ||
  problem="the files differ"
report "… to the same file" "$problem"

refused "a folder that is not there" "does not exist" heads --from "$work/nowhere"
refused "a folder without heads" "no decoding heads" heads --from "$work/base1"
refused "a model in place of heads" "no decoding heads" heads --from "$work/model1"
refused "a target without a layout" "--to and --layout" heads --from "$work/heads" --to "$work/x"
refused "an unknown layout" "original, vllm" heads --from "$work/heads" --to "$work/x" --layout tgi
refused "a target that holds something" "not empty" \
  heads --from "$work/heads" --to "$work/model2" --layout vllm
base=$work/model2
refused "heads of another model" "other weights" heads --from "$work/heads"
base=$work/model1
head -c 2000 "$work/vllm/model.safetensors" >"$work/cut" && mv "$work/cut" "$work/vllm/model.safetensors"
refused "a file that was cut short" "model.safetensors" heads --from "$work/vllm"
