// Functions that kernel code calls: barriers, exchanges within a warp, and failure.
#include <cstdio>

#include "fault.h"
#include "fiber.h"
#include "runtime.h"
#include "threads.h"

namespace emu {
namespace {

struct Warp {
    volatile uint32_t area[2][WARP_LANES][EXCHANGE_WORDS];
    char keys[2];  // for the race detector, one per area
};

Warp warps[MAX_THREADS / WARP_LANES];

// Two keys by turns: with one key, a thread that wakes late would also synchronize with accesses of
// early threads after the barrier, and a read that races with the next write would be missed.
char barrier_keys[2];

}  // namespace

void barrier(const char* site) {
    Thread& thread = threads[current];
    void* key = &barrier_keys[thread.barriers++ & 1];
    thread.site = site;
    publish(key);
    leave(State::AT_BARRIER);
    observe(key);
}

void warp_sync(unsigned mask, const char* site) {
    Thread& thread = threads[current];
    if (!(mask >> lane() & 1u)) {
        fail("a lane is not in the mask of its own warp instruction");
    }
    void* key = &warps[current / WARP_LANES].keys[thread.exchanges++ & 1];
    thread.mask = mask;
    thread.site = site;
    publish(key);
    leave(State::AT_WARP);
    observe(key);
}

int lane() { return current % WARP_LANES; }

void put(const void* value, int words) {
    auto from = static_cast<const volatile uint32_t*>(value);
    auto& area = warps[current / WARP_LANES].area[threads[current].exchanges & 1];
    for (int i = 0; i < words; ++i) {
        area[lane()][i] = from[i];
    }
}

void get(void* value, int words, int from_lane) {
    auto to = static_cast<volatile uint32_t*>(value);
    auto& area = warps[current / WARP_LANES].area[(threads[current].exchanges - 1) & 1];
    for (int i = 0; i < words; ++i) {
        to[i] = area[from_lane][i];
    }
}

void describe(char* text, size_t size, const Thread& thread) {
    snprintf(text, size, "thread (%u, %u, %u)", thread.index.x, thread.index.y, thread.index.z);
}

void write_failure_of(const Thread& thread, const char* what) {
    char who[64], text[480];
    describe(who, sizeof who, thread);
    snprintf(text, sizeof text, "%s: %s", who, what);
    write_failure(text);
}

void fail(const char* what) {
    write_failure_of(threads[current], what);
    leave(State::ENDED);
    __builtin_unreachable();
}

int current_thread() { return current; }

Fiber& fiber_of(int thread) { return *threads[thread].fiber; }

void fail_from_handler(const char* what) { write_failure_of(threads[current], what); }

}  // namespace emu
