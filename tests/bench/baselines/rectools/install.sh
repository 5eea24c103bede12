#!/usr/bin/env bash
# Makes a venv with RecTools at the versions and hashes of requirements.txt.
#
#   tests/bench/baselines/rectools/install.sh VENV PYTHON      PYTHON is that of IntentRec's own venv, which has uv
set -euo pipefail

readonly venv=$1 python=$2
readonly lock=$(dirname "${BASH_SOURCE[0]}")/requirements.txt

# uv does not read pip's configuration: hand over the index that pip would use, if it is not the default one.
if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then
    index=${PIP_INDEX_URL:-$("$python" -m pip config get global.index-url 2>/dev/null || true)}
    [ -z "$index" ] || export UV_DEFAULT_INDEX=$index
fi
"$python" -m uv venv --quiet --clear --python "$python" "$venv"
"$python" -m uv pip install --quiet --python "$venv/bin/python" --require-hashes -r "$lock"
cp "$lock" "$venv/installed.txt"
