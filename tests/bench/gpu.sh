#!/usr/bin/env bash
# The engine alone on a CUDA machine. Needs Python 3.11, torch with its triton, and numpy; nothing has to be installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec "${PYTHON:-python3}" -m tests.bench.bench_gpu "$@"
