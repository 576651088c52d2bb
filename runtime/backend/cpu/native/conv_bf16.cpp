// Convolution with operands rounded to bf16: forward, backward to the data and to the weights.
//
// Struct Depth divides the depth of a sum over channels and taps into steps; the gradient of
// the weights takes the outputs (n, p, q) in order, in parts that depend only on the geometry.

#include "bf16_product.h"
#include "gather.h"
#include "phase_axis.h"
#include "program.h"

namespace verydeep::VD_ISA {
namespace {

constexpr Index kFewChannels = 16;
constexpr Index kLargeWeights = 1 << 18;  // elements: with as many, all outputs are one part
constexpr Index kMostParts = 16, kPartSteps = 64;

// The channels and taps of the places of a step; the places from `used` on are padding.
struct Places {
    TapIndex taps[kStep];
    Index used;
};

// The order of the channels and taps of a sum: blocks of 32 channels, in each the taps column by
// column, in each the channels. With few channels, the taps follow each other without padding.
struct Depth {
    Index channels, down, across;

    bool is_flat() const { return channels <= kFewChannels; }
    Index taps() const { return down * across; }
    Index steps() const {
        return is_flat() ? ceil_div(channels * taps(), kStep)
                         : ceil_div(channels, kStep) * taps();
    }
    Places at(Index step) const {
        Places places;
        const Index first = step * kStep;
        Index channel = is_flat() ? first % channels : step / taps() * kStep;
        const Index tap = is_flat() ? first / channels : step % taps();
        Index row = tap % down, col = tap / down;
        const Index left = is_flat() ? channels * taps() - first : channels - channel;
        places.used = least(kStep, left);
        for (Index k = 0; k < places.used; ++k) {
            places.taps[k] = {channel, row, col};
            if (++channel < channels || !is_flat()) continue;
            channel = 0;
            if (++row < down) continue;
            row = 0;
            ++col;
        }
        return places;
    }
};

// The output planes: column (n, i, j) is element (first + i * step) of each axis.
struct Planes {
    float* y;
    Index channels, group_channels, height, width;
    Index first_row, row_step, first_col, col_step;
    const float* bias;
    bool relu;
};

struct Convolution {
    Gather gather;
    Depth depth;
    Planes planes;

    Index begin(Index) const { return 0; }
    Index end(Index) const { return depth.steps(); }

    void columns(Index group, Index col, Index count, Index step, float* out, Index stride) const {
        const Places places = depth.at(step);
        for (Index from = 0; from < count; from += kPanel) {
            const Runs runs(gather, col + from, least(kPanel, count - from));
            for (Index k = 0; k < places.used; ++k)
                for (Index r = 0; r < runs.count; ++r)
                    gather_run(gather, group, places.taps[k], runs.list[r],
                               out + k * stride + from + runs.list[r].offset);
        }
        zero(out + places.used * stride, (kStep - places.used) * stride);
    }
    // use(row of the block, sums, y, count) for runs of elements that are col_step apart in y.
    template <class Use>
    __attribute__((always_inline)) void each(const Bf16Block& t, const Use& use) const {
        const Index size = gather.columns_of_image(), plane = planes.height * planes.width;
        const bool contiguous = planes.row_step == 1 && planes.col_step == 1;
        for (Index j = 0; j < t.cols;) {
            const Index image = (t.col + j) / size, pixel = (t.col + j) % size;
            const Index row = pixel / gather.out_width, col = pixel % gather.out_width;
            const Index count =
                least(t.cols - j, contiguous ? size - pixel : gather.out_width - col);
            const Index channel = t.batch * planes.group_channels + t.row;
            float* y = planes.y + (image * planes.channels + channel) * plane +
                       (planes.first_row + row * planes.row_step) * planes.width +
                       planes.first_col + col * planes.col_step;
            for (Index i = 0; i < t.rows; ++i)
                use(i, t.sums + i * t.stride + j, y + i * plane, count);
            j += count;
        }
    }
    void start(const Bf16Block& t) const {
        if (t.first) return;
        const Index step = planes.col_step;
        each(t, [step](Index, float* sums, const float* y, Index count) {
            if (step == 1)
                std::memcpy(sums, y, static_cast<std::size_t>(count) * sizeof(float));
            else
                for (Index e = 0; e < count; ++e) sums[e] = y[e * step];
        });
    }
    void put(const Bf16Block& t) const {
        const Index step = planes.col_step;
        if (!t.last) {
            each(t, [step](Index, const float* sums, float* y, Index count) {
                if (step == 1)
                    std::memcpy(y, sums, static_cast<std::size_t>(count) * sizeof(float));
                else
                    for (Index e = 0; e < count; ++e) y[e * step] = sums[e];
            });
            return;
        }
        const Index channel = t.batch * planes.group_channels + t.row;
        const float* bias = planes.bias ? planes.bias + channel : nullptr;
        const bool relu = planes.relu;
        each(t, [=](Index i, float* sums, float* y, Index count) {
            const float offset = bias ? bias[i] : 0.f;
            for (Index e = 0; e < count; ++e) {
                const float value = sums[e] + offset;
                sums[e] = round_bf16(relu && value < 0.f ? 0.f : value);
            }
            for (Index e = 0; e < count; ++e) y[e * step] = sums[e];
        });
    }
};

struct Forward : Convolution {
    const float* weight;

