// CUDA's built-in functions that involve one thread only.
#pragma once

template <class T>
inline T __ldg(const T* address) {
    return *address;
}

// Mixed types do not compile; cast one of them.
template <class T>
constexpr T min(T a, T b) {
    return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
    return a < b ? b : a;
}

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
// Never contracted to a fused multiply-add.
inline __attribute__((optimize("fp-contract=off"))) float __fmul_rn(float x, float y) {
    return x * y;
}
inline __attribute__((optimize("fp-contract=off"))) float __fadd_rn(float x, float y) {
    return x + y;
}
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }

template <class To, class From>
inline To emu_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
inline int __float_as_int(float x) { return emu_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return emu_bits<unsigned>(x); }
inline float __int_as_float(int x) { return emu_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return emu_bits<float>(x); }
inline int __float2int_rn(float x) { return static_cast<int>(rintf(x)); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32);
}
inline int __mulhi(int a, int b) {
    return static_cast<int>((static_cast<int64_t>(a) * b) >> 32);
}

// Blocks run sequentially on one system thread: their memory accesses are always in order.
inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T>
inline T emu_exchange_if(T* address, T compare, T value) {
    __atomic_compare_exchange_n(address, &compare, value, false, __ATOMIC_RELAXED,
                                __ATOMIC_RELAXED);
    return compare;
}

#define EMU_ATOMICS(T)                                                                             \
    inline T atomicAdd(T* at, T value) { return __atomic_fetch_add(at, value, __ATOMIC_RELAXED); } \
    inline T atomicExch(T* at, T value) { return __atomic_exchange_n(at, value, __ATOMIC_RELAXED); } \
    inline T atomicCAS(T* at, T compare, T value) { return emu_exchange_if(at, compare, value); }  \
    inline T atomicMax(T* at, T value) {                                                           \
        T old = __atomic_load_n(at, __ATOMIC_RELAXED);                                             \
        __atomic_store_n(at, max(old, value), __ATOMIC_RELAXED);                                   \
        return old;                                                                                \
    }                                                                                              \
    inline T atomicMin(T* at, T value) {                                                           \
        T old = __atomic_load_n(at, __ATOMIC_RELAXED);                                             \
        __atomic_store_n(at, min(old, value), __ATOMIC_RELAXED);                                   \
        return old;                                                                                \
    }
EMU_ATOMICS(int)
EMU_ATOMICS(unsigned)
#undef EMU_ATOMICS
// Not supported: the order of the additions, and so the bits of the result, would not be fixed.
float atomicAdd(float* at, float value) = delete;
double atomicAdd(double* at, double value) = delete;
