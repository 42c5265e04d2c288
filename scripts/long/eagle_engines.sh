#!/usr/bin/env bash
# Compares files of EAGLE heads with the classes of the engines that read them: vLLM's from its source
# package, SGLang's from its pip package. The classes load the language model and the head, choose the
# layers whose streams the head reads, and compute logits. (What tests/heads/eagle/engine_names.json says was
# printed by `eagle_engines.py names`.)
#
# Usage: scripts/long/eagle_engines.sh [BUILD FOLDER]
#   BINADE_TORCH_PYTHON: a Python that has torch, transformers and safetensors
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
source "$root/scripts/long/engines.sh"

build=${1:-${BINADE_BUILD:-$root/build}}
[[ -x $build/tests/binade_tests ]] || die "build the target binade_tests first, or name the build folder"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=$(torch_python "$work")

say "Fetching the engines' sources"
vllm=$(vllm_source "$work" 0.33.0 llama_eagle3.py)
# The last version whose layers add up the residual stream themselves; later ones leave that to layers of
# their own, and read the same names.
python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$work/sources" sglang==0.5.9
python3 -m zipfile -e "$work"/sources/sglang-*.whl "$work/sglang"

say "Comparing"
mkdir "$work/heads"
BINADE_EAGLE_ENGINES=$work/heads "$build/tests/binade_tests" "[.eagle-engines-write]"
TRANSFORMERS_VERBOSITY=error PYTHONWARNINGS=ignore "$python" "$root/scripts/long/eagle_engines.py" compare \
  "$work/heads" vllm="$vllm" sglang="$work/sglang"
