#!/usr/bin/env bash
# generate_data: all formats of prompts, runs that go on after a signal, a kill or half a line, and what it
# says to bad input.
set -euo pipefail
source "$(dirname "$0")/cases.sh"

work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
for _ in {1..400}; do echo "The quick brown fox jumps over the lazy dog, again and again."; done \
  >"$work/text.txt"
model() {
  "$BINADE_BUILD/examples/train_gpt" --text "$work/text.txt" --tokenizer bytes --family llama --layers 1 \
    --dim 16 --heads 2 --seq-len 96 --batch-size 4 --steps 30 --sample-tokens 0 --device cpu --quiet \
    --run-dir "$work/base$1" --seed "$1" --save-hf "$work/model$1"
}
expect "a language model to begin with" 0 "saved" model 1
expect "another one" 0 "saved" model 2
cat >"$work/model1/chat_template.jinja" <<'END_OF_TEMPLATE'
{%- for m in messages %}[{{ m.role }}]{{ m.content }}|{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}
END_OF_TEMPLATE
cp "$work/model1/chat_template.jinja" "$work/model2"

out=$work/out.jsonl base=$work/model1
data() {
  env --default-signal OMP_NUM_THREADS=1 "$BINADE_BUILD/examples/generate_data" --model "$base" --device cpu \
    --output "$out" --quiet "$@"
}
lines() { wc -l <"$out"; }
fresh() { rm -f "$out" "$out.run.json"; }

# ---- formats ------------------------------------------------------------------------------------
cat >"$work/gsm8k.jsonl" <<'END_OF_FILE'
{"question": "One?", "answer": "#### 1"}
{"question": "Two?", "answer": "#### 2"}
END_OF_FILE
echo '{"question_id": 81, "turns": ["Three?", "And?"]}' >"$work/mt_bench.jsonl"
echo '{"messages": [{"role": "user", "content": "Four?"}, {"role": "assistant", "content": "4"}]}' \
  >"$work/openai.jsonl"
echo '[{"conversations": [{"from": "human", "value": "Five?"}, {"from": "gpt", "value": "5"}]}]' \
  >"$work/share_gpt.json"
echo '[{"instruction": "Six?", "input": "6", "output": "no"}, {"instruction": "Seven?", "input": ""}]' \
  >"$work/alpaca.json"
printf 'Eight?\n\nNine?\n' >"$work/plain.txt"
files=("$work"/{gsm8k.jsonl,mt_bench.jsonl,openai.jsonl,share_gpt.json,alpaca.json,plain.txt})
replies=(--max-new-tokens 6 --temperature 1)
expect "every format of prompts gets replies" 0 "done: 9 conversations" \
  data --prompts "${files[@]}" "${replies[@]}" --slots 4
problem=
asked=$(grep -o '"user", "content": "[A-Z][a-z]*?' "$out" | grep -o '[A-Z][a-z]*?' | tr -d '\n')
[[ $asked == "One?Two?Three?Four?Five?Six?Seven?Eight?Nine?" ]] || problem="asked: $asked"
grep -q '"id": "81"' "$out" || problem="no id of MT-Bench"
grep -q '"content": "[45]"' "$out" && problem="a reply of the file is in it"
(($(grep -c '"binade_tokens"' "$out") == 9)) || problem="not every line has its tokens"
report "… in the order of the files" "$problem"
cp "$out" "$work/all.jsonl"
fresh
expect "other slots" 0 "done: 9 conversations" data --prompts "${files[@]}" "${replies[@]}" --slots 1
problem=
cmp -s "$out" "$work/all.jsonl" || problem="the files differ"
report "… give the same replies" "$problem"
fresh
expect "--limit" 0 "done: 3 conversations" data --prompts "${files[@]}" "${replies[@]}" --limit 3
problem=
cmp -s "$out" <(head -3 "$work/all.jsonl") || problem="it has others"
report "… gives the first ones" "$problem"
fresh
cp -r "$work/model1" "$work/stops_early"
echo '{"eos_token_id": [32, 97, 101, 105, 111, 117]}' >"$work/stops_early/generation_config.json"
base=$work/stops_early
expect "turns of a conversation" 0 "2 replies" \
  data --prompts "$work/mt_bench.jsonl" --max-new-tokens 30 --temperature 1
