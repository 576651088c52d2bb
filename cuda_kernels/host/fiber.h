// Fibers: stacks that the scheduler switches between, in some nanoseconds where the switch is
// written for the processor, by ucontext elsewhere. Sanitizers are told of each switch.
#pragma once

#include <cstddef>

namespace emu {

struct Fiber {
    void* stack_pointer = nullptr;  // where to go on; ucontext: the context
    char* stack = nullptr;          // lowest address; below it lies a page that must not be touched
    void* sanitizer = nullptr;      // the fiber, as the sanitizer knows it
};

constexpr size_t STACK_SIZE = 64 << 10;

// Gives fiber `number` a stack if it has none; false where there is no memory.
bool allocate_stack(Fiber& fiber, int number);

// Lets the fiber begin at `entry`, which must not return, when it is next entered.
void prepare(Fiber& fiber, int number, void (*entry)());

// From the scheduler into a fiber, until the fiber calls `leave_fiber`.
void enter_fiber(Fiber& fiber);

// From a fiber back to the scheduler; `for_good` when it will not be entered again.
void leave_fiber(Fiber& fiber, bool for_good);

// First thing in a fiber's entry.
void fiber_started();

// Whether the address lies in the page below the stack, where an overflow ends up.
bool in_guard_page(const Fiber& fiber, const void* address);

// What a race detector has to know: work before `publish(key)` happens before that after
// `observe(key)`.
void publish(void* key);
void observe(void* key);

}  // namespace emu
