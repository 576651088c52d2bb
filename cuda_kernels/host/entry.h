// The entry of a kernel: unpacks the arguments that the driver packed, and runs it over a grid.
#pragma once

#include <cstdio>

#include "runtime.h"

namespace emu {

template <class... T>
struct Arguments;

template <>
struct Arguments<> {
    template <class Kernel, class... Done>
    static void call(Kernel kernel, const char*, size_t, Done... done) {
        kernel(done...);
    }
    static constexpr size_t end(size_t at) { return at; }
};

// Each argument is at the next multiple of its alignment.
template <class First, class... Rest>
struct Arguments<First, Rest...> {
    static constexpr size_t place(size_t at) {
        return (at + alignof(First) - 1) / alignof(First) * alignof(First);
    }
    template <class Kernel, class... Done>
    static void call(Kernel kernel, const char* packed, size_t at, Done... done) {
        First value;
        memcpy(&value, packed + place(at), sizeof value);
        Arguments<Rest...>::call(kernel, packed, place(at) + sizeof value, done..., value);
    }
    static constexpr size_t end(size_t at) {
        return Arguments<Rest...>::end(place(at) + sizeof(First));
    }
};

template <class... T>
constexpr size_t packed_size(void (*)(T...)) {
    return Arguments<T...>::end(0);
}

template <class... T>
inline void call(void (*kernel)(T...), const void* packed) {
    Arguments<T...>::call(kernel, static_cast<const char*>(packed), 0);
}

}  // namespace emu

#define EMU_EXPORT(kernel)                                                                         \
    extern "C" int emu_launch_##kernel(const EmuLaunch* launch, const void* args, size_t size,     \
                                       char* error, size_t error_size) {                           \
        if (size != emu::packed_size(kernel)) {                                                    \
            snprintf(error, error_size, "kernel '%s': %zu bytes of arguments, expected %zu",       \
                     #kernel, size, emu::packed_size(kernel));                                     \
            return 1;                                                                              \
        }                                                                                          \
        return emu_run(                                                                            \
            launch, [](const void* packed) { emu::call(kernel, packed); }, args, error,            \
            error_size);                                                                           \
    }
