#!/usr/bin/env bash
# Compares tiny models of every family and rope type with transformers from pip: every logit, loss,
# gradient and greedy text, and whether transformers reads them as they were when Binade has saved
# them. tests/nn/transformers_models.json is made again, too: its numbers must
# be the same to 3e-5.
#
# Usage: scripts/long/transformers.sh [BUILD FOLDER]
#        BINADE_TRANSFORMERS_PYTHON: a Python that has transformers
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

build=${1:-${BINADE_BUILD:-$root/build}}
[[ -x $build/tests/binade_tests ]] || die "build the target binade_tests first, or name the build folder"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${BINADE_TRANSFORMERS_PYTHON:-}
if [[ -z $python ]]; then
  say "Installing transformers and PyTorch from pip"
  python3 -m venv "$work/venv"
  # PyTorch without CUDA where its own index can be reached.
  "$work/venv/bin/pip" install --quiet --extra-index-url https://download.pytorch.org/whl/cpu \
    torch transformers==5.24.0 safetensors
  python=$work/venv/bin/python
fi
export PYTHONWARNINGS=ignore

say "Asking transformers"
"$python" "$root/scripts/long/transformers_cases.py" compare "$root/tests/nn/transformers_models.json" ||
  die "transformers' answers are not those of tests/nn/transformers_models.json"
mkdir "$work/models"
"$python" "$root/scripts/long/transformers_cases.py" models "$work/models"

say "Comparing every number"
mkdir "$work/saved"
BINADE_TRANSFORMERS_MODELS=$work/models BINADE_TRANSFORMERS_SAVED=$work/saved \
  "$build/tests/binade_tests" "[.transformers]"

say "Reading back what was saved"
"$python" "$root/scripts/long/transformers_cases.py" saved "$work/saved"
