#!/usr/bin/env bash
# retrieval_set: what it takes from headers, grades and BM25 beside awk's, that nothing of a comment
# becomes a feature, odd files, and what it says to bad input.
set -euo pipefail
source "$(dirname "$0")/cases.sh"
work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
headers=$work/headers
mkdir -p "$headers"/{a,b}
cat >"$headers/a/queue.h" <<'END'
/* Copyright of nobody. */
struct nothing;

// Adds an item behind all waiting items; queue_push never blocks.
void queue_push(struct queue *queue, int item);

/**
 * @brief Takes the oldest item away, and frees its memory.
 * @param queue where secret items wait
 */
int queue_pop(struct queue *queue);   // trailing secret

/* How many items may wait at once. */
#define QUEUE_LIMIT 100
END
cat >"$headers/a/stack.h" <<'END'
// Puts an item on top of the stack.
void pushOnStack(Stack stack, int item);

// Tells apart the stack's kinds of items.
enum class StackKind : int { first, second };

// Standing alone, as a blank line follows.

int undocumented;
END
cat >"$headers/b/sort.hpp" <<'END'
// Sorts numbers in rising order.
template <class T, class Less>
void sortNumbers(T* first /* secret */, T* last);

// Counts numbers of two vectors that differ.
int countDifferent(std::vector<int> a, std::vector<int> b);
// The end, and nothing to declare
END
retrieve_from() { "$BINADE_BUILD/examples/retrieval_set" --output "$work/set" --headers "$@"; }
retrieve() { retrieve_from "$headers" "$@"; }

# same NAME: a case that is good if $work/expected is what stands in $work/found.
same() {
  local problem=
  diff "$work/expected" "$work/found" >"$case_output" 2>&1 || problem="it differs"
  report "$1" "$problem"
}

expect "a set from headers" 0 "from 8 documented declarations of 3 headers" retrieve
cat >"$work/expected" <<'END'
a/queue.h:11: take oldest item away free memory
a/queue.h:14: how many item wait once
a/queue.h:5: add item behind waiting never block
a/stack.h:2: put item top stack
a/stack.h:5: tell apart stack kind item
b/sort.hpp:2: sort number rising order
b/sort.hpp:6: count number two vector differ
END
sed 's/^[0-9]* [a-z]* //' "$work/set/queries.txt" | sort >"$work/found"
same "… whose queries are the comments' words"
cut -d ' ' -f 2 "$work/set/queries.txt" | sort | uniq -c | awk '{ print $2, $1 }' >"$work/found"
printf '%s\n' "test 1" "train 5" "vali 1" >"$work/expected"
same "… in three parts"
cat "$work"/set/{train,vali,test}.txt >"$work/all.txt"
[[ $(wc -l <"$work/set/bm25.txt") == $(wc -l <"$work/set/test.txt") ]] && problem= || problem="another number"
report "… with BM25's scores of the test part" "$problem"

# 3 for the place of the query itself, 2 for its file, 1 for its folder.
awk '
  function part(path, pattern) { sub(pattern, "", path); return path }
  NR == FNR { sub(/:$/, "", $3); answer[$1] = $3; next }
  {
    split($2, id, ":"); a = answer[id[2]]; d = $0; sub(/.*docid = /, "", d); sub(/ .*/, "", d)
    expected = d == a ? 3 : part(d, ":.*") == part(a, ":.*") ? 2 : part(d, "/.*") == part(a, "/.*") ? 1 : 0
    if ($1 != expected) print "expected " expected ": " $0
    ++lines[id[2]]
  }
  END { for (q in answer) if (lines[q] != 8) print "query " q " has " lines[q] + 0 " lines" }
' "$work/set/queries.txt" "$work/all.txt" >"$case_output"
[[ -s $work/all.txt && ! -s $case_output ]] && problem= || problem="wrong grades"
report "grades fall from the declaration to its file, its folder and elsewhere" "$problem"

# BM25 of signatures, whose words are told here by hand: k1 = 1.2, b = 0.75.
cat >"$work/signatures" <<'END'
nothing struct nothing
queue_push void queue push struct queue queue int item
queue_pop int queue pop struct queue queue
QUEUE_LIMIT define queue limit 100
pushOnStack void push on stack stack stack int item
StackKind enum class stack kind int
sortNumbers template class class less void sort number first last
countDifferent int count different std vector int std vector int
END
awk '
  FILENAME ~ /signatures$/ {
    for (i = 2; i <= NF; ++i) if (count[$1, $i]++ == 0) ++with[$i]
    words[$1] = NF - 1; total += NF - 1; ++texts; next
  }
  FILENAME ~ /queries.txt$/ { q = $1; $1 = $2 = $3 = ""; query[q] = $0; next }
  {
    split($2, id, ":"); n = split(query[id[2]], sought, " "); score = 0
    for (i = 1; i <= n; ++i) {
      c = count[$NF, sought[i]]
      idf = log(1 + (texts - with[sought[i]] + 0.5) / (with[sought[i]] + 0.5))
      score += idf * c * 2.2 / (c + 1.2 * (0.25 + 0.75 * words[$NF] / (total / texts)))
    }
    split($5, feature, ":"); gap = score - feature[2]
    if (feature[1] != 3 || gap > 1e-4 || gap < -1e-4) print "expected 3:" score ": " $0
    if (score > 0) ++positive
  }
  END { if (positive < 10) print "only " positive + 0 " scores" }
