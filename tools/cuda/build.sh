#!/usr/bin/env bash
# Builds `votive` with the feature `cuda` where neither a CUDA toolkit nor a driver is installed.
#
#   tools/cuda/build.sh            the toolkit, then target/cuda/release/votive
#   tools/cuda/build.sh toolkit    the toolkit alone, and a kernel of one line to try it
#
# The toolkit is a set of Python wheels, pinned because parts of different versions do not go together; they are
# unpacked into target/cuda/toolkit by pip and touch no environment of yours. The linker wants the driver's libcuda:
# that of this machine if there is one, or else an empty library with the names that the compiled crates leave
# undefined. It is made here and never loaded by a machine with a driver.
#
# Needs: python3 with pip, a C++ compiler, 6 GB of disk, and 1.2 GB from the Python package index.
# CUDA_COMPUTE_CAP says for which GPUs (80 A100, 86 RTX 30, 89 RTX 40, 90 H100 and H200); one build serves one kind.
# Most of the time goes to candle's kernels for quantized weights, which training never calls: about a quarter of an
# hour on two cores, once.
#
# The program loads the toolkit's libraries from where they lie, so keep target/cuda/toolkit, and does not start
# without a driver; the CPU's program is a build of its own for that reason.
#
# What was run where no GPU was: all of it (kernels for sm_90; 20 minutes of processor time, a program of 78 MB),
# and the program beside the made libcuda: `--version` names both devices, `doctor` checks the CPU, and
# `doctor --device cuda` says that the driver is a stub. Nothing was run on a GPU.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly wheels=(
    nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96
    nvidia-cuda-cccl==13.0.85 nvidia-cuda-nvrtc==13.0.88 nvidia-cublas==13.1.0.3 nvidia-curand==10.4.0.35
)
readonly target="$PWD/target/cuda"
readonly toolkit="$target/toolkit"
readonly cuda="$toolkit/nvidia/cu13"

install_toolkit() {
    local pins="$toolkit/pins"
    if [[ ! -f "$pins" || "$(<"$pins")" != "${wheels[*]}" ]]; then
        rm -rf "$toolkit"
        python3 -m pip install --no-cache-dir --target "$toolkit" "${wheels[@]}"
        # Wheels carry libcublas.so.13 alone; linkers look for libcublas.so, and some tools for lib64.
        local library
        for library in "$cuda"/lib/lib*.so.*; do
            ln -sf "$(basename "$library")" "${library%%.so.*}.so"
        done
        ln -sfn lib "$cuda/lib64"
        mkdir -p "$cuda/lib/stubs"
        printf '%s' "${wheels[*]}" >"$pins"
    fi
    export CUDA_HOME="$cuda" CUDA_PATH="$cuda" NVCC="$cuda/bin/nvcc" PATH="$cuda/bin:$PATH"
    export CUDA_COMPUTE_CAP="${CUDA_COMPUTE_CAP:-90}" CARGO_TARGET_DIR="$target"
    export LIBRARY_PATH="$cuda/lib:$cuda/lib/stubs${LIBRARY_PATH:+:$LIBRARY_PATH}"
    export RUSTFLAGS="${RUSTFLAGS:-} -C link-arg=-Wl,-rpath,$cuda/lib"
}

try_toolkit() {
    local folder
    folder="$(mktemp -d)"
    printf '__global__ void scale(float *x) { x[threadIdx.x] *= 2.f; }\n' >"$folder/scale.cu"
    nvcc -arch="sm_$CUDA_COMPUTE_CAP" -cubin -o "$folder/scale.cubin" "$folder/scale.cu"
    rm -r "$folder"
    echo "toolkit ready: $(nvcc --version | tail -n 1), kernels for sm_$CUDA_COMPUTE_CAP"
}

# The driver's library, or one with the names that libraries of the build in $1 leave undefined.
provide_libcuda() {
    local driver
    driver="$(ldconfig -p | awk '/libcuda\.so\.1 / { print $NF; exit }')"
    if [[ -n "$driver" ]]; then
        ln -sf "$driver" "$cuda/lib/stubs/libcuda.so"
        return
    fi
    nm --undefined-only "$1"/*.rlib 2>/dev/null | awk '$1 == "U" && $2 ~ /^cu[A-Z]/ { print $2 }' | sort -u |
        # 34 is CUDA_ERROR_STUB_LIBRARY.
        sed 's/.*/int &(void) { return 34; }/' >"$target/libcuda.c"
    cc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$cuda/lib/stubs/libcuda.so" "$target/libcuda.c"
    echo "made a libcuda.so with $(wc -l <"$target/libcuda.c") names"
}

install_toolkit
try_toolkit
if [[ "${1:-}" == toolkit ]]; then
    exit
fi
# Nothing is linked yet, so the names are known before libcuda is asked for.
cargo build --release --locked --features cuda --lib
provide_libcuda "$target/release/deps"
cargo build --release --locked --features cuda --bin votive
echo "built $target/release/votive"
