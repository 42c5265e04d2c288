# What the tests of training on several ranks share: sourced behind cases.sh, with the folder $work,
# and the program with its options in the array `program`.

# ranks N FOLDER ARGUMENTS...: trains on N ranks into a folder of $work. RANKS in an argument is N.
ranks() {
  local n=$1 folder=$2
  shift 2
  timeout 120 "$BINADE_BUILD/examples/binade-run" -n "$n" --join-seconds 20 "${program[@]}" \
    --run-dir "$work/$folder" "${@//RANKS/$n}"
}
# What a run's rows say, without how fast it was and how much memory it took.
rows() { sed -E 's/"(peak_gib|exposed_ms|longest_wait_ms|slowest_rank|[a-z]*_per_s)":[^,}]*,?//g' "$work/$1/metrics.jsonl"; }
# What differs between two runs.
difference() {
  local file
  for file in "$work/$1"/checkpoints/*; do
    cmp "$file" "$work/$2/checkpoints/$(basename "$file")" || return 0
  done 2>&1
  diff <(rows "$1") <(rows "$2") | head -n 5 || true
}

# same NAME ARGUMENTS...: 1, 2 and 4 ranks write the same checkpoints and rows.
same() {
  local name=$1 n problem=
  shift
  rm -rf "$work"/run-*
  for n in 1 2 4; do
    ranks "$n" "run-$n" "$@" >"$case_output" 2>&1 || problem="$n ranks end with status $?"
    [[ -n $problem || $n == 1 ]] || problem=$(difference run-1 "run-$n")
    [[ -z $problem ]] || break
  done
  report "$name" "${problem:+$n ranks: $problem}"
}

# Of the last same(): scaling of the loss has found its scale on the way.
some_skipped() {
  local problem=
  grep -q '"skipped":true' "$work/run-1/metrics.jsonl" || problem="no step was skipped"
  grep -q '"skipped":false' "$work/run-1/metrics.jsonl" || problem="every step was skipped"
  report "… and some of its steps were skipped" "$problem"
}
