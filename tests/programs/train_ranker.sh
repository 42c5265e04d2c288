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
for model in linear mlp attention dasalc; do
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
for norm in none layer batch; do
  expect "the norm $norm" 0 "test NDCG@10" again --norm "$norm" --input-norm --noise 0.05 --steps 150 \
    --learning-rate 0.02
  awk -v ndcg="$(test_ndcg)" 'BEGIN { exit !(ndcg > 0.95) }' && problem= || problem="it reaches $(test_ndcg)"
  report "… learns as well" "$problem"
done
# A report looks at a step's gradients once more, with the same batch.
expect "batch norm beside a report on underflow" 0 "test NDCG@10" \
  again --norm batch --precision fp16 --save "$work/reported" --underflow-report 4
expect "… and without" 0 "test NDCG@10" again --norm batch --precision fp16 --save "$work/unreported"
cmp -s "$work/reported/model.safetensors" "$work/unreported/model.safetensors" && problem= || problem="they differ"
report "… is the same ranker" "$problem"
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
# Weights of lists: 1 for all changes nothing; 0 for some is as if nothing were learned from them.
awk 'BEGIN { for (i = 0; i < 40; ++i) print 1 }' >"$work/list-ones"
awk 'BEGIN { for (i = 0; i < 40; ++i) print i % 4 ? 0.5 : 3 }' >"$work/list-weights"
scores list-ones.txt --list-weights "$work/list-ones"
scores list-weighted.txt --list-weights "$work/list-weights"
cmp -s "$work/plain.txt" "$work/list-ones.txt" && problem= || problem="other scores"
report "weights of lists of 1 change nothing" "$problem"
cmp -s "$work/plain.txt" "$work/list-weighted.txt" && problem="the same scores" || problem=
report "… others do" "$problem"
expect "… and belong to what a run goes on with" 0 "resumed at step 20" \
  train --resume --steps 30 --list-weights "$work/list-weights"
awk '{ print NR == 3 ? 0 : $1 }' "$work/list-weights" >"$work/list-weights.new"
mv "$work/list-weights.new" "$work/list-weights"
refused "a run goes on with other weights of lists" "with other data" \
  train --resume --steps 40 --list-weights "$work/list-weights"
awk '{ print int((NR - 1) / 8) % 4 ? 0.5 : 3 }' "$work/ones" >"$work/spread"
# Where every document of a list has the list's weight, sums are the same.
scores spread.txt --loss ndcg-loss2 --optimizer sgd --weights "$work/spread"
awk 'BEGIN { for (i = 0; i < 40; ++i) print i % 4 ? 0.5 : 3 }' >"$work/list-weights"
scores lists.txt --loss ndcg-loss2 --optimizer sgd --list-weights "$work/list-weights"
paste "$work/spread.txt" "$work/lists.txt" |
  awk '{ d = $1 - $2; if (d > 1e-4 || d < -1e-4) bad = 1 } END { exit bad }' >"$case_output" && problem= || problem="other scores"
report "weights of lists are those of all their documents" "$problem"

# ---- going on from a saved ranker ---------------------------------------------------------------
expect "a validation names its metric" 0 "validation loss" again --save "$work/first"
grep -q ', NDCG@10 0\.[0-9]* (best)$' "$case_output" && problem= || problem="no such line"
report "… in its line" "$problem"
first=$(test_ndcg)
expect "… and so does a run that was finished before" 0 ", best validation NDCG@10 0." train --resume
expect "a smaller-is-better metric is shown as it is" 0 "best validation: ARP " again --metrics arp
grep -q ', ARP [0-9]' "$case_output" && problem= || problem="no such line"
report "… in every line" "$problem"
# Labels that are turned round only spoil the ranker: what it was is validated, and is what is kept.
awk '{ $1 = 2 - $1; print }' "$work/fold/train.txt" >"$work/turned.txt"
expect "a ranker that training does not improve" 0 "the ranker of --init, which training did not improve" \
  again --init "$work/first" --train "$work/turned.txt" --validate-every 5
grep -q '^step 0: validation loss .* (best)$' "$case_output" && [[ $(test_ndcg) == "$first" ]] && problem= ||
  problem="it was not kept: $(test_ndcg) in place of $first"
report "… is kept as it was" "$problem"

# ---- resuming, early stopping -------------------------------------------------------------------
model=(--noise 0.1 --dropout 0.2 --validate-every 5 --checkpoint-every 5 --schedule constant)
expect "a whole run" 0 "done at step 20" again "${model[@]}" --test-scores "$work/whole.txt"
expect "half of it" 0 "done at step 10" again "${model[@]}" --steps 10
expect "… goes on" 0 "resumed at step 10" train "${model[@]}" --resume --test-scores "$work/halves.txt"
cmp "$work/whole.txt" "$work/halves.txt" >"$case_output" 2>&1 && problem= || problem="other scores"
report "… bit for bit" "$problem"
# Averages of weights go with those of the statistics that batch norm measured with them.
averaged=(--ema 0.9 --norm batch --input-norm --validate-every 5 --checkpoint-every 5 --schedule constant)
expect "averages beside batch norm" 0 "done at step 20" again "${averaged[@]}" --test-scores "$work/whole.txt" \
  --save "$work/averaged"
