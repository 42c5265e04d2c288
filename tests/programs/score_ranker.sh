#!/usr/bin/env bash
# score_ranker: the scores of train_ranker, in constant memory, from files and pipes, and what it says
# to bad input.
set -euo pipefail
source "$(dirname "$0")/cases.sh"
work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
programs=$BINADE_BUILD/examples
export OMP_NUM_THREADS=1

# 40 lists of 1 to 12 documents with 3 features; the first is a count.
lists() {
  awk -v seed="$1" 'BEGIN { srand(seed); for (q = 1; q <= 40; ++q) for (i = q % 12; i >= 0; --i) {
    y = int(rand() * 3); printf "%d qid:%d 1:%.0f 2:%.3f 3:%.3f\n", y, q, y * 900 * rand(), y * rand(), rand() } }'
}
lists 1 >"$work/train.txt"
lists 2 >"$work/test.txt"
head -n 57 "$work/test.txt" >"$work/a.txt"
tail -n +58 "$work/test.txt" >"$work/b.txt"
train() {
  "$programs/train_ranker" --device cpu --train "$work/train.txt" --test "$work/test.txt" --steps 6 \
    --quiet --run-dir "$work/run-$1" --save "$work/$1" --test-scores "$work/$1.expected" "${@:2}" \
    >"$case_output"
}
score() { "$programs/score_ranker" --device cpu --ranker "$work/$1" --scores "$work/scores" "${@:2}"; }
test_scores() { score "$1" --data "$work/test.txt" "${@:2}"; }
# The same but for how sums round in batches of other sizes.
same() {
  paste "$work/scores" "$work/$1.expected" |
    awk '{ d = $1 - $2; if (NF != 2 || d * d > 1e-12) bad = 1 } END { exit bad || NR != '"$(wc -l <"$work/test.txt")"' }' \
    && problem= || problem="they differ"
  report "$2" "$problem"
}

train linear --model linear --loss mse --scaling minmax
train mlp --hidden 8 4 --loss ordinal
train attention --model attention --dim 8 --blocks 1
for kind in linear mlp attention; do
  expect "scores of a ranker: $kind" 0 "scored $(wc -l <"$work/test.txt") documents of 40 lists" \
    test_scores "$kind"
  same "$kind" "… are those of its training"
done
expect "files one after another, within a list" 0 "of 40 lists" score mlp --data "$work/a.txt" "$work/b.txt"
same mlp "… as one"
piped() { score mlp --data <(cat "$work/test.txt"); }
expect "a pipe" 0 "of 40 lists" piped
same mlp "… the same"
expect "another precision" 0 "scored" test_scores mlp --precision bf16
expect "three rankers, two of which scale alike" 0 "scored" "$programs/score_ranker" --device cpu \
  --ranker "$work/mlp" "$work/linear" "$work/attention" --scores "$work/scores" --data "$work/test.txt"
paste "$work/mlp.expected" "$work/linear.expected" "$work/attention.expected" |
  awk '{ printf "%.9g\n", ($1 + $2 + $3) / 3 }' >"$work/mean.expected"
same mean "… score the mean"
sed 's/ 3:.*//' "$work/test.txt" >"$work/two.txt"
sed 's/ 3:.*//' "$work/train.txt" >"$work/two-train.txt"
"$programs/train_ranker" --device cpu --train "$work/two-train.txt" --model linear --steps 2 --quiet \
  --run-dir "$work/run-two" --save "$work/two" >"$case_output"
refused "rankers of different features" "has 2 features, that in $work/mlp has 3" \
  "$programs/score_ranker" --device cpu --ranker "$work/mlp" "$work/two" --scores "$work/x" --data "$work/test.txt"
expect "sparse lines" 0 "scored" score mlp --data "$work/two.txt" --sparse

# A ranker of features from 0 on reads files so, also where no line has a feature 0.
sed 's/1:\([^ ]*\) 2:\([^ ]*\) 3:/0:\1 1:\2 2:/' "$work/train.txt" >"$work/zero.txt"
train_from_zero() {
  "$programs/train_ranker" --device cpu --hidden 8 --steps 6 --quiet --run-dir "$work/run-$1" --save "$work/$1" "${@:2}"
}
train_from_zero from-zero --train "$work/zero.txt" >"$case_output"
grep -q '"first_feature": 0' "$work/from-zero/ranker.json" && problem= || problem="not so"
report "a ranker knows how its features are numbered" "$problem"
sed 's/ 0:[^ ]*//' "$work/zero.txt" >"$work/no-first.txt"
score from-zero --data "$work/no-first.txt" --sparse >/dev/null
cp "$work/scores" "$work/detected"
score from-zero --data "$work/no-first.txt" --sparse --first-feature 0 >/dev/null
cmp "$work/scores" "$work/detected" >"$case_output" && problem= || problem="other scores"
report "… and scores lines without the first one" "$problem"
sed 's/ 2:.*//' "$work/no-first.txt" >"$work/narrow.txt"
refused "… which must have all its features to learn more from" "ranks by 3 features, the files have 2" \
  train_from_zero again --train "$work/narrow.txt" --init "$work/from-zero"
