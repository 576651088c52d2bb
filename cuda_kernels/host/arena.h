// Shared memory of the running block: allocated at its first use, filled with NaN, between fences.
#pragma once

#include <cstddef>

namespace emu {

// Discards the arrays of the last block. `dynamic_size` is the size given in the launch.
void open_arena(size_t dynamic_size);

// The array whose fence was overwritten, or null.
const char* broken_fence();

}  // namespace emu