    Forward(const ConvShape& g, const float* x, const float* w, const float* bias, bool relu,
            float* y)
        : Convolution{{x, g.c, g.c / g.group,
                       forward_axis(g.h, g.pad_h, g.stride_h, g.dilation_h, g.r),
                       forward_axis(g.w, g.pad_w, g.stride_w, g.dilation_w, g.s), g.p, g.q},
                      {g.c / g.group, g.r, g.s},
                      {y, g.k, g.k / g.group, g.p, g.q, 0, 1, 0, 1, bias, relu}},
          weight(w) {}

    template <class Unit>
    Bf16Plan<Unit> plan(const ConvShape& g, Index threads) const {
        return {g.group, g.k / g.group, g.n * g.p * g.q, threads};
    }
    void rows(Index group, Index row, Index count, Index step, float* out) const {
        const Places places = depth.at(step);
        const Index taps = depth.taps(), filter = depth.channels * taps;
        const float* from = weight + (group * planes.group_channels + row) * filter;
        Index offset[kStep];
        for (Index k = 0; k < places.used; ++k) {
            const TapIndex& tap = places.taps[k];
            offset[k] = tap.channel * taps + tap.down * depth.across + tap.across;
        }
        for (Index i = 0; i < count; ++i, from += filter, out += kStep) {
            for (Index k = 0; k < places.used; ++k) out[k] = from[offset[k]];
            zero(out + places.used, kStep - places.used);
        }
    }
};

// The outputs of one phase of the gradient of the input. The taps are those of the phase, in the
// order of the filter turned by 180 degrees.
struct Phase : Convolution {
    PhaseAxis down, across;
    const float* weight;
    Index kernel_h, kernel_w;

    static Axis turned(const Axis& axis) {
        return {axis.size, axis.step, axis.base + (axis.taps - 1) * axis.slope, -axis.slope,
                axis.taps};
    }
    Phase(const ConvShape& g, const PhaseAxis& rows, const PhaseAxis& cols, Index phase_h,
          Index phase_w, const float* dy, const float* w, float* dx)
        : Convolution{{dy, g.k, g.k / g.group, turned(rows.axis), turned(cols.axis), rows.outputs,
                       cols.outputs},
                      {g.k / g.group, rows.axis.taps, cols.axis.taps},
                      {dx, g.c, g.c / g.group, g.h, g.w, phase_h, g.stride_h, phase_w, g.stride_w,
                       nullptr, false}},
          down(rows),
          across(cols),
          weight(w),
          kernel_h(g.r),
          kernel_w(g.s) {}

