// Copies that a thread has submitted and that are not executed yet.
#pragma once

namespace emu {

// Discards all of them, at the start of a block.
void drop_copies();

int current_thread();

}  // namespace emu
