#!/usr/bin/env bash
# Compares the ranking losses and their gradients with those of the pip package rax (on JAX).
#
# Usage: scripts/long/rank_losses.sh [BUILD FOLDER]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

build=${1:-${BINADE_BUILD:-$root/build}}
[[ -f $build/build.ninja ]] || die "configure the build first, or name its folder"
build "$build" binade_rank_losses
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say "Installing rax from pip"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet rax==0.4.0
say "Comparing"
"$work/venv/bin/python" -W ignore "$root/scripts/long/compare_rank_losses.py" --program "$build/tests/binade_rank_losses"
