// NCCL's sends and receives between threads of one process, for addresses in host memory.
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace {

enum Status { OK = 0, INVALID_ARGUMENT = 4, INVALID_USAGE = 5 };

struct Message {
    const void* data;
    size_t size;
    bool* taken;
};

struct Mailbox {
    std::mutex lock;
    std::condition_variable news;
    int joined = 0;
    std::map<std::pair<int, int>, std::deque<Message>> waiting;  // by (sender, receiver)
};

struct Comm {
    std::shared_ptr<Mailbox> box;
    int size, rank;
};

struct Operation {
    Comm* comm;
    bool send;
    void* data;
    size_t size;
    int peer;
};

struct UniqueId {
    char internal[128];
};

std::mutex naming;
std::map<std::string, std::shared_ptr<Mailbox>> boxes;
int named = 0;
thread_local std::vector<Operation> group;
thread_local bool grouped = false;

int add(bool send, void* data, size_t size, int peer, Comm* comm, void* stream) {
    if (!grouped || stream == nullptr) return INVALID_USAGE;
    if (peer < 0 || peer >= comm->size || peer == comm->rank) return INVALID_ARGUMENT;
    group.push_back({comm, send, data, size, peer});
    return OK;
}

}  // namespace

extern "C" {

const char* ncclGetErrorString(int status) {
    return status == INVALID_ARGUMENT ? "invalid argument" : "invalid usage";
}

int ncclGetUniqueId(UniqueId* id) {
    std::lock_guard<std::mutex> turn(naming);
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "world %d", ++named);
    return OK;
}

// Returns when all have come, as NCCL does.
int ncclCommInitRank(Comm** made, int size, UniqueId id, int rank) {
    if (rank < 0 || rank >= size) return INVALID_ARGUMENT;
    std::shared_ptr<Mailbox> box;
    {
        std::lock_guard<std::mutex> turn(naming);
        auto& entry = boxes[id.internal];
        if (!entry) entry = std::make_shared<Mailbox>();
        box = entry;
    }
    *made = new Comm{box, size, rank};
    std::unique_lock<std::mutex> turn(box->lock);
    ++box->joined;
    box->news.notify_all();
    box->news.wait(turn, [&] { return box->joined >= size; });
    return OK;
}

int ncclCommDestroy(Comm* comm) {
    delete comm;
    return OK;
}

int ncclCommAbort(Comm* comm) { return ncclCommDestroy(comm); }

int ncclGroupStart() {
    grouped = true;
    group.clear();
    return OK;
}

int ncclSend(void* data, size_t size, int, int peer, Comm* comm, void* stream) {
    return add(true, data, size, peer, comm, stream);
}

int ncclRecv(void* data, size_t size, int, int peer, Comm* comm, void* stream) {
    return add(false, data, size, peer, comm, stream);
}

int ncclGroupEnd() {
    grouped = false;
    std::deque<bool> taken;
    for (const Operation& op : group) {
        if (!op.send) continue;
        taken.push_back(false);
        std::lock_guard<std::mutex> turn(op.comm->box->lock);
        op.comm->box->waiting[{op.comm->rank, op.peer}].push_back(
            {op.data, op.size, &taken.back()});
        op.comm->box->news.notify_all();
    }
    int status = OK;
    for (const Operation& op : group) {
        if (op.send) continue;
        Mailbox& box = *op.comm->box;
        std::unique_lock<std::mutex> turn(box.lock);
        auto& queue = box.waiting[{op.peer, op.comm->rank}];
        box.news.wait(turn, [&] { return !queue.empty(); });
        if (queue.front().size != op.size) status = INVALID_USAGE;
        else memcpy(op.data, queue.front().data, op.size);
        *queue.front().taken = true;
        queue.pop_front();
        box.news.notify_all();
    }
    if (!group.empty()) {
        Mailbox& box = *group.front().comm->box;
        std::unique_lock<std::mutex> turn(box.lock);
        box.news.wait(turn, [&] {
            for (bool done : taken)
                if (!done) return false;
            return true;
        });
    }
    return status;
}
}
