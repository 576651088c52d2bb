// Runs a kernel over its grid: blocks sequentially, the threads of a block as fibers, warp by warp,
// each until it waits or ends.
#include <cstdio>
#include <cstring>
#include <mutex>
#include <utility>

#include "arena.h"
#include "async.h"
#include "fault.h"
#include "fiber.h"
#include "runtime.h"
#include "threads.h"

namespace emu {

uint3 thread_index, block_index;
dim3 block_dim, grid_dim;
Thread threads[MAX_THREADS];
int thread_count, current;
bool failed;

namespace {

char failure[512];

// For the race detector: threads begin after the scheduler has set up the block, and all end before
// it continues.
char start_key, end_key;

Fiber fibers[MAX_THREADS];
// The lanes of the running warp in the order in which they run, and the current one.
int lane_sequence[WARP_LANES], turn, turns;
Order chosen_order;
uint64_t random_state;
void (*kernel_body)(const void*);
const void* kernel_args;
std::mutex one_launch;

// A fiber whose thread has ended runs the next thread of the warp that has not begun, which saves
// two switches; a waiting thread keeps its fiber. Not with a race detector, which would take both
// for one thread.
bool next_thread() {
#ifndef EMU_TSAN
    const int first = current / WARP_LANES * WARP_LANES;
    if (!failed && turn + 1 < turns) {
        Thread& next = threads[first + lane_sequence[turn + 1]];
        if (next.state == State::UNSTARTED) {
            next.fiber = threads[current].fiber;
            current = first + lane_sequence[++turn];
            thread_index = next.index;
            return true;
        }
    }
#endif
    return false;
}

void fiber_entry() {
    fiber_started();
    do {
        observe(&start_key);
        kernel_body(kernel_args);
        publish(&end_key);
        threads[current].state = State::ENDED;
    } while (next_thread());
    leave(State::ENDED);
}

// Fills `sequence` with 0..count-1 in the chosen order.
void arrange(int* sequence, int count) {
    const bool reversed = chosen_order == Order::REVERSED;
    for (int i = 0; i < count; ++i) {
        sequence[i] = reversed ? count - 1 - i : i;
    }
    if (chosen_order == Order::SHUFFLED) {
        for (int i = count - 1; i > 0; --i) {
            std::swap(sequence[i], sequence[random_below(static_cast<unsigned>(i) + 1)]);
        }
    }
}

// Whether every lane that `thread` waits for is waiting at the same place.
bool complete(int first, const Thread& thread) {
    for (int lane = 0; lane < WARP_LANES; ++lane) {
        if (thread.mask >> lane & 1u) {
            const int other = first + lane;
            if (other >= thread_count || threads[other].state != State::AT_WARP ||
                threads[other].mask != thread.mask ||
                strcmp(threads[other].site, thread.site) != 0) {
                return false;
            }
        }
    }
    return true;
}

bool release_lanes(int first, int lanes) {
    bool any = false;
    for (int lane = 0; lane < lanes; ++lane) {
        const Thread& thread = threads[first + lane];
        if (thread.state == State::AT_WARP && complete(first, thread)) {
            const unsigned mask = thread.mask;
            for (int i = 0; i < lanes; ++i) {
                if (mask >> i & 1u) {
                    threads[first + i].state = State::READY;
                }
            }
            any = true;
        }
    }
    return any;
}

void run_thread(int number) {
    Thread& thread = threads[number];
    if (thread.state == State::UNSTARTED) {
        thread.fiber = &fibers[number];
        prepare(*thread.fiber, number, fiber_entry);
    } else if (thread.state != State::READY) {
        return;
    }
    current = number;
    thread_index = thread.index;
    enter_fiber(*thread.fiber);
}

void run_warp(int warp) {
    const int first = warp * WARP_LANES;
    turns = thread_count - first < WARP_LANES ? thread_count - first : WARP_LANES;
    do {
        arrange(lane_sequence, turns);
        for (turn = 0; turn < turns && !failed; ++turn) {
            run_thread(first + lane_sequence[turn]);
        }
    } while (!failed && release_lanes(first, turns));
}

void stuck_lane(const Thread& thread) {
    char who[64], text[320];
    describe(who, sizeof who, thread);
    snprintf(text, sizeof text,
             "%s waits at %s for the lanes of mask 0x%08x, and not all of them arrive there", who,
             thread.site, thread.mask);
    write_failure(text);
}

void divergent(const Thread& waiting, const Thread& other) {
    char who[64], whom[64], text[480];
    describe(who, sizeof who, waiting);
    describe(whom, sizeof whom, other);
    const bool ended = other.state == State::ENDED;
    snprintf(text, sizeof text,
             "divergent __syncthreads: %s waits at %s, %s %s%s; every thread must reach the same "
             "barrier",
             who, waiting.site, whom, ended ? "has ended" : "waits at ", ended ? "" : other.site);
    write_failure(text);
}

// All threads wait or have ended. Returns whether the block is done; if not, releases the barrier.
bool block_done() {
    const Thread* waiting = nullptr;
    for (int i = 0; i < thread_count; ++i) {
        if (threads[i].state == State::AT_WARP) {
            stuck_lane(threads[i]);
            return true;
        }
        if (threads[i].state == State::AT_BARRIER && waiting == nullptr) {
            waiting = &threads[i];
        }
    }
    if (waiting == nullptr) {
        return true;
    }
    for (int i = 0; i < thread_count; ++i) {
        const Thread& thread = threads[i];
        if (thread.state == State::ENDED || (thread.site != waiting->site &&
                                             strcmp(thread.site, waiting->site) != 0)) {
            divergent(*waiting, thread);
            return true;
        }
    }
    for (int i = 0; i < thread_count; ++i) {
        threads[i].state = State::READY;
    }
    return false;
}

void run_block(size_t dynamic_size) {
    open_arena(dynamic_size);
    drop_copies();
    for (int i = 0; i < thread_count; ++i) {
        threads[i].state = State::UNSTARTED;
        threads[i].barriers = threads[i].exchanges = 0;
    }
    publish(&start_key);
    const int warp_count = (thread_count + WARP_LANES - 1) / WARP_LANES;
    int sequence[MAX_THREADS / WARP_LANES];
    do {
        arrange(sequence, warp_count);
        for (int i = 0; i < warp_count && !failed; ++i) {
            run_warp(sequence[i]);
        }
    } while (!failed && !block_done());
    observe(&end_key);
    const char* overrun = failed ? nullptr : broken_fence();
    if (overrun != nullptr) {
        char text[200];
        snprintf(text, sizeof text, "a write beyond the ends of shared array '%.80s'", overrun);
        write_failure(text);
    }
}

bool set_up(const EmuLaunch& launch) {
    block_dim = dim3(launch.block[0], launch.block[1], launch.block[2]);
    grid_dim = dim3(launch.grid[0], launch.grid[1], launch.grid[2]);
    chosen_order = static_cast<Order>(launch.order);
    random_state = (launch.seed + 1) * 0x9e3779b97f4a7c15ull;
    thread_count = static_cast<int>(block_dim.x * block_dim.y * block_dim.z);
    failed = false;
    for (int i = 0; i < thread_count; ++i) {
        const auto n = static_cast<unsigned>(i);
        threads[i].index = {n % block_dim.x, n / block_dim.x % block_dim.y,
                            n / block_dim.x / block_dim.y};
        if (!allocate_stack(fibers[i], i)) {
            write_failure("no memory for the threads' stacks");
            return false;
        }
    }
    return true;
}

// In shuffled order, blocks run cyclically from a random one, which needs no memory for the order.
void run_grid(size_t dynamic_size) {
    const uint64_t blocks = static_cast<uint64_t>(grid_dim.x) * grid_dim.y * grid_dim.z;
    const uint64_t start =
        chosen_order == Order::SHUFFLED
            ? random_below(blocks < 0x7fffffff ? static_cast<unsigned>(blocks) : 0x7fffffff)
            : 0;
    for (uint64_t i = 0; i < blocks && !failed; ++i) {
        const uint64_t turn = chosen_order == Order::REVERSED ? blocks - 1 - i : i;
        const uint64_t block = (start + turn) % blocks;
        block_index = {static_cast<unsigned>(block % grid_dim.x),
                       static_cast<unsigned>(block / grid_dim.x % grid_dim.y),
                       static_cast<unsigned>(block / grid_dim.x / grid_dim.y)};
        run_block(dynamic_size);
    }
}

}  // namespace

Order order() { return chosen_order; }

unsigned random_below(unsigned bound) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return static_cast<unsigned>((random_state >> 11) % bound);
}

void leave(State state) {
    Thread& thread = threads[current];
    thread.state = state;
    leave_fiber(*thread.fiber, state == State::ENDED);
}

void write_failure(const char* what) {
    if (!failed) {
        failed = true;
        snprintf(failure, sizeof failure, "%s", what);
    }
}

}  // namespace emu

extern "C" int emu_run(const EmuLaunch* launch, void (*body)(const void*), const void* args,
                       char* error, size_t error_size) {
    std::lock_guard<std::mutex> lock(emu::one_launch);
    emu::kernel_body = body;
    emu::kernel_args = args;
    if (emu::set_up(*launch)) {
        emu::guarded([](size_t size) { emu::run_grid(size); }, launch->shared_bytes);
    }
    if (!emu::failed) {
        return 0;
    }
    snprintf(error, error_size, "kernel '%s', block (%u, %u, %u): %s", launch->kernel,
             emu::block_index.x, emu::block_index.y, emu::block_index.z, emu::failure);
    return 1;
}
