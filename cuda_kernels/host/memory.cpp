// The memory of the emulated device. Lent memory is filled with NaN and has a fence on both sides,
// which is checked after each launch; beyond the fences is a zone in which any access faults.
#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>

#include "fence.h"

#ifdef EMU_ASAN
#include <sanitizer/asan_interface.h>
#else
#define __asan_poison_memory_region(address, size) ((void)0)
#define __asan_unpoison_memory_region(address, size) ((void)0)
#endif

namespace emu {
namespace {

constexpr size_t ALIGNMENT = 256, MARGIN = 1024, ZONE = 1 << 20;

struct Allocation {
    size_t capacity, size;
    char* mapping;
    size_t mapped;
    Fence fence;
};

std::map<uintptr_t, Allocation> allocations;  // by address
std::mutex changing;
unsigned fences = 0;

size_t round_up(size_t size, size_t unit) { return (size + unit - 1) / unit * unit; }

void raise_fence(const Fence& fence, uintptr_t from, uintptr_t to) {
    __asan_unpoison_memory_region(reinterpret_cast<void*>(from), to - from);
    fence.raise(from, to);
    __asan_poison_memory_region(reinterpret_cast<void*>(from), to - from);
}

// Of a slack, which may be large, as many bytes are checked as of a margin.
uintptr_t watched(uintptr_t from, uintptr_t to) { return to - from < MARGIN ? to : from + MARGIN; }

}  // namespace

void describe_address(const void* address, char* text, size_t size) {
    const auto place = reinterpret_cast<uintptr_t>(address);
    for (const auto& [at, allocation] : allocations) {
        const uintptr_t end = at + allocation.size;
        if (place >= end && place - end < 2 * ZONE) {
            snprintf(text, size, "%zu bytes beyond the allocation of %zu bytes at %#zx",
                     static_cast<size_t>(place - end), allocation.size, static_cast<size_t>(at));
            return;
        }
        if (place < at && at - place < 2 * ZONE) {
            snprintf(text, size, "%zu bytes before the allocation of %zu bytes at %#zx",
                     static_cast<size_t>(at - place), allocation.size, static_cast<size_t>(at));
            return;
        }
    }
    snprintf(text, size, "at %s, far from every allocation",
             place == 0 ? "an impossible address" : "a wild address");
}

}  // namespace emu

extern "C" {

// Allocates fenced memory of at least `size` bytes; returns 0 if the system has none.
uint64_t emu_allocate(uint64_t size) {
    using namespace emu;
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t capacity = round_up(size, ALIGNMENT);
    const size_t open = round_up(capacity + 2 * MARGIN, page);
    const size_t mapped = open + 2 * ZONE;
    void* mapping = mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                         -1, 0);
    if (mapping == MAP_FAILED) {
        return 0;
    }
    char* const start = static_cast<char*>(mapping);
    if (mprotect(start + ZONE, open, PROT_READ | PROT_WRITE) != 0) {
        munmap(mapping, mapped);
        return 0;
    }
    const auto address = reinterpret_cast<uintptr_t>(start + ZONE + open - MARGIN - capacity);
    std::lock_guard<std::mutex> lock(changing);
    const Fence fence(fences++);
    allocations[address] = {capacity, size, start, mapped, fence};
    raise_fence(fence, address - MARGIN, address);
    raise_fence(fence, address + size, address + capacity + MARGIN);
    memset(reinterpret_cast<void*>(address), 0xff, size);
    return address;
}

void emu_free(uint64_t address) {
    using namespace emu;
    std::lock_guard<std::mutex> lock(changing);
    auto found = allocations.find(address);
    if (found != allocations.end()) {
        const Allocation gone = found->second;
        __asan_unpoison_memory_region(gone.mapping, gone.mapped);
        allocations.erase(found);
        munmap(gone.mapping, gone.mapped);
    }
}

// Returns 0, or 1 when there is no such allocation of that size.
int emu_lend(uint64_t address, uint64_t size) {
    using namespace emu;
    std::lock_guard<std::mutex> lock(changing);
    auto found = allocations.find(address);
    if (found == allocations.end() || size > found->second.capacity) {
        return 1;
    }
    found->second.size = size;
    __asan_unpoison_memory_region(reinterpret_cast<void*>(address), found->second.capacity);
    memset(reinterpret_cast<void*>(address), 0xff, size);
    raise_fence(found->second.fence, address + size, address + found->second.capacity);
    return 0;
}

// The number of bytes of the allocation from the address on; 0 for an address outside.
uint64_t emu_extent(uint64_t address) {
    using namespace emu;
    std::lock_guard<std::mutex> lock(changing);
    auto next = allocations.upper_bound(address);
    if (next == allocations.begin()) {
        return 0;
    }
    --next;
    const uint64_t end = next->first + next->second.size;
    return address < end ? end - address : 0;
}

// Returns 0, or 1 with the allocation whose fence was written and on which side. The fence is then
// restored, so that the next launch is checked separately.
int emu_check_fences(uint64_t* address, uint64_t* size, int* before) {
#ifndef EMU_ASAN
    using namespace emu;
    std::lock_guard<std::mutex> lock(changing);
    for (const auto& [at, allocation] : allocations) {
        const uintptr_t end = at + allocation.size, limit = at + allocation.capacity;
        const Fence& fence = allocation.fence;
        const bool low = !fence.intact(at - MARGIN, at);
        if (low || !fence.intact(end, watched(end, limit)) ||
            !fence.intact(limit, limit + MARGIN)) {
            *address = at;
            *size = allocation.size;
            *before = low;
            raise_fence(fence, at - MARGIN, at);
            raise_fence(fence, end, limit + MARGIN);
            return 1;
        }
    }
#else
    (void)address, (void)size, (void)before;
#endif
    return 0;
}
}
