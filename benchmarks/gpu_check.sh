#!/usr/bin/env bash
# Runs all checks and benchmarks on a machine with an NVIDIA GPU, in nine minutes at most:
#     benchmarks/gpu_check.sh [WHEELS] [OUT] [--device emu --size tiny] [--stages machine,layers]
# WHEELS is a folder of wheels for a machine without a network ("" for none), OUT is where JSON,
# logs and the summary go (build/gpu_check). The machine needs nvcc, g++ and Python 3.10 or later;
# PyTorch is a peer if it is installed. benchmarks/gpu_needs.py prints missing packages and how to
# download them. PYTHON is the Python to use in place of python3.
set -euo pipefail
started=$(date +%s)
root=$(cd "$(dirname "$0")/.." && pwd)
wheels=
out=$root/build/gpu_check
if [ $# -gt 0 ] && [[ $1 != --* ]]; then wheels=$1 && shift; fi
if [ $# -gt 0 ] && [[ $1 != --* ]]; then out=$1 && shift; fi
outer=${PYTHON:-python3}
mkdir -p "$out"
out=$(cd "$out" && pwd)
venv=$out/venv
python=$venv/bin/python

# The environment includes the packages of the machine, even if its Python is itself an environment.
if [ ! -x "$python" ]; then
    "$outer" -m venv --system-site-packages --without-pip "$venv"
fi
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$outer" - "$root" > "$site/outer.pth" << 'PATHS'
import sys
print(sys.argv[1], *(path for path in sys.path if path.endswith("-packages")), sep="\n")
PATHS

# pip may be that of the machine; with --target it installs for the Python that runs it.
install() { timeout 60 "$python" -m pip install --quiet --no-cache-dir --target "$site" "$@"; }
if [ -n "$("$python" "$root/benchmarks/gpu_needs.py" "$wheels" 2>&1)" ]; then
    if [ -n "$wheels" ]; then
        for wheel in "$wheels"/*.whl; do
            install --no-index --no-deps --upgrade "$wheel" 2>> "$out/install.log" ||
                echo "gpu_check: $(basename "$wheel") does not install here: see $out/install.log" >&2
        done
    elif [[ " $* " != *" emu "* ]]; then
        CUDA_ENABLE_CURAND=False install --retries 0 --timeout 5 'pycuda>=2024.1' \
            2> "$out/install.log" || true
    fi
fi
"$python" "$root/benchmarks/gpu_needs.py" "$wheels" "$@"
cd "$root"
exec "$python" benchmarks/gpu_check.py --out "$out" --started "$started" "$@"
