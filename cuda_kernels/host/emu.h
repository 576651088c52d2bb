// CUDA's language for g++: types, qualifiers and built-in functions on top of the scheduler. The
// threads of a block are fibers of one system thread; blocks run sequentially.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "runtime.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)

#define threadIdx emu::thread_index
#define blockIdx emu::block_index
#define blockDim emu::block_dim
#define gridDim emu::grid_dim
#define warpSize 32

#define EMU_TEXT_(x) #x
#define EMU_TEXT(x) EMU_TEXT_(x)
#define EMU_SITE __FILE__ ":" EMU_TEXT(__LINE__)

#define __syncthreads() emu::barrier(EMU_SITE)

// One address per declaration and template instance, as for any static variable in C++.
#define SHARED(name, ...)                                                                          \
    static const char name##_site = 0;                                                             \
    auto& name = *reinterpret_cast<typename Identity<__VA_ARGS__>::type*>(emu::shared(             \
        &name##_site, sizeof(typename Identity<__VA_ARGS__>::type), #name))
#define SHARED_DYNAMIC(name, ...)                                                                  \
    auto& name = *reinterpret_cast<typename Identity<__VA_ARGS__>::type*>(                         \
        emu::shared_dynamic(sizeof(typename Identity<__VA_ARGS__>::type), #name))

#define EMU_VECTORS(T, name, align2, align4)                                                       \
    struct __align__(align2) name##2 { T x, y; };                                                  \
    struct __align__(align4) name##4 { T x, y, z, w; };                                            \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                     \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMU_VECTORS(float, float, 8, 16)
EMU_VECTORS(int, int, 8, 16)
EMU_VECTORS(unsigned, uint, 8, 16)
#undef EMU_VECTORS

#include "builtins.h"
#include "warp.h"
