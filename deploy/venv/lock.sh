#!/usr/bin/env bash
# Resolves deploy/locks: runtime.txt for images, dev.txt (a superset with the same versions) for .venv, uv.txt for uv.
#
#   deploy/venv/lock.sh UV [--upgrade]
#
# The locks name no package index, have a hash for every file, and work on every platform (--universal).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly uv=$1
shift
export UV_CUSTOM_COMPILE_COMMAND='make lock'
compile() {
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url "$@"
}

compile pyproject.toml --output-file deploy/locks/runtime.txt "$@"
compile pyproject.toml --extra dev --constraints deploy/locks/runtime.txt --output-file deploy/locks/dev.txt "$@"
printf 'uv==%s\n' "$("$uv" --version | cut -d ' ' -f 2)" | compile - --output-file deploy/locks/uv.txt
