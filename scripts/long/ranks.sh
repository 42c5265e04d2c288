#!/usr/bin/env bash
# Options that are drawn, on one rank and several: equal byte for byte (rank_sweep.py).
#
# Usage: scripts/long/ranks.sh [BUILD FOLDER]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

build=${1:-${BINADE_BUILD:-$root/build}}
for program in train_gpt finetune_medusa finetune_mtp finetune_eagle train_ranker train_bagel binade-run; do
  [[ -x $build/examples/$program ]] || die "build the target $program first, or name the build folder"
done
exec python3 "$root/scripts/long/rank_sweep.py" "$build" --draws 30
