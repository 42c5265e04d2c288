#!/usr/bin/env bash
# The CPU's products without the processor's BF16 tiles. Where it has none, they are tested twice.
set -euo pipefail
BINADE_AMX=0 "$BINADE_BUILD/tests/binade_tests" "[matmul][cpu],[attention][cpu],[version]"
