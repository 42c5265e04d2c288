#!/usr/bin/env bash
# Compares the metrics of evaluate_ranking, list by list, with scikit-learn's ndcg_score and with
# trec_eval (pip package pytrec-eval-terrier) on random lists with many ties.
#
# Usage: scripts/long/rank_metrics.sh [BUILD FOLDER]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

build=${1:-${BINADE_BUILD:-$root/build}}
[[ -f $build/build.ninja ]] || die "configure the build first, or name its folder"
build "$build" evaluate_ranking
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say "Installing scikit-learn and pytrec-eval-terrier from pip"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet scikit-learn==1.7.2 pytrec-eval-terrier==0.5.11
say "Comparing"
"$work/venv/bin/python" "$root/scripts/long/compare_rank_metrics.py" \
  --program "$build/examples/evaluate_ranking" --work "$work"
