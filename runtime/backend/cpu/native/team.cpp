// The thread team, and the detection of instruction sets.
//
// OpenMP is not used: its runtime is shared by the whole process and spins at the same time as
// OpenBLAS, it fails in forked child processes, and creates a team for every calling Python thread.
// This team belongs to one backend, runs loops of several calling threads at once, restarts its
// workers in a forked child process, and lets a caller run its loop alone if no core is free for
// the workers.

#include "team.h"

#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif
#endif

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
constexpr int kSpins = 4000;  // tens of microseconds: longer than the gaps between most ops of a net
constexpr int kYields = 400;  // hundreds more, in which other threads may use the core
constexpr std::uint64_t kItemBits = 32;
constexpr std::uint64_t kItemMask = (std::uint64_t{1} << kItemBits) - 1;
constexpr int kJobs = 16;  // loops that run at the same time; further callers run their loops alone
constexpr int kPlaces = 63;  // callers that wait for a turn take the places of the first workers
constexpr std::uint32_t kAllJobs = (std::uint32_t{1} << kJobs) - 1;

int count_bits(std::uint32_t bits) { return __builtin_popcount(bits); }
int lowest_bit(std::uint32_t bits) { return __builtin_ctz(bits); }
}  // namespace

// One loop. `claim` has the number of the loop and its next free item: the thread that increments
// `claim` runs the item, and the loop cannot end before that item is done. A late worker finds no
// free item and accesses nothing.
struct alignas(64) Job {
    std::atomic<std::uint64_t> claim{0};
    std::atomic<std::uint64_t> items{0};
    std::atomic<void (*)(void*, std::ptrdiff_t, int)> body{nullptr};
    std::atomic<void*> context{nullptr};
    std::atomic<std::uint64_t> done{0};

    void open(std::ptrdiff_t count, void (*call)(void*, std::ptrdiff_t, int), void* argument);
    void reset();
};

struct Team {
    explicit Team(int threads) : count(threads) {}

    const int count;
    std::atomic<pid_t> owner{0};    // the process in which the workers run
    std::atomic<pid_t> starter{0};  // the process in which a thread starts or has started them
    std::vector<std::thread> workers;

    Job jobs[kJobs];
    std::atomic<std::uint32_t> active{0};  // a bit for each of `jobs` that has a caller
    std::atomic<std::uint64_t> posted{0};  // changes when there may be work for a worker

    std::mutex sleep;
    std::condition_variable wake;
    std::atomic<int> sleepers{0};
    std::atomic<bool> stop{false};

    // Bit i: a thread runs as worker i, a worker of the team or a caller that waits for its turn.
    std::atomic<std::uint64_t> places{0};
    std::mutex turns;
    std::condition_variable turn_changed;  // a turn has ended or a place is free
    std::atomic<std::uint64_t> next_turn{0};
    std::atomic<std::uint64_t> current_turn{0};
    std::atomic<int> waiting{0};  // callers that wait for their turn without a place

    void start();
    void finish();
    void reset();
    int acquire_job();
    void release_job(int index);
    void wake_workers();
    void work(int worker);
    bool help(int worker);
    bool take_items(Job& job, int worker);
    bool is_crowded(int worker) const;
    void wait_for_work(std::uint64_t seen, bool spin);
    bool take_place(int worker);
    void leave_place(int worker);
    int find_place();
    bool has_free_place() const;
    void wait_for_turn(std::uint64_t number);
    void help_until_turn(int worker, std::uint64_t number);
};

// All items of the last loop are claimed. Close it before its fields change: a worker that still
// has its number then fails to claim an item.
void Job::open(std::ptrdiff_t count, void (*call)(void*, std::ptrdiff_t, int), void* argument) {
    const std::uint64_t number = (claim.load() >> kItemBits) + 1;
    claim.store((number << kItemBits) | kItemMask, std::memory_order_release);
    done.store(0);
    body.store(call, std::memory_order_relaxed);
    context.store(argument, std::memory_order_relaxed);
    items.store(static_cast<std::uint64_t>(count), std::memory_order_release);
    claim.store((number + 1) << kItemBits);
}

void Job::reset() {
    claim.store(0);
    items.store(0);
    done.store(0);
}

