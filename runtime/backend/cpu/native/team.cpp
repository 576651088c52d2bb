// The thread team, and the questions about the processor.
//
// Why not OpenMP: its runtime is one per process and spins beside OpenBLAS's; it breaks in a forked
// child, and every Python thread that calls gets a team of its own. This team belongs to one
// backend, survives a fork, and lets a caller finish alone when no core is free for its workers.

#include "team.h"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__) || defined(__i386__)
#define VD_PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define VD_PAUSE() __asm__ volatile("yield")
#else
#define VD_PAUSE() ((void)0)
#endif

namespace verydeep {

namespace {
constexpr int kSpins = 4000;  // tens of microseconds: longer than the gap between most ops of a net
constexpr int kYields = 400;  // some hundred more, left to any thread that wants the core
constexpr std::uint64_t kItemBits = 32;
constexpr std::uint64_t kItemMask = (std::uint64_t{1} << kItemBits) - 1;
}  // namespace

struct Team {
    explicit Team(int threads) : count(threads) {}

    int count;
    pid_t owner = 0;  // the process whose threads these are; a forked child has none of them
    std::vector<std::thread> workers;
    std::mutex caller;  // one loop at a time

    // The job. `claim` holds its number and the next free item; who moves `claim` on owns an item,
    // and the job cannot end before that item is done. A worker that wakes late finds no item left
    // and touches nothing.
    std::atomic<std::uint64_t> claim{0};
    std::atomic<std::uint64_t> items{0};
    std::atomic<void (*)(void*, std::ptrdiff_t, int)> body{nullptr};
    std::atomic<void*> context{nullptr};
    std::atomic<std::uint64_t> done{0};

    std::mutex sleep;
    std::condition_variable wake;
    std::atomic<int> sleepers{0};
    std::atomic<bool> stop{false};

    void start();
    void finish();
    void forget_parent();
    void work(int worker);
    bool take_items(int worker);
    void wait_for_job(std::uint64_t seen);
};

// Claim and run items until none is left.
bool Team::take_items(int worker) {
    bool any = false;
    std::uint64_t now = claim.load(std::memory_order_acquire);
    for (;;) {
        const std::uint64_t last = items.load(std::memory_order_acquire);
        auto call = body.load(std::memory_order_relaxed);
        void* argument = context.load(std::memory_order_relaxed);
        if ((now & kItemMask) >= last) return any;
        if (!claim.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel,
                                         std::memory_order_acquire))
            continue;
        call(argument, static_cast<std::ptrdiff_t>(now & kItemMask), worker);
        done.fetch_add(1, std::memory_order_release);
        any = true;
        now = claim.load(std::memory_order_acquire);
    }
}

void Team::wait_for_job(std::uint64_t seen) {
    auto waiting = [&] {
        // Sequentially consistent, as are `sleepers` and the caller's claim: one of the two sees
        // the other's store, so no wake-up is lost.
        return (claim.load() >> kItemBits) == seen && !stop.load();
    };
    for (int i = 0; i < kSpins; ++i) {
        if (!waiting()) return;
        VD_PAUSE();
    }
    for (int i = 0; i < kYields; ++i) {
        if (!waiting()) return;
        std::this_thread::yield();
    }
    std::unique_lock<std::mutex> lock(sleep);
    sleepers.fetch_add(1);
    while (waiting()) wake.wait(lock);
    sleepers.fetch_sub(1);
}

void Team::work(int worker) {
    while (!stop.load(std::memory_order_acquire)) {
        const std::uint64_t seen = claim.load(std::memory_order_acquire) >> kItemBits;
        if (!take_items(worker)) wait_for_job(seen);
    }
}

// Of a parent's threads only the handles came over, and what they slept on: locked by threads that
// are not here, with waiters that will never leave. Letting go of all that is what one may do.
void Team::forget_parent() {
    for (auto& worker : workers) worker.detach();
    workers.clear();
    new (&sleep) std::mutex;
    new (&wake) std::condition_variable;
    sleepers.store(0);
}

void Team::start() {
    if (owner != 0) forget_parent();
    owner = getpid();
    try {
        for (int i = 1; i < count; ++i) workers.emplace_back([this, i] { work(i); });
    } catch (const std::system_error&) {
        // The system grants fewer threads: those that started, and the caller, do the work.
    }
}

void Team::finish() {
    if (owner != getpid()) {
        forget_parent();
        return;
    }
    {
        std::lock_guard<std::mutex> lock(sleep);
        stop.store(true, std::memory_order_release);
    }
    wake.notify_all();
    for (auto& worker : workers) worker.join();
}

int team_size(const Team* team) { return team->count; }

void team_run(Team* team, std::ptrdiff_t items,
              void (*body)(void* context, std::ptrdiff_t item, int worker), void* context) {
    if (items <= 0) return;
    if (team->count == 1 || items == 1) {
        for (std::ptrdiff_t i = 0; i < items; ++i) body(context, i, 0);
        return;
    }
    std::lock_guard<std::mutex> turn(team->caller);
    if (team->owner != getpid()) team->start();
    // All items of the last job are taken. Close it before its fields change: a worker that still
    // holds its number then fails to claim.
    const std::uint64_t job = (team->claim.load() >> kItemBits) + 1;
    team->claim.store((job << kItemBits) | kItemMask, std::memory_order_release);
    team->done.store(0);
    team->body.store(body, std::memory_order_relaxed);
    team->context.store(context, std::memory_order_relaxed);
    team->items.store(static_cast<std::uint64_t>(items), std::memory_order_release);
    team->claim.store((job + 1) << kItemBits);
    if (team->sleepers.load() > 0) {
        std::lock_guard<std::mutex> lock(team->sleep);
        team->wake.notify_all();
    }
    team->take_items(0);
    for (int i = 0; team->done.load(std::memory_order_acquire) < static_cast<std::uint64_t>(items);
         ++i) {
        if (i < kSpins)
            VD_PAUSE();
        else
            std::this_thread::yield();
    }
}

}  // namespace verydeep

#define VD_PUBLIC extern "C" __attribute__((visibility("default")))

VD_PUBLIC verydeep::Team* verydeep_team_create(int threads) {
    return new (std::nothrow) verydeep::Team(threads < 1 ? 1 : threads);
}

VD_PUBLIC void verydeep_team_destroy(verydeep::Team* team) {
    if (team == nullptr) return;
    team->finish();
    delete team;
}

// The digest of the sources that this library was built from; empty where nobody asked for one.
#ifndef VD_SOURCES
#define VD_SOURCES ""
#endif
VD_PUBLIC const char* verydeep_sources() { return VD_SOURCES; }

// Whether this processor, and its operating system, run the code of one instruction set.
#if defined(__x86_64__)
#define VD_RUNS(name, question)                  \
    VD_PUBLIC int verydeep_cpu_runs_##name() {   \
        __builtin_cpu_init();                    \
        return (question) ? 1 : 0;               \
    }
VD_RUNS(sse4, __builtin_cpu_supports("sse4.2"))
VD_RUNS(avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
VD_RUNS(avx512, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                    __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#endif
