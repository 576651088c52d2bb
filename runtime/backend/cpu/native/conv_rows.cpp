// 3x3 convolution of few channels at stride 1, row by row, for the first layer of a net: forward,
// and the gradient of the weights.
//
// With few input channels, gathering columns takes longer than the products, and the vectors of
// Winograd's transforms would be mostly empty. Here a band of input rows is copied once, with
// padding, and is read in place for every tap: vectors are along a row of outputs.

#include "arena.h"
#include "finish.h"
#include "program.h"
#include "shapes.h"
#include "team.h"

namespace verydeep::VD_ISA {
namespace {

constexpr Index kTaps = 9, kSide = 3;
constexpr Index kBandFloats = 1 << 13;  // of input rows: they and a row of every output fit in L2
constexpr Index kMostGroups = 16;       // partial sums of the weight gradient

struct Plan {
    Index width, rows, bands;  // floats of a padded row; output rows of a band; bands of an image
    Index items, groups, depth, band_floats, sum_floats;

    explicit Plan(const ConvShape& g)
        // Full vectors of outputs are read up to two taps beyond them.
        : width(round_up(g.q, 2 * kLanes) + 2 * kLanes) {
        const Index fit = kBandFloats / (g.c * width) - (kSide - 1);
        rows = most(1, least(g.p, fit));
        bands = ceil_div(g.p, rows);
        items = g.n * bands;
        groups = least(kMostGroups, items);
        depth = g.c * kTaps;
        band_floats = g.c * (rows + kSide - 1) * width;
        sum_floats = g.k * depth * kLanes;
    }
    Index first_row(Index item) const { return item % bands * rows; }
};

// The input rows of output rows [first, first + count), padded with zeros.
// Shapes: out [channel][count + 2][plan.width].
void copy_band(const ConvShape& g, const Plan& plan, const float* x, Index image, Index first,
               Index count, float* out) {
    for (Index c = 0; c < g.c; ++c)
        for (Index r = 0; r < count + kSide - 1; ++r, out += plan.width) {
            const Index row = first + r - g.pad_h;
            if (row < 0 || row >= g.h) {
                zero(out, plan.width);
                continue;
            }
            const Index length = least(g.w, plan.width - g.pad_w);
            zero(out, g.pad_w);
            std::memcpy(out + g.pad_w, x + ((image * g.c + c) * g.h + row) * g.w,
                        static_cast<std::size_t>(length) * sizeof(float));
            zero(out + g.pad_w + length, plan.width - g.pad_w - length);
        }
}

// R filters at 2 * kLanes outputs of one row. Shapes: w [tap][R]; sums [filter][2 * kLanes].
template <int R>
void row_products(const float* band, Index row_floats, Index plane_floats, Index channels,
                  const float* w, float* sums) {
    Vec sum[R][2] = {};
    for (Index c = 0; c < channels; ++c, band += plane_floats)
        for (Index r = 0; r < kSide; ++r)
            for (Index s = 0; s < kSide; ++s, w += R) {
                const float* from = band + r * row_floats + s;
                const Vec left = load(from), right = load(from + kLanes);
                VD_UNROLL
                for (int i = 0; i < R; ++i) {
                    const Vec weight = broadcast(w[i]);
                    sum[i][0] += weight * left;
                    sum[i][1] += weight * right;
                }
            }
    VD_UNROLL
    for (int i = 0; i < R; ++i) {
        store(sums + i * kPanel, sum[i][0]);
        store(sums + i * kPanel + kLanes, sum[i][1]);
    }
}

// The gradients of three taps of R filters for one input row: sums over output rows and columns.
// Shapes: dy [filter][rows][columns], `filter_floats` apart; sum [filter][tap][lane], `depth` taps.
template <int R>
void tap_sums(const float* band, Index row_floats, const float* dy, Index filter_floats, Index rows,
              Index columns, Index depth, float* sum) {
    Vec s[R][kSide];
    for (int i = 0; i < R; ++i)
        for (int t = 0; t < kSide; ++t) s[i][t] = load(sum + (i * depth + t) * kLanes);
    auto step = [&](const float* from, auto gradient) __attribute__((always_inline)) {
        const Vec taps[kSide] = {load(from), load(from + 1), load(from + 2)};
        VD_UNROLL
        for (int i = 0; i < R; ++i) {
            const Vec g = gradient(i);
            VD_UNROLL
            for (int t = 0; t < kSide; ++t) s[i][t] += g * taps[t];
        }
    };
    for (Index r = 0; r < rows; ++r, band += row_floats, dy += columns) {
        Index q = 0;
        for (; q + kLanes <= columns; q += kLanes)
            step(band + q, [&](int i) { return load(dy + i * filter_floats + q); });
        if (q < columns)
            step(band + q,
                 [&](int i) { return load_part(dy + i * filter_floats + q, columns - q); });
    }
    for (int i = 0; i < R; ++i)
        for (int t = 0; t < kSide; ++t) store(sum + (i * depth + t) * kLanes, s[i][t]);
}

using RowProducts = void (*)(const float*, Index, Index, Index, const float*, float*);
using TapSums = void (*)(const float*, Index, const float*, Index, Index, Index, Index, float*);
struct Tables {
    RowProducts products[kRows];
    TapSums sums[kRows];
};
template <int... I>
constexpr Tables tables(Lanes<I...>) {
    return {{&row_products<I + 1>...}, {&tap_sums<I + 1>...}};
}
constexpr Tables kTables = tables(MakeLanes<kRows>::Type{});

struct Runs {  // runs of about equal numbers of filters, at most `most_filters`
    Index filters, count;

