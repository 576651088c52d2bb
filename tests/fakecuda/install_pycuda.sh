#!/usr/bin/env bash
# Builds and installs PyCUDA where there is neither a GPU nor its driver:
#     tests/fakecuda/install_pycuda.sh .venv/bin/python [pip's options, such as --target DIR]
# CUDA's headers are the toolkit's, or else those of a package that pip brings.
set -euo pipefail
python=$1
shift

nvcc=$(command -v nvcc || true)
for root in "${CUDA_ROOT:-}" "${nvcc:+$(dirname "$(readlink -f "$nvcc")")/..}" /usr/local/cuda /usr; do
    [ -n "$root" ] && [ -f "$root/include/cuda.h" ] && break
    root=
done
# PyCUDA reads its settings from the home folder, and links to the driver: one symbol of it will do,
# so that the linker keeps the name libcuda.so.1.
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
if [ -z "$root" ]; then
    "$python" -m pip install --quiet --no-deps nvidia-cuda-runtime-cu12 || {
        echo "install_pycuda: no cuda.h, and pip finds no nvidia-cuda-runtime-cu12; expected" \
            "CUDA's headers; install the toolkit or set CUDA_ROOT" >&2
        exit 2
    }
    found=$("$python" -c 'import nvidia.cuda_runtime as found; print(list(found.__path__)[0])')
    root=$home/cuda
    mkdir "$root"
    cp -r "$found/include" "$root/include"
    # The one header of the toolkit that the package lacks.
    cat > "$root/include/cudaProfiler.h" << 'HEADER'
#include <cuda.h>
typedef enum CUoutput_mode_enum { CU_OUT_KEY_VALUE_PAIR = 0, CU_OUT_CSV = 1 } CUoutput_mode;
extern "C" CUresult cuProfilerInitialize(const char*, const char*, CUoutput_mode);
extern "C" CUresult cuProfilerStart(void);
extern "C" CUresult cuProfilerStop(void);
HEADER
fi
echo 'extern "C" int cuInit(unsigned) { return 100; }' > "$home/stub.cpp"
g++ -shared -fPIC "$home/stub.cpp" -Wl,-soname,libcuda.so.1 -o "$home/libcuda.so"
cat > "$home/.aksetup-defaults.py" <<SETTINGS
CUDA_ROOT = "$(cd "$root" && pwd)"
CUDA_ENABLE_CURAND = False
CUDADRV_LIB_DIR = ["$home"]
CUDADRV_LIBNAME = ["cuda"]
SETTINGS
HOME=$home "$python" -m pip install --no-cache-dir --quiet "pycuda>=2024.1" "$@"
