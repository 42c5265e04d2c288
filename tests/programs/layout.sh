#!/usr/bin/env bash
# What docs/architecture.md promises about the tree: includes point downwards, public headers stand
# alone and ask nothing of a user's machine but the compiler, and no file knows a developer's.
set -euo pipefail
folder=$(cd "$(dirname "$0")" && pwd)
source "$folder/cases.sh"
cd "$folder/../.."

work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT

# "core 0", "data 1", ...: the rows of the table of floors.
floors=$(sed -n 's/^| \([0-9]\) | `\([a-z]*\)\/` .*/\2 \1/p' docs/architecture.md | grep -v '^examples ')
read -ra rooms < <(sed -n 's/^set(BINADE_ROOMS \(.*\))$/\1/p' cmake/BinadeRooms.cmake)
for room in "${rooms[@]}"; do
  grep -q "^$room " <<<"$floors" || echo "no row for $room"
done >"$case_output"
((${#rooms[@]} == $(wc -l <<<"$floors"))) || echo "rows without a room: $floors" >>"$case_output"
verdict "the rooms of the library are the rows of the table in docs/architecture.md"

grep -rHnoE '^ *# *include *[<"]binade/[a-z]+/' "${rooms[@]}" | awk -F'[:/"<]' -v floors="$floors" '
  BEGIN { n = split(floors, f, /[ \n]/); for (i = 1; i < n; i += 2) floor[f[i]] = f[i + 1] }
  { from = $1; to = $(NF - 1) }
  from != to && !(to in floor && floor[to] < floor[from]) { print $0 " from " from }
' >"$case_output"
verdict "includes of the library point downwards"

# Also through the folder of links, where `binade/tests` would be none.
grep -rnE '^ *# *include *[<"](binade/)?(tests|examples|bench)/' "${rooms[@]}" >"$case_output" || true
verdict "the library includes no tests, examples or benchmarks"

# A build without CUDA has none of the functions of core/cuda: who calls them asks first.
grep -rlE '^ *# *include *<binade/core/cuda/' --include='*.h' --include='*.cpp' tests examples |
  grep -v '^tests/emulated_cuda/' | xargs grep -LE 'BINADE_HAVE_CUDA|kCudaBuilt' >"$case_output" || true
verdict "tests and programs that use core/cuda build without it"

# These follow the locale of the program. core/text.h has what does not: TextStream, exact_number(),
# parse_number(), is_digit() and the like.
locale='(ato[fil]+|strto[a-z]+|sto(i|l|ll|ul|ull|f|d|ld)|v?s?n?f?printf|s?f?scanf|is(alnum|alpha|digit|space|xdigit|upper|lower|punct)|to(upper|lower))'
grep -rnE --include='*.h' --include='*.cpp' "(^|[^A-Za-z0-9_:.])(std::)?$locale\(|std::o?stringstream|[^a-z]locale\(" \
  "${rooms[@]}" | grep -v '^core/text\.h:' >"$case_output" || true
verdict "the library turns numbers into text and back without the program's locale"

# The parts of a check() may be evaluated before its condition.
grep -rnE --include='*.h' --include='*.cpp' 'check\(!?::[a-z]' "${rooms[@]}" examples \
  >"$case_output" || true
verdict "no check() makes the call whose reason it gives"

grep -rnE --include='*.h' --include='*.cpp' '[jJ]son::(sax_)?(parse|accept)\(' "${rooms[@]}" examples |
  grep -v '^core/json_view\.cpp:' >"$case_output" || true
verdict "JSON is parsed in one place, which checks it before"

heavy='(fmt|spdlog|nlohmann|Eigen)'
grep -rnE --include='*.cu' --include='*.cuh' "^ *# *include *[<\"](unsupported/)?$heavy/" "${rooms[@]}" \
  >"$case_output" || true
verdict ".cu files include neither fmt, spdlog, nlohmann nor Eigen"

# A path with a room or a folder of the tree at its start, in backquotes; patterns are left alone.
grep -noE "\`($(IFS="|"; echo "${rooms[*]}")|tests|scripts|bench|cmake|docs)/[A-Za-z0-9_./-]+\.[a-z]+\`" docs/*.md README.md |
  while IFS=: read -r file line path; do
    path=${path//\`/}
    [[ -e $path ]] || echo "$file:$line names $path, which is not there"
  done >"$case_output"
verdict "files that the documentation names are there"

# As the job "layout" of .github/workflows does.
if command -v clang-format-14 >/dev/null; then
  find "${rooms[@]}" examples tests bench -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' |
    xargs clang-format-14 --dry-run 2>&1 | { grep -oE '^[^ :]+:[0-9]+' || true; } >"$case_output"
  verdict "sources are laid out as .clang-format says"
else
  echo "skip sources are laid out as .clang-format says: clang-format-14 is not installed"
fi

# What a user's compiler gets to see.
cmake --install "$BINADE_BUILD" --prefix "$work/prefix" >/dev/null
cd "$work/prefix/include"

# Writes what is wrong with the installed header `$1` to standard output.
check_header() {
  local dependencies
  dependencies=$work/$(tr / _ <<<"$1").d
  "${CXX:-g++}" -std=c++20 -fsyntax-only -w -DBINADE_HAVE_CUDA=0 -I. -MD -MF "$dependencies" \
    -x c++ "$1" 2>&1 || return 0
  grep -oE "[^ ]*/$heavy/[^ ]*" "$dependencies" | head -n 1 | sed "s|^|$1 includes |" || true
}
export -f check_header
export work heavy
find binade -name '*.h' | sort >"$work/public"
xargs --max-procs="$(nproc)" --max-args=1 bash -c 'check_header "$0"' <"$work/public" >"$case_output"
[[ -s $work/public ]] || echo "no headers" >"$case_output"
verdict "installed headers compile alone and without fmt, spdlog, nlohmann or Eigen"
"${CXX:-g++}" -std=c++20 -DBINADE_HAVE_CUDA=0 -I. -MM binade/binade.h | tr -s ' \\' '\n' |
  grep '^binade/' | sort -u | comm -13 - "$work/public" >"$case_output"
verdict "binade.h includes every installed header"
cd "$OLDPWD"

# Home folders, and where this checkout lies unless that is right below the root of the system.
patterns=(-e '/(home|Users)/[A-Za-z]' -e '/root/')
here=$(pwd -P)
for place in "$here" "$(dirname "$here")"; do
  [[ $place =~ ^/[^/]+/. ]] && patterns+=(-e "$(sed 's/[^A-Za-z0-9/]/./g' <<<"$place")/")
done
grep -rInE "${patterns[@]}" --exclude-dir='build*' --exclude-dir=.git --exclude-dir=runs \
  --exclude=.git --exclude=layout.sh . >"$case_output" || true
verdict "no file names a path of a developer's machine"
