// Depthwise convolution: every filter reads one channel (group == channels). All three passes.
//
// A band of input rows is copied with its padding; each row is divided into `stride` phases, where
// phase f has the columns f, f + stride, ... So adjacent outputs read adjacent floats for any
// stride. Each item is a complete channel, and the order of its sums depends only on the geometry.

#include "arena.h"
#include "program.h"
#include "shapes.h"
#include "team.h"

namespace verydeep::VD_ISA {
namespace {

constexpr Index kBandFloats = 1 << 13;  // of input rows: they fit in the L1 or L2 cache
constexpr Index kItemFloats = 1 << 13;  // outputs of the channels that one item computes
constexpr int kTogether = 4;            // output rows that are computed together and share loads

VD_INLINE Vec load_some(const float* p, Index count) {
    return count >= kLanes ? load(p) : load_part(p, count);
}
VD_INLINE void store_some(float* p, Vec v, Index count) {
    if (count >= kLanes)
        store(p, v);
    else
        store_part(p, v, count);
}

struct Plan {
    Index multiplier;           // filters of a channel
    Index phase_width, width;   // floats of a phase, and of all phases of a row
    Index reach;                // input rows from the first to the last tap of an output row
    Index rows;                 // output rows of a band
    Index band_floats, plane_floats;

