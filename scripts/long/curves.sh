#!/usr/bin/env bash
# Trains a GPT of 12 million parameters with three seeds in FP32, FP16, BF16, FP16 without loss
# scaling and FP16 without masters, on WikiText-2's validation text, and evaluates each on its test
# text. Writes results.json and curves.svg, and fails unless FP16 and BF16 end within 0.5 % of FP32.
#
# Usage: scripts/long/curves.sh [OUTPUT FOLDER [STEPS]]
#
# Takes hours without a GPU, where it says so and stops.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

build=${BINADE_BUILD:-$root/build}
shared=${BINADE_SHARED:-$root/../shared}
text=$shared/data/text/wikitext2-valid.txt test=$shared/data/text/wikitext2-test.txt
output=${1:-$root/runs/curves} steps=${2:-400}
presets=(fp32 fp16 bf16 fp16-static:1 fp16-pure)
seeds=(1 2 3)

if ! has_gpu; then
  echo "skip curves: needs a GPU"
  exit 0
fi
for program in train_gpt evaluate plot_runs; do
  [[ -x $build/examples/$program ]] || die "build the examples first"
done
[[ -r $text && -r $test ]] || die "needs the shared data; set BINADE_SHARED to its folder"
mkdir -p "$output"

for seed in "${seeds[@]}"; do
  for preset in "${presets[@]}"; do
    run=$output/$preset-$seed
    if [[ ! -s $run.evaluation ]]; then
      say "$preset, seed $seed"
      resume=()
      [[ -e $run/config.json ]] && resume=(--resume)
      # A run may fail visibly: that is what the last two presets are here for.
      "$build/examples/train_gpt" --run-dir "$run" "${resume[@]}" --text "$text" --vocabulary 4096 \
        --validation-text "$test" --validation-batches 1000 --validate-every 100 --checkpoint-every 0 \
        --layers 6 --dim 384 --heads 6 --seq-len 256 --batch-size 32 --dropout 0.1 \
        --learning-rate 1e-3 --warmup 40 --steps "$steps" --seed "$seed" --precision "$preset" \
        --sample-tokens 0 --quiet >"$run.log" 2>&1 ||
        say "$preset, seed $seed ended with: $(tail -n 1 "$run.log")"
      # The last weights, not the best ones: every preset is judged at the same step.
      last=$run/checkpoints/step-$(printf %09d "$steps").safetensors
      if [[ -s $last ]]; then
        "$build/examples/evaluate" --model "$last" --text "$test" >"$run.evaluation" 2>/dev/null
      else
        echo "failed" >"$run.evaluation"
      fi
    fi
  done
done

names=() runs=()
for preset in "${presets[@]}"; do
  names+=("$preset")
  runs+=("$output/$preset-${seeds[0]}")
done
"$build/examples/plot_runs" --runs "${runs[@]}" --names "${names[@]}" --output "$output/curves.svg"
python3 "$root/scripts/long/compare_curves.py" --folder "$output" --presets "${presets[@]}" \
  --seeds "${seeds[@]}" --steps "$steps"
