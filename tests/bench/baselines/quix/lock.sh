#!/usr/bin/env bash
# Resolves the baseline's lock anew:  tests/bench/baselines/quix/lock.sh UV [--upgrade]
#
# It names no index and holds a hash for every file. What the model runs on has the version that deploy/locks has, so that both
# sides of the bench run the same torch and its wheels come from the cache. The rest is free: Quix wants other versions than we do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../../.."

readonly uv=$1
shift
export UV_CUSTOM_COMPILE_COMMAND='tests/bench/baselines/quix/lock.sh'
folder=tests/bench/baselines/quix
shared=$(grep -E '^[a-z]+$' "$folder/requirements.in" | paste -sd '|')
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
grep -E "^($shared)==" deploy/locks/training.txt | sed 's/ \\$//' >"$constraints"
"$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
    "$folder/requirements.in" --constraints "$constraints" --output-file "$folder/lock.txt" "$@"
