// Converts an invalid address or a division by zero in a kernel to an error message.
#pragma once

#include <cstddef>

#include "fiber.h"

namespace emu {

// Runs `work(argument)`; a fault ends it and is recorded as the failure of the launch.
void guarded(void (*work)(size_t), size_t argument);

// Called by the scheduler.
int current_thread();
Fiber& fiber_of(int thread);
void fail_from_handler(const char* what);

}  // namespace emu