problem=
(($(grep -o '"assistant"' "$out" | wc -l) == 2)) || problem="there are not two replies"
grep -q '"replies": \[\[[0-9,]*\],\[[0-9,]*\]\]' "$out" || problem="not both have tokens"
report "… are answered one after another" "$problem"
fresh
expect "the first turn alone" 0 "1 replies" \
  data --prompts "$work/mt_bench.jsonl" --max-new-tokens 30 --temperature 1 --turns 1
base=$work/model1
fresh
expect "prompts that are continued as they are" 0 "done: 2 conversations" \
  data --prompts "$work/plain.txt" --no-template --max-new-tokens 6
fresh
nothing=(--from-nothing 40 --max-new-tokens 24 --temperature 1 --ignore-eos)
expect "texts from nothing" 0 "40 replies of 960 tokens" data "${nothing[@]}" --slots 8
cp "$out" "$work/straight.jsonl"
expect "a run that is done does nothing" 0 "0 replies" data "${nothing[@]}"
expect "heads learn from the tokens" 0 "done at step 2" "$BINADE_BUILD/examples/finetune_medusa" \
  --model "$work/model1" --chats "$work/straight.jsonl" --device cpu --seq-len 32 --batch-size 4 --heads 2 \
  --steps 2 --run-dir "$work/heads" --quiet

# ---- going on -----------------------------------------------------------------------------------
head -c -500 "$work/straight.jsonl" >"$out"
expect "half a line at the end is cut off" 0 "conversations are there already" data "${nothing[@]}"
problem=
cmp -s "$out" "$work/straight.jsonl" || problem="the files differ"
report "… and the file is as if nothing had happened" "$problem"
(tac "$work/straight.jsonl" | head -30) >"$out"
expect "a file in the order of completion goes on" 0 "30 of 40 conversations" data "${nothing[@]}" --slots 3
problem=
cmp -s "$out" "$work/straight.jsonl" || problem="the files differ"
report "… and is sorted at the end" "$problem"

many=(--from-nothing 400 --max-new-tokens 90 --temperature 1 --ignore-eos --slots 4)
fresh
expect "a longer run" 0 "done: 400" data "${many[@]}"
cp "$out" "$work/many.jsonl"
for signal in INT TERM HUP USR1 KILL; do
  fresh
  data "${many[@]}" >"$case_output" 2>&1 &
  pid=$!
  for _ in {1..600}; do
    [[ -f $out ]] && (($(lines) >= 5)) && break
    sleep 0.02
  done
  # The function runs in a shell of its own, whose only child is the program.
  kill -"$signal" "$(pgrep -P "$pid" || echo "$pid")"
  status=0 problem=
  wait "$pid" || status=$?
  if [[ $signal != KILL ]]; then
    ((status == 0)) || problem="exit status $status"
    grep -q "stopped by a signal: $(lines) of 400" "$case_output" || problem="it does not say so"
  fi
  (($(lines) >= 5 && $(lines) < 400)) || problem="$(lines) lines"
  report "SIG$signal keeps the replies so far" "$problem"
  expect "… and the same command goes on" 0 "done: 400" data "${many[@]}"
  problem=
  cmp -s "$out" "$work/many.jsonl" || problem="the files differ"
  report "… to the same file" "$problem"
done
fresh
data "${many[@]}" >/dev/null 2>&1 &
pid=$!
for _ in {1..600}; do [[ -s $out ]] && break || sleep 0.02; done
refused "a file that another process writes" "another process" data "${many[@]}"
wait "$pid"

