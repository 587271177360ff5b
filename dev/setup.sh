#!/bin/sh
# Creates or refreshes the environment $VENV with $PYTHON: exactly what requirements.lock names, then
# this project itself, editable. `make setup` runs it when requirements.lock or pyproject.toml changed.
set -eu
: "${PYTHON:=python3}" "${VENV:=.venv}"
cd "$(dirname "$0")/.."

fail() {
    echo "setup: $*" >&2
    exit 1
}

command -v "$PYTHON" >/dev/null || fail "there is no $PYTHON; this project needs Python 3.11 or newer"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$PYTHON is $("$PYTHON" -V 2>&1), but this project needs Python 3.11 or newer; try: make setup PYTHON=python3.13"

# Debian keeps the part of venv that brings pip in a package of its own.
if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
    command -v apt-get >/dev/null || fail "$PYTHON has no venv module; install it, then repeat"
    [ "$(id -u)" = 0 ] || fail "$PYTHON has no venv module; install it, then repeat: sudo apt-get install python3-venv"
    echo "setup: $PYTHON has no venv module, so Debian's python3-venv is being installed"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3-venv >/dev/null
fi

# An environment of another Python, or a half-made one, is made again; a folder that is none is left alone.
version='import sys; print(sys.version_info[:2])'
if [ "$("$VENV/bin/python" -c "import pip; $version" 2>/dev/null || true)" != "$("$PYTHON" -c "$version")" ]; then
    [ -e "$VENV/pyvenv.cfg" ] || [ -z "$(ls -A "$VENV" 2>/dev/null || true)" ] ||
        fail "$VENV is no virtual environment; name an empty folder with VENV="
    "$PYTHON" -m venv --clear "$VENV"
fi

echo "setup: installing requirements.lock into $VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
echo "setup: $("$VENV/bin/python" -V) in $VENV is ready"
