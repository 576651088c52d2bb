#!/usr/bin/env bash
# Builds and installs PyCUDA where there are CUDA's headers and neither a GPU nor its driver:
#     tests/fakecuda/install_pycuda.sh .venv/bin/python [pip's options, such as --target DIR]
set -euo pipefail
python=$1
shift

nvcc=$(command -v nvcc || true)
for root in "${CUDA_ROOT:-}" "${nvcc:+$(dirname "$(readlink -f "$nvcc")")/..}" /usr/local/cuda /usr; do
    [ -n "$root" ] && [ -f "$root/include/cuda.h" ] && break
    root=
done
if [ -z "$root" ]; then
    echo "install_pycuda: no cuda.h; expected CUDA's headers; install the toolkit or set CUDA_ROOT" >&2
    exit 2
fi

# PyCUDA reads its settings from the home folder, and links to the driver: one symbol of it will do,
# so that the linker keeps the name libcuda.so.1.
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
echo 'extern "C" int cuInit(unsigned) { return 100; }' > "$home/stub.cpp"
g++ -shared -fPIC "$home/stub.cpp" -Wl,-soname,libcuda.so.1 -o "$home/libcuda.so"
cat > "$home/.aksetup-defaults.py" <<SETTINGS
CUDA_ROOT = "$(cd "$root" && pwd)"
CUDA_ENABLE_CURAND = False
CUDADRV_LIB_DIR = ["$home"]
CUDADRV_LIBNAME = ["cuda"]
SETTINGS
HOME=$home "$python" -m pip install --no-cache-dir --quiet "pycuda>=2024.1" "$@"
