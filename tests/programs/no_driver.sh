#!/usr/bin/env bash
# The library does not link the driver's libcuda, which a machine without a GPU does not have.
set -euo pipefail
needed=$(readelf --dynamic "$BINADE_BUILD/libbinade.so" | grep NEEDED)
if grep libcuda.so <<<"$needed"; then
  echo "libbinade.so needs the driver"
  exit 1
fi
