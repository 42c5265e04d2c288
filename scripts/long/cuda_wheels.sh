#!/usr/bin/env bash
# The CUDA toolkit that scripts/setup.sh makes from pip wheels compiles, links and runs a .cu file.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

"$root/scripts/setup.sh" --cuda wheels
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

# Nothing of a toolkit on the system may help.
unset CUDA_HOME CUDA_PATH LIBRARY_PATH LD_LIBRARY_PATH
CUDACXX=$cache/cuda/bin/nvcc cmake -S "$root/tests/toolkit" -B "$build" -G Ninja \
  -DCMAKE_CUDA_ARCHITECTURES=90 -DCMAKE_PREFIX_PATH="$cache/cuda"
cmake --build "$build"
"$build/toolkit"
for library in libcudart libcublasLt libcudnn; do
  ldd "$build/toolkit" | grep "$library\.so" | grep -F "$(realpath "$cache")/cuda/lib" ||
    die "$library does not come from the toolkit made from wheels"
done
