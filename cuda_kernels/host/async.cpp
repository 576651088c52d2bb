// cp.async: a copy may be executed at any time up to its wait. In forward order it is executed at
// once, in reversed order at the wait, in shuffled order at one of the two: a kernel that reads too
// early or writes too soon gives different results.
#include "async.h"

#include "runtime.h"

namespace emu {
namespace {

constexpr int MAX_COPIES = 64;  // of a thread, under way at once

struct Copy {
    void* to;
    const void* from;
    int size, valid, group;
    Mover move;
};

struct Queue {
    Copy copies[MAX_COPIES];
    int first, count, group;
};

Queue queues[MAX_THREADS];
bool used = false;

}  // namespace

void drop_copies() {
    if (used) {
        for (Queue& queue : queues) {
            queue.first = queue.count = queue.group = 0;
        }
        used = false;
    }
}

void copy_later(void* to, const void* from, int size, int valid, Mover move) {
    const bool now = order() == Order::FORWARD || (order() == Order::SHUFFLED && random_below(2));
    if (now) {
        move(to, from, size, valid);
        return;
    }
    Queue& queue = queues[current_thread()];
    if (queue.count == MAX_COPIES) {
        fail("more than 64 asynchronous copies of a thread under way");
    }
    const int place = (queue.first + queue.count++) % MAX_COPIES;
    queue.copies[place] = {to, from, size, valid, queue.group, move};
    used = true;
}

void copy_commit() {
    ++queues[current_thread()].group;
    used = true;
}

void copy_wait(int groups_left) {
    Queue& queue = queues[current_thread()];
    while (queue.count > 0 && queue.copies[queue.first].group < queue.group - groups_left) {
        const Copy copy = queue.copies[queue.first];
        queue.first = (queue.first + 1) % MAX_COPIES;
        --queue.count;
        copy.move(copy.to, copy.from, copy.size, copy.valid);
    }
}

}  // namespace emu
