// Copies that a thread has asked for and that have not happened yet.
#pragma once

namespace emu {

// Forgets all of them, at the start of a block.
void drop_copies();

int current_thread();

}  // namespace emu
