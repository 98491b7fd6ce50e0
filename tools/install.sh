#!/bin/sh
# Install a requirements file into .venv: tools/install.sh BACKEND FILE
#
# BACKEND is one of uv's --torch-backend: cpu, or auto, which takes the CUDA that fits the GPU's driver, and cpu without
# a GPU. Only PyTorch's own index has all these builds: the ordinary index's for Linux brings CUDA to every machine.
# TORCH_INDEX_URL names another index.
set -eu
backend=$1
file=$2

install() {
    .venv/bin/uv pip install --quiet --python .venv/bin/python "$@"
}

pytorch_can_be_had() (
    export UV_HTTP_CONNECT_TIMEOUT=5 UV_HTTP_TIMEOUT=10 UV_HTTP_RETRIES=1 # in seconds; by default uv tries for minutes
    grep '^torch' "$file" | install --dry-run --reinstall --no-deps --torch-backend "$backend" --requirement - 2> /dev/null
)

if [ -n "${TORCH_INDEX_URL:-}" ]; then
    set -- --extra-index-url "$TORCH_INDEX_URL" --index-strategy unsafe-best-match
elif pytorch_can_be_had; then
    set -- --torch-backend "$backend"
else
    echo "PyTorch's index cannot be reached, or lacks this version: the ordinary index serves, for Linux with 5 GB of CUDA." >&2
    set --
fi
# Both, as torch and torchvision of different builds cannot be imported together.
install "$@" --reinstall-package torch --reinstall-package torchvision --requirement "$file"
