#include "fault.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>

#include <cstdio>

#include "memory.h"

namespace emu {

#if defined(EMU_ASAN) || defined(EMU_TSAN)

void guarded(void (*work)(size_t), size_t argument) { work(argument); }

#else

namespace {

constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
struct sigaction saved[4];
sigjmp_buf way_out;
pthread_t owner;
alignas(16) char handler_stack[64 << 10];

struct sigaction& saved_for(int signal) {
    int slot = 0;
    while (SIGNALS[slot] != signal) {
        ++slot;
    }
    return saved[slot];
}

void handle(int signal, siginfo_t* info, void*) {
    if (!pthread_equal(pthread_self(), owner)) {
        // A fault of another thread: restore the default handler and let it occur again.
        sigaction(signal, &saved_for(signal), nullptr);
        return;
    }
    char text[240];
    if (signal == SIGFPE) {
        snprintf(text, sizeof text, "an integer division by zero");
    } else if (signal == SIGILL) {
        snprintf(text, sizeof text, "code that the compiler found impossible (a division by zero?)");
    } else if (in_guard_page(fiber_of(current_thread()), info->si_addr)) {
        snprintf(text, sizeof text, "more than %zu bytes of local arrays and calls", STACK_SIZE);
    } else {
        char place[160];
        describe_address(info->si_addr, place, sizeof place);
        snprintf(text, sizeof text, "a read or write %s", place);
    }
    fail_from_handler(text);
    siglongjmp(way_out, 1);
}

void install() {
    owner = pthread_self();
    struct sigaction action = {};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigemptyset(&action.sa_mask);
    for (int signal : SIGNALS) {
        sigaction(signal, &action, &saved_for(signal));
    }
}

void restore() {
    for (int signal : SIGNALS) {
        sigaction(signal, &saved_for(signal), nullptr);
    }
}

}  // namespace

void guarded(void (*work)(size_t), size_t argument) {
    stack_t ours = {}, theirs = {};
    ours.ss_sp = handler_stack;
    ours.ss_size = sizeof handler_stack;
    sigaltstack(&ours, &theirs);
    install();
    if (sigsetjmp(way_out, 1) == 0) {
        work(argument);
    }
    restore();
    sigaltstack(&theirs, nullptr);
}

#endif

}  // namespace emu
