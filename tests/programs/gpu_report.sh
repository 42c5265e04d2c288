# Says when the GPU's code has changed since the report in docs/gpu-tests.md was made. The report names
# the trees it was made from, so that it outlives a rewritten history.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
report=$root/docs/gpu-tests.md
for folder in core/cuda core/kernels/cuda; do
  tree=$(git -C "$root" rev-parse "HEAD:$folder" 2>/dev/null) || {
    echo "skip the age of the GPU report: not a git checkout"
    exit
  }
  if grep -q "$tree" "$report"; then
    echo "ok $folder is what the GPU report was made from"
  else
    echo "skip $folder has changed since docs/gpu-tests.md was made: run the suite on a GPU again"
  fi
done
