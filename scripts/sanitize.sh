#!/usr/bin/env bash
# Builds the CPU library and its tests with AddressSanitizer and UndefinedBehaviorSanitizer, leaks
# included, in build-asan/, and runs the default tier. Any finding fails.
#
#   scripts/sanitize.sh [TAGS]       only the tests that Catch2 selects so, for example "[bpe]"
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ ${1:-} == --help ]] && usage && exit

build=$root/build-asan
"$root/scripts/setup.sh" --cuda off
# -O1 builds in half the time and keeps stack traces readable; assertions of Eigen stay on.
configure "$build" "" -DBINADE_SANITIZE=address,undefined -DCMAKE_CXX_FLAGS_RELEASE=-O1 \
  -DBINADE_EXAMPLES=OFF
build "$build" binade_tests

# OpenMP keeps its threads' stacks until the end of the process, which LeakSanitizer takes for leaks.
suppressions=$(mktemp)
trap 'rm -f "$suppressions"' EXIT
echo "leak:libgomp.so" >"$suppressions"

ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1 \
UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
LSAN_OPTIONS=suppressions=$suppressions:print_suppressions=0 \
  "$build/tests/binade_tests" "${1:-}~[long]"