    explicit Plan(const ConvShape& g)
        : multiplier(g.k / g.group),
          // Full vectors of outputs are read up to the last tap beyond them.
          phase_width(round_up(g.q, kLanes) +
                      round_up((g.s - 1) * g.dilation_w / g.stride_w + 1, kLanes)),
          width(phase_width * g.stride_w),
          reach((g.r - 1) * g.dilation_h + 1) {
        const Index fit = (kBandFloats / width - reach) / g.stride_h + 1;
        rows = most(1, least(g.p, round_up(most(fit, 1), kTogether)));
        band_floats = input_rows(g, rows) * width;
        plane_floats = input_rows(g, g.p) * width;
    }
    Index input_rows(const ConvShape& g, Index outputs) const {
        return (outputs - 1) * g.stride_h + reach;
    }
};

// The position of tap s of output column 0 in a row of phases.
VD_INLINE Index tap_offset(const ConvShape& g, const Plan& plan, Index s) {
    const Index column = s * g.dilation_w;
    return column % g.stride_w * plan.phase_width + column / g.stride_w;
}

// The padded input rows [first, first + count) of a plane as phases. Shapes: out
// [row][phase][column].
void copy_rows(const ConvShape& g, const Plan& plan, const float* x, Index first, Index count,
               float* out) {
    for (Index r = 0; r < count; ++r, out += plan.width) {
        const Index row = first + r - g.pad_h;
        zero(out, plan.width);
        if (row < 0 || row >= g.h) continue;
        const float* from = x + row * g.w;
        for (Index phase = 0; phase < g.stride_w; ++phase) {
            // Columns phase + i * stride - pad of the input that exist.
            const Index begin = most(0, ceil_div(g.pad_w - phase, g.stride_w));
            const Index end = least(plan.phase_width,
                                    ceil_div(g.w + g.pad_w - phase, g.stride_w));
            if (begin >= end) continue;
            float* to = out + phase * plan.phase_width;
            const float* source = from + phase - g.pad_w;
            if (g.stride_w == 1)
                std::memcpy(to + begin, source + begin,
                            static_cast<std::size_t>(end - begin) * sizeof(float));
            else
                for (Index i = begin; i < end; ++i) to[i] = source[i * g.stride_w];
        }
    }
}

// R output rows of a filter with Side x Side taps, from a band that starts with their first input
// row. The sum of an output is over the taps column by column, as in `any_row`.
template <int Side, int Stride, int R>
VD_INLINE void some_rows(const ConvShape& g, const Plan& plan, const float* band, const float* w,
                         float bias, bool relu, float* y) {
    Vec weight[Side][Side];
    for (int r = 0; r < Side; ++r)
        for (int s = 0; s < Side; ++s) weight[r][s] = broadcast(w[r * Side + s]);
    for (Index q = 0; q < g.q; q += kLanes) {
        Vec sum[R];
        VD_UNROLL
        for (int i = 0; i < R; ++i) sum[i] = broadcast(bias);
        VD_UNROLL
        for (int s = 0; s < Side; ++s) {
            const float* from = band + (s % Stride) * plan.phase_width + s / Stride + q;
            VD_UNROLL
            for (int row = 0; row < (R - 1) * Stride + Side; ++row) {
                const Vec v = load(from + row * plan.width);
                VD_UNROLL
                for (int i = 0; i < R; ++i) {
                    const int tap = row - i * Stride;
                    if (tap >= 0 && tap < Side) sum[i] += weight[tap][s] * v;
                }
            }
        }
        const Index count = least(kLanes, g.q - q);
        VD_UNROLL
        for (int i = 0; i < R; ++i)
            store_some(y + i * g.q + q, relu ? (sum[i] < Vec{} ? Vec{} : sum[i]) : sum[i],
                       count);
    }
}

template <int Side, int Stride>
void square_rows(const ConvShape& g, const Plan& plan, const float* band, Index count,
                 const float* w, float bias, bool relu, float* y) {
    Index row = 0;
    for (; row + kTogether <= count; row += kTogether)
        some_rows<Side, Stride, kTogether>(g, plan, band + row * Stride * plan.width, w, bias, relu,
                                           y + row * g.q);
    for (; row < count; ++row)
        some_rows<Side, Stride, 1>(g, plan, band + row * Stride * plan.width, w, bias, relu,
                                   y + row * g.q);
}

void any_rows(const ConvShape& g, const Plan& plan, const float* band, Index count, const float* w,
              float bias, bool relu, float* y) {
    for (Index row = 0; row < count; ++row, band += g.stride_h * plan.width, y += g.q)
        for (Index q = 0; q < g.q; q += kLanes) {
            Vec sum = broadcast(bias);
            for (Index s = 0; s < g.s; ++s) {
                const float* from = band + tap_offset(g, plan, s) + q;
                for (Index r = 0; r < g.r; ++r)
                    sum += broadcast(w[r * g.s + s]) * load(from + r * g.dilation_h * plan.width);
            }
            store_some(y + q, relu ? (sum < Vec{} ? Vec{} : sum) : sum, least(kLanes, g.q - q));
        }
}

using Rows = void (*)(const ConvShape&, const Plan&, const float*, Index, const float*, float, bool,
                      float*);

Rows rows_of(const ConvShape& g) {
    const bool even = g.r == g.s && g.stride_h == g.stride_w;
    if (!even || g.dilation_h != 1 || g.dilation_w != 1) return &any_rows;
    if (g.r == 3 && g.stride_h == 1) return &square_rows<3, 1>;
    if (g.r == 3 && g.stride_h == 2) return &square_rows<3, 2>;
    return &any_rows;
}

// y += w x, over a row
VD_INLINE void add_row(float w, const float* x, Index count, float* y) {
    for (Index q = 0; q < count; q += kLanes) {
        const Index n = least(kLanes, count - q);
        store_some(y + q, load_some(y + q, n) + broadcast(w) * load_some(x + q, n), n);
    }
}

// Adds the gradients of the outputs of one filter to a padded plane of phases.
void add_filter(const ConvShape& g, const Plan& plan, const float* dy, const float* w,
                float* plane) {
    for (Index p = 0; p < g.p; ++p)
        for (Index r = 0; r < g.r; ++r) {
            float* row = plane + (p * g.stride_h + r * g.dilation_h) * plan.width;
            for (Index s = 0; s < g.s; ++s)
                add_row(w[r * g.s + s], dy + p * g.q, g.q, row + tap_offset(g, plan, s));
        }
}

// Copies a plane of phases without the padding; inputs that no output reads are 0.
void copy_back(const ConvShape& g, const Plan& plan, const float* plane, float* dx) {
    const Index rows = plan.input_rows(g, g.p);
    for (Index h = 0; h < g.h; ++h, dx += g.w) {
        if (h + g.pad_h >= rows) {
            zero(dx, g.w);
            continue;
        }
        const float* row = plane + (h + g.pad_h) * plan.width;
        if (g.stride_w == 1) {
            const Index exist = most(0, least(g.w, plan.phase_width - g.pad_w));
            if (exist) std::memcpy(dx, row + g.pad_w, static_cast<std::size_t>(exist) * sizeof(float));
            zero(dx + exist, g.w - exist);
            continue;
        }
        for (Index v = 0; v < g.w; ++v) {
            const Index column = (v + g.pad_w) / g.stride_w;
            const Index phase = (v + g.pad_w) % g.stride_w;
            dx[v] = column < plan.phase_width ? row[phase * plan.phase_width + column] : 0.f;
        }
    }
}

// The gradient of one tap: the sum over `count` output rows.
float tap_sum(const ConvShape& g, const Plan& plan, const float* from, const float* dy,
              Index count) {
    Vec sum[2] = {};
    for (Index p = 0; p < count; ++p, from += g.stride_h * plan.width, dy += g.q) {
        Index q = 0;
        for (; q + 2 * kLanes <= g.q; q += 2 * kLanes) {
            sum[0] += load(from + q) * load(dy + q);
            sum[1] += load(from + q + kLanes) * load(dy + q + kLanes);
        }
        for (; q < g.q; q += kLanes) {
            const Index n = least(kLanes, g.q - q);
            sum[0] += load_some(from + q, n) * load_some(dy + q, n);
        }
    }
    return sum_lanes(sum[0] + sum[1]);
}

Index channels_together(const ConvShape& g, const Plan& plan) {
    return most(1, kItemFloats / most(1, plan.multiplier * g.p * g.q));
}

}  // namespace
}  // namespace verydeep::VD_ISA

