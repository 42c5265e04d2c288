#!/usr/bin/env bash
# Runs every fuzz target of tests/fuzz with AddressSanitizer and UBSan for a minute, from its
# committed corpus (tests/fuzz/corpus/NAME). Needs clang.
#
# A target is tests/fuzz/NAME_fuzz.cpp; the sources of the library that it needs stand in
# tests/fuzz/NAME_fuzz.sources, one pattern a line.
#
# Usage: scripts/long/fuzz.sh [SECONDS [NAME...]]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

seconds=${1:-60}
names=("${@:2}")
if ! have clang++; then
  echo "skip fuzz targets: clang++ is not installed (apt-get install clang)"
  exit
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$root"
mkdir "$work/include"
ln -s "$root" "$work/include/binade"
read -ra libraries < <(pkg-config --libs --cflags libpcre2-8 libutf8proc sentencepiece fmt spdlog zlib libpng libjpeg)
# A source may hold functions that the target does not call; what those need is not linked.
flags=(-std=c++20 -O1 -g1 -I"$work/include" -mavx2 -mfma -mf16c -DBINADE_HAVE_CUDA=0 -ffunction-sections
  -Wl,--gc-sections -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined)

if ((${#names[@]} == 0)); then
  for target in tests/fuzz/*_fuzz.cpp; do names+=("$(basename "$target" _fuzz.cpp)"); done
fi

status=0
for name in "${names[@]}"; do
  target=tests/fuzz/${name}_fuzz.cpp
  # shellcheck disable=SC2046  # patterns are to be expanded
  clang++ "${flags[@]}" "$target" $(cat "${target%.cpp}.sources") "${libraries[@]}" -lpthread \
    -o "$work/$name"
  mkdir -p "$work/corpus-$name"
  say "$name, $seconds s"
  if "$work/$name" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
    -artifact_prefix="$root/build/fuzz-$name-" "$work/corpus-$name" "tests/fuzz/corpus/$name" \
    >"$work/$name.log" 2>&1; then
    grep -E 'number_of_executed_units' "$work/$name.log"
    echo "ok fuzz $name"
  else
    tail -n 60 "$work/$name.log"
    echo "not ok fuzz $name"
    status=1
  fi
done
exit $status
