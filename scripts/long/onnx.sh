#!/usr/bin/env bash
# Trains rankers of every kind and scaling, exports them, checks the files with onnx.checker and
# compares the scores that ONNX Runtime gives with those of score_ranker.
#
# Usage: scripts/long/onnx.sh [BUILD FOLDER]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

build=${1:-${BINADE_BUILD:-$root/build}}
[[ -f $build/build.ninja ]] || die "configure the build first, or name its folder"
build "$build" train_ranker score_ranker export_ranker
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say "Installing onnx and onnxruntime from pip"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet onnx==1.23.2 onnxruntime==1.32.0
say "Comparing"
"$work/venv/bin/python" "$root/scripts/long/compare_onnx.py" --programs "$build/examples" --work "$work"
