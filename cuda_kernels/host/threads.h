// The threads of the running block, shared by the scheduler and the calls of kernel code.
#pragma once

#include <cstdint>

#include "fiber.h"
#include "runtime.h"

namespace emu {

enum class State : uint8_t { UNSTARTED, READY, AT_BARRIER, AT_WARP, ENDED };

struct Thread {
    Fiber* fiber;  // on which it has begun
    State state;
    uint3 index;
    unsigned mask;      // of the warp instruction it waits at
    const char* site;   // where it waits
    unsigned barriers;  // how many it has passed
    unsigned exchanges;
};

extern Thread threads[MAX_THREADS];
extern int thread_count, current;

// Switches from the fiber of the current thread to the scheduler.
void leave(State state);

// Stops the launch with a message; only the first one is reported.
extern bool failed;
void write_failure(const char* what);
void write_failure_of(const Thread& thread, const char* what);
void describe(char* text, size_t size, const Thread& thread);

}  // namespace emu
