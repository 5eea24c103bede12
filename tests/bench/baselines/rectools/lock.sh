#!/usr/bin/env bash
# Resolves requirements.txt anew, as deploy/venv/lock.sh does for IntentRec itself.
#
#   tests/bench/baselines/rectools/lock.sh UV [--upgrade]
set -euo pipefail

readonly uv=$1 folder=$(dirname "${BASH_SOURCE[0]}")
shift
export UV_CUSTOM_COMPILE_COMMAND=$folder/lock.sh
"$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    "$folder/requirements.in" --output-file "$folder/requirements.txt" "$@"