expect "… half of it" 0 "done at step 10" again "${averaged[@]}" --steps 10
expect "… goes on" 0 "resumed at step 10" train "${averaged[@]}" --resume --test-scores "$work/halves.txt"
cmp "$work/whole.txt" "$work/halves.txt" >"$case_output" 2>&1 && problem= || problem="other scores"
report "… bit for bit" "$problem"
expect "… and is saved as it was tested" 0 "scored" "$BINADE_BUILD/examples/score_ranker" --device cpu \
  --ranker "$work/averaged" --data "$work/fold/test.txt" --scores "$work/saved.txt"
cmp "$work/whole.txt" "$work/saved.txt" >"$case_output" 2>&1 && problem= || problem="other scores"
report "… to the bit" "$problem"
# Of weights that stay, the averages are the same; those of statistics follow them slowly.
scores still.txt --norm batch --learning-rate 0
scores still-averaged.txt --norm batch --learning-rate 0 --ema 0.9
cmp -s "$work/still.txt" "$work/still-averaged.txt" && problem="the last statistics" || problem=
report "… with averages of the statistics" "$problem"
expect "the run before" 0 "done at step 20" again "${model[@]}" --steps 20
refused "a run goes on with other lists" "$work/fold/vali.txt" train --resume --train "$work/fold/vali.txt" --steps 30
refused "a run goes on by another loss" "loss" train --resume --loss listnet --steps 30
refused "a new run in a folder that has one" "--resume" train
cp "$run/config.json" "$work/now.json"
sed 's/"norm": "layer"/"layer-norm": true/' "$work/now.json" >"$run/config.json"
refused "a run of a version whose options were others" \
  "unknown option layer-norm in the configuration of the run; go on with the version that began it" \
  "$program" --run-dir "$run" --resume --steps 30
cp "$work/now.json" "$run/config.json"
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
rejected "a convention that needs names of documents" "to validate on: ties by names (trec_eval)" \
  train --convention trec_eval
expect "… which --help does not offer" 0 "letor4, one, zero, skip: what a program does" "$program" --help
rejected "k of 0" "expected a whole number from 1 behind @" train --metrics ndcg@0
rejected "k below 0" "expected a whole number from 1 behind @" train --metrics ndcg@-3
rejected "an unknown network" "--model" train --model trees
rejected "an unknown norm" "--norm" train --norm group
rejected "an unknown step of scaling" "no step of scaling" train --scaling zz
rejected "heads that do not divide the width" "heads" train --model attention --dim 15
rejected "a layer of no width" "--hidden" train --hidden 0
rejected "micro-batches that do not divide the batch" "micro-batches" train --accumulation 3
head -n 5 "$work/ones" >"$work/few"
rejected "weights of another number" "few has 5 weights, but there are 320 documents" train --weights "$work/few"
sed '7s/1/-1/' "$work/ones" >"$work/negative"
rejected "a negative weight" "negative:7: a weight is 0 or more" train --weights "$work/negative"
rejected "weights of lists of another number" "few has 5 weights, but there are 40 lists" \
  train --list-weights "$work/few"
sed '7s/1/-1/' "$work/list-ones" >"$work/negative"
rejected "a negative weight of a list" "negative:7: a weight is 0 or more" train --list-weights "$work/negative"
sed '9s/1/inf/' "$work/list-ones" >"$work/infinite"
rejected "an infinite weight of a list" "infinite:9: a weight is 0 or more and finite" \
  train --list-weights "$work/infinite"
sed '9s/1/x/' "$work/list-ones" >"$work/word"
rejected "a weight of a list that is no number" 'word:9: expected a weight, found "x"' \
  train --list-weights "$work/word"
rejected "weights of documents that are left out" "--longest-list" \
  train --weights "$work/ones" --longest-list 4
rejected "scores of no test file" "--test-scores needs --test" \
  train_on --train "$work/fold/train.txt" --test-scores "$work/s"
rejected "scores in place of the test file" "--test-scores would overwrite $work/fold/test.txt" \
  train --test-scores "$work/fold/test.txt"
rejected "a metric that stands twice" "--metrics has NDCG@10 twice" train --metrics ndcg@10 NDCG@10
rejected "more lists a step than fit" "it may have 2^31 - 1 in all" train --batch-size 1000000000000
rejected "more blocks than anybody needs" "attention blocks" train --model attention --blocks 1000000
rejected "an unknown option is named with the nearest" "did you mean --metrics" train --metric ndcg
rejected "a folder to save to that cannot be made" "/proc/none" train --save /proc/none/ranker
