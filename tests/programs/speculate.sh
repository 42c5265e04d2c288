#!/usr/bin/env bash
# speculate: heads, trees and rules on a small model, equality with plain decoding, and what it says
# to bad input.
set -euo pipefail
source "$(dirname "$0")/cases.sh"

work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
for _ in {1..400}; do echo "The quick brown fox jumps over the lazy dog, again and again."; done \
  >"$work/text.txt"
model() {
  "$BINADE_BUILD/examples/train_gpt" --text "$work/text.txt" --tokenizer "${4:-bytes}" --family llama \
    --layers "${3:-2}" --dim 32 --heads 2 --seq-len "${2:-96}" --batch-size 8 --steps 60 \
    --sample-tokens 0 --learning-rate 0.01 --device cpu --quiet --run-dir "$work/base$1" --seed "$1" \
    --save-hf "$work/model$1" --vocabulary 300
}
expect "a language model to begin with" 0 "saved" model 1
expect "a smaller one with its tokenizer" 0 "saved" model 2 96 1
expect "one with a shorter context" 0 "saved" model 3 48 1
expect "one with another tokenizer" 0 "saved" model 4 96 1 bpe
expect "heads for the first" 0 "saved $work/heads" \
  "$BINADE_BUILD/examples/finetune_medusa" --model "$work/model1" --text "$work/text.txt" --device cpu \
  --seq-len 64 --batch-size 8 --heads 3 --steps 60 --learning-rate 0.01 --warmup 5 --run-dir "$work/run" --quiet \
  --save "$work/heads"
expect "the same heads in vLLM's layout" 0 "saved $work/vllm" \
  "$BINADE_BUILD/examples/finetune_medusa" --model "$work/model1" --text "$work/text.txt" --device cpu \
  --seq-len 64 --batch-size 8 --heads 3 --steps 2 --run-dir "$work/run2" --quiet \
  --init-heads "$work/heads" --save "$work/vllm" --layout vllm
printf 'The quick\nThe lazy dog, again\nbrown fox\njumps over the\n' >"$work/prompts.txt"
echo '[[0], [1], [0, 0], [1, 0], [0, 0, 0]]' >"$work/tree.json"

target=$work/model1 new=40
run() {
  "$BINADE_BUILD/examples/speculate" --model "$target" --device cpu --max-new-tokens "$new" "$@"
}
speculate() { run --prompts "$work/prompts.txt" "$@"; }
medusa() { speculate --medusa "$work/heads" "$@"; }
all_equal="4 of 4 texts are those of plain greedy decoding"

expect "a chain of Medusa heads" 0 "$all_equal" medusa --tree chain
tau=$(grep -o 'tau [0-9.]*' "$case_output" | cut -d ' ' -f 2)
problem=
awk "BEGIN { exit !($tau > 1.5) }" || problem="tau is $tau"
report "its guesses are accepted" "$problem"
expect "a tree by published accuracies, several slots" 0 "$all_equal" medusa --batch 3
expect "a tree from a file" 0 "$all_equal" medusa --tree "$work/tree.json"
expect "heads in vLLM's layout" 0 "$all_equal" speculate --medusa "$work/vllm" --tree chain
expect "half precision" 0 "tau" medusa --precision fp16
expect "typical acceptance" 0 "tau" medusa --acceptance typical
expect "exact sampling" 0 "tau" medusa --acceptance exact --temperature 0.9 --top-p 0.9 --seed 4
expect "a draft model" 0 "$all_equal" speculate --draft "$work/model2" --guesses 3
expect "a draft model whose guesses are drawn" 0 "tau" \
  speculate --draft "$work/model2" --draft-temperature 1 --acceptance exact
expect "early exit" 0 "$all_equal" speculate --early-exit 1 --batch 2
expect "lookup in the text so far" 0 "$all_equal" speculate --proposer lookup --batch 2
expect "plain decoding alone" 0 "plain decoding" speculate
for _ in {1..400}; do echo "7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 "; done >"$work/sevens.txt"
expect "a model that counts on sevens" 0 "saved" \
  "$BINADE_BUILD/examples/train_gpt" --text "$work/sevens.txt" --tokenizer bytes --family llama \
  --layers 2 --dim 32 --heads 2 --seq-len 96 --batch-size 8 --steps 80 --sample-tokens 0 \
  --learning-rate 0.01 --device cpu --quiet --run-dir "$work/base5" --save-hf "$work/sevens"
