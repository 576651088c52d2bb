// The first include of every kernel file. The same source is compiled by nvcc for a GPU and by g++
// for the emulator, which includes host/emu.h in place of CUDA's headers.
//
// Rules for kernels, so that both compilers build them and the emulator can check them:
//   - A kernel is  extern "C" __global__ void [__launch_bounds__(N)] name(...)  at file scope,
//     without macros, with the types of manifest.py. Templates are allowed as __device__ functions
//     that a kernel calls. Block and tile sizes are `constexpr int` at file scope.
//   - Shared memory is declared by SHARED(name, type), as in SHARED(tile, float[32][33]), by
//     SHARED_DYNAMIC(name, type) for more than 48 KiB (shared_bytes of the launch: sizeof the type;
//     at most one in a kernel). In a template the type may depend on its parameters.
//   - Every thread of the block reaches every __syncthreads(), at the same line: no return before
//     it, no branch around it that depends on the thread. A kernel assumes no order of threads
//     between barriers, and no lockstep of a warp without __syncwarp().
//   - Supported warp instructions: __syncwarp, __shfl_sync and its _up, _down and _xor,
//     __ballot_sync, __any_sync, __all_sync, with a mask of the lanes that execute them.
//   - Atomics exist for int and unsigned (Add, Max, Min, Exch, CAS). Atomic sums of floats are not
//     supported, because their order is not fixed: use a fixed tree (block_sum below).
//   - Also supported: __ldg, float2, float4, int2, int4, uint2, uint4 with their make_, dim3, fmaf,
//   - Also supported: __ldg, float2, float4, int2, int4, uint2, uint4 with their make_, dim3, fmaf,
//     fminf, fmaxf, rsqrtf, powf, expf, logf, __expf, __logf, __powf, __fdividef, __frcp_rn,
//     __float_as_int and similar casts, __popc, __clz, __ffs, __umulhi, __mulhi, __threadfence,
//     min, max.
//   - Tensor cores: mma.cuh. Copies that bypass the registers (cp.async): async_copy.cuh. Both need
//     a line  // requires: sm_80  in the .cu. Other PTX goes into a __device__ function in such a
//     header, with an equivalent for the host.
//   - No textures, no cooperative grids, no launches from the device, no new or malloc.
// The emulator runs blocks sequentially, so it does not detect races between blocks.
#pragma once

#ifdef __CUDACC__
#include <cstdint>
#define SHARED(name, ...) __shared__ typename Identity<__VA_ARGS__>::type name
#define SHARED_DYNAMIC(name, ...)                                                                  \
    extern __shared__ __align__(128) unsigned char dynamic_shared_bytes[];                         \
    auto& name = *reinterpret_cast<typename Identity<__VA_ARGS__>::type*>(dynamic_shared_bytes)
#else
#include "host/emu.h"
#endif

template <class T>
struct Identity {
    using type = T;
};

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

__host__ __device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// The index of the thread in its grid along x, in 64 bits: arrays may be larger than 2^31.
__device__ __forceinline__ int64_t global_thread() {
    return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ int64_t global_threads() {
    return static_cast<int64_t>(gridDim.x) * blockDim.x;
}

// The sum over the warp, in every lane, always in the same order.
__device__ __forceinline__ float warp_sum(float value) {
    for (int step = WARP / 2; step > 0; step /= 2) {
        value += __shfl_xor_sync(ALL_LANES, value, step);
    }
    return value;
}

// The sum over a block of THREADS threads along x, in every thread, always in the same order.
// scratch (THREADS / 32) is shared memory; it can be used again after the next barrier.
template <int THREADS>
__device__ __forceinline__ float block_sum(float value, float (&scratch)[THREADS / WARP]) {
    static_assert(THREADS % WARP == 0, "a block of whole warps");
    value = warp_sum(value);
    if (threadIdx.x % WARP == 0) {
        scratch[threadIdx.x / WARP] = value;
    }
    __syncthreads();
    float total = 0.0f;
    for (int warp = 0; warp < THREADS / WARP; ++warp) {
        total += scratch[warp];
    }
    return total;
}
