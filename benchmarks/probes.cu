// requires: sm_80
// probes.cu -- rates of the device's units, free of memory accesses; see benchmarks/gpu_probes.py
// launch: grid = several blocks a multiprocessor, block 256
#include "mma.cuh"

constexpr int BLOCK = 256;
constexpr int CHAINS = 8;
constexpr int UNROLLED = 4;

// out (grid * BLOCK) out: a sum that depends on every operation. CHAINS * UNROLLED multiply-adds a
// trip and thread.
extern "C" __global__ void __launch_bounds__(BLOCK) ffma_rate(float* out, int trips, float factor) {
    float sum[CHAINS];
#pragma unroll
    for (int i = 0; i < CHAINS; ++i) {
        sum[i] = static_cast<float>(threadIdx.x + i);
    }
    for (int trip = 0; trip < trips; ++trip) {
#pragma unroll
        for (int i = 0; i < CHAINS * UNROLLED; ++i) {
            sum[i % CHAINS] = sum[i % CHAINS] * factor + 1.0f;
        }
    }
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < CHAINS; ++i) {
        total += sum[i];
    }
    out[blockIdx.x * BLOCK + threadIdx.x] = total;
}

// As above with an operand from shared memory, 16 bytes of it for four multiply-adds.
extern "C" __global__ void __launch_bounds__(BLOCK)
ffma_shared_rate(float* out, int trips, float factor) {
    SHARED(tile, float4[BLOCK]);
    tile[threadIdx.x] = make_float4(factor, factor, factor, factor);
    __syncthreads();
    float sum[CHAINS];
#pragma unroll
    for (int i = 0; i < CHAINS; ++i) {
        sum[i] = static_cast<float>(threadIdx.x + i);
    }
    for (int trip = 0; trip < trips; ++trip) {
#pragma unroll
        for (int i = 0; i < CHAINS; ++i) {
            const float4 quad = tile[(threadIdx.x + trip + i) % BLOCK];
            sum[i] = sum[i] * quad.x + 1.0f;
            sum[i] = sum[i] * quad.y + 1.0f;
            sum[i] = sum[i] * quad.z + 1.0f;
            sum[i] = sum[i] * quad.w + 1.0f;
        }
    }
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < CHAINS; ++i) {
        total += sum[i];
    }
    out[blockIdx.x * BLOCK + threadIdx.x] = total;
}

// CHAINS products of (16,16) by (16,8) a trip and warp.
extern "C" __global__ void __launch_bounds__(BLOCK) mma_bf16_rate(float* out, int trips) {
    const uint32_t bits = pack_bf16(threadIdx.x % 3, 1.0f);
    const uint32_t a[4] = {bits, bits, bits, bits}, b[2] = {bits, bits};
    float d[CHAINS][4] = {};
    for (int trip = 0; trip < trips; ++trip) {
#pragma unroll
        for (int i = 0; i < CHAINS; ++i) {
            mma_bf16_16x8x16(d[i], a, b);
        }
    }
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < CHAINS; ++i) {
        total += d[i][0] + d[i][1] + d[i][2] + d[i][3];
    }
    out[blockIdx.x * BLOCK + threadIdx.x] = total;
}

// CHAINS products of (16,8) by (8,8) a trip and warp.
extern "C" __global__ void __launch_bounds__(BLOCK) mma_tf32_rate(float* out, int trips) {
    const uint32_t bits = to_tf32(static_cast<float>(threadIdx.x % 3));
    const uint32_t a[4] = {bits, bits, bits, bits}, b[2] = {bits, bits};
    float d[CHAINS][4] = {};
    for (int trip = 0; trip < trips; ++trip) {
#pragma unroll
        for (int i = 0; i < CHAINS; ++i) {
            mma_tf32_16x8x8(d[i], a, b);
        }
    }
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < CHAINS; ++i) {
        total += d[i][0] + d[i][1] + d[i][2] + d[i][3];
    }
    out[blockIdx.x * BLOCK + threadIdx.x] = total;
}

// x (quads) in, read `trips` times by every block; out (grid * BLOCK) out
extern "C" __global__ void __launch_bounds__(BLOCK)
read_rate(const float* x, float* out, int quads, int trips) {
    float total = 0.0f;
    for (int trip = 0; trip < trips; ++trip) {
        const int first = (blockIdx.x * BLOCK + threadIdx.x + trip * 64) % quads;
        for (int i = 0; i < UNROLLED; ++i) {
            const int quad = (first + i * BLOCK * 4) % quads;
            const float4 value = __ldg(reinterpret_cast<const float4*>(x) + quad);
            total += value.x + value.y + value.z + value.w;
        }
    }
    out[blockIdx.x * BLOCK + threadIdx.x] = total;
}

// d (3) out: 1 + 3/4 of half a unit in the last place (sums of 1 and small products), which round
// to 1 when the sums are truncated; 1 + 1 + 1/4 + 1/2 unit; and a sum of equal tiny terms
extern "C" __global__ void __launch_bounds__(32) tf32_rounding(float* out) {
    const float unit = 1.1920929e-7f;
    const float cases[3] = {0.75f * unit, 1.5f * unit, 0.25f * unit};
    for (int number = 0; number < 3; ++number) {
        const uint32_t small = to_tf32(threadIdx.x % 4 == 0 ? cases[number] : 0.0f);
        const uint32_t one = to_tf32(threadIdx.x % 4 == 0 ? 1.0f : 0.0f);
        const uint32_t a[4] = {small, small, 0, 0}, b[2] = {one, 0};
        float d[4] = {1.0f, 1.0f, 1.0f, 1.0f};
        mma_tf32_16x8x8(d, a, b);
        if (threadIdx.x == 0) {
            out[number] = d[0];
        }
    }
}
