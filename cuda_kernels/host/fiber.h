// Fibers: stacks that the scheduler switches between, in assembly (a few nanoseconds) for supported
// processors, by ucontext for others. Each switch is reported to the sanitizers.
#pragma once

#include <cstddef>

namespace emu {

struct Fiber {
    void* stack_pointer = nullptr;  // where to resume; ucontext: the context
    char* stack = nullptr;          // lowest address; below it is a guard page
    void* sanitizer = nullptr;      // the sanitizer's handle of the fiber
};

constexpr size_t STACK_SIZE = 64 << 10;

// Allocates the stack of fiber `number` if it has none; false if there is no memory.
bool allocate_stack(Fiber& fiber, int number);

// Makes the fiber begin at `entry`, which must not return, when it is entered next.
void prepare(Fiber& fiber, int number, void (*entry)());

// Switches from the scheduler to a fiber, until the fiber calls `leave_fiber`.
void enter_fiber(Fiber& fiber);

// Switches from a fiber to the scheduler; `for_good` if the fiber will not be entered again.
void leave_fiber(Fiber& fiber, bool for_good);

// To be called first in the entry of a fiber.
void fiber_started();

// Whether the address is in the guard page below the stack, which an overflow accesses.
bool in_guard_page(const Fiber& fiber, const void* address);

// For a race detector: work before `publish(key)` happens before work after `observe(key)`.
void publish(void* key);
void observe(void* key);

}  // namespace emu
