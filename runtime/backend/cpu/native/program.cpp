// Runs the calls of a program.

#include "program.h"

#include <time.h>

namespace {

std::int64_t milliseconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1000000;
}

}  // namespace

// Runs the calls from number `first` on and returns the number of the next call: `count`, or less
// after `limit` milliseconds, so that the interpreter can handle signals.
VD_EXPORT_COUNT(run_program)(verydeep::Team* team, const Call* calls, const Argument* arguments,
                             std::int64_t first, std::int64_t count, std::int64_t limit) {
    const std::int64_t end = milliseconds() + limit;
    for (std::int64_t i = first; i < count; ++i) {
        calls[i].function(team, arguments + calls[i].first);
        if (milliseconds() >= end) return i + 1;
    }
    return count;
}