printf '{"question": "7 7", "answer": "#### %s"}\n' 7 8 >"$work/problems.jsonl"
counts() {
  "$BINADE_BUILD/examples/speculate" --model "$work/sevens" --prompts "$work/problems.jsonl" \
    --device cpu --max-new-tokens 12 "$@"
}
expect "exact answers are counted" 0 "speculative: 1 of 2 answers are exact (50.0 %)" \
  counts --proposer lookup --show
expect "… of plain decoding alone, too" 0 "plain: 1 of 2 answers are exact" counts
expect "charts of trees" 0 "tokens a pass" \
  run --medusa "$work/heads" --search-tree "$work/prompts.txt" --charts "$work/charts" --nodes 8
expect "charts of acceptance" 0 "tau" medusa --tree chain --charts "$work/charts"
problem=
for chart in acceptance trees; do
  grep -q "</svg>" "$work/charts/$chart.svg" || problem="$chart.svg is not there"
done
report "… are drawn" "$problem"
expect "texts to look at" 0 "the lazy dog" medusa --show --limit 1
expect "a tree that is searched for and saved" 0 "speculate" \
  run --medusa "$work/heads" --search-tree "$work/prompts.txt" --save-tree "$work/best.json"
if [[ -f $work/best.json ]]; then
  expect "the saved tree" 0 "$all_equal" medusa --tree "$work/best.json"
fi

expect "a module of multi-token prediction" 0 "saved $work/mtp" \
  "$BINADE_BUILD/examples/finetune_mtp" --model "$work/model1" --text "$work/text.txt" --device cpu \
  --seq-len 64 --batch-size 8 --kind recursive --depth 3 --steps 40 --learning-rate 0.01 --warmup 5 --run-dir "$work/run3" \
  --quiet --no-pack --save "$work/mtp"
expect "parallel heads" 0 "saved $work/parallel" \
  "$BINADE_BUILD/examples/finetune_mtp" --model "$work/model1" --text "$work/text.txt" --device cpu \
  --seq-len 64 --batch-size 8 --kind parallel --depth 2 --steps 20 --learning-rate 0.01 --warmup 5 --run-dir "$work/run4" \
  --quiet --no-pack --save "$work/parallel"
taus() { grep -o 'tau [0-9.]*' "$case_output" | cut -d ' ' -f 2; }
for heads in mtp parallel; do
  expect "a chain of $heads" 0 "$all_equal" speculate --mtp "$work/$heads" --tree chain
  chain=$(taus)
  expect "a tree of 12 nodes for $heads that is accepted furthest" 0 "tokens a pass on these texts" \
    run --mtp "$work/$heads" --search-tree "$work/prompts.txt" --nodes 12 --most-accepted \
    --save-tree "$work/$heads.json"
  expect "… decodes the same texts" 0 "$all_equal" \
    speculate --mtp "$work/$heads" --tree "$work/$heads.json" --batch 2
  problem=
  awk "BEGIN { exit !($(taus) >= $chain) }" || problem="tau $(taus), that of the chain is $chain"
  report "… in no more passes than the chain" "$problem"
done
expect "the tree for this machine, from the modules" 0 "speculate" \
  run --mtp "$work/mtp" --search-tree "$work/prompts.txt" --nodes 6
expect "… by samples" 0 "speculate" \
  run --mtp "$work/mtp" --search-tree "$work/prompts.txt" --nodes 4 --acceptance exact --batch 2

interactive() { printf 'The quick\nbrown\n' | run --medusa "$work/heads" --interactive "$@"; }
expect "a chat" 0 "fox" interactive
problem=
grep -q $'\x1b' "$case_output" && problem="colors, but no terminal"
report "no colors where nobody asked for them" "$problem"
expect "a chat in color" 0 $'\x1b[32m' interactive --color always