' "$work/signatures" "$work/set/queries.txt" "$work/all.txt" >"$case_output"
[[ ! -s $case_output ]] && problem= || problem="other scores"
report "BM25 is the formula's" "$problem"

# The comment of StackKind is about something else: only its own query may change.
sort "$work/all.txt" >"$work/before.txt"
cp -r "$headers" "$work/changed"
sed -i 's|^// Tells apart.*|// Oldest numbers, sorted in the queue of secrets.|' "$work/changed/a/stack.h"
expect "a set from headers with another comment" 0 "wrote" retrieve_from "$work/changed"
own=$(awk '$3 == "a/stack.h:5:" { print $1 }' "$work/set/queries.txt")
cat "$work"/set/{train,vali,test}.txt | sort | grep -v " qid:$own " >"$work/found"
grep -v " qid:$own " "$work/before.txt" >"$work/expected"
same "… has the same features: none knows a candidate's comment"
grep -rq secret "$work/set"/{train,vali,test}.txt "$work/set/features.txt" &&
  problem="words of comments are there" || problem=
report "… and no words of comments" "$problem"

expect "one thread" 0 "wrote" retrieve --threads 1
cp -r "$work/set" "$work/first"
expect "… and two" 0 "wrote" retrieve --threads 2
diff -r "$work/first" "$work/set" >"$case_output" && problem= || problem="other files"
report "… give the same files" "$problem"
expect "another seed" 0 "wrote" retrieve --seed 7
cmp -s "$work/first/queries.txt" "$work/set/queries.txt" && problem="the same" || problem=
report "… gives others" "$problem"
expect "fewer candidates" 0 "wrote" \
  retrieve --retrieved 0 --same-file 1 --same-folder 0 --elsewhere 0
cat "$work"/set/{train,vali,test}.txt | cut -d ' ' -f 1 | sort | uniq -c | awk '{ print $2, $1 }' >"$work/found"
printf '%s\n' "2 7" "3 7" >"$work/expected"
same "… are those that were asked for"
expect "fewer queries" 0 "train: 1 queries" retrieve --queries 3 --valid-share 0.34 --test-share 0.34

# What lies among headers: not text, links to nowhere and to oneself, pipes, comments without an end.
mkdir "$headers/odd" "$headers/folder.h"
printf '// A comment.\nint \0binary;\n' >"$headers/odd/binary.h"
: >"$headers/odd/empty.h"
ln -s nowhere "$headers/odd/broken.h"
ln -s .. "$headers/odd/loop"
mkfifo "$headers/odd/pipe.h"
printf '/* Never ends\nint a;\n' >"$headers/odd/open.h"
printf '// Ends with the file' >"$headers/odd/last.h"
printf '// Opens many brackets\nint a((((((<<<[' >"$headers/odd/brackets.h"
printf '/**/\n#\n//\n#define\n// Of what?\n;\n/* */ /\n' >"$headers/odd/crumbs.h"
printf '// Caf\xe9 with odd bytes\nint caf\xe9_odd(int bytes);\n' >"$headers/odd/caf"$'\xe9'" b.h"
printf '// Windows ends its lines twice\r\nint windows_line(void);\r\n' >"$headers/odd/crlf.h"
head -c 5000000 /dev/zero | tr '\0' 'x' >"$headers/odd/large.h"
expect "odd files are passed over" 0 "of 6 headers" retrieve
grep -q 'odd/crlf.h:2: window end line twice' "$work/set/queries.txt" && problem= || problem="not there"
report "… and lines of Windows read" "$problem"
cat "$work"/set/{train,vali,test}.txt >"$work/all.txt"
expect "… into lines that can be read" 0 "documents" "$BINADE_BUILD/examples/evaluate_ranking" \
  --data "$work/all.txt" --feature 1 --metrics ndcg@10
rm -r "$headers/odd" "$headers/folder.h"

retrieve >"$case_output" 2>&1
expect "a ranker learns from it" 0 "test NDCG@10" "$BINADE_BUILD/examples/train_ranker" --fold "$work/set" \
  --model linear --steps 3 --device cpu --run-dir "$work/run" --test-scores "$work/scores"
expect "… and is compared with BM25 alone" 0 "baseline; difference" \
  "$BINADE_BUILD/examples/evaluate_ranking" --data "$work/set/test.txt" --scores "$work/scores" \
  --baseline "$work/set/bm25.txt" --metrics ndcg@10

refused "no output" "--output is required" "$BINADE_BUILD/examples/retrieval_set"
refused "a folder that is not there" "none is no folder of headers" retrieve_from "$work/none"
refused "a file in place of a folder" "is no folder of headers" retrieve_from "$headers/a/queue.h"
mkdir "$work/empty"
refused "a folder without headers" "no headers with documented declarations" \
  retrieve_from "$work/empty"
printf '// A first one\nint a;\n// Another one\nint b;\n' >"$work/empty/few.h"
refused "too few comments" "only 0 comments" retrieve_from "$work/empty"
refused "no queries" "--queries" retrieve --queries 0
refused "a negative count" "--same-file" retrieve --same-file -1
refused "shares that leave nothing" "leave nothing to train on" \
  retrieve --valid-share 0.5 --test-share 0.5
refused "a share that is none" "--test-share" retrieve --test-share nan
refused "an output that cannot be written" "cannot create" \
  "$BINADE_BUILD/examples/retrieval_set" --headers "$headers" --output /proc/none/set
