#!/usr/bin/env bash
# evaluate_ranking: numbers under several conventions, tables, tests of two files of scores, and what
# it says to bad input.
set -euo pipefail
source "$(dirname "$0")/cases.sh"
work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT

# Two lists ranked by feature 1: one perfectly, one the wrong way round; a third is irrelevant.
cat >"$work/lists.txt" <<'END'
2 qid:1 1:3 2:1 #docid = a
0 qid:1 1:1 2:1 #docid = b
0 qid:2 1:5 2:1 #docid = a
1 qid:2 1:4 2:1 #docid = b
0 qid:3 1:5 2:1 #docid = a
0 qid:3 1:4 2:1 #docid = b
END
printf '3\n1\n5\n4\n5\n4\n' >"$work/scores"
printf '1\n3\n4\n5\n5\n4\n' >"$work/other"
evaluate() { "$BINADE_BUILD/examples/evaluate_ranking" --data "$work/lists.txt" "$@"; }
scores() { evaluate --scores "$work/scores" "$@"; }

# (1 + 1/log2(3) + 0)/3 = 0.5436
expect "NDCG of a file of scores" 0 "NDCG@5   0.5436" scores
expect "the same from a feature" 0 "NDCG@10  0.5436" evaluate --feature 1 --metrics ndcg@10
expect "lists without relevant documents left out" 0 "NDCG     0.8155" scores --convention skip --metrics ndcg
expect "the convention beside the number" 0 \
  "lists without relevant documents count 1, ties by input order (3 of 3 lists, 1 without" \
  scores --convention lightgbm
expect "a policy of one's own" 0 "count 1, ties in the mean" scores --empty-lists one --ties expected
expect "bounds of ties" 0 "ties 0.4206 to 0.6667" evaluate --feature 2 --metrics ndcg
expect "ties by falling names" 0 "MRR      0.5000" \
  evaluate --feature 2 --metrics mrr --convention trec_eval
expect "every convention" 0 "dasalc" scores --convention all
expect "an average relevance position" 0 "ARP      1.5000" scores --metrics arp
expect "a paired test" 0 "p = 1 (all 8 sign patterns)" \
  scores --baseline "$work/other" --metrics ndcg
printf '0 qid:1 1:1\n' >"$work/irrelevant.txt"
expect "JSON for programs" 0 '"metric":"NDCG","value":0.54' scores --metrics ndcg --json-lines
expect "… of a metric that nothing counts for" 0 '"value":null' \
  "$BINADE_BUILD/examples/evaluate_ranking" --data "$work/irrelevant.txt" --feature 1 --metrics arp --json-lines
scores --metrics ndcg mrr --convention skip one --per-query "$work/table.csv" >"$case_output"
printf '%s\n' 'query,documents,NDCG skip,MRR skip,NDCG one,MRR one' '1,2,1,1,1,1' \
  '2,2,0.6309297535714575,0.5,0.6309297535714575,0.5' '3,2,,,1,1' >"$work/expected.csv"
diff "$work/table.csv" "$work/expected.csv" >"$case_output" && problem= || problem="the table differs"
report "a table of every query" "$problem"
printf 'y,q,f\n2,1,3\n0,1,1\n' >"$work/table_in.csv"
expect "a table of lists" 0 "NDCG     1.0000" "$BINADE_BUILD/examples/evaluate_ranking" \
  --data "$work/table_in.csv" --label-column y --query-column q --feature 0 --metrics ndcg
sed 's/ 2:1/ 2:NULL/' "$work/lists.txt" >"$work/null.txt"
expect "features that do not matter may be missing" 0 "NDCG     0.5436" \
  "$BINADE_BUILD/examples/evaluate_ranking" --data "$work/null.txt" --scores "$work/scores" --metrics ndcg
refused "… but not where one is the score" "null.txt:1:15: expected a value" \
  "$BINADE_BUILD/examples/evaluate_ranking" --data "$work/null.txt" --feature 1
printf '1 qid:1 1:1\n0 qid:2 1:1\n2 qid:1 1:1\n' >"$work/apart.txt"
printf '1\n5\n2\n' >"$work/three"
apart() { "$BINADE_BUILD/examples/evaluate_ranking" --data "$work/apart.txt" --scores "$work/three" "$@"; }
refused "a query in two places" "apart.txt:3: query 1 is here again" apart
# Scores follow their documents: list 1 has the labels 1, 2 and the scores 1, 2.
expect "… brought together with its scores" 0 "NDCG     0.5000" apart --group-by-qid --metrics ndcg

printf '3\n1\n' >"$work/short"
printf '3\n1\nx\n4\n5\n4\n' >"$work/bad"
printf '4 qid:1 1:1\n' >"$work/graded.txt"
refused "scores of another number" "short has 2 scores, but there are 6 documents" \
  evaluate --scores "$work/short"
refused "a baseline of another number" "short has 2 scores" scores --baseline "$work/short"
refused "a score that is no number" "bad:3: expected a score, found" evaluate --scores "$work/bad"
refused "a file that is not there" "cannot open" evaluate --scores "$work/none"
refused "neither scores nor a feature" "give either --scores or --feature" evaluate
refused "both" "give either --scores or --feature" scores --feature 1
refused "a feature that is not there" "there is no feature 3, only 1 to 2" evaluate --feature 3
refused "feature 0 of files that begin with 1" "there is no feature 0" evaluate --feature 0
refused "k of 0" "expected a whole number from 1 behind @" scores --metrics ndcg@0
refused "k below 0" "expected a whole number from 1 behind @" scores --metrics ndcg@-3
refused "an unknown metric" "did you mean ndcg?" scores --metrics ndgc
refused "an unknown convention" "did you mean lightgbm?" scores --convention lightgmb
refused "an unknown order of ties" "no order of ties" scores --ties middle
refused "a label that a gain table lacks" "gain table of letor4" \
  "$BINADE_BUILD/examples/evaluate_ranking" --data "$work/graded.txt" --feature 1 --convention letor4
expect "… which leaves the convention out of all" 0 "letor4 is left out" \
  "$BINADE_BUILD/examples/evaluate_ranking" --data "$work/graded.txt" --feature 1 --convention all
refused "a label above the largest" "larger than the largest one" scores --largest-label 1 --metrics err
refused "ties by names that are not there" "need the names of the documents" \
  "$BINADE_BUILD/examples/evaluate_ranking" --data "$work/graded.txt" --feature 1 --ties name
refused "no rounds" "--rounds" scores --rounds 0
refused "a table in place of the lists" "--per-query would overwrite $work/lists.txt" \
  scores --per-query "$work/../$(basename "$work")/lists.txt"
ln -s "$work/scores" "$work/link"
refused "a table in place of the scores" "--per-query would overwrite $work/scores" scores --per-query "$work/link"
{ printf '\xef\xbb\xbf' && cat "$work/scores"; } >"$work/marked"
expect "scores behind a byte order mark" 0 "NDCG@5   0.5436" evaluate --scores "$work/marked"
refused "no data" "--data is required" "$BINADE_BUILD/examples/evaluate_ranking" --feature 1
: >"$work/empty.txt"
refused "an empty file" "has no documents" "$BINADE_BUILD/examples/evaluate_ranking" \
  --data "$work/empty.txt" --feature 1
refused "tables and lines" "--data mixes tables" "$BINADE_BUILD/examples/evaluate_ranking" \
  --data "$work/lists.txt" "$work/table_in.csv" --feature 1
refused "a table that cannot be written" "cannot write" scores --per-query /proc/none/a.csv
