// Functions of the scheduler for kernel code, and of the library for the driver.
#pragma once

#include <cstddef>
#include <cstdint>

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace emu {

constexpr int WARP_LANES = 32;
constexpr int MAX_THREADS = 1024;
constexpr int EXCHANGE_WORDS = 16;  // the most words a lane can exchange at once

extern uint3 thread_index, block_index;
extern dim3 block_dim, grid_dim;

// The order in which threads, warps and blocks run, which CUDA does not define.
enum class Order : int { FORWARD = 0, REVERSED = 1, SHUFFLED = 2 };
Order order();
unsigned random_below(unsigned bound);

// `site` is the location in the source: all threads of a block must arrive at the same one.
void barrier(const char* site);
void warp_sync(unsigned mask, const char* site);
int lane();

// A lane writes words for its warp, all lanes arrive, all lanes read. The area remains valid until
// the exchange after the next, so one synchronization per exchange suffices.
void put(const void* value, int words);
void get(void* value, int words, int from_lane);
[[noreturn]] void fail(const char* what);

void* shared(const void* site, size_t size, const char* name);
void* shared_dynamic(size_t size, const char* name);

// Queues an asynchronous copy of the current thread. `move` executes it; it is compiled with the
// kernel, because sanitizers instrument only the kernel's code.
using Mover = void (*)(void* to, const void* from, int size, int valid);
void copy_later(void* to, const void* from, int size, int valid, Mover move);
void copy_commit();
void copy_wait(int groups_left);

}  // namespace emu

extern "C" {

struct EmuLaunch {
    const char* kernel;
    unsigned grid[3], block[3];
    unsigned shared_bytes;
    int order;
    uint64_t seed;
};

// Runs a kernel's body over the grid. Returns 0, or 1 with a message in `error`.
int emu_run(const EmuLaunch* launch, void (*body)(const void*), const void* args, char* error,
            size_t error_size);
}