    template <class Unit>
    Bf16Plan<Unit> plan(const ConvShape& g, Index threads) const {
        return {g.group, g.c / g.group, g.n * down.outputs * across.outputs, threads};
    }
    void rows(Index group, Index row, Index count, Index step, float* out) const {
        const Places places = depth.at(step);
        const Index taps = kernel_h * kernel_w;
        for (Index k = 0; k < kStep; ++k) {
            if (k >= places.used) {
                for (Index i = 0; i < count; ++i) out[i * kStep + k] = 0.f;
                continue;
            }
            const TapIndex& tap = places.taps[k];
            const Index r = down.first + (depth.down - 1 - tap.down) * down.step;
            const Index s = across.first + (depth.across - 1 - tap.across) * across.step;
            const Index filter = (group * depth.channels + tap.channel) * planes.group_channels + row;
            const float* from = weight + filter * taps + r * kernel_w + s;
            for (Index i = 0; i < count; ++i) out[i * kStep + k] = from[i * taps];
        }
    }
};

template <class Use>
void each_phase(const ConvShape& g, const float* dy, const float* w, float* dx, const Use& use) {
    for (Index h = 0; h < least(g.stride_h, g.h); ++h)
        for (Index v = 0; v < least(g.stride_w, g.w); ++v) {
            const PhaseAxis down(h, g.h, g.p, g.pad_h, g.stride_h, g.dilation_h, g.r);
            const PhaseAxis across(v, g.w, g.q, g.pad_w, g.stride_w, g.dilation_w, g.s);
            use(Phase(g, down, across, h, v, dy, w, dx));
        }
}

// The gradient of the weights; batch: a group and a part of the outputs.
struct Weight {
    const ConvShape& g;
    Gather gather;
    const float* dy;
    float* sums;  // of all parts
    Index parts, steps;
    bool adds;  // to the present values

    Weight(const ConvShape& shape, const float* x, const float* dy)
        : g(shape),
          gather{x, g.c, g.c / g.group, forward_axis(g.h, g.pad_h, g.stride_h, g.dilation_h, g.r),
                 forward_axis(g.w, g.pad_w, g.stride_w, g.dilation_w, g.s), g.p, g.q},
          dy(dy),
          sums(nullptr),
          steps(ceil_div(g.n * g.p * g.q, kStep)),
          adds(false) {
        parts = size() >= kLargeWeights ? 1 : least(kMostParts, ceil_div(steps, kPartSteps));
    }
    Index size() const { return g.k * gather.depth(); }
    Index sum_floats() const { return parts > 1 ? piece(parts * size()) : 0; }
    template <class Unit>
    Bf16Plan<Unit> plan(Index threads) const {
        return {g.group * parts, g.k / g.group, gather.depth(), threads};
    }
    Index begin(Index batch) const { return steps * (batch % parts) / parts; }
    Index end(Index batch) const { return steps * (batch % parts + 1) / parts; }

    void rows(Index batch, Index row, Index count, Index step, float* out) const {
        const Index size = g.p * g.q, outputs = g.n * size;
        const Index channel = batch / parts * (g.k / g.group) + row;
        for (Index k = 0; k < kStep;) {
            const Index place = step * kStep + k;
            if (place >= outputs) {
                for (Index i = 0; i < count; ++i) zero(out + i * kStep + k, kStep - k);
                return;
            }
            const Index image = place / size, pixel = place % size;
            const Index length = least(kStep - k, size - pixel);
            for (Index i = 0; i < count; ++i)
                std::memcpy(out + i * kStep + k, dy + (image * g.k + channel + i) * size + pixel,
                            static_cast<std::size_t>(length) * sizeof(float));
            k += length;
        }
    }
    void columns(Index batch, Index col, Index count, Index step, float* out, Index stride) const {
        const Index first = step * kStep, used = least(kStep, g.n * g.p * g.q - first);
        if (used < kStep) zero(out, kStep * stride);
        for (Index from = 0; from < used; from += kPanel) {
            const Runs runs(gather, first + from, least(kPanel, used - from));
            TapIndex tap(gather, col);
            for (Index j = 0; j < count; ++j, tap.next(gather)) {
                float line[kPanel];
                for (Index r = 0; r < runs.count; ++r)
                    gather_run(gather, batch / parts, tap, runs.list[r], line + runs.list[r].offset);
                for (Index i = 0; i < least(kPanel, used - from); ++i)
                    out[(from + i) * stride + j] = line[i];
            }
        }
    }
    float* place(const Bf16Block& t, Index i) const {
        const Index row = t.batch / parts * (g.k / g.group) + t.row + i;
        return sums + t.batch % parts * size() + row * gather.depth() + t.col;
    }
    void start(const Bf16Block& t) const {
        if (t.first && !adds) return;
        for (Index i = 0; i < t.rows; ++i)
            std::memcpy(t.sums + i * t.stride, place(t, i),
                        static_cast<std::size_t>(t.cols) * sizeof(float));
    }
    void put(const Bf16Block& t) const {
        for (Index i = 0; i < t.rows; ++i)
            std::memcpy(place(t, i), t.sums + i * t.stride,
                        static_cast<std::size_t>(t.cols) * sizeof(float));
    }
};

}  // namespace
}  // namespace verydeep::VD_ISA

