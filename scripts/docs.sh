#!/usr/bin/env bash
# Makes the API reference of the installed headers' comments, with the documents beside it.
#
#   scripts/docs.sh [FOLDER]         default: build/docs; open FOLDER/html/index.html
#
# Needs Doxygen (Debian package: apt-get install doxygen).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ ${1:-} == --help ]] && usage && exit
have doxygen || die "needs Doxygen: install the Debian package with apt-get install doxygen"
output=$(realpath -m "${1:-$root/build/docs}")
cd "$root"
mkdir -p "$output"
version=$(sed -n 's/^#define BINADE_VERSION_[A-Z]* \([0-9]*\)$/\1/p' core/version.h | paste -sd.)
{
  cat docs/Doxyfile
  echo "PROJECT_NUMBER = $version"
  echo "OUTPUT_DIRECTORY = \"$output\""
  echo "WARN_LOGFILE = \"$output/warnings.log\""
} | doxygen -
[[ -f $output/html/index.html ]] || die "Doxygen left no pages; see $output/warnings.log"
say "$output/html/index.html ($(grep -c 'warning:' "$output/warnings.log" || true) warnings in $output/warnings.log)"
