// The epilogue of a convolution: bias, ReLU and store.
#pragma once

#include "vector.h"

namespace verydeep::VD_ISA {

// to = sums + bias, or to += sums if it has earlier blocks of the depth; then max(., 0).
VD_INLINE void finish_run(float* to, const float* sums, Index count, float bias, bool first,
                          bool clip) {
    auto finish = [&](Vec sum, Vec before) __attribute__((always_inline)) {
        const Vec v = sum + (first ? broadcast(bias) : before);
        return clip ? (v < Vec{} ? Vec{} : v) : v;
    };
    Index j = 0;
    for (; j + kLanes <= count; j += kLanes)
        store(to + j, finish(load(sums + j), first ? Vec{} : load(to + j)));
    if (j < count)
        store_part(to + j, finish(load(sums + j), first ? Vec{} : load_part(to + j, count - j)),
                   count - j);
}

}  // namespace verydeep::VD_ISA
