// Turns a wild address or a division by zero in a kernel into a sentence.
#pragma once

#include <cstddef>

#include "fiber.h"

namespace emu {

// Runs `work(argument)`; a fault inside ends it and is written down as the launch's failure.
void guarded(void (*work)(size_t), size_t argument);

// The scheduler's side.
int current_thread();
Fiber& fiber_of(int thread);
void fail_from_handler(const char* what);

}  // namespace emu
