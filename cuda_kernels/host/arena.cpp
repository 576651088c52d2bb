#include "arena.h"

#include <cstdint>
#include <cstdio>
#include <cstring>

#include "fence.h"
#include "runtime.h"

#ifdef EMU_ASAN
#include <sanitizer/asan_interface.h>
#else
#define __asan_poison_memory_region(address, size) ((void)0)
#define __asan_unpoison_memory_region(address, size) ((void)0)
#endif

namespace emu {
namespace {

constexpr size_t MARGIN = 128;  // keeps arrays aligned for every vector type and for cp.async
constexpr size_t STATIC_LIMIT = 48 << 10;
constexpr size_t CAPACITY = 320 << 10;
constexpr int MAX_ARRAYS = 32;

struct Array {
    const void* site;
    const char* name;
    unsigned char* data;
    size_t size, room;
};

alignas(MARGIN) unsigned char memory[CAPACITY];
Array arrays[MAX_ARRAYS];
int count = 0;
size_t used = 0, static_used = 0, granted = 0;

size_t rounded(size_t size) { return (size + MARGIN - 1) / MARGIN * MARGIN; }

uintptr_t place(const void* address) { return reinterpret_cast<uintptr_t>(address); }

// Volatile, word by word, for the same reason as in Fence::raise.
void fill_with_nan(unsigned char* data, size_t size) {
    auto words = reinterpret_cast<volatile uint64_t*>(data);
    const size_t whole = size / sizeof *words;
    for (size_t i = 0; i < whole; ++i) {
        words[i] = ~uint64_t{0};
    }
    for (size_t i = whole * sizeof *words; i < size; ++i) {
        const_cast<volatile unsigned char&>(data[i]) = 0xff;
    }
}

void* add(const void* site, size_t size, const char* name) {
    const size_t room = rounded(size);
    if (count == MAX_ARRAYS || used + room + 2 * MARGIN > CAPACITY) {
        fail("too many or too large shared arrays for the emulator");
    }
    unsigned char* const data = memory + used + MARGIN;
    const Fence fence(static_cast<unsigned>(count));
    __asan_unpoison_memory_region(data - MARGIN, room + 2 * MARGIN);
    fence.raise(place(data - MARGIN), place(data));
    fill_with_nan(data, size);
    fence.raise(place(data + size), place(data + room + MARGIN));
    __asan_poison_memory_region(data - MARGIN, MARGIN);
    __asan_poison_memory_region(data + size, room - size + MARGIN);
    arrays[count++] = {site, name, data, size, room};
    // The margin of the next array follows, a fence of another pattern.
    used += room + 2 * MARGIN;
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
        const Fence fence(static_cast<unsigned>(i));
        const unsigned char *end = array.data + array.size, *room = array.data + array.room;
        if (!fence.intact(place(array.data - MARGIN), place(array.data)) ||
            !fence.intact(place(end), place(room + MARGIN))) {
            return array.name;
        }
    }
#endif
    return nullptr;
}

}  // namespace emu
