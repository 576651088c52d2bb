// Copies from global to shared memory that bypass the registers (cp.async, sm_80). The copies of a
// thread are visible to it after copy_async_wait, and to the block after the next barrier.
//
//   copy_async<16>(&tile[stage][row][column], source);      one copy, BYTES is 4, 8 or 16
//   copy_async_commit();                                    closes a group
//   copy_async_wait<1>();                                   waits for all groups but the last
//   __syncthreads();
//
// The emulator executes a copy at once in forward order, at the wait in reversed order, and at
// either in shuffled order, so that reading too early and overwriting too soon are both detected.
#pragma once

#include "common.cuh"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#error "async_copy.cuh needs sm_80: put `// requires: sm_80` at the head of the .cu"
#endif

#ifndef __CUDACC__
template <int BYTES>
void emu_copy(void* to, const void* from, int size, int valid) {
    (void)size;
    unsigned char bytes[BYTES] = {};
    for (int i = 0; i < valid; ++i) {
        bytes[i] = static_cast<const unsigned char*>(from)[i];
    }
    memcpy(to, bytes, BYTES);
}
#endif

// Copies `valid` bytes (all by default) and fills the rest with zeros; both addresses aligned to
// BYTES. With valid == 0 nothing is read, but the address must still be one of the array.
template <int BYTES>
__device__ __forceinline__ void copy_async(void* shared, const void* global, int valid = BYTES) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "what cp.async can copy");
#ifdef __CUDACC__
    const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    if constexpr (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global),
                     "r"(valid)
                     : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address), "l"(global),
                     "n"(BYTES), "r"(valid)
                     : "memory");
    }
#else
    if ((reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global)) % BYTES != 0) {
        emu::fail("an asynchronous copy between addresses that are not aligned to its size");
    }
    emu::copy_later(shared, global, BYTES, valid, emu_copy<BYTES>);
#endif
}

__device__ __forceinline__ void copy_async_commit() {
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;" ::: "memory");
#else
    emu::copy_commit();
#endif
}

template <int GROUPS_LEFT>
__device__ __forceinline__ void copy_async_wait() {
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS_LEFT) : "memory");
#else
    emu::copy_wait(GROUPS_LEFT);
#endif
}
