#!/usr/bin/env bash
# finetune_medusa from a model folder to files of heads: texts and chats, both layouts, resuming, and
# what it says to bad input.
set -euo pipefail
source "$(dirname "$0")/cases.sh"

work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
for _ in {1..400}; do echo "The quick brown fox jumps over the lazy dog, again and again."; done \
  >"$work/text.txt"
model() {
  "$BINADE_BUILD/examples/train_gpt" --text "$work/text.txt" --tokenizer bytes --family llama --layers 1 \
    --dim 16 --heads 2 --seq-len 32 --batch-size 4 --steps 30 --sample-tokens 0 --device cpu --quiet \
    --run-dir "$work/base$1" --seed "$1" --save-hf "$work/model$1"
}
expect "a language model to begin with" 0 "saved" model 1
expect "another one" 0 "saved" model 2
cat >"$work/model1/chat_template.jinja" <<'END'
{%- for m in messages %}[{{ m.role }}]{{ m.content }}|{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}
END
cat >"$work/chats.jsonl" <<'END'
{"messages": [{"role": "user", "content": "Go on"}, {"role": "assistant", "content": "The quick"}]}
{"messages": [{"role": "user", "content": "More"}, {"role": "assistant", "content": "brown fox"}]}
{"messages": [{"role": "user", "content": "And"}, {"role": "assistant", "content": "jumps"}]}
END

run=$work/run base=$work/model1 length=32
medusa() {
  "$BINADE_BUILD/examples/finetune_medusa" --model "$base" --device cpu --seq-len "$length" --batch-size 4 \
    --heads 2 --steps 6 --checkpoint-every 2 --run-dir "$run" --quiet "$@"
}
losses() { grep -o '"loss":[^,]*' "$1/metrics.jsonl"; }

expect "heads from a text" 0 "saved $work/heads" medusa --text "$work/text.txt" --save "$work/heads"
run=$work/again
expect "heads go on from heads" 0 "done at step 6" \
  medusa --text "$work/text.txt" --init-heads "$work/heads"
run=$work/chatted
expect "heads in vLLM's layout, from chats" 0 "saved $work/vllm" \
  medusa --chats "$work/chats.jsonl" --save "$work/vllm" --layout vllm
run=$work/apart
expect "one document a row" 0 "done at step 6" medusa --chats "$work/chats.jsonl" --no-pack
cat >"$work/phi3.json" <<'END'
{"model_type": "phi3", "vocab_size": 264, "hidden_size": 16, "num_hidden_layers": 1,
 "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 32}
END
phi3() {
  "$BINADE_BUILD/examples/train_gpt" --text "$work/text.txt" --tokenizer bytes --seq-len 32 --batch-size 4 \
    --steps 2 --sample-tokens 0 --device cpu --quiet "$@"
}
expect "a model of fused projections" 0 "saved $work/phi3" \
  phi3 --from-scratch "$work/phi3.json" --run-dir "$work/phi3-run" --save-hf "$work/phi3"
expect "its adapters without named layers" 0 "saved $work/phi3-adapters" \
  phi3 --init "$work/phi3" --lora-rank 2 --run-dir "$work/phi3-lora" --save-hf "$work/phi3-adapters"
base=$work/phi3
run=$work/phi3-joint
expect "its heads with adapters in every layer" 0 "done at step 6" \
  medusa --text "$work/text.txt" --joint --lora-rank 2
base=$work/model1
run=$work/half
expect "heads in FP16 with loss scaling" 0 "done at step 6" \
  medusa --text "$work/text.txt" --precision fp16
run=$work/run
run=$work/cached
expect "hidden states are cached" 0 "positions of hidden states are in $work/cache" \
  medusa --text "$work/text.txt" --hidden-cache "$work/cache"
cp "$work/cache" "$work/cache_before"
run=$work/cached_again
expect "… and taken from there" 0 "done at step 6" medusa --text "$work/text.txt" --hidden-cache "$work/cache"
problem=
cmp -s "$work/cache" "$work/cache_before" || problem="the cache is another one"
[[ $(losses "$work/cached") == "$(losses "$run")" ]] || problem="the losses are others"
report "… with the same losses" "$problem"
run=$work/run
problem=
[[ -f $work/heads/medusa_lm_head.safetensors ]] || problem="no medusa_lm_head.safetensors"
[[ -f $work/vllm/model.safetensors ]] || problem="no model.safetensors"
grep -q '"architectures"' "$work/heads/config.json" && problem="TGI would take the heads for a model"
grep -q validation_tokens_per_pass "$run/metrics.jsonl" || problem="no tokens a pass in the metrics"
report "what the files and metrics hold" "$problem"

cp -r "$run" "$work/straight"
rm "$run"/checkpoints/step-*6.safetensors "$run"/checkpoints/best.safetensors 2>/dev/null || true
expect "a run goes on where its checkpoint is" 0 "resumed at step 4" medusa --resume
problem=
[[ $(losses "$run") == "$(losses "$work/straight")" ]] || problem="the losses are others"
report "a resumed run is the uninterrupted one" "$problem"
problem=
(($(stat -c %s "$run"/checkpoints/step-*6.safetensors) < 400000)) || problem="it holds the language model"
report "checkpoints hold the heads alone" "$problem"

# rejected NAME TEXT ARGUMENTS...: refused in one line that has this text.
run=$work/none
rejected() {
  local problem
  problem=$(complaint 2 "$2" medusa "${@:3}")
  [[ -n $problem || $(wc -l <"$case_output") == 1 ]] || problem="more than one line"
  report "$1" "$problem"
  rm -rf "$run"
}
rejected "nothing to train on" "--chats or --text"
base=$work/nowhere
rejected "a model that is not there" "$work/nowhere" --text "$work/text.txt"
base=$work/model2
rejected "a cache of hidden states of another model" "other weights" \
  --text "$work/text.txt" --hidden-cache "$work/cache"
rejected "heads of another model" "other weights" --text "$work/text.txt" --init-heads "$work/heads"
rejected "a model without a chat template" "template" --chats "$work/chats.jsonl"
base=$work/model1 length=33
rejected "rows beyond the model's positions" "positions" --text "$work/text.txt"
length=32
rejected "a cache of hidden states of other documents" "other documents" \
  --chats "$work/chats.jsonl" --hidden-cache "$work/cache"
echo "One line." >"$work/one_line.txt"
expect "one document, of which none can be held out" 0 "done at step 6" medusa --text "$work/one_line.txt"
rm -rf "$run"
rejected "an unknown layout" "--layout" --text "$work/text.txt" --layout tgi
echo '{"messages": [{"role": "user"}]}' >>"$work/chats.jsonl"
rejected "a bad line of chats, named" "chats.jsonl:4" --chats "$work/chats.jsonl"
expect "a bad line that is passed over" 0 "done at step 6" medusa --chats "$work/chats.jsonl" --skip-bad
