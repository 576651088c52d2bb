// Rounding to bf16, and the product of the precision bf16: see docs/explanation/precision.md.
//
// A sum takes 32 products in a step: s_even is a chain of fused multiply-adds over the even places,
// s_odd over the odd places, both from 0, and then sum = sum + (s_even + s_odd). Operands, sums and
// results that are denormal become 0 of the same sign. This is what the instruction TDPBF16PS
// computes, so all units give the same bits.
#pragma once

#include "arena.h"

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace verydeep::VD_ISA {

constexpr Index kStep = 32;  // products of one step

VD_INLINE std::uint32_t bits_of(float x) {
    std::uint32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    return bits;
}
VD_INLINE float float_of(std::uint32_t bits) {
    float x;
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
}

// The bits of the nearest bf16 number in the upper half of a float: ties to even, denormals to 0,
// NaN to a quiet NaN.
VD_INLINE std::uint32_t bf16_bits(std::uint32_t bits) {
    const std::uint32_t magnitude = bits & 0x7fffffffu, sign = bits & 0x80000000u;
    const std::uint32_t nearest = bits + 0x7fffu + ((bits >> 16) & 1u);
    const std::uint32_t number = magnitude > 0x7f800000u ? bits | 0x400000u : nearest;
    return magnitude < 0x800000u ? sign : number & 0xffff0000u;
}
VD_INLINE float round_bf16(float x) { return float_of(bf16_bits(bits_of(x))); }

// Denormal operands and results of float instructions are 0 during the life of this object.
class FlushDenormals {
  public:
#if defined(__SSE2__)
    FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr((before_ & ~kRounding) | kFlush); }
    ~FlushDenormals() { _mm_setcsr(before_); }
#else
    FlushDenormals() {}
    ~FlushDenormals() {}
#endif
    FlushDenormals(const FlushDenormals&) = delete;
    FlushDenormals& operator=(const FlushDenormals&) = delete;

  private:
#if defined(__SSE2__)
    static constexpr unsigned kFlush = 0x8040, kRounding = 0x6000;
    unsigned before_;
#endif
};

// Without fused multiply-add, in double: a product of two bf16 numbers is exact there, and the sum
// with a float is either exact or far from the middle of two floats.
VD_INLINE float flushed(float x) {
    return (bits_of(x) & 0x7f800000u) == 0 ? float_of(bits_of(x) & 0x80000000u) : x;
}
VD_INLINE float narrow(double x) {
    constexpr double kScale = 18446744073709551616.0;  // 2^64: results near denormals keep 24 bits
    const double magnitude = x < 0 ? -x : x;
    if (!(magnitude < 1e-37)) return static_cast<float>(x);
    const float scaled = static_cast<float>(x * kScale);
    constexpr float kLeast = static_cast<float>(0x1p-62);  // 2^-126, scaled
    if (scaled < kLeast && scaled > -kLeast) return float_of(bits_of(scaled) & 0x80000000u);
    return static_cast<float>(static_cast<double>(scaled) / kScale);
}
VD_INLINE float add_flushed(float a, float b) {
    return narrow(static_cast<double>(flushed(a)) + static_cast<double>(flushed(b)));
}

#if defined(__FMA__)
constexpr bool kFused = true;
#else
constexpr bool kFused = false;
#endif

VD_INLINE Vec fused_add(Vec a, Vec b, Vec sum) {
#if defined(__AVX512F__)
    return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
#elif defined(__FMA__)
    return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
#else
    for (int i = 0; i < kLanes; ++i)
        sum[i] = narrow(static_cast<double>(a[i]) * static_cast<double>(b[i]) +
                        static_cast<double>(sum[i]));
    return sum;
#endif
}
VD_INLINE Vec plain_add(Vec a, Vec b) {
    if (kFused) return a + b;
    for (int i = 0; i < kLanes; ++i) a[i] = add_flushed(a[i], b[i]);
    return a;
}

// Products with vectors along the columns.
//
// Packed as floats that are bf16 numbers. Shapes: a [steps * kStep][kRows]; b [steps * kStep][kCols];
// sums [kRows][kCols].
struct VectorUnit {
#if defined(__AVX512F__)
    static constexpr Index kRows = 6;
#elif defined(__AVX__)
    static constexpr Index kRows = 3;
#else
    static constexpr Index kRows = 2;
#endif
    static constexpr Index kCols = kPanel;
    using Element = float;
    struct Session {};  // what a thread keeps between products

    // in: [kRows][kStep]
    static void pack_a(const float* in, Index step, Index, Element* out) {
        out += step * kStep * kRows;
        for (Index k = 0; k < kStep; ++k)
            for (Index i = 0; i < kRows; ++i) out[k * kRows + i] = round_bf16(in[i * kStep + k]);
    }
    // in: [kStep][kCols]
    static void pack_b(const float* in, Index step, Index, Element* out) {
        out += step * kStep * kCols;
        for (Index i = 0; i < kStep * kCols; ++i) out[i] = round_bf16(in[i]);
    }

    template <int Vectors>
    __attribute__((noinline)) static void multiply_by(const float* a, const float* b, Index steps,
                                                      float* sums) {
        for (Index step = 0; step < steps; ++step) {
            Vec even[kRows][Vectors] = {}, odd[kRows][Vectors] = {};
            for (Index k = 0; k < kStep; k += 2, a += 2 * kRows, b += 2 * kCols) {
                add_products<Vectors>(a, b, even);
                add_products<Vectors>(a + kRows, b + kCols, odd);
            }
            VD_UNROLL
            for (int r = 0; r < kRows; ++r) {
                VD_UNROLL
                for (int e = 0; e < Vectors; ++e) {
                    float* sum = sums + r * kCols + e * kLanes;
                    store(sum, plain_add(load(sum), plain_add(even[r][e], odd[r][e])));
                }
            }
        }
    }
    static void multiply(Session&, const Element* a, const Element* b, Index steps, Index cols,
                         float* sums) {
        const FlushDenormals flush;
        if (cols > kLanes)
            multiply_by<2>(a, b, steps, sums);
        else
            multiply_by<1>(a, b, steps, sums);
    }

  private:
    template <int Vectors>
    __attribute__((always_inline)) static void add_products(const float* a, const float* b, Vec (*sum)[Vectors]) {
        Vec y[Vectors];
        VD_UNROLL
        for (int e = 0; e < Vectors; ++e) y[e] = load(b + e * kLanes);
        VD_UNROLL
        for (int r = 0; r < kRows; ++r) {
            const Vec x = broadcast(a[r]);
            VD_UNROLL
            for (int e = 0; e < Vectors; ++e) sum[r][e] = fused_add(x, y[e], sum[r][e]);
        }
    }
};

}  // namespace verydeep::VD_ISA
