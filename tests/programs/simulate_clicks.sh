#!/usr/bin/env bash
# simulate_clicks: logs of both models, that they can be read and go together, propensities, and what
# it says to bad input.
set -euo pipefail
source "$(dirname "$0")/cases.sh"
work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT

# 60 lists of 6 documents; feature 1 is a weak ranker, feature 2 is the label.
awk 'BEGIN { srand(3); for (q = 1; q <= 60; ++q) for (i = 1; i <= 6; ++i) {
  y = int(rand() * 3); printf "%d qid:%d 1:%.3f 2:%d #docid = d%d_%d\n", y, q, y + 3 * rand(), y, q, i } }' \
  >"$work/lists.txt"
sessions=40
simulate() {
  "$BINADE_BUILD/examples/simulate_clicks" --data "$work/lists.txt" --output "$work/clicks.txt" \
    --shown 5 --sessions "$sessions" "$@"
}
weak() { simulate --logging-feature 1 "$@"; }

expect "a log of the position model" 0 "2400 sessions of 60 lists" weak
problem=
for ending in "" .weights .positions; do
  [[ $(wc -l <"$work/clicks.txt$ending") == 12000 ]] || problem="clicks.txt$ending has other lines"
done
report "… in three files of as many lines" "$problem"
expect "… that is read as lists" 0 "2400 queries, 12000 documents" \
  "$BINADE_BUILD/examples/evaluate_ranking" --data "$work/clicks.txt" --scores "$work/clicks.txt.weights"
# Each line's weight is the inverse of 1/rank, and a list has each of its ranks once.
paste "$work/clicks.txt.positions" "$work/clicks.txt.weights" |
  awk '$1 != $2 { bad = 1 } { ranks[$1]++ } END { exit bad || ranks[1] != 2400 || ranks[5] != 2400 }' \
  >"$case_output" && problem= || problem="weights do not fit positions"
report "… with weights of positions" "$problem"
awk 'NR == FNR { clicks[NR] = $1; next } $2 != query { query = $2; n++ } { sum[n] += $1 }
  END { for (s = 1; s <= 2400; ++s) if (sum[s] != clicks[s]) exit 1; exit n != 2400 }' \
  "$work/clicks.txt.list-weights" "$work/clicks.txt" >"$case_output" && problem= || problem="they differ"
report "… and the clicks of every session" "$problem"
grep -q '^[01] qid:1/1 1:[0-9.]* .*# docid = d1_' "$work/clicks.txt" && problem= || problem="no such line"
report "… with features and names of documents" "$problem"
cp "$work/clicks.txt" "$work/first.txt"
expect "the same log" 0 "wrote" weak
cmp "$work/clicks.txt" "$work/first.txt" >"$case_output" && problem= || problem="it differs"
report "… of the same seed" "$problem"
expect "another seed" 0 "wrote" weak --seed 5
cmp -s "$work/clicks.txt" "$work/first.txt" && problem="it is the same" || problem=
report "… is another log" "$problem"
expect "a log of the cascade model" 0 "clicks on" weak --model cascade --propensities none
awk '{ split($2, id, ":"); sum[id[2]] += $1 } END { for (s in sum) if (sum[s] > 1) exit 1 }' \
  "$work/clicks.txt" >"$case_output" && problem= || problem="a session has two clicks"
report "… ends with the first click" "$problem"
seq 360 >"$work/scores"
expect "lists shown by scores" 0 "wrote" simulate --logging-scores "$work/scores"

# An estimate of rank 5's propensity, of which 0.2 is the truth.
estimate() {
  local problem
  problem=$(complaint 0 "propensity ($1)" weak --propensities "$@")
  [[ -n $problem ]] || awk '$1 == 5 && NF == 4 && $4 > 0.15 && $4 < 0.25 { found = 1 } END { exit !found }' \
    "$case_output" || problem="rank 5 is not near 0.2"
  report "propensities from $1" "$problem"
}
sessions=400
estimate swaps --swaps 0.5
estimate em --swaps 0.5
estimate regression-em
sessions=40
expect "weights are cut" 0 "wrote" weak --largest-weight 2
[[ $(sort -u "$work/clicks.txt.weights" | tr '\n' ' ') == "1 2 " ]] && problem= || problem="others than 1 and 2"
report "… to the largest one" "$problem"

expect "no more ranks than the lists have" 0 "wrote" "$BINADE_BUILD/examples/simulate_clicks" \
  --data "$work/lists.txt" --logging-feature 1 --output "$work/all" --shown 1000000000000
[[ $(grep -cE '^ +[0-9]+  ' "$case_output") == 6 ]] && problem= || problem="other ranks"
report "… are shown" "$problem"
echo 1 >"$work/log.weights"
refused "a log in place of the lists" "--output would overwrite $work/lists.txt" \
  "$BINADE_BUILD/examples/simulate_clicks" --data "$work/lists.txt" --logging-feature 1 --output "$work/lists.txt"
refused "weights in place of the scores" "--output would overwrite $work/log.weights" "$BINADE_BUILD/examples/simulate_clicks" \
  --data "$work/lists.txt" --logging-scores "$work/log.weights" --output "$work/log"

refused "neither scores nor a feature" "give either --logging-scores or --logging-feature" simulate
refused "a feature that is not there" "there is no feature 9" simulate --logging-feature 9
echo 1 >"$work/one"
refused "scores of another number" "has 1 scores, but there are 360" \
  simulate --logging-scores "$work/one"
refused "a negative eta" "eta of a click model" weak --eta -1
refused "certain noise" "noise of a click model" weak --noise 1
sessions=0
refused "nobody" "1 session or more" weak
sessions=40
refused "true propensities of a cascade" "no true propensity" weak --model cascade
refused "estimates without interventions" "no sessions with interventions" weak --propensities swaps
refused "an unknown model" "--model" weak --model dbn
refused "unknown scaling" "no step of scaling" weak --propensities regression-em --scaling zz
refused "no output" "--output is required" \
  "$BINADE_BUILD/examples/simulate_clicks" --data "$work/lists.txt" --logging-feature 1
refused "an output that cannot be written" "cannot write" "$BINADE_BUILD/examples/simulate_clicks" \
  --data "$work/lists.txt" --logging-feature 1 --output /proc/none/a
