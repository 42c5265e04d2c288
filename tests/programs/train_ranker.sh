#!/usr/bin/env bash
# train_ranker: every network on a small set, resuming, early stopping, saved rankers, weights, and
# what it says to bad input.
set -euo pipefail
source "$(dirname "$0")/cases.sh"
work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
run=$work/run

# Lists of 8 documents: features 1 and 2 say the label together, feature 3 nothing.
# make_lists SEED LISTS
make_lists() {
  awk -v seed="$1" -v lists="$2" 'BEGIN { srand(seed); for (q = 1; q <= lists; ++q) for (i = 1; i <= 8; ++i) {
    y = int(rand() * 3); a = rand(); printf "%d qid:%d 1:%.4f 2:%.4f 3:%.4f\n", y, q, y + 3 * a, 2 * a, rand() } }'
}
mkdir "$work/fold"
make_lists 1 40 >"$work/fold/train.txt"
make_lists 2 20 >"$work/fold/vali.txt"
make_lists 3 20 >"$work/fold/test.txt"
program=$BINADE_BUILD/examples/train_ranker
small='"device": "cpu", "batch-size": 8, "hidden": [16], "dim": 16, "blocks": 1, "heads": 2, "dropout": 0, "steps": 20'
echo "{$small, \"run-dir\": \"$run\"}" >"$work/bare.json"
echo "{$small, \"run-dir\": \"$run\", \"fold\": \"$work/fold\"}" >"$work/fold.json"
train() { "$program" --config "$work/fold.json" "$@"; }
train_on() { "$program" --config "$work/bare.json" "$@"; }  # files that follow
again() { rm -rf "$run"; train "$@"; }
# test_ndcg: the number behind "test NDCG@10" in the last output.
test_ndcg() { sed -n 's/^test NDCG@10 \([0-9.]*\) .*/\1/p' "$case_output"; }

# ---- learning -----------------------------------------------------------------------------------
for model in linear mlp attention; do
  expect "a ranker of kind $model" 0 "test NDCG@10" again --model "$model" --steps 150 --learning-rate 0.02 \
    --save "$work/$model" --test-scores "$work/$model.txt"
  awk -v ndcg="$(test_ndcg)" 'BEGIN { exit !(ndcg > 0.95) }' && problem= || problem="it reaches $(test_ndcg)"
  report "… learns what two features say together" "$problem"
  expected=$(test_ndcg)
  expect "… and its scores give the same number" 0 "NDCG@10  $expected" "$BINADE_BUILD/examples/evaluate_ranking" \
    --data "$work/fold/test.txt" --scores "$work/$model.txt" --metrics ndcg@10 --convention skip
  expect "… as does what was saved" 0 "test NDCG@10 $expected" \
    again --init "$work/$model" --steps 1 --learning-rate 0
done
grep -q '"ndcg":' "$run/metrics.jsonl" && problem= || problem="no NDCG"
report "the run folder shows NDCG" "$problem"
for loss in mse ordinal ranknet lambdarank listnet approx-ndcg; do
  expect "the loss $loss" 0 "test NDCG@10" again --loss "$loss"
done
expect "parameters of a loss" 0 "loss lambdarank:truncation=5" again --loss lambdarank:truncation=5
for preset in fp16 bf16; do
  expect "a ranker in $preset" 0 "$preset on cpu" again --precision "$preset"
done
expect "several metrics under a program's convention" 0 "test MAP" \
  again --metrics ndcg@3 map --convention lightgbm
grep -q 'test NDCG@3 .*lightgbm: gain 2^y-1' "$case_output" && problem= || problem="not named"
report "… which is named" "$problem"
expect "files in place of a folder" 0 "done at step 20" again --train "$work/fold/train.txt" --fold "$work"
expect "training without validation" 0 "done at step 20" train_on --run-dir "$work/plain" \
  --train "$work/fold/train.txt"
