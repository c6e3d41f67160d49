#!/usr/bin/env bash
# Make, or complete, a virtual environment of Python 3.6 with what a board has (requirements-py36.txt).
#   tests/runtime/make_python36_env.sh DIR
#   EDGEKIT_PYTHON36=DIR/bin/python pytest tests/runtime/test_python36.py
# PYTHON36 names the interpreter to use; else python3.6 from PATH or from pyenv is taken. Done already: returns at once.
set -eu

if [ $# -ne 1 ]; then
    echo "usage: $0 DIR" >&2
    exit 2
fi
folder=$1
requirements=$(cd "$(dirname "$0")" && pwd)/requirements-py36.txt
stamp=$folder/.requirements
jetpack4=$folder/jetpack4 # the numpy of python3-numpy on Ubuntu 18.04

is36() { [ -n "$1" ] && [ "$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = 3.6 ]; }

if [ -d "$jetpack4/numpy" ] && [ -f "$stamp" ] && cmp -s "$requirements" "$stamp" && is36 "$folder/bin/python"; then
    exit 0
fi

# the shims of pyenv stand on PATH but refuse when no version is chosen, so its versions are looked at too
for python in "${PYTHON36:-}" "$(command -v python3.6 || true)" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.6.*/bin/python3.6; do
    if is36 "$python"; then break; fi
    python=
done
if [ -z "$python" ]; then
    echo "no Python 3.6 found. Install one (pyenv install 3.6.15) or name it: PYTHON36=/path/to/python3.6 $0 DIR" >&2
    exit 1
fi

rm -f "$stamp"
"$python" -m venv --clear "$folder"
# the pip that comes with 3.6 is too old for manylinux2014 wheels
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check pip==21.3.1 setuptools==59.6.0 wheel==0.37.1
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: --requirement "$requirements"
"$folder/bin/python" -c 'import cv2, numpy, onnxruntime'
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --target "$jetpack4" numpy==1.13.3
PYTHONPATH=$jetpack4 "$folder/bin/python" -c 'import cv2, numpy; assert numpy.__version__ == "1.13.3", numpy.__version__'
cp "$requirements" "$stamp"
