#!/usr/bin/env bash
# Everything CI checks: format, lint, types, layers, then the tests with shapes checked at run time.
set -euo pipefail
cd "$(dirname "$0")/.."
# The console's page is tested in the browser it runs in.
command -v chromium >/dev/null || bash scripts/setup.sh chromium
make --no-print-directory check
# Small networks on shared cores: one thread is faster than two that wait for each other.
export OMP_NUM_THREADS=1 LP_NUM_THREADS=0
exec .venv/bin/python -m pytest -m "not slow and not gpu and not hardware" \
  --jaxtyping-packages=hildaft,beartype.beartype "$@"
