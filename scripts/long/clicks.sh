#!/usr/bin/env bash
# What training on clicks loses by the bias of ranks, and what inverse propensity weights win back.
#
# Users are simulated on MQ2008 (five folds) and MSLR-sample (its one split): they see lists as a weak
# ranker, one feature, orders them, and examine rank r with probability 1/r^eta, 50 times a query.
# A linear ranker learns from the labels, from the clicks as they are, and from clicks with weights of
# true and of estimated (regression-EM) propensities, always with the same loss, number of steps and
# rate, which on MQ2008 the validation lists chose (docs/ranking-data.md). Weights of sessions make the
# loss a sum over clicks, which inverse propensities undo the bias of; "shares" is without them. Prints
# NDCG@10 (skip) of the test lists, the mean over five seeds of users, with 95 % intervals over queries
# (bootstrap).
#
# Usage: scripts/long/clicks.sh [BUILD FOLDER]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

build=${1:-${BINADE_BUILD:-$root/build}}
shared=${BINADE_SHARED:-$root/../shared}
if [[ ! -r $shared/data/ltr/MQ2008.tar.xz ]]; then
  echo "skip clicks: needs the shared data; set BINADE_SHARED to its folder"
  exit 0
fi
[[ -f $build/build.ninja ]] || die "configure the build first, or name its folder"
build "$build" train_ranker simulate_clicks evaluate_ranking
programs=$build/examples
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for set in MQ2008 MSLR-sample; do tar xJf "$shared/data/ltr/$set.tar.xz" -C "$work"; done

seeds="1 2 3 4 5"
loss=listnet:targets=share

# rank NAME: trains with the further options and leaves the scores of $test in $work/NAME.
rank() {
  "$programs/train_ranker" --device cpu --quiet --model linear --scaling "$scaling" --loss "$loss" \
    --steps 1000 --learning-rate "$rate" --seed "$seed" --test "$test" --test-scores "$work/$1" \
    --run-dir "$work/run" "${@:2}" >/dev/null
  rm -rf "$work/run"
}
# clicks PROPENSITIES: the sessions of the lists to train on, in $work/clicks.txt.
clicks() {
  "$programs/simulate_clicks" --data "${train[@]}" --logging-feature "$feature" --eta "$eta" --shown "$shown" \
    --sessions 50 --largest-weight "$largest_weight" --largest-label "$largest" --seed "$seed" --scaling "$scaling" --propensities "$1" \
    --output "$work/clicks.txt" >"$work/log"
}
# A table of the values of every query, for all folds and seeds: query setting value.
values() {
  "$programs/evaluate_ranking" --data "$test" --scores "$work/$2" --metrics ndcg@10 --convention skip \
    --per-query "$work/each.csv" >/dev/null
  awk -F, -v setting="$1" 'FNR > 1 && $3 != "" { print $1, setting, $3 }' "$work/each.csv" >>"$work/values"
}
# One fold: train (files), test, feature, scaling, rate (of learning), largest (label), shown, largest_weight, sessions (a step).
fold() {
  for seed in $seeds; do
    rank labels --train "${train[@]}"
    values labels labels
    for eta in 1 2; do
      clicks true
      rank naive --train "$work/clicks.txt" --batch-size "$sessions"
      rank shares --train "$work/clicks.txt" --batch-size "$sessions" --weights "$work/clicks.txt.weights"
      rank true --train "$work/clicks.txt" --batch-size "$sessions" --weights "$work/clicks.txt.weights" \
        --list-weights "$work/clicks.txt.list-weights"
      clicks regression-em
      rank estimated --train "$work/clicks.txt" --batch-size "$sessions" --weights "$work/clicks.txt.weights" \
        --list-weights "$work/clicks.txt.list-weights"
      for setting in naive shares true estimated; do values "$setting-$eta" "$setting"; done
    done
  done
}
# Means over queries, each query's over the seeds; intervals by the bootstrap over queries.
summary() {
  awk -v set="$1" '
    { sum[$1, $2] += $3; count[$1, $2]++; if (!($1 in seen)) { seen[$1] = 1; query[n++] = $1 } }
    function value(q, s) { return sum[q, s] / count[q, s] }
    function line(name, k, v) {  # v[0 .. rounds - 1] are sorted
      return sprintf("%s %7.4f [%7.4f, %7.4f]", name, k, v[int(rounds * 0.025)], v[int(rounds * 0.975)]) }
    function sort(v, m,   i, j, t) {
      for (i = 1; i < m; ++i) { t = v[i]; for (j = i - 1; j >= 0 && v[j] > t; --j) v[j + 1] = v[j]; v[j + 1] = t } }
    END {
      count_of = split("labels naive-1 shares-1 true-1 estimated-1 naive-2 shares-2 true-2 estimated-2", name, " ")
      srand(1); rounds = 2000
      for (s = 1; s <= count_of; ++s) for (i = 0; i < n; ++i) { x[i, s] = value(query[i], name[s]); mean[s] += x[i, s] / n }
      for (r = 0; r < rounds; ++r)
        for (k = 0; k < n; ++k) { i = int(rand() * n); for (s = 1; s <= count_of; ++s) boot[r, s] += x[i, s] / n }
      for (s = 1; s <= count_of; ++s) {
        for (r = 0; r < rounds; ++r) v[r] = boot[r, s]
        sort(v, rounds); print set ", " n " queries: " line(name[s], mean[s], v)
      }
      for (naive = 2; naive <= 6; naive += 4) {
        for (r = 0; r < rounds; ++r) v[r] = boot[r, 1] - boot[r, naive]
        sort(v, rounds); print set ": " line("labels less " name[naive], mean[1] - mean[naive], v)
        for (s = naive + 1; s <= naive + 3; ++s) {
          for (r = 0; r < rounds; ++r) v[r] = (boot[r, s] - boot[r, naive]) / (boot[r, 1] - boot[r, naive])
          sort(v, rounds); print set ": " line("share of it won back by " name[s], (mean[s] - mean[naive]) / (mean[1] - mean[naive]), v)
        }
      }
    }' "$work/values"
}

say "MQ2008"
scaling=zscore rate=3e-3 feature=25 largest=2 shown=10 largest_weight=0 sessions=64
for i in 0 1 2 3 4; do
  train=()
  for j in 0 1 2; do train+=("$work/MQ2008/S$(((i + j) % 5 + 1)).txt"); done
  test=$work/MQ2008/S$(((i + 4) % 5 + 1)).txt
  fold
done
summary MQ2008
say "MSLR-sample"
rm "$work/values"
scaling=log1p,zscore rate=1e-3 feature=130 largest=4 shown=50 largest_weight=1000 sessions=16
train=("$work/MSLR-sample/train.txt") test=$work/MSLR-sample/test.txt
fold
summary MSLR-sample
