// What the runtime's other parts ask about the emulated device's memory.
#pragma once

#include <cstddef>

namespace emu {

// Writes down where an address lies, seen from the nearest allocation.
void describe_address(const void* address, char* text, size_t size);

}  // namespace emu
