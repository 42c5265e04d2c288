#!/usr/bin/env bash
# The GPU's kernels on the CPU (tests/emulated_cuda), where they were built.
set -euo pipefail
source "$(dirname "$0")/cases.sh"
program=$BINADE_BUILD/tests/emulated_cuda/emulated_cuda_tests
if [[ ! -x $program ]]; then
  echo "skip kernels of the GPU on the CPU: they are built where there is a CUDA toolkit, without sanitizers"
  exit
fi
# What takes less than a minute of one core, and neither graphs nor kernels that are not emulated.
export OMP_NUM_THREADS=1
expect "kernels of the GPU on the CPU" 0 " 0 failed, 0 skipped" \
  "$program" '[emulation],[sizes],[images]~"norms*"~"*bits*",[gradients]~"*graph*"~"folds*",fused attention over splits takes fewer*,fused attention over splits gives*,the backward pass of a norm takes more*,merged rows*'
