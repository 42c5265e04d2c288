#!/usr/bin/env bash
# Compares our tokenizers with the pip packages `tokenizers` and `sentencepiece` on 10,000 random
# Unicode strings.
#
# Usage: scripts/long/tokenizers.sh [BUILD FOLDER]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

build=${1:-${BINADE_BUILD:-$root/build}}
shared=${BINADE_SHARED:-$root/../shared}
[[ -x $build/examples/tokenize ]] || die "build the target tokenize first, or name the build folder"
[[ -d $shared/models ]] || die "needs the shared data; set BINADE_SHARED to its folder"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say "Installing tokenizers and sentencepiece from pip"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet tokenizers==0.23.3 sentencepiece
say "Comparing"
"$work/venv/bin/python" "$root/scripts/long/compare_tokenizers.py" \
  --program "$build/examples/tokenize" --shared "$shared" --work "$work"
