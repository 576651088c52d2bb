// The thread pool, and the questions about the processor.
//
// Why not OpenMP: its runtime is one per process and spins beside OpenBLAS's; it breaks in a forked
// child, and every Python thread that calls gets a team of its own. This pool belongs to one
// backend, survives a fork, and lets a caller finish alone when no core is free for its workers.

#include "pool.h"

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
constexpr int kSpins = 4000;  // tens of microseconds: longer than the gap between two ops of a net
constexpr std::uint64_t kItemBits = 32;
constexpr std::uint64_t kItemMask = (std::uint64_t{1} << kItemBits) - 1;
}  // namespace

struct Pool {
    explicit Pool(int threads) : count(threads) {}

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
    void work(int worker);
    bool take_items(int worker);
    void wait_for_job(std::uint64_t seen);
};

// Claim and run items until none is left.
bool Pool::take_items(int worker) {
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

void Pool::wait_for_job(std::uint64_t seen) {
    auto waiting = [&] {
        // Sequentially consistent, as are `sleepers` and the caller's claim: one of the two sees
        // the other's store, so no wake-up is lost.
        return (claim.load() >> kItemBits) == seen && !stop.load();
    };
    for (int i = 0; i < kSpins; ++i) {
        if (!waiting()) return;
        VD_PAUSE();
    }
    std::unique_lock<std::mutex> lock(sleep);
    sleepers.fetch_add(1);
    while (waiting()) wake.wait(lock);
    sleepers.fetch_sub(1);
}

void Pool::work(int worker) {
    while (!stop.load(std::memory_order_acquire)) {
        const std::uint64_t seen = claim.load(std::memory_order_acquire) >> kItemBits;
        if (!take_items(worker)) wait_for_job(seen);
    }
}

void Pool::start() {
    // Of a parent's threads only the handles came over; letting go of them is all one may do.
    if (owner != 0)
        for (auto& worker : workers) worker.detach();
    workers.clear();
    sleepers.store(0);
    owner = getpid();
    try {
        for (int i = 1; i < count; ++i) workers.emplace_back([this, i] { work(i); });
    } catch (const std::system_error&) {
        // The system grants fewer threads: those that started, and the caller, do the work.
    }
}

void Pool::finish() {
    if (owner != getpid()) {
        for (auto& worker : workers) worker.detach();
        return;
    }
    {
        std::lock_guard<std::mutex> lock(sleep);
        stop.store(true, std::memory_order_release);
    }
    wake.notify_all();
    for (auto& worker : workers) worker.join();
}

int pool_threads(const Pool* pool) { return pool->count; }

void pool_run(Pool* pool, std::ptrdiff_t items,
              void (*body)(void* context, std::ptrdiff_t item, int worker), void* context) {
    if (items <= 0) return;
    if (pool->count == 1 || items == 1) {
        for (std::ptrdiff_t i = 0; i < items; ++i) body(context, i, 0);
        return;
    }
    std::lock_guard<std::mutex> turn(pool->caller);
    if (pool->owner != getpid()) pool->start();
    // All items of the last job are taken. Close it before its fields change: a worker that still
    // holds its number then fails to claim.
    const std::uint64_t job = (pool->claim.load() >> kItemBits) + 1;
    pool->claim.store((job << kItemBits) | kItemMask, std::memory_order_release);
    pool->done.store(0);
    pool->body.store(body, std::memory_order_relaxed);
    pool->context.store(context, std::memory_order_relaxed);
    pool->items.store(static_cast<std::uint64_t>(items), std::memory_order_release);
    pool->claim.store((job + 1) << kItemBits);
    if (pool->sleepers.load() > 0) {
        std::lock_guard<std::mutex> lock(pool->sleep);
        pool->wake.notify_all();
    }
    pool->take_items(0);
    for (int i = 0; pool->done.load(std::memory_order_acquire) < static_cast<std::uint64_t>(items);
         ++i) {
        if (i < kSpins)
            VD_PAUSE();
        else
            std::this_thread::yield();
    }
}

}  // namespace verydeep

#define VD_PUBLIC extern "C" __attribute__((visibility("default")))

VD_PUBLIC verydeep::Pool* verydeep_pool_create(int threads) {
    return new (std::nothrow) verydeep::Pool(threads < 1 ? 1 : threads);
}

VD_PUBLIC void verydeep_pool_destroy(verydeep::Pool* pool) {
    if (pool == nullptr) return;
    pool->finish();
    delete pool;
}

// Whether this processor, and its operating system, run the code of one instruction set.
VD_PUBLIC int verydeep_cpu_runs_avx512() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 0;
#endif
}

VD_PUBLIC int verydeep_cpu_runs_avx2() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 0;
#endif
}

VD_PUBLIC int verydeep_cpu_runs_sse4() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("sse4.2") != 0;
#else
    return 0;
#endif
}
