#!/usr/bin/env bash
# plot_runs: names of all kinds in its picture, and what it says to bad input.
set -euo pipefail
source "$(dirname "$0")/cases.sh"
work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
plot() { "$BINADE_BUILD/examples/plot_runs" --output "$work/out.svg" "$@"; }

run=$work/$'caf\xe9 \x01 <&> é'
mkdir "$run"
printf '%s\n' '{"step":1,"loss_smoothed":3.5,"scale":1}' '{"step":2,"loss_smoothed":3.25,"scale":1}' \
  '{"step":"x","loss_smoothed":1}' '[1]' '{"half' >"$run/metrics.jsonl"
expect "runs with names of any bytes are drawn" 0 "wrote" plot --runs "$run" --names "$run"
if command -v xmllint >/dev/null; then
  expect "… in well-formed XML" 0 "" xmllint --noout "$work/out.svg"
else
  python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$work/out.svg" \
    2>"$case_output" && problem= || problem="not well-formed"
  report "… in well-formed XML" "$problem"
fi
refused "a run that is not there" "$work/none" plot --runs "$work/none"
mkdir -p "$work/folder/metrics.jsonl"
refused "metrics that are a folder" "it is a folder" plot --runs "$work/folder"
refused "names that do not fit the runs" "1 names for 2 runs" \
  plot --runs "$run" "$run" --names a
mkdir "$work/empty"
: >"$work/empty/metrics.jsonl"
expect "a run without rows" 0 "wrote" plot --runs "$work/empty"
refused "an output that cannot be written" "cannot write" \
  "$BINADE_BUILD/examples/plot_runs" --runs "$run" --output /proc/none/a.svg

# Metrics by name: means, and what is beyond another run. A panel of equal points has one tick.
mkdir "$work/a" "$work/b"
printf '{"step":%d,"mse":%d}\n' 1 5 2 6 3 10 >"$work/a/metrics.jsonl"
printf '{"step":%d,"mse":%d}\n' 2 1 3 5 4 9 >"$work/b/metrics.jsonl"
ticks() { # WHAT TICK…: that the picture has the tick and not the others
  local problem=
  grep -q ">$2</text>" "$work/out.svg" || problem="there is no tick $2"
  for other in "${@:3}"; do
    ! grep -q ">$other</text>" "$work/out.svg" || problem="there is a tick $other"
  done
  report "$1" "$problem"
}
expect "means of a metric" 0 "wrote" plot --runs "$work/a" --metrics mse --mean 3
ticks "… are those of so many points" 7 5 10
expect "a metric beyond another run's" 0 "wrote" plot --runs "$work/a" --metrics mse --minus "$work/b"
ticks "… is the difference at steps that both have" 5 6 9
refused "means of no metric" "--mean and --minus are for the metrics that --metrics names" plot --runs "$run" --mean 2
