// The emulated device's memory: every allocation lies between fences, what is lent is filled with
// NaN, and what lies beyond it is fence as well.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "arena.h"

#ifdef EMU_ASAN
#include <sanitizer/asan_interface.h>
#else
#define __asan_poison_memory_region(address, size) ((void)0)
#define __asan_unpoison_memory_region(address, size) ((void)0)
#endif

namespace emu {
namespace {

constexpr size_t FENCE = 256;
// Of a slack that may be large, this much is looked at after each launch.
constexpr size_t WATCHED = 1024;

struct Allocation {
    size_t capacity, size;
};

std::map<uintptr_t, Allocation> allocations;  // by address
std::mutex changing;

unsigned char fence_byte(uintptr_t at) {
    return static_cast<unsigned char>(at % 2 == 0 ? FENCE_HALF : FENCE_HALF >> 8);
}

void fence(uintptr_t from, uintptr_t to) {
    for (uintptr_t at = from; at < to; ++at) {
        *reinterpret_cast<unsigned char*>(at) = fence_byte(at);
    }
}

void poison(uintptr_t from, uintptr_t to) {
    (void)from, (void)to;
    __asan_poison_memory_region(reinterpret_cast<void*>(from), to - from);
}

bool intact(uintptr_t from, uintptr_t to) {
    for (; from < to; ++from) {
        if (*reinterpret_cast<const unsigned char*>(from) != fence_byte(from)) {
            return false;
        }
    }
    return true;
}

uintptr_t slack_end(uintptr_t address, const Allocation& allocation) {
    const size_t slack = allocation.capacity - allocation.size;
    return address + allocation.size + (slack < WATCHED ? slack : WATCHED);
}

// The allocation that holds the address, or end().
std::map<uintptr_t, Allocation>::const_iterator holder(uintptr_t address) {
    auto next = allocations.upper_bound(address);
    if (next == allocations.begin()) {
        return allocations.end();
    }
    --next;
    return address < next->first + next->second.capacity ? next : allocations.end();
}

}  // namespace
}  // namespace emu

extern "C" {

uint64_t emu_allocate(uint64_t size) {
    const size_t capacity = (size + emu::FENCE - 1) / emu::FENCE * emu::FENCE;
    void* memory = aligned_alloc(emu::FENCE, capacity + 2 * emu::FENCE);
    if (memory == nullptr) {
        return 0;
    }
    const uintptr_t address = reinterpret_cast<uintptr_t>(memory) + emu::FENCE;
    std::lock_guard<std::mutex> lock(emu::changing);
    emu::allocations[address] = {capacity, capacity};
    emu::fence(address - emu::FENCE, address);
    emu::fence(address + capacity, address + capacity + emu::FENCE);
    memset(reinterpret_cast<void*>(address), 0xff, capacity);
    emu::poison(address - emu::FENCE, address);
    emu::poison(address + capacity, address + capacity + emu::FENCE);
    return address;
}

void emu_free(uint64_t address) {
    std::lock_guard<std::mutex> lock(emu::changing);
    auto found = emu::allocations.find(address);
    if (found != emu::allocations.end()) {
        void* memory = reinterpret_cast<void*>(address - emu::FENCE);
        __asan_unpoison_memory_region(memory, found->second.capacity + 2 * emu::FENCE);
        emu::allocations.erase(found);
        free(memory);
    }
}

// Returns 0, or 1 when this is no allocation of that size.
int emu_lend(uint64_t address, uint64_t size) {
    std::lock_guard<std::mutex> lock(emu::changing);
    auto found = emu::allocations.find(address);
    if (found == emu::allocations.end() || size > found->second.capacity) {
        return 1;
    }
    const uintptr_t end = address + found->second.capacity;
    found->second.size = size;
    __asan_unpoison_memory_region(reinterpret_cast<void*>(address), found->second.capacity);
    memset(reinterpret_cast<void*>(address), 0xff, size);
    emu::fence(address + size, end);
    emu::poison(address + size, end);
    return 0;
}

// How many bytes are the owner's from the address on; 0 for an address that is nobody's.
uint64_t emu_extent(uint64_t address) {
    std::lock_guard<std::mutex> lock(emu::changing);
    auto found = emu::holder(address);
    if (found == emu::allocations.end() || address > found->first + found->second.size) {
        return 0;
    }
    return found->first + found->second.size - address;
}

// Returns 0, or 1 with the size of the allocation whose surroundings were written, and on which
// side; the fence is then made whole, so that the next launch is judged for itself.
int emu_check_fences(uint64_t* address, uint64_t* size, int* before) {
#ifndef EMU_ASAN
    std::lock_guard<std::mutex> lock(emu::changing);
    for (const auto& [at, allocation] : emu::allocations) {
        const bool low = !emu::intact(at - emu::FENCE, at);
        const bool high =
            !emu::intact(at + allocation.size, emu::slack_end(at, allocation)) ||
            !emu::intact(at + allocation.capacity, at + allocation.capacity + emu::FENCE);
        if (low || high) {
            *address = at;
            *size = allocation.size;
            *before = low;
            emu::fence(at - emu::FENCE, at);
            emu::fence(at + allocation.size, at + allocation.capacity + emu::FENCE);
            return 1;
        }
    }
#else
    (void)address, (void)size, (void)before;
#endif
    return 0;
}
}
