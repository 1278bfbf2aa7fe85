#!/bin/sh
# Install maskstream with the page and the demo's clips into a virtual environment, as the Dockerfile does.
# usage: docker/install.sh PREFIX   (from the repository's root; PYTHON chooses the interpreter)
set -eu
prefix=$1
"${PYTHON:-python3}" -m venv "$prefix"
"$prefix/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check -c constraints.txt '.[ui,demo]'
"$prefix/bin/maskstream" --help > /dev/null