# ---- bad input ----------------------------------------------------------------------------------
fresh
expect "a run to go on with" 0 "done" data "${nothing[@]}"
refused "other options" "seed (1 -> 2)" data "${nothing[@]}" --seed 2
base=$work/model2
refused "another model" "model_crc32c" data "${nothing[@]}"
base=$work/model1
sed -i 's/"prompt": 7,/"prompt": 8,/' "$out"
refused "a line that comes twice" "out.jsonl:9: prompt 8 comes twice" data "${nothing[@]}"
sed -i '3s/.*/{/' "$out"
refused "a broken line in the middle" "out.jsonl:3" data "${nothing[@]}"
rm "$out.run.json"
refused "a file that something else wrote" "choose another file" data "${nothing[@]}"
fresh
refused "no prompts" "either --prompts or --from-nothing" data
rm "$work/model2/chat_template.jinja"
base=$work/model2
refused "no prompts, for a model without a template" "either --prompts or --from-nothing" data
base=$work/model1
refused "two kinds of prompts" "either --prompts or --from-nothing" \
  data --from-nothing 3 --prompts "$work/plain.txt"
refused "a file that is not there" "nowhere" data --prompts "$work/nowhere"
: >"$work/empty.jsonl"
refused "an empty file" "empty.jsonl holds no conversation" data --prompts "$work/empty.jsonl"
refused "an unknown format" "there is no format" data --prompts "$work/plain.txt" --format csv
cp "$work/gsm8k.jsonl" "$work/bad.jsonl"
echo '{"question": 3, "answer": ""}' >>"$work/bad.jsonl"
refused "a bad line, named" "bad.jsonl:3" data --prompts "$work/bad.jsonl"
expect "bad lines that are passed over" 0 "1 bad records" \
  data --prompts "$work/bad.jsonl" --skip-bad --max-new-tokens 4
fresh
echo '{"messages": [{"role": "assistant", "content": "I speak first"}]}' >"$work/unasked.jsonl"
refused "a conversation that asks for nothing" "unasked.jsonl:1" data --prompts "$work/unasked.jsonl"
printf '{"question": "%0100d", "answer": ""}\n{"question": "Short?", "answer": ""}\n' 0 >"$work/long.jsonl"
expect "a prompt that is too long is named" 0 "long.jsonl:1 (" \
  data --prompts "$work/long.jsonl" --max-new-tokens 8
problem=
(($(lines) == 1)) && grep -q '"prompt": 1' "$out" || problem="the file has others"
report "… and left out" "$problem"
fresh
refused "prompts that are all too long" "every prompt" \
  data --prompts "$work/gsm8k.jsonl" --max-new-tokens 90
refused "a length beyond the model's positions" "96 positions" \
  data --prompts "$work/gsm8k.jsonl" --max-length 97
problem=
[[ ! -e $out ]] || problem="it left a file"
report "refused prompts leave no file" "$problem"
echo '{% include "x" %}' >"$work/model2/chat_template.jinja"
base=$work/model2
refused "a template with what is not executed" "include" data --prompts "$work/gsm8k.jsonl"
rm "$work/model2/chat_template.jinja"
refused "a model without a template" "template" data --prompts "$work/gsm8k.jsonl"
base=$work/model1
if stories=$(cd "$(dirname "$0")/../../.." && pwd)/shared/models/stories260k && [[ -d $stories ]]; then
  refused "a tokenizer of another model" "vocabulary" data --tokenizer "$stories" --from-nothing 3
fi
on_a_small_disk() {
  (
    ulimit -f 8
    data "${nothing[@]}"
  )
}
refused "a full disk" "File too large" on_a_small_disk
problem=
(($(lines) > 0)) && [[ -z $(grep -vxFf "$work/straight.jsonl" "$out") ]] || problem="it has something else"
report "… leaves whole lines" "$problem"
expect "… with which the run goes on" 0 "done: 40" data "${nothing[@]}"
