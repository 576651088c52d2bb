// Vectors of floats with the width of the instruction set that this object file is compiled for.
//
// Every kernel source is compiled once per instruction set. VD_ISA is the name of the set, the
// namespace of all kernel code and a prefix of every exported name, so that the linker cannot
// replace an inline function by the same function for another instruction set. For the same reason,
// kernels use no templates of the standard library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#ifndef VD_ISA
#error "VD_ISA must name the instruction set, for instance -DVD_ISA=avx2"
#endif

#define VD_JOIN_(a, b, c) a##b##c
#define VD_JOIN(a, b, c) VD_JOIN_(a, b, c)
#define VD_EXPORT(name) \
    extern "C" __attribute__((visibility("default"))) void VD_JOIN(VD_ISA, _, name)
// A function that uses only the calling thread.
#define VD_EXPORT_ALONE(name) VD_EXPORT(name)
#define VD_EXPORT_COUNT(name) \
    extern "C" __attribute__((visibility("default"))) std::int64_t VD_JOIN(VD_ISA, _, name)
#define VD_EXPORT_DOUBLE(name) \
    extern "C" __attribute__((visibility("default"))) double VD_JOIN(VD_ISA, _, name)
#define VD_INLINE static inline __attribute__((always_inline))

#ifdef __clang__
#define VD_UNROLL _Pragma("clang loop unroll(full)")
#else
#define VD_UNROLL _Pragma("GCC unroll 16")
#endif

// Before a loop whose arrays are the same or do not overlap: no element depends on another one.
#ifdef __clang__
#define VD_ELEMENTWISE _Pragma("clang loop vectorize(assume_safety)")
#else
#define VD_ELEMENTWISE _Pragma("GCC ivdep")
#endif

namespace verydeep::VD_ISA {

using Index = std::ptrdiff_t;

// kRows x 2 vectors of sums, 2 of operands and a broadcast fill the registers. kOuterRows x
// kOuterVectors is the same for products whose rows are lanes of a vector, where the number of rows
// must divide kLanes.
#if defined(__AVX512F__)
constexpr int kLanes = 16, kRows = 14, kOuterRows = 8, kOuterVectors = 3;
#elif defined(__AVX__)
constexpr int kLanes = 8, kRows = 6, kOuterRows = 4, kOuterVectors = 3;
#elif defined(__aarch64__)
constexpr int kLanes = 4, kRows = 12, kOuterRows = 4, kOuterVectors = 5;
#else
constexpr int kLanes = 4, kRows = 6, kOuterRows = 4, kOuterVectors = 2;
#endif
constexpr int kPanel = 2 * kLanes;  // output channels, or columns, of one tile of registers

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef std::int32_t IntVec __attribute__((vector_size(kLanes * 4)));

VD_INLINE Index least(Index a, Index b) { return a < b ? a : b; }
VD_INLINE Index most(Index a, Index b) { return a > b ? a : b; }
VD_INLINE Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }
VD_INLINE Index round_up(Index a, Index b) { return ceil_div(a, b) * b; }

