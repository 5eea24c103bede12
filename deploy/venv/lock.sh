#!/usr/bin/env bash
# Resolves deploy/locks. Each is a superset of the one before it, with the same versions:
#   serving.txt    what worker and gateway need on a CPU
#   training.txt   serving, and torch: what every command needs, also on a GPU
#   dev.txt        training, and the tools of .venv
# build.txt is what installs them: uv, and setuptools, which builds the package.
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
readonly locks=deploy/locks

compile pyproject.toml --output-file $locks/serving.txt "$@"
compile pyproject.toml --extra torch --constraints $locks/serving.txt --output-file $locks/training.txt "$@"
compile pyproject.toml --extra torch --extra dev --constraints $locks/training.txt --output-file $locks/dev.txt "$@"
printf 'uv==%s\nsetuptools\n' "$("$uv" --version | cut -d ' ' -f 2)" |
    compile - --constraints $locks/training.txt --output-file $locks/build.txt
