// Threads that divide the items of a loop.
//
// The items of a kernel and the order of the sums in an item depend only on the geometry; the team
// only assigns items to threads. So results do not depend on the number of threads.
#pragma once

#include <cstddef>

namespace verydeep {

struct Team;

int team_size(const Team* team);

// Call body(context, item, worker) for each item in [0, items); worker < team_size(team) and no
// two items of one worker run at the same time. Returns when all items are complete.
void team_run(Team* team, std::ptrdiff_t items,
              void (*body)(void* context, std::ptrdiff_t item, int worker), void* context);

// Long programs take turns, in the order of their calls: each then has all threads and the caches.
// Two nets that run side by side evict each other's maps from the cache, which costs more than the
// threads wait for each other.
void team_begin_turn(Team* team);
void team_end_turn(Team* team);

// Static, so that every object file has its own copy: see vector.h on inline functions.
template <class Body>
static inline void parallel(Team* team, std::ptrdiff_t items, const Body& body) {
    team_run(
        team, items,
        [](void* context, std::ptrdiff_t item, int worker) {
            (*static_cast<const Body*>(context))(item, worker);
        },
        const_cast<void*>(static_cast<const void*>(&body)));
}

// body(first, last) over parts of [0, count) of at most `part` elements.
template <class Body>
static inline void parallel_parts(Team* team, std::ptrdiff_t count, std::ptrdiff_t part,
                                  const Body& body) {
    parallel(team, (count + part - 1) / part, [&](std::ptrdiff_t item, int) {
        const std::ptrdiff_t last = (item + 1) * part;
        body(item * part, last < count ? last : count);
    });
}

}  // namespace verydeep
