// Threads that share out the items of a loop.
//
// A kernel decides by its geometry alone what an item is and in which order an item adds up its
// numbers; the pool only decides who works on it. So results do not depend on the number of threads.
#pragma once

#include <cstddef>

namespace verydeep {

struct Pool;

int pool_threads(const Pool* pool);

// Call body(context, item, worker) for each item in [0, items); worker < pool_threads(pool) and no
// two items of one worker run at the same time. Returns when all are done.
void pool_run(Pool* pool, std::ptrdiff_t items,
              void (*body)(void* context, std::ptrdiff_t item, int worker), void* context);

// Static, so that every object has its own: see vector.h on inline functions.
template <class Body>
static inline void parallel(Pool* pool, std::ptrdiff_t items, const Body& body) {
    pool_run(
        pool, items,
        [](void* context, std::ptrdiff_t item, int worker) {
            (*static_cast<const Body*>(context))(item, worker);
        },
        const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace verydeep
