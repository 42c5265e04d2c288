#!/usr/bin/env bash
# finetune_mtp from a model folder to files of heads: every kind and format, frozen and joint, resuming,
# and what it says to bad input; multi-token prediction in train_gpt.
set -euo pipefail
source "$(dirname "$0")/cases.sh"

work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
for _ in {1..400}; do echo "The quick brown fox jumps over the lazy dog, again and again."; done \
  >"$work/text.txt"
# train RUN ARGUMENTS...: a small model on the text.
train() {
  "$BINADE_BUILD/examples/train_gpt" --text "$work/text.txt" --tokenizer bytes --dim 16 --heads 2 \
    --seq-len 32 --batch-size 4 --sample-tokens 0 --device cpu --quiet --run-dir "$work/$1" "${@:2}"
}
base_model() {
  train "base-$1-$2" --family "$1" --seed "$2" --layers 1 --steps 30 --save-hf "$work/$1-$2"
}
expect "a language model to begin with" 0 "saved" base_model llama 1
expect "another one" 0 "saved" base_model llama 2
expect "one of the GPT-2 family" 0 "saved" base_model gpt2 1

run=$work/run base=$work/llama-1 steps=6
mtp() {
  "$BINADE_BUILD/examples/finetune_mtp" --model "$base" --device cpu --seq-len 32 --batch-size 4 \
    --steps "$steps" --checkpoint-every 2 --run-dir "$run" --quiet "$@"
}
text=(--text "$work/text.txt")
losses() { grep -o '"loss":[^,]*' "$1/metrics.jsonl"; }

expect "a recursive module" 0 "saved $work/recursive" mtp "${text[@]}" --save "$work/recursive"
for format in plain deepseek mimo; do
  run=$work/sequential-$format
  expect "sequential modules in the format $format" 0 "saved $work/$format" \
    mtp "${text[@]}" --kind sequential --depth 2 --format $format --save "$work/$format"
done
run=$work/next
expect "a module in Qwen3-Next's format" 0 "saved $work/next-heads" \
  mtp "${text[@]}" --kind sequential --depth 1 --format qwen3-next --save "$work/next-heads"
run=$work/parallel
expect "parallel heads" 0 "saved $work/parallel-heads" \
  mtp "${text[@]}" --kind parallel --heads 2 --save "$work/parallel-heads"
run=$work/again
expect "heads go on from heads" 0 "recursive prediction of 3 more tokens" \
  mtp "${text[@]}" --from "$work/recursive"
run=$work/half
expect "a module in FP16 with loss scaling" 0 "done at step 6" mtp "${text[@]}" --precision fp16
run=$work/apart
expect "one document a row" 0 "done at step 6" mtp "${text[@]}" --no-pack
base=$work/gpt2-1 run=$work/for-gpt2
expect "a module for GPT-2" 0 "saved $work/gpt2-heads" mtp "${text[@]}" --save "$work/gpt2-heads"
base=$work/llama-1 run=$work/joint
expect "heads and model together" 0 "the model's own next token: loss" \
  mtp "${text[@]}" --joint --mtp-weight 0.3 --save "$work/joint-heads" --save-model "$work/joint-model"
base=$work/joint-model run=$work/joint-again
expect "heads of a model that was trained with them" 0 "done at step 6" \
  mtp "${text[@]}" --from "$work/joint-heads"
base=$work/llama-1 run=$work/run
problem=
grep -q '"num_nextn_predict_layers": 2' "$work/deepseek/config.json" || problem="no num_nextn_predict_layers"
grep -q '"model_type": "mimo"' "$work/mimo/config.json" || problem="no model_type mimo"
grep -aq 'model.layers.1.eh_proj.weight' "$work/recursive/model.safetensors" || problem="no DeepSeek names"
grep -q validation_tokens_per_pass "$run/metrics.jsonl" || problem="no tokens a pass in the metrics"
grep -q head3_top1 "$run/metrics.jsonl" || problem="no head3_top1 in the metrics"
grep -q validation_main_loss "$work/joint/metrics.jsonl" || problem="no main loss in the metrics"
report "what the files and metrics hold" "$problem"

cp -r "$run" "$work/straight"
rm "$run"/checkpoints/step-*6.safetensors "$run"/checkpoints/best.safetensors 2>/dev/null || true
expect "a run goes on where its checkpoint is" 0 "resumed at step 4" mtp --resume
problem=
[[ $(losses "$run") == "$(losses "$work/straight")" ]] || problem="the losses are others"
report "a resumed run is the uninterrupted one" "$problem"
problem=
(($(stat -c %s "$run"/checkpoints/step-*6.safetensors) < 120000)) || problem="it holds the language model"
report "checkpoints hold the heads alone" "$problem"

# In pre-training.
expect "multi-token prediction in train_gpt" 0 "saved $work/pretrained-heads" \
  train pretrained --family llama --layers 2 --steps 6 --mtp sequential:1 --save-hf "$work/pretrained" \
  --save-mtp "$work/pretrained-heads"
expect "parallel heads in train_gpt" 0 "done at step 6" \
  train pretrained-parallel --layers 3 --steps 6 --mtp parallel:2
problem=
grep -q '"n_layer": 1' "$work/pretrained-parallel/model.json" || problem="the heads are no layers of the model's"
grep -q head2_loss "$work/pretrained-parallel/metrics.jsonl" || problem="no head2_loss in the metrics"
report "parallel heads take the place of layers" "$problem"
base=$work/pretrained run=$work/pretrained-on
expect "heads go on from pre-training" 0 "done at step 6" \
  mtp "${text[@]}" --from "$work/pretrained-heads"
rm -rf "$work/pretrained-on"
train checkpointed --family llama --layers 2 --steps 6 --mtp sequential:1 >/dev/null
expect "a run folder with heads is a model" 0 "" "$BINADE_BUILD/examples/generate" \
  --model "$work/checkpointed" --prompt "The" --max-new-tokens 4 --device cpu

# rejected NAME TEXT ARGUMENTS...: refused in one line that has this text.
base=$work/llama-1 run=$work/none
rejected() {
  refused "$1" "$2" mtp "${@:3}"
  rm -rf "$run"
}
rejected "nothing to train on" "--chats or --text"
rejected "an unknown kind" "--kind" "${text[@]}" --kind serial
rejected "parallel heads in an engine's format" "parallel" "${text[@]}" --kind parallel --format deepseek
rejected "two modules with one projection" "one projection" \
  "${text[@]}" --kind sequential --depth 2 --format qwen3-next
rejected "a trained model that would be lost" "--save-model" "${text[@]}" --joint --save "$work/x"
rejected "a model to save that is not trained" "--joint" "${text[@]}" --save-model "$work/x"
rejected "heads of other conventions" "conventions" "${text[@]}" --from "$work/mimo" --format deepseek
base=$work/llama-2
rejected "heads of another model" "other weights" "${text[@]}" --from "$work/recursive"
base=$work/gpt2-1
rejected "GPT-2 in an engine's format" "gpt2" "${text[@]}" --format mimo
refused "train_gpt without a depth" "sequential:1" train none --mtp sequential
refused "train_gpt with heads in place of all layers" "layers" train none --layers 2 --mtp parallel:2
refused "train_gpt with adapters and heads" "--lora-rank" \
  train none --init "$work/llama-1" --lora-rank 2 --mtp sequential:1