using namespace verydeep;
using namespace verydeep::VD_ISA;

// Bytes of workspace for a pass with this number of threads; `plane` for the gradient of the input.
VD_EXPORT_COUNT(depthwise_bytes)(const ConvShape* g, std::int64_t plane, std::int64_t threads) {
    const Plan plan(*g);
    return threads * 4 * piece(plane ? plan.plane_floats : plan.band_floats);
}

// y = conv(x, weight) + bias, then max(., 0) if `relu`.
VD_EXPORT(depthwise_forward)(Team* team, const ConvShape* g, const float* x, const float* weight,
                             const float* bias, std::int64_t relu, float* y, void* workspace) {
    const Plan plan(*g);
    const Rows rows = rows_of(*g);
    const Index each = piece(plan.band_floats), part = channels_together(*g, plan);
    const Index planes = g->n * g->c, taps = g->r * g->s;
    const Arena shared(workspace, team_size(team) * each);
    parallel(team, ceil_div(planes, part), [&](Index item, int worker) {
        float* band = shared.worker(worker, each).floats(plan.band_floats);
        for (Index plane = item * part; plane < least(planes, (item + 1) * part); ++plane)
            for (Index first = 0; first < g->p; first += plan.rows) {
                const Index count = least(plan.rows, g->p - first);
                copy_rows(*g, plan, x + plane * g->h * g->w, first * g->stride_h,
                          plan.input_rows(*g, count), band);
                for (Index m = 0; m < plan.multiplier; ++m) {
                    const Index filter = plane % g->c * plan.multiplier + m;
                    float* to = y + ((plane * plan.multiplier + m) * g->p + first) * g->q;
                    rows(*g, plan, band, count, weight + filter * taps, bias ? bias[filter] : 0.f,
                         relu != 0, to);
                }
            }
    });
}
VD_REPEATABLE(depthwise_forward)

// dx = the gradient of the input.
VD_EXPORT(depthwise_backward_data)(Team* team, const ConvShape* g, const float* dy,
                                   const float* weight, float* dx, void* workspace) {
    const Plan plan(*g);
    const Index each = piece(plan.plane_floats), part = channels_together(*g, plan);
    const Index planes = g->n * g->c, taps = g->r * g->s;
    const Arena shared(workspace, team_size(team) * each);
    parallel(team, ceil_div(planes, part), [&](Index item, int worker) {
        float* sums = shared.worker(worker, each).floats(plan.plane_floats);
        for (Index plane = item * part; plane < least(planes, (item + 1) * part); ++plane) {
            zero(sums, plan.plane_floats);
            for (Index m = 0; m < plan.multiplier; ++m) {
                const Index filter = plane % g->c * plan.multiplier + m;
                add_filter(*g, plan, dy + (plane * plan.multiplier + m) * g->p * g->q,
                           weight + filter * taps, sums);
            }
            copy_back(*g, plan, sums, dx + plane * g->h * g->w);
        }
    });
}
VD_REPEATABLE(depthwise_backward_data)

// dw += the gradient of the weights: images in order, bands of rows in order.
VD_EXPORT(depthwise_backward_weight)(Team* team, const ConvShape* g, const float* x,
                                     const float* dy, float* dw, void* workspace) {
    constexpr Index kMostTaps = 64;
    const Plan plan(*g);
    const Index each = piece(plan.band_floats), taps = g->r * g->s;
    const Arena shared(workspace, team_size(team) * each);
    parallel(team, g->c, [&](Index channel, int worker) {
        float* band = shared.worker(worker, each).floats(plan.band_floats);
        for (Index filter = channel * plan.multiplier; filter < (channel + 1) * plan.multiplier;
             ++filter)
            for (Index begin = 0; begin < taps; begin += kMostTaps) {
                const Index end = least(taps, begin + kMostTaps);
                double sum[kMostTaps] = {};
                for (Index n = 0; n < g->n; ++n)
                    for (Index first = 0; first < g->p; first += plan.rows) {
                        const Index count = least(plan.rows, g->p - first);
                        copy_rows(*g, plan, x + (n * g->c + channel) * g->h * g->w,
                                  first * g->stride_h, plan.input_rows(*g, count), band);
                        const float* from = dy + ((n * g->k + filter) * g->p + first) * g->q;
                        for (Index t = begin; t < end; ++t)
                            sum[t - begin] += tap_sum(
                                *g, plan,
                                band + t / g->s * g->dilation_h * plan.width +
                                    tap_offset(*g, plan, t % g->s),
                                from, count);
                    }
                for (Index t = begin; t < end; ++t)
                    dw[filter * taps + t] += static_cast<float>(sum[t - begin]);
            }
    });
}
VD_REPEATABLE(depthwise_backward_weight)
