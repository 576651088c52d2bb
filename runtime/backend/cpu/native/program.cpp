// Runs the calls of a program.

#include "program.h"

#include <time.h>

namespace {

std::int64_t microseconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::int64_t>(now.tv_sec) * 1000000 + now.tv_nsec / 1000;
}

// A turn of the team for the lifetime of the object, if the program is long.
class Turn {
  public:
    Turn(verydeep::Team* team, bool is_long) : team_(is_long ? team : nullptr) {
        if (team_ != nullptr) verydeep::team_begin_turn(team_);
    }
    ~Turn() {
        if (team_ != nullptr) verydeep::team_end_turn(team_);
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

  private:
    verydeep::Team* team_;
};

}  // namespace

// Runs the calls from number `first` on and returns the number of the next call: `count`, or less
// after `limit` microseconds, so that the interpreter can handle signals. `spent` is the time of
// the last run of this program in microseconds, without waiting for a turn. Programs of at least
// `turn_time` take turns.
VD_EXPORT_COUNT(run_program)(verydeep::Team* team, const Call* calls, const Argument* arguments,
                             std::int64_t first, std::int64_t count, std::int64_t limit,
                             std::int64_t turn_time, std::int64_t* spent) {
    const Turn turn(team, *spent >= turn_time && verydeep::team_size(team) > 1);
    const std::int64_t start = microseconds();
    std::int64_t now = start;
    std::int64_t next = first;
    while (next < count) {
        calls[next].function(team, arguments + calls[next].first);
        ++next;
        now = microseconds();
        if (now - start >= limit) break;
    }
    *spent = (first > 0 ? *spent : 0) + now - start;
    return next;
}
