#!/usr/bin/env bash
# export_ranker: C headers that a C99 compiler takes and that score as the ranker does, ONNX files
# (scripts/long/onnx.sh runs them), and what it says to bad input.
set -euo pipefail
source "$(dirname "$0")/cases.sh"
work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
programs=$BINADE_BUILD/examples
export OMP_NUM_THREADS=1

# 30 lists with 4 features: counts up to 1e8, tiny ones, negative ones, and a constant.
awk 'BEGIN { srand(4); for (q = 1; q <= 30; ++q) for (i = q % 9; i >= 0; --i) {
  y = int(rand() * 4); printf "%d qid:%d 1:%.0f 2:%.3e 3:%.4f 4:2\n", y, q, exp(18 * rand()), 1e-13 * (y + rand()), y - 5 * rand() } }' \
  >"$work/lists.txt"
train() {
  "$programs/train_ranker" --device cpu --train "$work/lists.txt" --steps 4 --quiet --run-dir "$work/run-$1" \
    --save "$work/$1" "${@:2}" >"$case_output"
}
export_ranker() { "$programs/export_ranker" --ranker "$work/$1" "${@:2}"; }

# Reads rows of features, prints their scores.
cat >"$work/main.c" <<'END'
#include <stdio.h>

#include "ranker.h"
int main(void) {
  float x[web_features];
  for (;;) {
    for (int i = 0; i < web_features; ++i)
      if (scanf("%f", &x[i]) != 1) return 0;
    printf("%.9g\n", web_score(x));
  }
}
END
sed 's/^[^ ]* qid:[0-9]* //; s/[0-9]:\([^ ]*\)/\1/g' "$work/lists.txt" >"$work/features"

# compare NAME COMPILER...: what the compiled header prints are the scores of score_ranker.
compare() {
  local problem=
  "$programs/score_ranker" --device cpu --ranker "$work/$1" --data "$work/lists.txt" \
    --scores "$work/scores" >"$case_output" 2>&1 || problem="it cannot be scored"
  [[ -n $problem ]] || "${@:2}" -o "$work/main" "$work/main.c" -lm >"$case_output" 2>&1 || problem="it does not compile"
  if [[ -z $problem ]]; then
    "$work/main" <"$work/features" >"$work/printed"
    paste "$work/printed" "$work/scores" | awk '
      { d = $1 - $2; d = d < 0 ? -d : d; s = $2 < 0 ? -$2 : $2; if (NF != 2 || !(d <= 1e-5 * (s > 1 ? s : 1))) { print; bad = 1 } }
      END { exit bad || NR != '"$(wc -l <"$work/lists.txt")"' }' >"$case_output" || problem="scores differ"
  fi
  report "$1 as a C header" "$problem"
}

train linear --model linear --loss listnet --scaling zscore
train mlp --hidden 16 8
train clipped --hidden 8 --norm none --scaling clip=0.1,log1p,zscore,limit=1.5
train batch --hidden 16 8 --norm batch --input-norm --batch-size 8
train raw --hidden 8 --norm batch --input-norm --scaling none --batch-size 8
train normed --model linear --input-norm --batch-size 8
train unscaled --model linear --scaling none --loss ranknet
train grades --hidden 8 --loss ordinal
train classes --hidden 8 --loss mcrank
train thresholds --hidden 8 --loss prank
if command -v gcc >/dev/null; then
  for kind in linear mlp clipped batch raw normed unscaled grades classes thresholds; do
    export_ranker "$kind" --c-header "$work/ranker.h" --name web >"$case_output"
    compare "$kind" gcc -std=c99 -O2 -Wall -Wextra -pedantic -Werror
  done
  export_ranker mlp --c-header "$work/ranker.h" --name web >"$case_output"
  compare mlp gcc -x c++ -std=c++11 -Wall -Wextra -pedantic -Werror
else
  echo "skip C headers: gcc is not installed"
fi

expect "an ONNX file" 0 "features (documents, 4) to scores (documents), documents each by itself" \
  export_ranker mlp --onnx "$work/mlp.onnx"
grep -q "LayerNormalization" "$work/mlp.onnx" && problem= || problem="it has no norm"
report "… with the network" "$problem"
train attention --model attention --dim 8 --blocks 1
expect "an attention ranker" 0 "documents of one list" export_ranker attention --onnx "$work/attention.onnx"
train dasalc --model dasalc --hidden 8 --norm batch --input-norm --dim 8 --blocks 1 --batch-size 8
expect "a ranker of an mlp beside attention" 0 "documents of one list" export_ranker dasalc --onnx "$work/dasalc.onnx"
refused "… as a C header" "an attention ranker cannot be a C header" export_ranker dasalc --c-header "$work/b.h"
train minmax --model linear --scaling minmax
expect "scaling within lists" 0 "documents of one list" export_ranker minmax --onnx "$work/minmax.onnx"
expect "both files" 0 "float ranker_score(const float* features), of 4 features" \
  export_ranker linear --onnx "$work/a.onnx" --c-header "$work/a.h"

rm "$work/a.onnx"
refused "an attention ranker as a C header" "an attention ranker cannot be a C header" \
  export_ranker attention --onnx "$work/a.onnx" --c-header "$work/a.h"
[[ ! -e $work/a.onnx ]] && problem= || problem="the other file was written"
report "… and nothing is written" "$problem"
refused "minmax as a C header" "minmax" export_ranker minmax --c-header "$work/b.h"
refused "a name that C does not take" "cannot begin names of C" export_ranker mlp --c-header "$work/b.h" --name a-b
refused "no form" "give --onnx, --c-header or both" export_ranker mlp
refused "a folder without a ranker" "holds no ranker" export_ranker run-mlp --onnx "$work/b.onnx"
refused "a model in place of the ranker" "--onnx would overwrite $work/mlp/ranker.json" \
  export_ranker mlp --onnx "$work/mlp/ranker.json"
refused "two forms in one file" "--onnx and --c-header are one file" \
  export_ranker mlp --onnx "$work/b.onnx" --c-header "$work/./b.onnx"
refused "a file that cannot be written" "cannot write" export_ranker mlp --onnx /proc/none/a.onnx
refused "no ranker" "--ranker is required" "$programs/export_ranker" --onnx "$work/b.onnx"
