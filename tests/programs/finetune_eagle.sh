#!/usr/bin/env bash
# finetune_eagle from a model folder to files of a head and to drafts: both versions, resuming, layouts,
# and what it says to bad input.
set -euo pipefail
source "$(dirname "$0")/cases.sh"

work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
for _ in {1..400}; do echo "The quick brown fox jumps over the lazy dog, again and again."; done \
  >"$work/text.txt"
base_model() {
  "$BINADE_BUILD/examples/train_gpt" --text "$work/text.txt" --tokenizer bytes --family "$1" --dim 16 --heads 2 \
    --layers "$2" --seed "$3" --seq-len 32 --batch-size 4 --sample-tokens 0 --device cpu --quiet --steps 30 \
    --run-dir "$work/base-$1-$2-$3" --save-hf "$work/$1-$2-$3"
}
printf 'A' >"$work/short.txt"
printf 'The quick brown fox jumps over the lazy dog, and over it again!!' >"$work/few.txt"
expect "a language model to begin with" 0 "saved" base_model llama 4 1
expect "another one" 0 "saved" base_model llama 4 2
expect "one of two layers" 0 "saved" base_model llama 2 1
expect "one of the GPT-2 family" 0 "saved" base_model gpt2 3 1

run=$work/run base=$work/llama-4-1 steps=6 rows=4
eagle() {
  "$BINADE_BUILD/examples/finetune_eagle" --model "$base" --device cpu --seq-len 32 --batch-size "$rows" \
    --steps "$steps" --draft-steps 3 --checkpoint-every 2 --run-dir "$run" --quiet "$@"
}
text=(--text "$work/text.txt")
losses() { grep -o '"loss":[^,]*' "$1/metrics.jsonl"; }

expect "an EAGLE-3 head over a draft vocabulary" 0 "saved $work/three" \
  eagle "${text[@]}" --draft-vocabulary 24 --save "$work/three"
run=$work/one
expect "an EAGLE-1 head" 0 "saved $work/one-head" \
  eagle "${text[@]}" --kind eagle1 --layout sglang --save "$work/one-head"
run=$work/all
expect "an EAGLE-3 head over all tokens, of other layers" 0 "saved $work/all-head" \
  eagle "${text[@]}" --draft-vocabulary 0 --feature-layers 1 2 3 --save "$work/all-head"
run=$work/again
expect "a head goes on from a head" 0 "an eagle3 head over 24 tokens" \
  eagle "${text[@]}" --from "$work/three"
run=$work/half
expect "a head in FP16 with loss scaling" 0 "done at step 6" eagle "${text[@]}" --precision fp16
run=$work/apart
expect "one document a row" 0 "done at step 6" eagle "${text[@]}" --no-pack
run=$work/lk
expect "the acceptance loss" 0 "done at step 6" eagle "${text[@]}" --acceptance-weight 1
run=$work/recompute
expect "steps computed again" 0 "done at step 6" eagle "${text[@]}" --draft-vocabulary 24 --recompute-steps
# A document of one token has no label for a step that guesses the one after the next.
run=$work/unlabelled
rows=1 expect "a batch without a label does not end the run" 0 "steps had no label and were passed over" \
  eagle --text "$work/few.txt" --no-pack --validation-fraction 0
problem=
[[ $(grep -c '"no_labels":true' "$run/metrics.jsonl") -gt 0 ]] || problem="no row says so"
grep -q '"step":6' "$run/metrics.jsonl" || problem="the run did not go on"
report "steps without a label have a row" "$problem"
# What a run leaves that is killed, or fails, before its first step.
run=$work/failed
mkdir "$run"
cp "$work/run/config.json" "$run"
expect "a run that made no step is no obstacle to the next" 0 "done at step 6" eagle "${text[@]}"
refused "a run that made steps is" "holds a run already" eagle "${text[@]}"
problem=
grep -q '"LlamaForCausalLMEagle3"' "$work/three/config.json" || problem="no architecture of EAGLE-3"
grep -q '"draft_vocab_size": 24' "$work/three/config.json" || problem="no draft_vocab_size"
grep -q '"LlamaForCausalLMEagle"' "$work/one-head/config.json" || problem="no architecture of SGLang's EAGLE-1"
grep -aq 'midlayer.hidden_norm.weight' "$work/three/model.safetensors" || problem="no names of EAGLE-3"
grep -q head3_top1 "$work/run/metrics.jsonl" || problem="no head3_top1 in the metrics"
grep -q validation_tokens_per_pass "$work/run/metrics.jsonl" || problem="no tokens a pass in the metrics"
grep -q feature_loss "$work/one/metrics.jsonl" || problem="no feature_loss in the metrics"
[[ $(losses "$work/recompute") == "$(losses "$work/run")" ]] || problem="recomputed steps have other losses"
report "what the files and metrics hold" "$problem"

