#!/usr/bin/env bash
# Compares the rendering of random chat templates with the pip package jinja2, set up as
# transformers does.
#
# Usage: scripts/long/chat_templates.sh [BUILD FOLDER]
#   BINADE_CHAT_TEMPLATES: a folder of templates, *.jinja and */tokenizer_config.json, to be compared, too
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

build=${1:-${BINADE_BUILD:-$root/build}}
[[ -f $build/build.ninja ]] || die "configure the build first, or name its folder"
build "$build" binade_templates
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say "Installing jinja2 from pip"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet jinja2==3.1.6
say "Comparing"
"$work/venv/bin/python" -W ignore "$root/scripts/long/compare_templates.py" --program "$build/tests/binade_templates"
if [[ -n ${BINADE_CHAT_TEMPLATES:-} ]]; then
  "$work/venv/bin/python" -W ignore "$root/scripts/long/compare_templates.py" --program "$build/tests/binade_templates" \
    --templates "$BINADE_CHAT_TEMPLATES"
fi
