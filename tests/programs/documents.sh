#!/usr/bin/env bash
# The C++ that documents show is code of the tree, which was compiled and run: docs/NAME.md quotes
# tests/documents/NAME.cpp (dashes in NAME are underscores there), README.md an example, and
# docs/adding-an-op.md the files of an op.
set -euo pipefail
source "$(dirname "$0")/cases.sh"
cd "$(dirname "$0")/../.."
tests=$BINADE_BUILD/tests
work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT

# quoted DOCUMENT [SOURCE]: every block of C++ in the document stands in the source, word for word, but for
# how far it is indented and what a line `…` leaves out. Without a source, the last line of the form
# "`path`:" names it.
quoted() {
  awk -v source="${2:-}" '
    function content(path,   line, text) {
      if (path in texts) return texts[path]
      while ((getline line < path) > 0) { sub(/^ +/, "", line); text = text "\n" line }
      return texts[path] = text "\n"
    }
    function compare() {
      if (part != "\n" && !index(content(source), part)) print FILENAME ":" first ": " source " has no such lines"
      part = "\n"
      first = NR + 1
    }
    /^`[^`]+`:$/ && !inside { split($0, name, "`"); source = name[2] }
    /^```cpp/ { inside = 1; part = "\n"; first = NR + 1; next }
    /^```/ && inside { inside = 0; ++blocks; compare(); next }
    inside && /^ *…$/ { compare(); next }
    inside { line = $0; sub(/^ +/, "", line); part = part line "\n" }
    END { if (!blocks) print FILENAME " has no block of C++" }
  ' "$1" >"$case_output"
  local problem=
  [[ ! -s $case_output ]] || problem="it does not"
  report "$1 quotes ${2:-the files it names}" "$problem"
}

for document in docs/*.md; do
  [[ $document == docs/README.md ]] || grep -qF "](${document#docs/})" docs/README.md ||
    echo "$document is not in docs/README.md"
done >"$case_output"
verdict "the index names every document"

read -ra rooms < <(sed -n 's/^set(BINADE_ROOMS \(.*\))$/\1/p' cmake/BinadeRooms.cmake)
for folder in "${rooms[@]}" examples tests bench docs scripts cmake; do
  grep -q "^$folder/ " README.md || echo "README.md has no line for $folder/"
done >"$case_output"
for folder in heads/*/; do
  sed -n '/^heads\/ /,/^[a-z]*\/ /p' README.md | grep -qF "${folder#heads/}" ||
    echo "README.md does not name $folder"
done >>"$case_output"
verdict "the tree in README.md has every folder"

# anchors FILE: what links may name behind #, made of its headings as GitHub does.
anchors() {
  sed -n 's/^##* //p' "$1" | tr '[:upper:]' '[:lower:]' | sed 's/[^[:alnum:] _-]//g; s/ /-/g'
}
for document in README.md CONTRIBUTING.md docs/*.md; do
  awk '/^```/ { code = !code; next } !code { gsub(/`[^`]*`/, ""); print }' "$document" |
    grep -oE '\]\([^)]+\)' | sed 's/^](//; s/)$//' | grep -vE '^https?:' |
    while IFS='#' read -r file anchor; do
      [[ -n $file ]] && target=$(dirname "$document")/$file || target=$document
      if [[ ! -e $target ]]; then
        echo "$document links to $file, which is not there"
      elif [[ -n $anchor ]]; then
        grep -qxF -- "$anchor" <<<"$(anchors "$target")" || echo "$document links to $file#$anchor: no such heading"
      fi
    done || true
done >"$case_output"
verdict "links of documents lead to files and headings"

quoted README.md examples/first_steps/char_gpt.cpp
quoted docs/adding-an-op.md
printf 'a,b\n' >"$work/table.csv"
for i in {1..70}; do echo "$i,$((i * i % 7))"; done >>"$work/table.csv"
for source in tests/documents/*.cpp; do
  name=$(basename "$source" .cpp)
  quoted "docs/${name//_/-}.md" "$source"
  expect "… which runs" 0 "done" env --chdir="$work" "$tests/document_$name" table.csv
done

if command -v doxygen >/dev/null; then
  expect "the API reference is made" 0 "html/index.html" scripts/docs.sh "$work/reference"
  grep -rqs "Reads what write_states wrote" "$work/reference/html" && problem= || problem="they are not there"
  report "… of the headers' comments" "$problem"
else
  echo "skip the API reference: doxygen is not installed"
fi
