#!/usr/bin/env bash
# Trains a small GPT on the C and C++ headers of this machine, on the GPU if there is one, else on
# the CPU. Installs and builds what is missing first; what the run leaves lies in runs/demo, that of
# a second demo in runs/demo-2, and so on.
#
#   scripts/demo.sh [OPTION...]      options are passed on to build/examples/train_gpt
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ ${1:-} == --help ]] && usage && exit

build=$root/build
run=$root/runs/demo
for ((next = 2; ; ++next)); do
  [[ -e $run/config.json ]] || break
  run=$root/runs/demo-$next
done

if has_gpu; then
  "$root/scripts/setup.sh"
  nvcc=$(find_nvcc)
else
  "$root/scripts/setup.sh" --cuda off
  # A folder that is built with CUDA already stays so; compiling the kernels anew helps nobody.
  nvcc=
  grep -qs '^BINADE_CUDA:[A-Z]*=ON' "$build/CMakeCache.txt" && nvcc=$(find_nvcc)
fi
configure "$build" "$nvcc"
build "$build" train_gpt

# Enough to see it learn, in about a minute on two cores.
[[ " $* " == *" --steps"* ]] || set -- --steps 600 "$@"
say "training; Ctrl-C writes a checkpoint and stops, train_gpt --run-dir $run --resume goes on"
"$build/examples/train_gpt" --run-dir "$run" "$@"

say "what the run left in $run:"
ls -l "$run"
