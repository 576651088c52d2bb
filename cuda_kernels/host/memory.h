// Queries of the emulated device's memory by the other parts of the runtime.
#pragma once

#include <cstddef>

namespace emu {

// Describes an address relative to the nearest allocation.
void describe_address(const void* address, char* text, size_t size);

}  // namespace emu