using namespace verydeep;
using namespace verydeep::VD_ISA;

// Bytes of workspace of a pass: 0 forward, 1 to the data, 2 to the weights.
VD_EXPORT_COUNT(conv_bf16_bytes)(const ConvShape* g, std::int64_t pass, std::int64_t tiles,
                                 std::int64_t threads) {
    Index floats = 0, shared = 0;
    with_unit(tiles != 0, [&](auto unit) {
        using Unit = decltype(unit);
        if (pass == 0) {
            const Forward forward(*g, nullptr, nullptr, nullptr, false, nullptr);
            floats = forward.template plan<Unit>(*g, threads).worker_floats();
        } else if (pass == 1) {
            each_phase(*g, nullptr, nullptr, nullptr, [&](const Phase& phase) {
                floats = most(floats, phase.template plan<Unit>(*g, threads).worker_floats());
            });
        } else {
            const Weight weight(*g, nullptr, nullptr);
            shared = weight.sum_floats();
            floats = weight.template plan<Unit>(threads).worker_floats();
        }
    });
    return 4 * (shared + threads * floats);
}

// y = conv(x, weight) + bias, then max(., 0) if `relu`, rounded to bf16. `tiles`: see gemm_bf16.
VD_EXPORT(conv_bf16_forward)(Team* team, std::int64_t tiles, const ConvShape* g, const float* x,
                             const float* weight, const float* bias, std::int64_t relu, float* y,
                             void* workspace) {
    const Forward forward(*g, x, weight, bias, relu != 0, y);
    with_unit(tiles != 0, [&](auto unit) {
        using Unit = decltype(unit);
        bf16_product<Unit>(team, forward, forward.template plan<Unit>(*g, team_size(team)),
                           workspace);
    });
}
VD_REPEATABLE(conv_bf16_forward)

// dx = the gradient of the input, rounded to bf16.
VD_EXPORT(conv_bf16_backward_data)(Team* team, std::int64_t tiles, const ConvShape* g,
                                   const float* dy, const float* weight, float* dx,
                                   void* workspace) {
    with_unit(tiles != 0, [&](auto unit) {
        using Unit = decltype(unit);
        each_phase(*g, dy, weight, dx, [&](const Phase& phase) {
            bf16_product<Unit>(team, phase, phase.template plan<Unit>(*g, team_size(team)),
                               workspace);
        });
    });
}
VD_REPEATABLE(conv_bf16_backward_data)

// dw += the gradient of the weights.
VD_EXPORT(conv_bf16_backward_weight)(Team* team, std::int64_t tiles, const ConvShape* g,
                                     const float* x, const float* dy, float* dw, void* workspace) {
    Weight weight(*g, x, dy);
    const Index parts = weight.parts, size = weight.size();
    float* rest = static_cast<float*>(workspace) + weight.sum_floats();
    float* partial =
        parts > 1 ? Arena(workspace, weight.sum_floats()).floats(parts * size) : nullptr;
    weight.sums = parts > 1 ? partial : dw;
    weight.adds = parts == 1;
    with_unit(tiles != 0, [&](auto unit) {
        using Unit = decltype(unit);
        bf16_product<Unit>(team, weight, weight.template plan<Unit>(team_size(team)),
                           rest);
    });
    if (parts == 1) return;
    parallel_parts(team, size, 4096, [=](Index first, Index last) {
        for (Index part = 0; part < parts; ++part)
            for (Index i = first; i < last; ++i) dw[i] += partial[part * size + i];
    });
}
VD_REPEATABLE(conv_bf16_backward_weight)
