#!/usr/bin/env bash
# A project outside the tree finds the installed package, builds against it and runs.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$BINADE_BUILD" --prefix "$work/prefix" >/dev/null
cmake -S "$(dirname "$0")/../outside" -B "$work/build" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix"
cmake --build "$work/build"
"$work/build/regression"
