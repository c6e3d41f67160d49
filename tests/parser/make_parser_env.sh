#!/usr/bin/env bash
# Make, or complete, a virtual environment of Python 3.12 with NVIDIA's real ONNX parser and engine builder, which work
# without a GPU (requirements.txt says what they are; about 600 MB).
#   tests/parser/make_parser_env.sh DIR
#   EDGEKIT_PARSER_PYTHON=DIR/bin/python pytest tests/parser
# PYTHON312 names the interpreter to use; else python3.12 from PATH or from pyenv is taken. Done already: returns at once.
set -eu

if [ $# -ne 1 ]; then
    echo "usage: $0 DIR" >&2
    exit 2
fi
folder=$1
requirements=$(cd "$(dirname "$0")" && pwd)/requirements.txt
stamp=$folder/.requirements

is312() { [ -n "$1" ] && [ "$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = 3.12 ]; }

if [ -f "$stamp" ] && cmp -s "$requirements" "$stamp" && is312 "$folder/bin/python"; then
    exit 0
fi

for python in "${PYTHON312:-}" "$(command -v python3.12 || true)" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12.*/bin/python3.12; do
    if is312 "$python"; then break; fi
    python=
done
if [ -z "$python" ]; then
    echo "no Python 3.12 found. Install one or name it: PYTHON312=/path/to/python3.12 $0 DIR" >&2
    exit 1
fi

rm -f "$stamp"
is312 "$folder/bin/python" || "$python" -m venv --clear "$folder"
# without their dependencies: those would bring a second ONNX Runtime and CUDA
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --requirement "$requirements"
libraries=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/onnxruntime_ep_nv_tensorrt_rtx
for name in libtensorrt_rtx libtensorrt_onnxparser_rtx; do
    full=$(cd "$libraries" && ls $name.so.*.*.* | head -1)
    major=${full#"$name".so.}
    ln -sf "$full" "$libraries/$name.so.${major%%.*}"
done
# the Python bindings alone of two releases, to look names up in; their libraries are not to be had
for version in 10.16.1.11 11.4.0.106; do
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --upgrade --target "$folder/bindings/$version" "tensorrt_cu13_bindings==$version"
done
LD_LIBRARY_PATH=$libraries "$folder/bin/python" -c 'import cv2, tensorrt_rtx_bindings'
cp "$requirements" "$stamp"