// Whether the callers of all loops and the workers before this one already use all cores.
bool Team::is_crowded(int worker) const {
    return worker > 0 && worker + count_bits(active.load(std::memory_order_relaxed)) > count;
}

// Claim and run items of a loop until none is left. The caller is worker 0 of its own loop.
bool Team::take_items(Job& job, int worker) {
    bool any = false;
    std::uint64_t now = job.claim.load(std::memory_order_acquire);
    for (;;) {
        const std::uint64_t last = job.items.load(std::memory_order_acquire);
        auto call = job.body.load(std::memory_order_relaxed);
        void* argument = job.context.load(std::memory_order_relaxed);
        if ((now & kItemMask) >= last || is_crowded(worker)) return any;
        if (!job.claim.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel,
                                             std::memory_order_acquire))
            continue;
        call(argument, static_cast<std::ptrdiff_t>(now & kItemMask), worker);
        job.done.fetch_add(1, std::memory_order_release);
        any = true;
        now = job.claim.load(std::memory_order_acquire);
    }
}

bool Team::help(int worker) {
    bool any = false;
    for (std::uint32_t rest = active.load(std::memory_order_acquire); rest != 0; rest &= rest - 1)
        any |= take_items(jobs[lowest_bit(rest)], worker);
    return any;
}

void Team::wait_for_work(std::uint64_t seen, bool spin) {
    auto waiting = [&] {
        // This load, `sleepers` and the post of a caller are sequentially consistent: one of the
        // two threads reads the store of the other, so no wake-up is lost.
        return posted.load() == seen && !stop.load();
    };
    for (int i = 0; spin && i < kSpins; ++i) {
        if (!waiting()) return;
        VD_PAUSE();
    }
    for (int i = 0; spin && i < kYields; ++i) {
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
        const std::uint64_t seen = posted.load();
        bool any = false;
        const bool has_place = waiting.load(std::memory_order_relaxed) == 0 && take_place(worker);
        if (has_place) {
            any = help(worker);
            leave_place(worker);
        }
        if (!any) wait_for_work(seen, has_place && !is_crowded(worker));
    }
}

bool Team::take_place(int worker) {
    if (worker > kPlaces) return true;
    const std::uint64_t bit = std::uint64_t{1} << worker;
    return (places.fetch_or(bit) & bit) == 0;
}

void Team::leave_place(int worker) {
    if (worker > kPlaces) return;
    places.fetch_and(~(std::uint64_t{1} << worker));
    if (waiting.load() == 0) return;
    std::lock_guard<std::mutex> lock(turns);
    turn_changed.notify_all();
}

bool Team::has_free_place() const {
    const int last = count - 1 < kPlaces ? count - 1 : kPlaces;
    const std::uint64_t all = last < kPlaces ? (std::uint64_t{1} << (last + 1)) - 2 : ~std::uint64_t{1};
    return (places.load() & all) != all;
}

// The number of a worker whose place this caller has taken, or 0.
int Team::find_place() {
    for (int worker = 1; worker < count && worker <= kPlaces; ++worker)
        if (take_place(worker)) return worker;
    return 0;
}

// Run items of the loops of the callers before this one. So no thread has to be woken when the turn
// begins.
void Team::help_until_turn(int worker, std::uint64_t number) {
    for (int i = 0; current_turn.load() != number; ++i) {
        if (help(worker)) i = 0;
        if (i < kSpins)
            VD_PAUSE();
        else
            std::this_thread::yield();
    }
}

void Team::wait_for_turn(std::uint64_t number) {
    while (current_turn.load() != number) {
        const int place = find_place();
        if (place > 0) {
            help_until_turn(place, number);
            leave_place(place);
            return;
        }
        std::unique_lock<std::mutex> lock(turns);
        waiting.fetch_add(1);
        while (current_turn.load() != number && !has_free_place()) turn_changed.wait(lock);
        waiting.fetch_sub(1);
    }
}

void Team::wake_workers() {
    posted.fetch_add(1);
    if (sleepers.load() > 0 && !is_crowded(1) && has_free_place()) {
        std::lock_guard<std::mutex> lock(sleep);
        wake.notify_all();
    }
}

