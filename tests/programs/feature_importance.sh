#!/usr/bin/env bash
# feature_importance: which features matter to a ranker that is known, its files, and what it says to
# bad input.
set -euo pipefail
source "$(dirname "$0")/cases.sh"
work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
programs=$BINADE_BUILD/examples
export OMP_NUM_THREADS=1

# Feature 3 is the label with some noise, 7 says nothing, 9 is always the same; numbered from 0.
make_lists() {  # LABELS
  awk -v labels="$1" 'BEGIN { srand(8); for (q = 1; q <= 40; ++q) for (i = 0; i < 9; ++i) {
    y = int(rand() * labels); printf "%d qid:%d 0:%.4f 3:%.4f 7:%.4f 9:2\n", y, q, rand(), y + rand(), rand() } }'
}
make_lists 3 >"$work/lists.txt"
"$programs/train_ranker" --device cpu --train "$work/lists.txt" --model linear --loss listnet --steps 200 \
  --learning-rate 0.05 --quiet --run-dir "$work/run" --save "$work/ranker" >"$case_output"
importance() {
  "$programs/feature_importance" --device cpu --ranker "$work/ranker" --data "$work/lists.txt" "$@"
}

expect "a table of features" 0 "NDCG@10" importance --output "$work/a.tsv"
# features: numbers in the order of the table, of the last output.
features() { awk '$3 == "±" { printf "%s ", $1 }' "$case_output"; }
[[ $(features) == "3 "* ]] && problem= || problem="it begins with $(features)"
report "… begins with the one that says most" "$problem"
[[ $(features | wc -w) == 10 ]] && problem= || problem="$(features | wc -w) of 10 features"
report "… has them all" "$problem"
grep -qE '^ +9  \+0\.0000 ± 0\.0000  constant$' "$case_output" && problem= || problem="not so"
report "… says which are constant" "$problem"
awk -F'\t' 'NR == 1 { ok = $0 == "feature\tdrop\tdeviation\tconstant\tdrops" } NR == 2 { ok = ok && $1 == 3 && $2 > 0.1 && split($5, d, ",") == 5 }
  $1 == 9 && NR > 1 { ok = ok && $2 == 0 && $4 == 1 } END { exit !(ok && NR == 11) }' "$work/a.tsv" && problem= || problem="not so"
report "a table in a file" "$problem"
expect "objects of JSON" 0 "wrote" importance --output "$work/a.jsonl" --repeats 2
head -n 1 "$work/a.jsonl" | grep -q '^{"feature":3,"drop":0\.[0-9]*,"deviation":[^,]*,"constant":false,"drops":\[0\.[0-9]*,0\.[0-9]*\]}$' &&
  problem= || problem="not so: $(head -n 1 "$work/a.jsonl")"
report "… with every permutation" "$problem"
expect "the same again" 0 "wrote" importance --output "$work/b.tsv"
cmp "$work/a.tsv" "$work/b.tsv" >"$case_output" && problem= || problem="other numbers"
report "… is the same" "$problem"
expect "another seed" 0 "wrote" importance --output "$work/b.tsv" --seed 3
cmp -s "$work/a.tsv" "$work/b.tsv" && problem="the same numbers" || problem=
report "… gives other permutations" "$problem"
expect "values that stay in their lists" 0 "within lists" importance --within-lists --metric map --convention zero
[[ $(features) == "3 "* ]] && problem= || problem="it begins with $(features)"
report "… tell the same feature" "$problem"
expect "a metric whose smaller values are better" 0 "ARP" importance --metric arp
[[ $(features) == "3 "* ]] && problem= || problem="it begins with $(features)"
report "… falls, too" "$problem"

# The last feature is 0 in all of these lines, which leave it out.
sed 's/ 9:2$//' "$work/lists.txt" >"$work/sparse.txt"
sed 's/ 9:2$/ 9:0/' "$work/lists.txt" >"$work/dense.txt"
of() { "$programs/feature_importance" --device cpu --ranker "$work/ranker" --data "$work/$1.txt" "${@:2}"; }
refused "lines that leave the last feature out" "the ranker has 10; if they leave features out" \
  of sparse
expect "… which may be 0 in all of them" 0 "wrote" of sparse --sparse --output "$work/a.tsv"
expect "… as if it stood there" 0 "wrote" of dense --output "$work/b.tsv"
cmp "$work/a.tsv" "$work/b.tsv" >"$case_output" 2>&1 && problem= || problem="other numbers"
report "… to the bit" "$problem"
sed '3s/$/ 10:1/' "$work/lists.txt" >"$work/more.txt"
refused "more features than the ranker has" "more.txt:3:" of more --sparse

refused "a ranker that is not there" "holds no ranker" \
  "$programs/feature_importance" --ranker "$work" --data "$work/lists.txt"
refused "an unknown metric" "did you mean ndcg?" importance --metric ndgc
refused "k of 0" "expected a whole number from 1 behind @" importance --metric ndcg@0
refused "an unknown convention" "did you mean lightgbm?" importance --convention lightgmb
refused "no permutation" "--repeats" importance --repeats 0
refused "a form of file that there is not" "a .tsv or a .jsonl file" importance --output "$work/a.csv"
cp "$work/lists.txt" "$work/lists.tsv"
refused "a table in place of the lists" "--output would overwrite $work/lists.tsv" \
  importance --data "$work/lists.tsv" --output "$work/lists.tsv"
refused "a file that cannot be written" "cannot write" importance --output /proc/none/a.tsv
refused "no lists" "--data is required" "$programs/feature_importance" --ranker "$work/ranker"
make_lists 1 >"$work/lists.txt"
refused "lists without relevant documents" "no list has a value of NDCG@10" importance
make_lists 5 >"$work/lists.txt"
refused "labels outside a gain table" "the gain table of letor4" importance --convention letor4
sed -i 's/$/ 12:1/' "$work/lists.txt"
refused "lists with other features" "the ranker has 10 features, the lists have 13" importance
echo "1 qid:1 0:x" >"$work/lists.txt"
refused "a malformed line" "lists.txt:1:" importance
: >"$work/lists.txt"
refused "an empty file" "lists.txt" importance
