#!/usr/bin/env bash
# Compares files of Medusa heads with the classes of the engines that read them, both ways: vLLM's and
# FasterDecoding's from their pip packages, TGI's and TensorRT-LLM's from folders of their sources. (What
# tests/heads/medusa/engine_names.json says was printed by `medusa_engines.py names`.)
#
# Usage: scripts/long/medusa_engines.sh [BUILD FOLDER]
#   BINADE_TORCH_PYTHON: a Python that has torch, transformers and safetensors
#   BINADE_TGI_SOURCE: text-generation-inference's repository; without it that part is skipped
#   BINADE_TENSORRT_LLM_SOURCE: TensorRT-LLM's, likewise
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
source "$root/scripts/long/engines.sh"

build=${1:-${BINADE_BUILD:-$root/build}}
[[ -x $build/tests/binade_tests ]] || die "build the target binade_tests first, or name the build folder"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=$(torch_python "$work")

say "Fetching the engines' sources"
vllm=$(vllm_source "$work" 0.32.0 medusa.py)  # the last version of vLLM with Medusa
python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$work/sources" medusa-llm==0.1
python3 -m zipfile -e "$work"/sources/medusa_llm-*.whl "$work/medusa"

say "Comparing"
export BINADE_MEDUSA_ENGINES=$work/heads
mkdir "$work/heads"
"$build/tests/binade_tests" "[.medusa-engines-write]"
for case in "$work"/heads/*/original; do "$python" "$root/scripts/medusa_to_pt.py" "$case"; done
TRANSFORMERS_VERBOSITY=error PYTHONWARNINGS=ignore "$python" "$root/scripts/long/medusa_engines.py" compare \
  "$work/heads" vllm="$vllm" fasterdecoding="$work/medusa" ${BINADE_TGI_SOURCE:+tgi="$BINADE_TGI_SOURCE"} \
  ${BINADE_TENSORRT_LLM_SOURCE:+tensorrt_llm="$BINADE_TENSORRT_LLM_SOURCE"}
"$build/tests/binade_tests" "[.medusa-engines-read]"