expect "… as these" 0 "of 3 features" train_from_zero again --train "$work/no-first.txt" --init "$work/from-zero"

# Twice as many lists take no more memory.
if [[ -x /usr/bin/time ]]; then
  awk 'BEGIN { srand(5); for (q = 1; q <= 60000; ++q) for (i = 0; i < 20; ++i)
    printf "0 qid:%d 1:%d 2:%.3f 3:%.3f\n", q, 900 * rand(), rand(), rand() }' >"$work/large.txt"
  peak() {
    /usr/bin/time -f %M -o "$work/peak" "$programs/score_ranker" --device cpu --ranker "$work/linear" \
      --scores "$work/scores" --data "$1" >"$case_output" 2>&1 && cat "$work/peak" || echo 0
  }
  head -n 600000 "$work/large.txt" >"$work/half.txt"
  half=$(peak "$work/half.txt")
  large=$(peak "$work/large.txt")
  ((0 < half && 0 < large && large < half + 24000)) && problem= || problem="$half KiB for half, $large KiB for all"
  report "memory does not grow with the file" "$problem"
else
  echo "skip memory does not grow with the file: /usr/bin/time is not installed"
fi

echo kept >"$work/scores"
refused "more features than the ranker has" "expected a feature index of at most 3" \
  score mlp --data <(echo '1 qid:1 1:1 4:1')
refused "fewer" "the lines have 2 features, the ranker has 3; if they leave features out" \
  score mlp --data "$work/two.txt"
: >"$work/empty.txt"
refused "an empty file" "empty.txt has no documents" score mlp --data "$work/empty.txt"
refused "… behind another" "empty.txt has no documents" score mlp --data "$work/test.txt" "$work/empty.txt"
refused "a file that is not there" "cannot open" score mlp --data "$work/none"
refused "a folder without a ranker" "holds no ranker" test_scores run-mlp
mkdir "$work/damaged"
cp "$work/mlp/ranker.json" "$work/damaged"
refused "a ranker without weights" "model.safetensors" test_scores damaged
{ cat "$work/test.txt"; echo "x qid:99 1:1"; } >"$work/bad.txt"
refused "a line that is none" "bad.txt:$(wc -l <"$work/bad.txt"):1: expected a label" \
  score mlp --data "$work/bad.txt"
[[ $(cat "$work/scores") == kept ]] && problem= || problem="it was changed"
report "what fails leaves old scores alone" "$problem"
printf '1 qid:1 3:1\n0 qid:2 1:1\n2 qid:1 1:1\n' >"$work/apart.txt"
refused "a query in two places" "apart.txt:3: query 1 is here again" score mlp --data "$work/apart.txt"
printf '1 3:1\n' >"$work/plain.txt"
refused "lines without query ids" "plain.txt:1:3: expected qid:ID" score mlp --data "$work/plain.txt"
printf '1 qid:1 3:NULL\n' >"$work/null.txt"
refused "missing values" "null.txt:1:11: expected a value" score mlp --data "$work/null.txt"
expect "… as 0" 0 "scored 1 documents" score mlp --data "$work/null.txt" --missing zero
refused "scores that cannot be written" "cannot write" \
  "$programs/score_ranker" --ranker "$work/mlp" --data "$work/test.txt" --scores /proc/none/scores
refused "scores over the lines" "--scores would overwrite" \
  "$programs/score_ranker" --ranker "$work/mlp" --data "$work/test.txt" --scores "$work/../$(basename "$work")/test.txt"
refused "scores in place of a ranker" "--scores would overwrite $work/mlp/model.safetensors" \
  "$programs/score_ranker" --ranker "$work/mlp" --data "$work/test.txt" --scores "$work/mlp/model.safetensors"
refused "no ranker" "--ranker is required" "$programs/score_ranker" --data "$work/test.txt" --scores "$work/x"
refused "an unknown precision" "fp17" test_scores mlp --precision fp17
