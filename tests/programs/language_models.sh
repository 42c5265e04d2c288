#!/usr/bin/env bash
# generate and evaluate: on a folder, a run and a checkpoint that train_gpt leaves, and on bad input.
set -euo pipefail
source "$(cd "$(dirname "$0")" && pwd)/cases.sh"
programs=$BINADE_BUILD/examples
if [[ ! -x $programs/generate ]]; then
  echo "skip generate and evaluate: the examples are not built"
  exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
hf=$work/hf run=$work/run text=$work/text
for i in {1..200}; do echo "line $i of a text that says little"; done >"$text"

generate() { "$programs/generate" --device cpu "$@"; }
evaluate() { "$programs/evaluate" --device cpu "$@"; }

expect "a run leaves a folder" 0 "saved $hf" \
  "$programs/train_gpt" --device cpu --text "$text" --tokenizer bytes --steps 4 --layers 1 \
  --dim 16 --heads 2 --seq-len 32 --run-dir "$run" --save-hf "$hf"

for model in "$hf" "$run" "$run/checkpoints/step-000000004.safetensors"; do
  expect "generate reads ${model#"$work"/}" 0 "line 7" \
    generate --model "$model" --prompt "line 7" --max-new-tokens 5
  expect "evaluate reads ${model#"$work"/}" 0 "bits per byte" \
    evaluate --model "$model" --text "$text"
done
onto_a_full_disk() { "$@" >/dev/full; }
for program in "generate --prompt a --max-new-tokens 5" "evaluate --text $text"; do
  # shellcheck disable=SC2086
  expect "${program%% *} on a full disk" 2 "cannot write" onto_a_full_disk $program --model "$hf"
done
expect "generate writes several texts" 0 "--- 3" \
  generate --model "$hf" --prompt a --max-new-tokens 5 --samples 3 \
  --temperature 1 --top-k 20 --top-p 0.9 --seed 2
expect "generate's help gives the defaults" 0 "--max-new-tokens INT" generate --help

expect "a LoRA run leaves adapters" 0 "saved $work/adapters" \
  "$programs/train_gpt" --device cpu --text "$text" --init "$hf" --lora-rank 2 --steps 2 \
  --seq-len 32 --run-dir "$work/lora" --save-hf "$work/adapters"
expect "generate merges adapters" 0 "line 7" generate --model "$hf" \
  --adapter "$work/adapters" --prompt "line 7" --max-new-tokens 5
refused "a checkpoint of adapters alone" "--adapter" generate --model "$work/lora"
refused "an unknown option is answered with the nearest" "did you mean --model?" generate --modle x
refused "a model that is not there" "does not exist" generate --model "$work/nowhere"
refused "a missing --model" "--model is required" generate --prompt a
refused "an option out of range" "--top-p" generate --model "$hf" --top-p 2
refused "more tokens than positions" "32 positions" \
  generate --model "$hf" --prompt abc --max-new-tokens 40
refused "a text that is not there" "$work/none" evaluate --model "$hf" --text "$work/none"
refused "a stride beyond the window" "stride" \
  evaluate --model "$hf" --text "$text" --window 8 --stride 9
refused "an unknown device" "tpu" "$programs/generate" --model "$hf" --device tpu

cp -r "$hf" "$work/cut"
truncate --size=-10 "$work/cut/model.safetensors"
refused "a truncated weight file" "model.safetensors" generate --model "$work/cut"
sed -i 's/"vocab_size": [0-9]*/"vocab_size": 999/' "$work/cut/config.json"
refused "a configuration that does not fit the weights" "model.safetensors" \
  generate --model "$work/cut"
cp "$hf/model.safetensors" "$work/cut"
refused "tensors of another shape are named" "transformer.wte.weight" generate --model "$work/cut"
echo '{' >"$work/cut/config.json"
refused "a configuration that is no JSON" "line 2, column 1" generate --model "$work/cut"
