// What every kernel file includes first. One text, two compilers: nvcc for a GPU, g++ for the
// emulator, which takes host/emu.h in place of CUDA's headers.
//
// How to write a kernel, so that both build it and the emulator can judge it:
//   - A kernel stands at file scope as  extern "C" __global__ void [__launch_bounds__(N)] name(...)
//     written out (no macro), with the types of manifest.py. Templates are fine as __device__
//     functions that such a kernel calls. Block and tile sizes are `constexpr int` at file scope.
//   - Shared memory is declared by SHARED(name, type), as in SHARED(tile, float[32][33]), by
//     SHARED_DYNAMIC(name, type) for more than 48 KiB (shared_bytes of the launch: sizeof the type;
//     at most one in a kernel). In a template the type may depend on its parameters.
//   - Every thread of the block reaches every __syncthreads(), at the same line: no return before
//     it, no branch around it that depends on the thread. Nothing is assumed of the order of
//     threads between barriers, nor of warps that run in step without __syncwarp().
//   - Of the warp's instructions there are __syncwarp, __shfl_sync and its _up, _down and _xor,
//     __ballot_sync, __any_sync, __all_sync, all with a mask that names the lanes that arrive.
//   - Atomics are for int and unsigned (Add, Max, Min, Exch, CAS). A sum of floats in an order that
//     is not fixed is refused: use a fixed tree (block_sum below).
//   - Also there: __ldg, float2, float4, int2, int4, uint2, uint4 with their make_, dim3, fmaf,
//     fminf, fmaxf, rsqrtf, powf, expf, logf, __expf, __logf, __powf, __fdividef, __frcp_rn,
//     __float_as_int and its kin, __popc, __clz, __ffs, __umulhi, __mulhi, __threadfence, min, max.
//   - Tensor cores: mma.cuh. Copies past the registers (cp.async): async_copy.cuh. Both need a line
//     // requires: sm_80  in the .cu. Any other PTX gets a __device__ function with a host twin in
//     such a header.
//   - No textures, no cooperative grids, no launches from the device, no new or malloc.
// The emulator runs blocks one after another, so a race between blocks is not seen.
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

// The thread's number in its grid, along x, in 64 bits: arrays may be larger than 2^31.
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
// scratch (THREADS / 32) is shared memory; it is free again after the next barrier.
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
