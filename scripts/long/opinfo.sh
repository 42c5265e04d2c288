#!/usr/bin/env bash
# Compares values and gradients of the ops with PyTorch, on the samples of PyTorch's own operator
# database (OpInfo), made anew: in f64 (there also gradients of gradients), f32, f16 and bf16, and
# from f32 under autocast to f16 and bf16. A difference that tests/opinfo/differences.json does not
# explain fails it.
#
# Usage: scripts/long/opinfo.sh [--device cpu|cuda] [--only NAMES] [--few] [--verbose]
#
#   --device   where both run; the default is each that is there
#   --only     some of f64,f32,f16,bf16,autocast-f16,autocast-bf16, separated by commas
#   --few      only the samples that show an option, a dtype or a layout of an op first
#   --verbose  also lists what is not offered and which differences were met
#
#   BINADE_PYTHON  a Python that has PyTorch, NumPy and expecttest; without it PyTorch is installed
#                  from pip, or the script says that it skips where it cannot be
#   BINADE_OPINFO  the program binade_opinfo, if it was built elsewhere; without it, it is built in
#                  the folder BINADE_BUILD
#   BINADE_WORK    where samples and results are kept; without it they are deleted at the end
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

devices=(cpu) only=f64,f32,f16,bf16,autocast-f16,autocast-bf16 verbose=() few=()
if has_gpu; then devices+=(cuda); fi
while (($#)); do
  case $1 in
    --device) devices=("${2:?--device wants cpu or cuda}") && shift 2 ;;
    --only) only=${2:?--only wants names, separated by commas} && shift 2 ;;
    --few) few=(--few) && shift ;;
    --verbose) verbose=(--verbose) && shift ;;
    --help) usage && exit ;;
    *) die "unknown option $1; see --help" ;;
  esac
done

work=${BINADE_WORK:-}
if [[ -z $work ]]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work"

python=${BINADE_PYTHON:-}
if [[ -z $python ]]; then
  venv=$cache/opinfo-venv
  python=$venv/bin/python
  if ! "$python" -c "import torch, numpy" 2>/dev/null; then
    say "installing PyTorch from pip in $venv (several GB)"
    if ! { python3 -m venv "$venv" &&
           "$venv/bin/pip" install --quiet torch==2.6.0 numpy packaging expecttest; }; then
      say "skipped: PyTorch cannot be installed here; name a Python that has it in BINADE_PYTHON"
      exit 0
    fi
  fi
elif ! "$python" -c "import numpy, torch.testing._internal.common_methods_invocations" 2>/dev/null; then
  die "BINADE_PYTHON: $python lacks one of PyTorch, NumPy and expecttest, which PyTorch's samples need"
fi

program=${BINADE_OPINFO:-}
if [[ -z $program ]]; then
  folder=${BINADE_BUILD:-$root/build}
  [[ -e $folder/CMakeCache.txt ]] || die "configure the build folder $folder first"
  build "$folder" binade_opinfo
  program=$folder/tests/binade_opinfo
fi
[[ -x $program ]] || die "$program is no program"

failed=0
for device in "${devices[@]}"; do
  for name in ${only//,/ }; do
    folder=$work/$device-$name
    options=(--dtype "$name") preset=
    case $name in
      autocast-f16) options=(--dtype f32 --autocast f16) preset=fp16 ;;
      autocast-bf16) options=(--dtype f32 --autocast bf16) preset=bf16 ;;
      f64 | f32 | f16 | bf16) ;;
      *) die "unknown name $name; see --help" ;;
    esac
    say "$name on $device"
    "$python" "$root/tests/opinfo/opinfo.py" make "$folder" --program "$program" --device "$device" \
      "${options[@]}" "${few[@]}"
    "$program" "$folder" "$device" ${preset:+"$preset"}
    "$python" "$root/tests/opinfo/opinfo.py" compare "$folder" \
      --listed "$root/tests/opinfo/differences.json" "${verbose[@]}" || failed=1
  done
done
"$python" "$root/tests/opinfo/opinfo.py" total "$work"
((failed == 0))