expect "epochs in place of steps" 0 "done at step 10" again --epochs 2
cp "$work/fold/train.txt" "$work/raw.txt"
sed 's/ 3:[0-9.]*/ 3:1e8/' "$work/raw.txt" >"$work/large.txt"
expect "raw values beyond f16 are scaled" 0 "done at step 20" again --train "$work/large.txt" --precision fp16

# ---- weights ------------------------------------------------------------------------------------
awk 'BEGIN { for (i = 0; i < 320; ++i) print 1 }' >"$work/ones"
awk '{ print NR % 8 == 1 ? 5 : 0.5 }' "$work/ones" >"$work/weights"
scores() { again --test-scores "$work/$1" "${@:2}" >/dev/null; }
scores plain.txt && scores ones.txt --weights "$work/ones" && scores weighted.txt --weights "$work/weights"
cmp -s "$work/plain.txt" "$work/ones.txt" && problem= || problem="other scores"
report "weights of 1 change nothing" "$problem"
cmp -s "$work/plain.txt" "$work/weighted.txt" && problem="the same scores" || problem=
report "… others do" "$problem"

# ---- resuming, early stopping -------------------------------------------------------------------
model=(--noise 0.1 --dropout 0.2 --validate-every 5 --checkpoint-every 5 --schedule constant)
expect "a whole run" 0 "done at step 20" again "${model[@]}" --test-scores "$work/whole.txt"
expect "half of it" 0 "done at step 10" again "${model[@]}" --steps 10
expect "… goes on" 0 "resumed at step 10" train "${model[@]}" --resume --test-scores "$work/halves.txt"
cmp "$work/whole.txt" "$work/halves.txt" >"$case_output" 2>&1 && problem= || problem="other scores"
report "… bit for bit" "$problem"
refused "a run goes on with other lists" "$work/fold/vali.txt" train --resume --train "$work/fold/vali.txt" --steps 30
refused "a run goes on by another loss" "loss" train --resume --loss listnet --steps 30
refused "a new run in a folder that has one" "--resume" train
expect "training ends when validation gets no better" 0 "stopped, as nothing got better" \
  again --learning-rate 0 --warmup 0 --validate-every 5 --patience 2 --steps 200
steps=$(sed -n 's/^stopped, .* at step \([0-9]*\):.*/\1/p' "$case_output")
[[ $steps == 15 ]] && problem= || problem="it ended at step $steps"
report "… two validations after the best" "$problem"

