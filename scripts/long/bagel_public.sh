#!/usr/bin/env bash
# Compares models that read and draw with BAGEL's public code, both ways: the names and shapes of a folder's
# tensors, position tables, a training pass over a packed sample, drawings, edits and answers. (What
# tests/heads/flow/public_names.json says was printed by `bagel_public.py names`.)
#
#   git clone https://github.com/ByteDance-Seed/Bagel && git -C Bagel checkout 056b5fd
#   BINADE_BAGEL_SOURCE=$PWD/Bagel scripts/long/bagel_public.sh
#
# Usage: scripts/long/bagel_public.sh [BUILD FOLDER]
#   BINADE_BAGEL_SOURCE: that checkout; without it nothing is compared
#   BINADE_TORCH_PYTHON: a Python that has torch and safetensors
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
source "$root/scripts/long/engines.sh"

build=${1:-${BINADE_BUILD:-$root/build}}
[[ -x $build/tests/binade_tests ]] || die "build the target binade_tests first, or name the build folder"
if [[ -z ${BINADE_BAGEL_SOURCE:-} ]]; then
  echo "skip bagel_public: name a checkout of ByteDance-Seed/Bagel in BINADE_BAGEL_SOURCE"
  exit
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=$(torch_python "$work")
say "Installing the public code's version of transformers"
"$python" -m pip install --quiet --target "$work/packages" transformers==4.49.0 einops==0.8.1

say "Comparing"
export BINADE_BAGEL_PUBLIC=$work/models
mkdir "$work/models"
"$build/tests/binade_tests" "[.bagel-public-write]"
PYTHONPATH=$work/packages TRANSFORMERS_VERBOSITY=error PYTHONWARNINGS=ignore "$python" \
  "$root/scripts/long/bagel_public.py" compare "$BINADE_BAGEL_SOURCE" "$work/models"
"$build/tests/binade_tests" "[.bagel-public-read]"
