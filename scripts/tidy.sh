#!/usr/bin/env bash
# Checks the layout (clang-format) and the habits (clang-tidy) of the sources.
#
#   scripts/tidy.sh [FILE...]        all that git knows, if no file is named
#
# clang-tidy reads .cpp files of a configured build folder; it takes seconds for each.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ ${1:-} == --help ]] && usage && exit
cd "$root"
have clang-format && have clang-tidy ||
  die "needs the Debian packages clang-format and clang-tidy"
[[ -f build/compile_commands.json ]] ||
  die "needs a configured build folder: run cmake -S . -B build -G Ninja first"

if (($#)); then files=("$@"); else mapfile -t files < <(git ls-files '*.h' '*.cpp' '*.cu'); fi
clang-format --dry-run --Werror "${files[@]}"
# clang-tidy cannot read the precompiled headers of GCC.
database=$(mktemp -d)
trap 'rm -rf "$database"' EXIT
sed -E 's/ -Winvalid-pch .*cmake_pch\.hxx / /' build/compile_commands.json >"$database/compile_commands.json"
printf '%s\n' "${files[@]}" | { grep '\.cpp$' || true; } |
  xargs --no-run-if-empty --max-procs="$(nproc)" --max-args=1 \
    clang-tidy -p "$database" --quiet --extra-arg=-Wno-unknown-warning-option