    Runs(Index filters, Index most_filters)
        : filters(filters), count(ceil_div(filters, most_filters)) {}
    Index first(Index run) const { return filters * run / count; }
    Index length(Index run) const { return first(run + 1) - first(run); }
};

// Shapes: weight (k, depth); out [run][tap][filter of the run].
void pack_weights(const float* weight, const Runs& runs, Index depth, float* out) {
    for (Index run = 0; run < runs.count; ++run)
        for (Index t = 0; t < depth; ++t)
            for (Index i = 0; i < runs.length(run); ++i)
                *out++ = weight[(runs.first(run) + i) * depth + t];
}

// Of one worker. The gradient needs no more than the forward pass.
Index worker_floats(const Plan& plan) {
    return piece(plan.band_floats) + piece(kRows * kPanel);
}

}  // namespace
}  // namespace verydeep::VD_ISA

using namespace verydeep;
using namespace verydeep::VD_ISA;

// Bytes of workspace for the forward pass, or the gradient, with this number of threads.
VD_EXPORT_COUNT(conv_rows_bytes)(const ConvShape* g, std::int64_t gradient, std::int64_t threads) {
    const Plan plan(*g);
    const Index shared = gradient ? plan.groups * plan.sum_floats : g->k * plan.depth;
    return 4 * (piece(shared) + threads * worker_floats(plan));
}

// y = conv(x, weight) + bias, then max(., 0) if `relu`.
VD_EXPORT(conv_rows_forward)(Team* team, const ConvShape* g, const float* x, const float* weight,
                             const float* bias, std::int64_t relu, float* y, void* workspace) {
    const Plan plan(*g);
    const Runs runs(g->k, kRows);
    const Index floats = worker_floats(plan);
    Arena shared(workspace, piece(g->k * plan.depth) + team_size(team) * floats);
    float* packed = shared.floats(g->k * plan.depth);
    pack_weights(weight, runs, plan.depth, packed);
    parallel(team, plan.items, [&](Index item, int worker) {
        Arena arena = shared.worker(worker, floats);
        float* band = arena.floats(plan.band_floats);
        float* sums = arena.floats(kRows * kPanel);
        const Index image = item / plan.bands, first = plan.first_row(item);
        const Index count = least(plan.rows, g->p - first);
        const Index plane = (count + kSide - 1) * plan.width;
        copy_band(*g, plan, x, image, first, count, band);
        for (Index row = 0; row < count; ++row)
            for (Index run = 0; run < runs.count; ++run) {
                const Index filter = runs.first(run), length = runs.length(run);
                float* to = y + ((image * g->k + filter) * g->p + first + row) * g->q;
                for (Index q = 0; q < g->q; q += kPanel) {
                    kTables.products[length - 1](band + row * plan.width + q, plan.width, plane, g->c,
                                                 packed + filter * plan.depth, sums);
                    for (Index i = 0; i < length; ++i)
                        finish_run(to + i * g->p * g->q + q, sums + i * kPanel,
                                   least(kPanel, g->q - q), bias ? bias[filter + i] : 0.f, true,
                                   relu != 0);
                }
            }
    });
}
VD_REPEATABLE(conv_rows_forward)

// dw += the gradient of the weights. Bands are added in order in each group, then the groups in
// order.
VD_EXPORT(conv_rows_weight)(Team* team, const ConvShape* g, const float* x, const float* dy,
                            float* dw, void* workspace) {
    const Plan plan(*g);
    if (plan.items == 0) return;  // no images: nothing to add
    const Runs runs(g->k, kOuterRows);
    const Index floats = worker_floats(plan);
    Arena shared(workspace, piece(plan.groups * plan.sum_floats) + team_size(team) * floats);
    float* all = shared.floats(plan.groups * plan.sum_floats);
    parallel(team, plan.groups, [&](Index group, int worker) {
        float* band = shared.worker(worker, floats).floats(plan.band_floats);
        float* sums = all + group * plan.sum_floats;
        zero(sums, plan.sum_floats);
        for (Index item = plan.items * group / plan.groups;
             item < plan.items * (group + 1) / plan.groups; ++item) {
            const Index image = item / plan.bands, first = plan.first_row(item);
            const Index count = least(plan.rows, g->p - first);
            const Index plane = (count + kSide - 1) * plan.width;
            copy_band(*g, plan, x, image, first, count, band);
            for (Index run = 0; run < runs.count; ++run) {
                const Index filter = runs.first(run);
                const float* from = dy + ((image * g->k + filter) * g->p + first) * g->q;
                for (Index t = 0; t < plan.depth; t += kSide)
                    kTables.sums[runs.length(run) - 1](
                        band + t / kTaps * plane + t % kTaps / kSide * plan.width, plan.width, from,
                        g->p * g->q, count, g->q, plan.depth,
                        sums + (filter * plan.depth + t) * kLanes);
            }
        }
    });
    for (Index i = 0; i < g->k * plan.depth; ++i) {
        Vec sum = load(all + i * kLanes);
        for (Index e = 1; e < plan.groups; ++e) sum += load(all + e * plan.sum_floats + i * kLanes);
        dw[i] += sum_lanes(sum);
    }
}
VD_REPEATABLE(conv_rows_weight)