# ---- bad input ----------------------------------------------------------------------------------
# rejected NAME TEXT ARGUMENTS...: refused in one line that has this text, and no run folder is left.
rm -rf "$run"
rejected() {
  local problem
  problem=$(complaint 2 "$2" "${@:3}")
  [[ -n $problem || $(wc -l <"$case_output") == 1 ]] || problem="more than one line"
  [[ -n $problem || ! -e $run ]] || problem="it left a run folder"
  report "$1" "$problem"
  rm -rf "$run"
}
# bad NAME TEXT LINE: the lists to train on with this line behind the first two are refused.
bad() {
  { head -n 2 "$work/fold/train.txt" && printf '%s\n' "$3"; } >"$work/bad.txt"
  rejected "$1" "bad.txt:3:$2" train --train "$work/bad.txt"
}
bad "a label that is no number" '1: expected a label' 'x qid:1 1:1 2:1 3:1'
bad "a negative label" '1: ' '-1 qid:1 1:1 2:1 3:1'
bad "a label whose gain no table has" '1: ' '32 qid:1 1:1 2:1 3:1'
bad "a line without a query" '3: ' '1 1:1 2:1 3:1'
bad "a feature without a value" '' '1 qid:1 1:1 2: 3:1'
bad "a value that is no number" '15: expected a value, a number, found "0.5.1"' '1 qid:1 1:1 2:0.5.1 3:1'
bad "a NaN" '15: expected a value' '1 qid:1 1:1 2:nan 3:1'
bad "an infinity" '15: ' '1 qid:1 1:1 2:inf 3:1'
bad "a value beyond f32" '15: ' '1 qid:1 1:1 2:1e308 3:1'
bad "features out of order" '13: ' '1 qid:1 2:1 1:1 3:1'
bad "words in place of a line" '1: ' 'not a line at all'
{ cat "$work/fold/train.txt" && echo "1 qid:1 1:1 2:1 3:1"; } >"$work/apart.txt"
rejected "a query in two places" "apart.txt:321: query 1 is here again" train --train "$work/apart.txt"
expect "… which may be brought together" 0 "done" train --train "$work/apart.txt" --group-by-qid --steps 1
rm -rf "$run"
sed 's/$/ 4:1/' "$work/fold/vali.txt" >"$work/wide.txt"
rejected "files to train on with different features" "wide.txt" train --train "$work/fold/train.txt" "$work/wide.txt"
rejected "a validation file with more features" "wide.txt:1:" train --valid "$work/wide.txt"
rejected "a test file with more features" "wide.txt:1:" train --test "$work/wide.txt"
: >"$work/empty.txt"
rejected "an empty file" "empty.txt" train --train "$work/empty.txt"
rejected "an empty file to test on" "empty.txt" train --test "$work/empty.txt"
sed 's/^[0-9]/0/' "$work/fold/train.txt" >"$work/irrelevant.txt"
rejected "lists of which nothing can be learned" "lambdarank" train --train "$work/irrelevant.txt"
rejected "a file that is not there" "none.txt" train --train "$work/none.txt"
rejected "a folder that is not there" "give files to train on" train_on --fold "$work/none"
rejected "nothing to train on" "give files to train on" train_on
sed 's/^2/3/' "$work/fold/vali.txt" >"$work/graded.txt"
rejected "a label outside a gain table" "to validate on: document" \
  train --valid "$work/graded.txt" --convention letor4
rejected "… also of the test file" "to test on: document" train --test "$work/graded.txt" --convention letor4
sed 's/ 3:[0-9.]*$//' "$work/fold/train.txt" >"$work/narrow.txt"
rejected "a ranker saved with other features" "ranks by 3 features, the files have 2" \
  train_on --init "$work/mlp" --train "$work/narrow.txt"
rejected "a ranker saved for another loss" "the loss ordinal needs 2" train --init "$work/mlp" --loss ordinal
rejected "a ranker that is not there" "holds no ranker" train --init "$work/fold"
rejected "an unknown loss" "did you mean lambdarank?" train --loss lambdarnk
rejected "an unknown parameter of a loss" "sigm" train --loss ranknet:sigm=1
rejected "a parameter that is no number" "sigma" train --loss ranknet:sigma=x
rejected "an unknown metric" "did you mean ndcg?" train --metrics ndgc
rejected "an unknown convention" "did you mean lightgbm?" train --convention lightgmb
rejected "k of 0" "expected a whole number from 1 behind @" train --metrics ndcg@0
rejected "k below 0" "expected a whole number from 1 behind @" train --metrics ndcg@-3
rejected "an unknown network" "--model" train --model trees
rejected "an unknown step of scaling" "no step of scaling" train --scaling zz
rejected "heads that do not divide the width" "heads" train --model attention --dim 15
rejected "a layer of no width" "--hidden" train --hidden 0
rejected "micro-batches that do not divide the batch" "micro-batches" train --accumulation 3
head -n 5 "$work/ones" >"$work/few"
rejected "weights of another number" "few has 5 scores, but there are 320" train --weights "$work/few"
sed '7s/1/-1/' "$work/ones" >"$work/negative"
rejected "a negative weight" "negative:7: a weight is 0 or more" train --weights "$work/negative"
rejected "weights of documents that are left out" "--longest-list" \
  train --weights "$work/ones" --longest-list 4
rejected "scores of no test file" "--test-scores needs --test" \
  train_on --train "$work/fold/train.txt" --test-scores "$work/s"
rejected "an unknown option is named with the nearest" "did you mean --metrics" train --metric ndcg
rejected "a folder to save to that cannot be made" "/proc/none" train --save /proc/none/ranker
