// Shared memory of the running block: made when it is first named, filled with NaN, fenced.
#pragma once

#include <cstddef>

namespace emu {

// Forgets the last block's arrays. `dynamic_size` is what the launch granted.
void open_arena(size_t dynamic_size);

// The array whose fence was written over, or null.
const char* broken_fence();

}  // namespace emu
