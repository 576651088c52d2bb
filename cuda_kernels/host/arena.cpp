#include "arena.h"

#include <cstdint>
#include <cstdio>
#include <cstring>

#include "runtime.h"

#ifdef EMU_ASAN
#include <sanitizer/asan_interface.h>
#else
#define __asan_poison_memory_region(address, size) ((void)0)
#define __asan_unpoison_memory_region(address, size) ((void)0)
#endif

namespace emu {
namespace {

constexpr size_t FENCE = 128;  // keeps arrays aligned for every vector type and for cp.async
constexpr size_t STATIC_LIMIT = 48 << 10;
constexpr size_t CAPACITY = 320 << 10;
constexpr int MAX_ARRAYS = 32;

struct Array {
    const void* site;
    const char* name;
    unsigned char* data;
    size_t size, room;
};

alignas(FENCE) unsigned char memory[CAPACITY];
Array arrays[MAX_ARRAYS];
int count = 0;
size_t used = 0, static_used = 0, granted = 0;

// Word by word and volatile: a call of memset would be seen by the race detector.
void fill(unsigned char* from, size_t size, uint16_t half) {
    auto words = reinterpret_cast<volatile uint64_t*>(from);
    const uint64_t word = half * 0x0001000100010001ull;
    for (size_t i = 0; i < size / sizeof word; ++i) {
        words[i] = word;
    }
}

size_t rounded(size_t size) { return (size + FENCE - 1) / FENCE * FENCE; }

void* add(const void* site, size_t size, const char* name) {
    const size_t room = rounded(size);
    if (count == MAX_ARRAYS || used + room + 2 * FENCE > CAPACITY) {
        fail("too many or too large shared arrays for the emulator");
    }
    unsigned char* fence = memory + used;
    __asan_unpoison_memory_region(fence, room + 2 * FENCE);
    unsigned char* data = fence + FENCE;
    fill(fence, room + 2 * FENCE, FENCE_HALF);
    fill(data, size / 8 * 8, 0xffff);
    for (size_t i = size / 8 * 8; i < size; ++i) {
        const_cast<volatile unsigned char&>(data[i]) = 0xff;
    }
    __asan_poison_memory_region(fence, FENCE);
    __asan_poison_memory_region(data + size, room - size + FENCE);
    arrays[count++] = {site, name, data, size, room};
    used += room + FENCE;
    return data;
}

const Array* find(const void* site) {
    for (int i = 0; i < count; ++i) {
        if (arrays[i].site == site) {
            return &arrays[i];
        }
    }
    return nullptr;
}

bool intact(const unsigned char* from, const unsigned char* to) {
    for (; from < to; ++from) {
        const auto place = reinterpret_cast<uintptr_t>(from);
        const auto byte = static_cast<unsigned char>(place % 2 == 0 ? FENCE_HALF : FENCE_HALF >> 8);
        if (*from != byte) {
            return false;
        }
    }
    return true;
}

}  // namespace

void open_arena(size_t dynamic_size) {
    __asan_poison_memory_region(memory, CAPACITY);
    count = 0;
    used = static_used = 0;
    granted = dynamic_size;
}

void* shared(const void* site, size_t size, const char* name) {
    if (const Array* known = find(site)) {
        return known->data;
    }
    static_used += size;
    if (static_used > STATIC_LIMIT) {
        char text[240];
        snprintf(text, sizeof text,
                 "%zu bytes of static shared memory with '%.60s'; expected at most %zu; use "
                 "SHARED_DYNAMIC",
                 static_used, name, STATIC_LIMIT);
        fail(text);
    }
    return add(site, size, name);
}

void* shared_dynamic(size_t size, const char* name) {
    static const char site = 0;
    if (size > granted) {
        char text[240];
        snprintf(text, sizeof text,
                 "'%.60s' has %zu bytes of dynamic shared memory, the launch granted %zu; launch "
                 "with shared_bytes=%zu",
                 name, size, granted, size);
        fail(text);
    }
    const Array* known = find(&site);
    return known != nullptr ? known->data : add(&site, size, name);
}

const char* broken_fence() {
#ifndef EMU_ASAN
    for (int i = 0; i < count; ++i) {
        const Array& array = arrays[i];
        if (!intact(array.data - FENCE, array.data) ||
            !intact(array.data + array.size, array.data + array.room + FENCE)) {
            return array.name;
        }
    }
#endif
    return nullptr;
}

}  // namespace emu
