#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

#ifdef EMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef EMU_TSAN
#include <sanitizer/tsan_interface.h>
#endif

#if !defined(EMU_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define EMU_UCONTEXT
#endif
#ifdef EMU_UCONTEXT
#include <ucontext.h>
#endif

namespace emu {
namespace {

void* scheduler_pointer = nullptr;
#ifdef EMU_TSAN
void* scheduler_fiber = nullptr;
#endif
#ifdef EMU_ASAN
const void* scheduler_stack = nullptr;
size_t scheduler_stack_size = 0;
void* scheduler_fake_stack = nullptr;
#endif

size_t page_size() {
    static const size_t size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    return size;
}

// A thread that was abandoned in a failed launch leaves marks of its frames in the shadow memory.
void forget_frames(Fiber& fiber) {
    (void)fiber;
#ifdef EMU_ASAN
    __asan_unpoison_memory_region(fiber.stack, STACK_SIZE);
#endif
}

}  // namespace

#ifdef EMU_UCONTEXT

namespace {
ucontext_t scheduler_context;
ucontext_t contexts[1024];

void switch_stacks(void** from, void** to) {
    auto context = [](void** place) {
        return place == &scheduler_pointer ? &scheduler_context : static_cast<ucontext_t*>(*place);
    };
    swapcontext(context(from), context(to));
}
}  // namespace

void prepare(Fiber& fiber, int number, void (*entry)()) {
    forget_frames(fiber);
    ucontext_t& context = contexts[number];
    getcontext(&context);
    context.uc_stack.ss_sp = fiber.stack;
    context.uc_stack.ss_size = STACK_SIZE;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
    fiber.stack_pointer = &context;
}

#else

// Saves the callee-saved registers and the stack pointer, and switches to the other stack. The
// floating-point control words are the same in all fibers and are not saved.
extern "C" void emu_switch_stacks(void** from, void* to);
#if defined(__x86_64__)
asm(R"(
.text
.p2align 4
.type emu_switch_stacks, @function
emu_switch_stacks:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emu_switch_stacks, .-emu_switch_stacks
)");
constexpr int FRAME_WORDS = 8;   // six registers, the entry, and a null return address for it
constexpr int ENTRY_WORD = 6;
#else
asm(R"(
.text
.p2align 4
.type emu_switch_stacks, %function
emu_switch_stacks:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x2, sp
    str x2, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size emu_switch_stacks, .-emu_switch_stacks
)");
constexpr int FRAME_WORDS = 20;
constexpr int ENTRY_WORD = 11;   // x30, where `ret` goes
#endif

namespace {
void switch_stacks(void** from, void** to) { emu_switch_stacks(from, *to); }
}  // namespace

void prepare(Fiber& fiber, int number, void (*entry)()) {
    forget_frames(fiber);
    // Stacks are a power of two apart: without an offset their tops would share a cache set.
    const size_t shift = static_cast<size_t>(number % 32) * 320;
    auto top = reinterpret_cast<uintptr_t>(fiber.stack + STACK_SIZE - shift) & ~uintptr_t{15};
    auto frame = reinterpret_cast<void**>(top) - FRAME_WORDS;
    for (int i = 0; i < FRAME_WORDS; ++i) {
        frame[i] = nullptr;
    }
    frame[ENTRY_WORD] = reinterpret_cast<void*>(entry);
    fiber.stack_pointer = frame;
}

#endif

bool allocate_stack(Fiber& fiber, int number) {
    (void)number;
    if (fiber.stack == nullptr) {
        const size_t size = STACK_SIZE + page_size();
        void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED || mprotect(memory, page_size(), PROT_NONE) != 0) {
            return false;
        }
        fiber.stack = static_cast<char*>(memory) + page_size();
#ifdef EMU_TSAN
        fiber.sanitizer = __tsan_create_fiber(0);
#endif
    }
    return true;
}

void enter_fiber(Fiber& fiber) {
#ifdef EMU_TSAN
    scheduler_fiber = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(fiber.sanitizer, __tsan_switch_to_fiber_no_sync);
#endif
#ifdef EMU_ASAN
    __sanitizer_start_switch_fiber(&scheduler_fake_stack, fiber.stack, STACK_SIZE);
#endif
    switch_stacks(&scheduler_pointer, &fiber.stack_pointer);
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

void leave_fiber(Fiber& fiber, bool for_good) {
    (void)for_good;
#ifdef EMU_TSAN
    __tsan_switch_to_fiber(scheduler_fiber, __tsan_switch_to_fiber_no_sync);
#endif
#ifdef EMU_ASAN
    __sanitizer_start_switch_fiber(for_good ? nullptr : &fiber.sanitizer, scheduler_stack,
                                   scheduler_stack_size);
#endif
    switch_stacks(&fiber.stack_pointer, &scheduler_pointer);
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(fiber.sanitizer, nullptr, nullptr);
#endif
}

void fiber_started() {
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_size);
#endif
}

bool in_guard_page(const Fiber& fiber, const void* address) {
    auto place = static_cast<const char*>(address);
    return fiber.stack != nullptr && place < fiber.stack && place >= fiber.stack - page_size();
}

void publish(void* key) {
    (void)key;
#ifdef EMU_TSAN
    __tsan_release(key);
#endif
}

void observe(void* key) {
    (void)key;
#ifdef EMU_TSAN
    __tsan_acquire(key);
#endif
}

}  // namespace emu