// The index of a free job, or -1.
int Team::acquire_job() {
    std::uint32_t now = active.load(std::memory_order_relaxed);
    for (;;) {
        const std::uint32_t free = ~now & kAllJobs;
        if (free == 0) return -1;
        const int index = lowest_bit(free);
        const std::uint32_t bit = std::uint32_t{1} << index;
        if (active.compare_exchange_weak(now, now | bit)) return index;
    }
}

void Team::release_job(int index) {
    const std::uint32_t bit = std::uint32_t{1} << index;
    // A worker that waited for a core may help with the other loops now.
    if ((active.fetch_and(~bit) & ~bit) != 0) wake_workers();
}

// A forked child process has no threads of its parent, and locks may be in any state: everything is
// constructed again without being destroyed.
void Team::reset() {
    new (&workers) std::vector<std::thread>;
    new (&sleep) std::mutex;
    new (&wake) std::condition_variable;
    new (&turns) std::mutex;
    new (&turn_changed) std::condition_variable;
    places.store(0);
    next_turn.store(0);
    current_turn.store(0);
    waiting.store(0);
    sleepers.store(0);
    active.store(0);
    for (Job& job : jobs) job.reset();
}

// Start the workers of this process; if several threads call at once, one of them does.
void Team::start() {
    const pid_t self = getpid();
    pid_t seen = starter.load();
    while (owner.load(std::memory_order_acquire) != self) {
        if (seen == self || !starter.compare_exchange_strong(seen, self)) {
            std::this_thread::yield();
            continue;
        }
        reset();
        try {
            for (int i = 1; i < count; ++i) workers.emplace_back([this, i] { work(i); });
        } catch (const std::system_error&) {
            // The system allows fewer threads: the started ones and the caller do the work.
        }
        owner.store(self, std::memory_order_release);
    }
}

void Team::finish() {
    if (owner.load() != getpid()) {
        reset();
        return;
    }
    {
        std::lock_guard<std::mutex> lock(sleep);
        stop.store(true, std::memory_order_release);
    }
    wake.notify_all();
    for (auto& worker : workers) worker.join();
}

void team_begin_turn(Team* team) {
    if (team->owner.load(std::memory_order_acquire) != getpid()) team->start();
    team->wait_for_turn(team->next_turn.fetch_add(1));
}

void team_end_turn(Team* team) {
    team->current_turn.fetch_add(1);
    if (team->waiting.load() == 0) return;
    std::lock_guard<std::mutex> lock(team->turns);
    team->turn_changed.notify_all();
}

int team_size(const Team* team) { return team->count; }

void team_run(Team* team, std::ptrdiff_t items,
              void (*body)(void* context, std::ptrdiff_t item, int worker), void* context) {
    int index = -1;
    if (team->count > 1 && items > 1) {
        if (team->owner.load(std::memory_order_acquire) != getpid()) team->start();
        index = team->acquire_job();
    }
    if (index < 0) {
        for (std::ptrdiff_t i = 0; i < items; ++i) body(context, i, 0);
        return;
    }
    Job& job = team->jobs[index];
    job.open(items, body, context);
    team->wake_workers();
    team->take_items(job, 0);
    for (int i = 0; job.done.load(std::memory_order_acquire) < static_cast<std::uint64_t>(items);
         ++i) {
        if (i < kSpins)
            VD_PAUSE();
        else
            std::this_thread::yield();
    }
    team->release_job(index);
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

// The digest of the sources that this library was built from; empty if the build did not set it.
#ifndef VD_SOURCES
#define VD_SOURCES ""
#endif
VD_PUBLIC const char* verydeep_sources() { return VD_SOURCES; }

// Whether this processor and its operating system support an instruction set.
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

// AMX with bf16: the processor has it, the operating system saves its tiles, and this process gets
// permission to use them.
VD_PUBLIC int verydeep_cpu_runs_amx() {
#if defined(__linux__)
    constexpr unsigned kSavesState = 1u << 27, kTiles = 1u << 24, kBf16 = 1u << 22;
    constexpr unsigned kTileState = 3u << 17;
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!verydeep_cpu_runs_avx512()) return 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & kSavesState)) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & kTiles) || !(d & kBf16)) return 0;
    unsigned low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & kTileState) != kTileState) return 0;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0 ? 1 : 0;
#else
    return 0;
#endif
}
#endif
