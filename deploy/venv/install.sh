#!/usr/bin/env bash
# Creates .venv and installs IntentRec into it, with the package versions and hashes of the lock.
#
#   deploy/venv/install.sh [FOLDER [LOCK]]     default: .venv dev; the variable PYTHON selects the interpreter
#
# LOCK names one of deploy/locks: serving is what worker and gateway need on a CPU, training is what every command needs, dev has
# the tools for development too.
#
# Needs Python 3.11 or newer with its venv module, and a package index. Errors are one line that says what is missing.
# pip installs uv, also from the lock; uv installs the rest about ten times faster than pip would. uv compiles all packages to
# bytecode once, as pip does: otherwise each process compiles what it imports, if the environment forbids Python to write bytecode.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly venv=${1:-.venv}
readonly lock=${2:-dev}
# What says that the installation is complete. make knows the first alone.
stamp=$venv/installed
[ "$lock" = dev ] || stamp=$venv/installed-$lock
readonly stamp
readonly log=$venv/install.log
readonly -a candidates=(${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3 python})

fail() {
    printf 'intentrec: %s\n' "$*" >&2
    exit 1
}

# Prints the first candidate that is new enough and has venv. Fails with what the candidates lack.
find_python() {
    local name path found_old='' found_bare=''
    for name in "${candidates[@]}"; do
        path=$(command -v "$name" 2>/dev/null) || continue
        if ! "$path" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            found_old="$path is $("$path" -V 2>&1 | head -n 1)"
        elif ! "$path" -c 'import venv, ensurepip' 2>/dev/null; then
            found_bare=$path
        else
            printf '%s\n' "$path"
            return 0
        fi
    done
    [ -z "$found_bare" ] || fail "$found_bare has no venv module: install it (Debian and Ubuntu: apt-get install" \
        "$(basename "$found_bare")-venv) and run the same command again"
    fail "Python 3.11 or newer is needed${found_old:+ ($found_old)}: install it, or select one: make install PYTHON=/path/to/python3.11"
}

# Runs a step and logs its output. On failure, prints one line: the last error of the step, and what to do.
step() {
    local what=$1 reason
    shift
    printf 'intentrec: %s\n' "$what" >&2
    printf '\n$ %s\n' "$*" >>"$log"
    "$@" >>"$log" 2>&1 && return 0
    if grep -qiE 'NewConnectionError|ConnectionError|Connection refused|timed out|dns error|name resolution|not known|Network is unreachable|Failed to fetch|Could not fetch|error sending request|No matching distribution' "$log"; then
        fail "$what: the package index cannot be reached: check the network or proxy and run the same command again (details: $log)"
    fi
    if grep -qi 'No space left' "$log"; then
        fail "$what: the disk is full: about 6 GB are needed (details: $log)"
    fi
    reason=$(grep -iE 'error|×|╰' "$log" | tail -n 1 || true)
    fail "$what failed: ${reason:-no reason given} (details: $log)"
}

# Whether the folder was installed by another lock, whose packages would stay.
has_another_lock() {
    [ -n "$(find "$venv" -maxdepth 1 -name 'installed*' ! -path "$stamp" 2>/dev/null)" ]
}

case $lock in serving | training | dev) ;; *) fail "$lock is no lock: serving, training or dev" ;; esac
if has_another_lock || ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$(find_python)
    # An incomplete environment, or one with an older Python or another lock, is created again. --clear empties the folder, so log
    # only afterwards.
    "$python" -m venv --clear "$venv" || fail "$venv cannot be created: see the line above"
fi
: >"$log"

# uv does not read the configuration of pip, so pass the index that pip would use, unless it is the default.
if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then
    index=${PIP_INDEX_URL:-$("$venv/bin/python" -m pip config get global.index-url 2>/dev/null || true)}
    [ -z "$index" ] || export UV_DEFAULT_INDEX=$index
fi

step 'installing uv' "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/locks/build.txt
export VIRTUAL_ENV=$venv UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1
size='about 3 GB the first time: torch includes CUDA libraries'
[ "$lock" != serving ] || size='without torch'
step "installing the locked packages ($size)" \
    "$venv/bin/uv" pip install --python "$venv/bin/python" --require-hashes -r "deploy/locks/$lock.txt"
step 'installing intentrec' \
    "$venv/bin/uv" pip install --python "$venv/bin/python" --no-deps --no-build-isolation --editable .
touch "$stamp"
