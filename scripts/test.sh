#!/usr/bin/env bash
# Everything CI checks: format, lint, types, layers, then the tests with shapes checked at run time.
set -euo pipefail
cd "$(dirname "$0")/.."
# The console's page is tested in the browser it runs in.
command -v chromium >/dev/null || bash scripts/setup.sh chromium
make --no-print-directory check
# Small networks on shared cores: one thread is faster than two that wait for each other.
export OMP_NUM_THREADS=1 LP_NUM_THREADS=0
# No hub is asked for anything: the client tries again and again before it gives up.
export HF_HUB_OFFLINE=1
# Two processes, whatever the cores: the tests by the clock are in one of them (tests/conftest.py).
exec .venv/bin/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder -m "not slow and not gpu and not hardware" \
  --jaxtyping-packages=hildaft,beartype.beartype "$@"
