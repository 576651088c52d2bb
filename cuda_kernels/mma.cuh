// Tensor cores: one warp multiplies small matrices in the registers of its 32 lanes. On the host
// the lanes exchange their fragments, and products are summed in fp32 in the order of k; on a GPU
// in the order of the hardware. The results differ by rounding.
//
// Fragments as in the PTX manual, with g = lane / 4 and t = lane % 4:
//   d (16,8) fp32: d[0] (g, 2t), d[1] (g, 2t+1), d[2] (g+8, 2t), d[3] (g+8, 2t+1)
//   tf32, k = 8:   a[0] (g, t), a[1] (g+8, t), a[2] (g, t+4), a[3] (g+8, t+4)
//                  b[0] (t, g), b[1] (t+4, g)
//   bf16, k = 16:  pairs along k, the lower k in the lower half: a[0] (g, 2t), a[1] (g+8, 2t),
//                  a[2] (g, 2t+8), a[3] (g+8, 2t+8); b[0] (2t, g), b[1] (2t+8, g)
//   bf16, k = 8:   a[0] (g, 2t), a[1] (g+8, 2t); b[0] (2t, g)
#pragma once

#include "common.cuh"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#error "mma.cuh needs sm_80: put `// requires: sm_80` at the head of the .cu"
#endif

// A float rounded to tf32 (10 bits of mantissa), ties away from zero, as bits.
__device__ __forceinline__ uint32_t to_tf32(float value) {
#ifdef __CUDACC__
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
#else
    const uint32_t bits = __float_as_uint(value);
    return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & ~0x1fffu;
#endif
}

// Two floats rounded to bf16, ties to even; `low` goes to the lower half.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
#ifdef __CUDACC__
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
#else
    auto round = [](float value) -> uint32_t {
        const uint32_t bits = __float_as_uint(value);
        return value != value ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    };
    return round(low) | round(high) << 16;
#endif
}

__device__ __forceinline__ uint16_t to_bf16(float value) {
    return static_cast<uint16_t>(pack_bf16(value, 0.0f));
}

__device__ __forceinline__ float from_bf16(uint16_t bits) {
    return __uint_as_float(static_cast<uint32_t>(bits) << 16);
}

#ifndef __CUDACC__
// d += a b, where each lane has `A` and `B` words of the two fragments, and `a_at`, `b_at` read the
// element at (row, k) or (k, column) from the fragments of all lanes.
template <int K, int A, int B, class AtA, class AtB>
inline void emu_mma(const char* site, float (&d)[4], const uint32_t (&a)[A], const uint32_t (&b)[B],
                    AtA a_at, AtB b_at) {
    uint32_t mine[A + B], all[WARP][A + B];
    for (int i = 0; i < A; ++i) mine[i] = a[i];
    for (int i = 0; i < B; ++i) mine[A + i] = b[i];
    emu::put(mine, A + B);
    emu::warp_sync(ALL_LANES, site);
    for (int i = 0; i < WARP; ++i) emu::get(all[i], A + B, i);
    const int g = emu::lane() / 4, t = emu::lane() % 4;
    for (int i = 0; i < 4; ++i) {
        const int row = g + i / 2 * 8, column = 2 * t + i % 2;
        float sum = d[i];
        for (int k = 0; k < K; ++k) {
            sum += a_at(all, row, k) * b_at(all, k, column);
        }
        d[i] = sum;
    }
}

inline float emu_tf32(uint32_t bits) { return __uint_as_float(bits & ~0x1fffu); }

inline float emu_bf16_half(uint32_t pair, int half) {
    return __uint_as_float(half ? pair & 0xffff0000u : pair << 16);
}
#endif

// d (16,8) += a (16,8) b (8,8)
__device__ __forceinline__ void mma_tf32_16x8x8(float (&d)[4], const uint32_t (&a)[4],
                                                const uint32_t (&b)[2]) {
#ifdef __CUDACC__
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    emu_mma<8>(
        EMU_SITE, d, a, b,
        [](const uint32_t(*all)[6], int row, int k) {
            return emu_tf32(all[row % 8 * 4 + k % 4][row / 8 + k / 4 * 2]);
        },
        [](const uint32_t(*all)[6], int k, int column) {
            return emu_tf32(all[column * 4 + k % 4][4 + k / 4]);
        });
#endif
}

// d (16,8) += a (16,16) b (16,8)
__device__ __forceinline__ void mma_bf16_16x8x16(float (&d)[4], const uint32_t (&a)[4],
                                                 const uint32_t (&b)[2]) {
#ifdef __CUDACC__
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    emu_mma<16>(
        EMU_SITE, d, a, b,
        [](const uint32_t(*all)[6], int row, int k) {
            return emu_bf16_half(all[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2], k % 2);
        },
        [](const uint32_t(*all)[6], int k, int column) {
            return emu_bf16_half(all[column * 4 + k % 8 / 2][4 + k / 8], k % 2);
        });
#endif
}

// d (16,8) += a (16,8) b (8,8)
__device__ __forceinline__ void mma_bf16_16x8x8(float (&d)[4], const uint32_t (&a)[2],
                                                const uint32_t (&b)[1]) {
#ifdef __CUDACC__
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b[0]));
#else
    emu_mma<8>(
        EMU_SITE, d, a, b,
        [](const uint32_t(*all)[3], int row, int k) {
            return emu_bf16_half(all[row % 8 * 4 + k / 2][row / 8], k % 2);
        },
        [](const uint32_t(*all)[3], int k, int column) {
            return emu_bf16_half(all[column * 4 + k / 2][2], k % 2);
        });
#endif
}

// Four 8x8 matrices of 16-bit elements from shared memory: lane i gives the address of row i % 8
// of matrix i / 8 (16 bytes, aligned); out[m] of a lane holds elements (lane / 4, 2 (lane % 4)) and
// the next of matrix m, the fragments above. For tf32 they are 8x4 matrices of 32-bit elements.
__device__ __forceinline__ void load_matrices(uint32_t (&out)[4], const void* row) {
#ifdef __CUDACC__
    const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
#else
    uint32_t words[4];
    memcpy(words, row, sizeof words);
    emu::put(words, 4);
    emu::warp_sync(ALL_LANES, EMU_SITE);
    for (int m = 0; m < 4; ++m) {
        uint32_t theirs[4];
        emu::get(theirs, 4, m * 8 + emu::lane() / 4);
        out[m] = theirs[emu::lane() % 4];
    }
#endif
}

// As above, with each matrix of 16-bit elements transposed.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&out)[4], const void* row) {
#ifdef __CUDACC__
    const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
#else
    uint32_t words[4];
    memcpy(words, row, sizeof words);
    emu::put(words, 4);
    emu::warp_sync(ALL_LANES, EMU_SITE);
    const int g = emu::lane() / 4, t = emu::lane() % 4;
    for (int m = 0; m < 4; ++m) {
        uint32_t halves[2];
        for (int i = 0; i < 2; ++i) {
            uint32_t theirs[4];
            emu::get(theirs, 4, m * 8 + 2 * t + i);
            halves[i] = theirs[g / 2] >> g % 2 * 16 & 0xffffu;
        }
        out[m] = halves[0] | halves[1] << 16;
    }
#endif
}
