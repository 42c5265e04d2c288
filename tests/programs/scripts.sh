#!/usr/bin/env bash
# What the scripts say when they cannot do their work. The tools they would call are replaced by
# stand-ins, so nothing is installed.
set -euo pipefail
folder=$(cd "$(dirname "$0")" && pwd)
source "$folder/cases.sh"
scripts=$folder/../../scripts

tools=$(mktemp -d)
trap 'rm -rf "$tools" "$case_output"' EXIT
for tool in bash basename dirname env grep mktemp rm sed; do
  ln -s "$(command -v "$tool")" "$tools/$tool"
done

# stand_in NAME CODE: a tool of that name, which does only this.
stand_in() {
  printf '#!/bin/bash\n%s\n' "$2" >"$tools/$1"
  chmod +x "$tools/$1"
}

setup() { PATH=$tools bash "$scripts/setup.sh" --cuda off; }

for script in setup test; do
  refused "$script.sh names an unknown option" "unknown option --fast" \
    bash "$scripts/$script.sh" --fast
done
refused "setup.sh names the ways to CUDA" "one of: auto, wheels, off" \
  bash "$scripts/setup.sh" --cuda maybe

expect "without apt-get, setup.sh says what to install" 2 libeigen3-dev setup

stand_in apt-get 'exit 100'
stand_in dpkg-query '[[ ${@: -1} != libeigen3-dev ]] && echo installed'
stand_in id 'echo 1000'
expect "without root, setup.sh says what to install" 2 "apt-get install libeigen3-dev" setup

stand_in id 'echo 0'
expect "without a network, setup.sh says so" 2 "Is the network up" setup

stand_in dpkg-query 'echo installed'
expect "with everything installed, setup.sh installs nothing" 0 "all installed" setup

# The demonstrations in a checkout of their own, with the programs that are there.
checkout=$tools/checkout
mkdir "$checkout"
cp -r "$scripts" "$checkout/scripts"
ln -s "$BINADE_BUILD" "$checkout/build"
stand_in cmake 'exit 0'
demo() { PATH=$tools:$PATH CUDA_VISIBLE_DEVICES='' BINADE_DEMO_STEPS=10 bash "$checkout/scripts/demo.sh" "$@"; }
for part in bagel heads ranking; do
  refused "demo.sh $part takes no options" "$part takes no options, got --fast" demo "$part" --fast
done
expect "demo.sh bagel draws and describes" 0 "all of it is in $checkout/runs/demo-bagel" demo bagel
expect "demo.sh ranking compares rankers with BM25" 0 "all of it is in $checkout/runs/demo-ranking" demo ranking
grep -Eq '^bm25( +0\.[0-9]{4}){3} *$' "$case_output" &&
  grep -Eq '^lambdarank( +0\.[0-9]{4}){3}   [+-]0\.[0-9]{4}, p = [0-9.e-]+$' "$case_output" &&
  grep -Eq '^listnet( +0\.[0-9]{4}){3}   [+-]0\.[0-9]{4}, p = [0-9.e-]+$' "$case_output" &&
  problem= || problem="rows are missing"
report "… in a table" "$problem"
grep -q '^convention zero: gain 2^y-1, discount 1/log2(1+r)' "$case_output" && problem= || problem="no convention"
report "… under a convention that it names" "$problem"
