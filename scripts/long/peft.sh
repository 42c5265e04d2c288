#!/usr/bin/env bash
# Compares LoRA with PEFT from pip: which layers an adapter_config.json means, with which rank and
# scale (tests/nn/peft_targets.json is made again and must be the same), whether every key that PEFT
# writes is known, and the logits of tiny models with adapters that PEFT saved.
#
# Usage: scripts/long/peft.sh [BUILD FOLDER]     BINADE_PEFT_PYTHON: a Python that has PEFT
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

build=${1:-${BINADE_BUILD:-$root/build}}
[[ -x $build/tests/binade_tests ]] || die "build the target binade_tests first, or name the build folder"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${BINADE_PEFT_PYTHON:-}
if [[ -z $python ]]; then
  say "Installing PEFT, transformers and PyTorch from pip"
  python3 -m venv "$work/venv"
  # PyTorch without CUDA where its own index can be reached.
  "$work/venv/bin/pip" install --quiet --extra-index-url https://download.pytorch.org/whl/cpu \
    torch peft==0.21.2 transformers==5.24.0 safetensors
  python=$work/venv/bin/python
fi
export PYTHONWARNINGS=ignore

say "Asking PEFT which layers are adapted"
"$python" "$root/scripts/long/peft_cases.py" targets "$work/peft_targets.json"
diff "$root/tests/nn/peft_targets.json" "$work/peft_targets.json" ||
  die "PEFT's answers are not those of tests/nn/peft_targets.json"

say "Comparing logits"
mkdir "$work/models"
"$python" "$root/scripts/long/peft_cases.py" models "$work/models"
BINADE_PEFT_MODELS=$work/models "$build/tests/binade_tests" "[peft],[.peft]"
