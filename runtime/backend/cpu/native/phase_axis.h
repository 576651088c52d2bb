// The phases of the gradient of a strided convolution's input.
#pragma once

#include "gather.h"

namespace verydeep::VD_ISA {

// One axis of a phase: the taps r = first + j * step that contribute to outputs phase + i * stride.
struct PhaseAxis {
    Axis axis;
    Index first, step, outputs;

    PhaseAxis(Index phase, Index in, Index out, Index pad, Index stride, Index dilation, Index taps)
        : axis{out, 1, 0, 0, 0}, first(0), step(1), outputs(ceil_div(in - phase, stride)) {
        for (Index r = 0; r < taps; ++r) {
            const Index reach = phase + pad - r * dilation;
            if (reach % stride != 0) continue;
            if (axis.taps == 0) {
                first = r;
                axis.base = reach / stride;
            } else if (axis.taps == 1) {
                step = r - first;
                axis.slope = reach / stride - axis.base;
            }
            ++axis.taps;
        }
    }
};

}  // namespace verydeep::VD_ISA
