#!/usr/bin/env bash
# Runs the checks and benchmarks on a machine with an NVIDIA GPU, in two parts of at most 3 and 6.5
# minutes (both without --part):
#     benchmarks/gpu_check.sh [WHEELS] [OUT] [--part 1|2] [--device emu --size tiny] [--stages A,B]
# WHEELS is a folder of wheels for a machine without a network ("" for none; default: the first of
# wheels, build/wheels and shared/gpu/wheels that has wheels). OUT (build/gpu_check) gets three
# files: summary.txt, summary.json and results.tar.gz, which is replaced every ten seconds. The
# environment and the working files are in build/gpu_env and build/gpu_work. The machine needs nvcc,
# g++ and Python 3.10 or later; PyTorch is a peer if it is installed. benchmarks/gpu_needs.py prints
# missing packages and how to download them. PYTHON is the Python to use in place of python3.
set -euo pipefail
started=$(date +%s)
root=$(cd "$(dirname "$0")/.." && pwd)
wheels=
for folder in "$root/wheels" "$root/build/wheels" "$root/shared/gpu/wheels"; do
    if compgen -G "$folder/*.whl" > /dev/null; then wheels=$folder && break; fi
done
out=$root/build/gpu_check
if [ $# -gt 0 ] && [[ $1 != --* ]]; then wheels=$1 && shift; fi
if [ $# -gt 0 ] && [[ $1 != --* ]]; then out=$1 && shift; fi
outer=${PYTHON:-python3}
work=$root/build/gpu_work
venv=$root/build/gpu_env
python=$venv/bin/python
mkdir -p "$out" "$work"
out=$(cd "$out" && pwd)

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
if [ -n "$("$python" "$root/benchmarks/gpu_needs.py" "$wheels" "$@" 2>&1)" ]; then
    if [ -n "$wheels" ]; then
        for wheel in "$wheels"/*.whl; do
            install --no-index --no-deps --upgrade "$wheel" 2>> "$work/install.log" ||
                echo "gpu_check: $(basename "$wheel") cannot be installed: see install.log" >&2
        done
    elif [[ " $* " != *" emu "* ]]; then
        CUDA_ENABLE_CURAND=False install --retries 0 --timeout 5 'pycuda>=2024.1' \
            2> "$work/install.log" || true
    fi
fi
"$python" "$root/benchmarks/gpu_needs.py" "$wheels" "$@"
cd "$root"
exec "$python" benchmarks/gpu_check.py --out "$out" --work "$work" --started "$started" "$@"
