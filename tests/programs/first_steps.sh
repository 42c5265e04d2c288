#!/usr/bin/env bash
# examples/first_steps: each program runs by itself, learns what it is to learn, and names what is wrong
# with a file that it is given.
set -euo pipefail
source "$(dirname "$0")/cases.sh"
programs=$BINADE_BUILD/examples/first_steps
work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
cd "$work"
export OMP_WAIT_POLICY=passive  # the cores of a test may be shared

# number PATTERN: what stands in the brackets of the pattern in the last output.
number() { sed -nE "s/.*$1.*/\1/p" "$case_output" | tail -n 1; }
# holds NAME NUMBER CONDITION: an awk condition on x, which is the number.
holds() {
  local problem=
  [[ -n $2 ]] && awk -v x="$2" "BEGIN { exit !($3) }" || problem="it is ${2:-missing}"
  report "$1" "$problem"
}

expect "first_steps runs" 0 "[3, 12, 27]" "$programs/first_steps"
grep -q 'a · a is an error: matmul' "$case_output" && problem= || problem="not so"
report "… shows an error as what it is" "$problem"
holds "… finds the slope" "$(number 'y = ([0-9.]+) x \+ -[0-9.]+')" "x > 1.9 && x < 2.1"
holds "… and the offset" "$(number 'x \+ (-[0-9.]+)')" "x > -1.1 && x < -0.9"

expect "mlp_regression runs on a table of its own" 0 "best after epoch" "$programs/mlp_regression"
holds "… explains most of it" "$(number 'R² ([0-9.]+)')" "x > 0.9"
[[ -s mlp_regression.safetensors ]] && problem= || problem="no file"
report "… and leaves its weights" "$problem"
awk 'BEGIN { srand(1); print "u;v"; for (i = 0; i < 200; ++i) { u = rand(); print u ";" 3 * u - 1 } }' >line.csv
expect "mlp_regression reads a table" 0 "best after epoch" "$programs/mlp_regression" line.csv
holds "… and explains it" "$(number 'R² ([0-9.]+)')" "x > 0.99"
expect "mlp_regression names a file that is missing" 1 "no-such.csv" "$programs/mlp_regression" no-such.csv
printf 'a,b\n1,2\n1,x\n' >words.csv
expect "… the line that is no row of numbers" 1 "words.csv:3: \"x\" is no number" "$programs/mlp_regression" words.csv
printf 'a,b\n1,2\n' >short.csv
expect "… a table that is too short" 1 "needs 10 rows" "$programs/mlp_regression" short.csv
{ cat line.csv; echo "1;NA"; } >missing.csv
expect "… and one with missing values" 1 "has missing values" "$programs/mlp_regression" missing.csv

expect "char_gpt runs on a text of its own" 0 "fp16 on cpu" env CUDA_VISIBLE_DEVICES= "$programs/char_gpt"
holds "… learns to write it" "$(number 'step 300: loss ([0-9.]+)')" "x < 0.5"
# Of the sentences that it wrote whole, most compare right.
holds "… and what it writes is true" "$(awk '
  BEGIN { n = split("zero one two three four five six seven eight nine", words, " ")
          for (i = 1; i <= n; ++i) value[words[i]] = i }
  /^[a-z]+ is ((less|more) than )?[a-z]+\.$/ {
    last = substr($NF, 1, length($NF) - 1)
    if (!($1 in value) || !(last in value)) next
    ++all; order = value[$1] - value[last]
    right += $3 == "less" ? order < 0 : $3 == "more" ? order > 0 : order == 0
  }
  END { print all ? right / all : "none" }' "$case_output")" "x >= 0.5"
for i in {1..300}; do echo 'abcd efgh'; done >text
expect "char_gpt reads a text, in the preset that is named" 0 "bf16 on cpu" \
  env CUDA_VISIBLE_DEVICES= "$programs/char_gpt" text bf16
holds "… and learns it" "$(number 'step 300: loss ([0-9.]+)')" "x < 0.1"
expect "char_gpt names the presets" 1 "fp16" "$programs/char_gpt" text half
echo short >short
expect "char_gpt asks for more text" 1 "needs more than" "$programs/char_gpt" short

expect "gan runs" 0 "of 8 clouds" "$programs/gan"
holds "… finds most clouds" "$(number '^([0-9]+) of 8 clouds')" "x >= 6"
holds "… and draws into them" "$(number ', ([0-9.]+) % of the points')" "x > 50"

expect "autoencoder runs on pictures of its own" 0 "mean error of a pixel" "$programs/autoencoder"
mean_picture=$(number 'mean picture ([0-9.]+)')
holds "… and draws them again" "$(number 'of a pixel: ([0-9.]+)')" "x < 0.6 * ${mean_picture:-0}"
header=$(head -c 14 autoencoder.pgm | tr '\n' ' ')
[[ $header == "P5 280 56 255 " && $(wc -c <autoencoder.pgm) == $((14 + 280 * 56)) ]] &&
  problem= || problem="it begins with $header and has $(wc -c <autoencoder.pgm) bytes"
report "… into a file that viewers read" "$problem"
images=/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz
if [[ -f $images ]]; then
  expect "autoencoder reads Fashion-MNIST" 0 "mean error of a pixel" "$programs/autoencoder" "$images" fp32
  mean_picture=$(number 'mean picture ([0-9.]+)')
  holds "… and draws that again" "$(number 'of a pixel: ([0-9.]+)')" "x < 0.6 * ${mean_picture:-0}"
  expect "autoencoder refuses labels" 1 "expected images of 28 × 28 pixels" \
    "$programs/autoencoder" "${images/images-idx3/labels-idx1}"
else
  echo "skip autoencoder reads Fashion-MNIST: the package dataset-fashion-mnist is not installed"
fi