# What the model gives from a file.
run=$work/cached
expect "what the head reads is cached" 0 "GiB of hidden states and the streams that enter layers 0, 2, 3" \
  eagle "${text[@]}" --draft-vocabulary 24 --hidden-cache "$work/cache"
run=$work/cached_again
expect "… and taken from there" 0 "are in $work/cache" \
  eagle "${text[@]}" --draft-vocabulary 24 --hidden-cache "$work/cache"
problem=
for cached in cached cached_again; do
  [[ $(losses "$work/$cached") == "$(losses "$work/run")" ]] || problem="$cached has other losses"
done
report "training from a cache is training behind the model" "$problem"

run=$work/run
cp -r "$run" "$work/straight"
rm "$run"/checkpoints/step-*6.safetensors "$run"/checkpoints/best.safetensors 2>/dev/null || true
expect "a run goes on where its checkpoint is" 0 "resumed at step 4" eagle --resume
problem=
[[ $(losses "$run") == "$(losses "$work/straight")" ]] || problem="the losses are others"
report "a resumed run is the uninterrupted one" "$problem"

# Files and drafts.
export_heads() { "$BINADE_BUILD/examples/export_heads" --model "$base" "$@"; }
expect "an EAGLE-1 head in another layout" 0 "equal bit by bit" \
  export_heads --from "$work/one-head" --layout vllm --to "$work/one-vllm"
expect "an EAGLE-3 head in another layout" 0 "equal bit by bit" \
  export_heads --from "$work/all-head" --layout sglang --to "$work/all-sglang"
expect "a stream that SGLang has no number for" 2 "entering layer 0" \
  export_heads --from "$work/three" --layout sglang --to "$work/none"
speculate() {
  "$BINADE_BUILD/examples/speculate" --model "$base" --device cpu --precision fp32 --prompt "The quick" \
    --max-new-tokens 24 "$@"
}
for head in three one-head all-head; do
  expect "a chain of $head" 0 "tokens a pass" speculate --eagle "$work/$head"
  expect "a tree of $head" 0 "tokens a pass" \
    speculate --eagle "$work/$head" --guesses 3 --tree-width 4 --nodes 16
done
expect "a drawn chain" 0 "" \
  speculate --eagle "$work/three" --acceptance exact --temperature 0.8 --draft-temperature 1

# rejected NAME TEXT ARGUMENTS...: refused in one line that has this text.
run=$work/none
rejected() {
  refused "$1" "$2" eagle "${@:3}"
  rm -rf "$run"
}
rejected "nothing to train on" "--chats or --text"
rejected "documents without a label for any step" "there is nothing for head1 to learn" \
  --text "$work/short.txt" --validation-fraction 0
rejected "an unknown kind" "--kind" "${text[@]}" --kind eagle2
rejected "layers that are not three" "3 layers" "${text[@]}" --feature-layers 1 2
rejected "a layer that the model does not have" "of the model's 4" "${text[@]}" --feature-layers 1 2 4
rejected "layers for EAGLE-1" "--feature-layers" "${text[@]}" --kind eagle1 --feature-layers 1 2 3
base=$work/llama-4-2
rejected "a head of another model" "other weights" "${text[@]}" --from "$work/three"
rejected "a cache of another model" "other weights" "${text[@]}" --hidden-cache "$work/cache"
base=$work/llama-4-1
rejected "a cache of other layers" "not hidden states and the streams that enter layers 1, 2, 3" \
  "${text[@]}" --feature-layers 1 2 3 --hidden-cache "$work/cache"
rejected "a cache of another preset" "of preset fp16" \
  "${text[@]}" --precision fp16 --hidden-cache "$work/cache"
rejected "a cache of other documents" "other documents" --text "$work/text.txt" "$work/short.txt" \
  --hidden-cache "$work/cache"
rejected "a cache that is none" "no cache of hidden states" "${text[@]}" --hidden-cache "$work/short.txt"
base=$work/llama-2-1
rejected "a model of two layers" "has only 2" "${text[@]}"
base=$work/gpt2-3-1
rejected "GPT-2" "a layer of Llama" "${text[@]}"
base=$work/llama-4-1
refused "a tree of chains' guesses that are drawn" "--draft-temperature" \
  speculate --eagle "$work/three" --tree-width 2 --acceptance exact --draft-temperature 1
refused "a width without a head" "--tree-width" speculate --tree-width 2
refused "heads that are none" "binade_eagle" speculate --eagle "$work/llama-4-1"