VD_INLINE Vec load(const float* p) {
    Vec v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
VD_INLINE void store(float* p, Vec v) { __builtin_memcpy(p, &v, sizeof v); }
// A non-temporal store to vector-aligned memory that is not read soon. `stream_end` must follow the
// last one before another thread reads.
VD_INLINE void stream(float* p, Vec v) {
#if defined(__AVX512F__)
    _mm512_stream_ps(p, v);
#elif defined(__AVX__)
    _mm256_stream_ps(p, v);
#elif defined(__SSE2__)
    _mm_stream_ps(p, v);
#else
    store(p, v);
#endif
}
VD_INLINE void stream_end() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}
VD_INLINE IntVec load(const std::int32_t* p) {
    IntVec v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
VD_INLINE void store(std::int32_t* p, IntVec v) { __builtin_memcpy(p, &v, sizeof v); }
VD_INLINE Vec broadcast(float x) { return Vec{} + x; }
VD_INLINE void zero(float* p, Index count) {
    if (count > 0) std::memset(p, 0, static_cast<std::size_t>(count) * sizeof(float));
}

// Store the first `count` < kLanes elements, in a few stores of halving width: about as fast as a
// masked store, and the same code for all instruction sets.
template <class Element, class Vector>
VD_INLINE void store_part(Element* p, Vector v, Index count) {
    alignas(64) Element t[kLanes];
    __builtin_memcpy(t, &v, sizeof v);
    Index i = 0;
    if (kLanes > 8 && (count & 8)) {
        __builtin_memcpy(p, t, 8 * sizeof(Element));
        i = 8;
    }
    if (kLanes > 4 && (count & 4)) {
        __builtin_memcpy(p + i, t + i, 4 * sizeof(Element));
        i += 4;
    }
    if (count & 2) {
        __builtin_memcpy(p + i, t + i, 2 * sizeof(Element));
        i += 2;
    }
    if (count & 1) p[i] = t[i];
}

VD_INLINE Vec load_part(const float* p, Index count) {
    alignas(64) float t[kLanes] = {};
    for (Index i = 0; i < count; ++i) t[i] = p[i];
    return load(t);
}

// A vector with valid lanes below `end - p`; the others are unspecified.
VD_INLINE Vec load_within(const float* p, const float* end) {
    return end - p >= kLanes ? load(p) : load_part(p, most(end - p, 0));
}

// The sum of the lanes in a fixed order.
VD_INLINE float sum_lanes(Vec v) {
    alignas(64) float t[kLanes];
    store(t, v);
    for (int width = kLanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) t[i] += t[i + width];
    return t[0];
}

template <int... I>
struct Lanes {};
template <int Count, int... I>
struct MakeLanes : MakeLanes<Count - 1, Count - 1, I...> {};
template <int... I>
struct MakeLanes<0, I...> {
    using Type = Lanes<I...>;
};
using AllLanes = MakeLanes<kLanes>::Type;

// Lane Pick::at(i) of the 2 * kLanes lanes of a, then b.
template <class Pick, int... I>
VD_INLINE Vec shuffle(Vec a, Vec b, Lanes<I...>) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, Pick::at(I)...);
#else
    return __builtin_shuffle(a, b, IntVec{Pick::at(I)...});
#endif
}
template <int Bit>
struct KeepLow {  // lanes of a without the bit; lanes with the bit are lanes of b at distance Bit
    static constexpr int at(int i) { return (i & Bit) ? kLanes + (i ^ Bit) : i; }
};
template <int Bit>
struct KeepHigh {
    static constexpr int at(int i) { return (i & Bit) ? kLanes + i : (i ^ Bit); }
};
struct Even {
    static constexpr int at(int i) { return 2 * i; }
};
struct Odd {
    static constexpr int at(int i) { return 2 * i + 1; }
};
struct ZipLow {
    static constexpr int at(int i) { return i / 2 + (i & 1) * kLanes; }
};
struct ZipHigh {
    static constexpr int at(int i) { return kLanes / 2 + i / 2 + (i & 1) * kLanes; }
};
template <class Pick>
VD_INLINE Vec shuffle(Vec a, Vec b) {
    return shuffle<Pick>(a, b, AllLanes{});
}

// Transposes kLanes x kLanes in registers, in log2(kLanes) butterfly stages.
template <int Bit = 1>
VD_INLINE void transpose(Vec* r) {
    if constexpr (Bit < kLanes) {
        VD_UNROLL
        for (int i = 0; i < kLanes; ++i)
            if (!(i & Bit)) {
                Vec a = r[i], b = r[i | Bit];
                r[i] = shuffle<KeepLow<Bit>>(a, b);
                r[i | Bit] = shuffle<KeepHigh<Bit>>(a, b);
            }
        transpose<Bit * 2>(r);
    }
}

}  // namespace verydeep::VD_ISA
