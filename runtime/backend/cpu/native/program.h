// Programs: sequences of kernel calls that are executed by one call from Python.
//
// VD_REPEATABLE(name), after the definition of a kernel without a result, exports
// <set>_call_<name>, which reads the arguments of the kernel from an array of words.
#pragma once

#include "team.h"
#include "vector.h"

// One argument of a kernel. Floats are in the low four bytes.
union Argument {
    std::int64_t integer;
    float real;
    void* pointer;
};

// One call of a program; `first` is the index of its first argument.
struct Call {
    void (*function)(verydeep::Team* team, const Argument* arguments);
    std::int64_t first;
};

namespace verydeep::VD_ISA {

template <class T>
struct Read {
    static T from(const Argument& argument) { return static_cast<T>(argument.integer); }
};
template <>
struct Read<float> {
    static float from(const Argument& argument) { return argument.real; }
};
template <class T>
struct Read<T*> {
    static T* from(const Argument& argument) { return static_cast<T*>(argument.pointer); }
};

template <int... I>
struct Indices {};
template <int count, int... I>
struct Count : Count<count - 1, count - 1, I...> {};
template <int... I>
struct Count<0, I...> {
    typedef Indices<I...> Type;
};

template <class... A, int... I>
VD_INLINE void call(void (*kernel)(Team*, A...), Team* team, const Argument* arguments,
                    Indices<I...>) {
    kernel(team, Read<A>::from(arguments[I])...);
}
template <class... A>
VD_INLINE void call(void (*kernel)(Team*, A...), Team* team, const Argument* arguments) {
    call(kernel, team, arguments, typename Count<sizeof...(A)>::Type());
}

}  // namespace verydeep::VD_ISA

#define VD_REPEATABLE(name)                                                               \
    VD_EXPORT(call_##name)(verydeep::Team * team, const Argument* arguments) {            \
        verydeep::VD_ISA::call(VD_JOIN(VD_ISA, _, name), team, arguments);                \
    }