refused "no prompts" "--prompts" run --medusa "$work/heads"
target=$work/model2
refused "heads of another model" "other weights" run --medusa "$work/heads" --prompt x
target=$work/model1
echo '[[0], [0, 0, 0]]' >"$work/tree.json"
refused "a tree that is not prefix-closed" "[0, 0, 0]" medusa --tree "$work/tree.json"
echo '[[0], [0, 0], [0, 0, 0], [0, 0, 0, 0]]' >"$work/tree.json"
refused "a tree deeper than the heads" "tree.json" medusa --tree "$work/tree.json"
refused "a tree that is not there" "none.json" medusa --tree "$work/none.json"
new=90
refused "a prompt longer than the context" "prompt 1" speculate
new=60
refused "a draft model with a shorter context" "48 positions" speculate --draft "$work/model3"
new=40
refused "a draft model with another vocabulary" "must read the same tokens" \
  speculate --draft "$work/model4"
refused "a tokenizer of another model" "vocabulary" medusa --tokenizer "$work/model4"
refused "a draft that is no model" "does not exist" speculate --draft "$work/nowhere"
refused "two proposers" "give one of them" medusa --draft "$work/model2"
refused "a proposer that is not named" "needs --medusa" speculate --proposer medusa
refused "drawn guesses for a rule that takes none" "--acceptance exact" \
  speculate --draft "$work/model2" --draft-temperature 1
refused "drawn guesses of heads that draw none" "--draft-temperature" \
  medusa --draft-temperature 1 --acceptance exact
refused "a tree search without heads" "--medusa or --mtp" \
  speculate --proposer lookup --search-tree "$work/prompts.txt"
refused "a tree where nothing drafts one" "--medusa or --mtp" speculate --proposer lookup --tree chain
refused "nodes where nothing drafts a tree" "--medusa or --mtp" speculate --draft "$work/model2" --nodes 8
refused "a size for a tree that has one" "--tree auto" medusa --tree chain --nodes 5
refused "a tree and the search for another" "leave --tree chain out" \
  medusa --tree chain --search-tree "$work/prompts.txt"
refused "a typical rule at temperature 0" "temperature" medusa --acceptance typical --temperature 0
cp -r "$work/model1" "$work/templated"
echo "{{ messages | custom }}" >"$work/templated/chat_template.jinja"
target=$work/templated
refused "the model's own template, which is not executed" 'the filter "custom"' speculate --proposer lookup
expect "… is not asked for" 0 "$all_equal" speculate --proposer lookup --chat-template none
target=$work/model1
expect "more slots than prompts" 0 "$all_equal" medusa --batch 65536
cat >"$work/replies.jsonl" <<'END'
{"messages": [{"role": "user", "content": "the quick"}, {"role": "assistant", "content": "brown fox jumps over the lazy dog"}]}
END
echo '{"messages": [{"role": "user", "content": "the quick"}]}' >"$work/asked.jsonl"
for heads in --medusa\ $work/heads --mtp\ $work/mtp; do
  for size in 8 1000000; do
    expect "guesses among $size tokens, ${heads%% *}" 0 "$all_equal" \
      speculate $heads --tree chain --draft-vocabulary $size --count-tokens "$work/replies.jsonl"
  done
done
refused "a draft vocabulary without counts" "need each other" medusa --draft-vocabulary 8
refused "counts without a draft vocabulary" "need each other" \
  medusa --count-tokens "$work/replies.jsonl"
refused "a draft vocabulary of no heads" "--medusa or --mtp" speculate --proposer lookup \
  --draft-vocabulary 8 --count-tokens "$work/replies.jsonl"
refused "chats without replies" "no replies" \
  medusa --draft-vocabulary 8 --count-tokens "$work/asked.jsonl"
refused "more guesses than the draft vocabulary has tokens" "rank" \
  medusa --tree auto --nodes 24 --draft-vocabulary 1 --count-tokens "$work/replies.jsonl"
refused "an unknown chat template" "$work/nowhere" medusa --chat-template "$work/nowhere"
echo '{"messages": [{"role": "user"}]}' >"$work/bad.jsonl"
refused "a bad record, named" "bad.jsonl:1" run --medusa "$work/heads" --prompts "$work/bad.jsonl"
