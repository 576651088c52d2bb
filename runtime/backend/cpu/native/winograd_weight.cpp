// The gradient of 3x3 weights at stride 1, by Winograd:
// G^T (sum over tiles of B^T d B * A dy A^T) G.
//
// The division of the tiles into groups and chunks depends only on the geometry; the chunks of a
// group, and the groups, are added in order, so the number of threads changes no bit. Threads may
// divide a group by tile rows and slices of output channels, which have separate sums.

#include "program.h"
#include "shapes.h"
#include "team.h"
#include "winograd.h"

namespace verydeep::VD_ISA {
namespace {

constexpr Index kMostGroups = 16;
constexpr Index kGroupFloats = 6 << 20;  // total of the sums of all groups, if there are several
constexpr Index kChunkFloats = 1 << 19;  // transformed inputs and gradients of one chunk
constexpr Index kLeastTiles = 96;        // with fewer, the sums take longer than the products

template <int M>
struct Plan {
    Tiling tiling;
    Index input_blocks, output_blocks, inputs;  // inputs: a multiple of the rows of a product
    Index sum_plane, group_floats;
    Index groups, chunk, max_tiles;
    Index row_slices, output_slices;
    Index v_plane, d_plane, row_vectors, worker_floats;

    Plan(const ConvShape& g, Index threads) : tiling(g.n, g.p, g.q, M) {
        using W = Winograd<M>;
        input_blocks = ceil_div(g.c, kLanes);
        output_blocks = ceil_div(g.k, kLanes);
        inputs = round_up(g.c, kOuterRows);
        sum_plane = plane_stride(inputs * output_blocks * kLanes);
        group_floats = W::kPlanes * sum_plane;
        groups = kMostGroups;
        while (groups > 1 && (groups * group_floats > kGroupFloats ||
                              tiling.strips * tiling.span < 2 * kLeastTiles * groups))
            groups /= 2;
        const Index channels = (input_blocks + output_blocks) * kLanes;
        const Index tiles = most(kLeastTiles, kChunkFloats / (W::kPlanes * channels));
        const Index strips = most(1, ceil_div(tiling.strips, groups));
        chunk = ceil_div(strips, ceil_div(strips, ceil_div(tiles, tiling.span)));
        max_tiles = chunk * tiling.span;
        slice(ceil_div(threads, groups));
        v_plane = plane_stride(input_blocks * kLanes * max_tiles);
        d_plane = plane_stride(ceil_div(output_blocks, output_slices) * kLanes * max_tiles);
        row_vectors = W::kTile * strip_stride(tiling.span * M + 2);
        worker_floats = piece(W::kPlanes * v_plane) + piece(W::kPlanes * d_plane) +
                        piece(row_vectors * kLanes);
    }

    // Divide a group among `threads`: first by tile rows, since this repeats less work.
    void slice(Index threads) {
        constexpr Index kTile = Winograd<M>::kTile;
        Index waste = -1;
        for (Index rows = kTile; rows >= 1; --rows) {
            if (kTile % rows != 0 || (rows > threads && rows > 1)) continue;
            const Index outputs = least(ceil_div(threads, rows), output_blocks);
            const Index over = rows * outputs - threads;
            if (waste >= 0 && over >= waste) continue;
            waste = over;
            row_slices = rows;
            output_slices = outputs;
        }
    }
    Index floats(Index threads) const {
        return piece(groups * group_floats) + threads * worker_floats;
    }
};

// Sums of R input channels (adjacent lanes of `v`) and Vectors output blocks.
// Shapes: v [tile][kLanes]; d [output block][tile][lane]; sum [output block][input][lane].
template <int R, int Vectors>
void accumulate(const float* v, const float* d, Index d_block, Index tiles, float* sum,
                Index sum_block, bool first) {
    Vec s[R][Vectors] = {};
    for (Index t = 0; t < tiles; ++t, v += kLanes, d += kLanes) {
        Vec y[Vectors];
        VD_UNROLL
        for (int e = 0; e < Vectors; ++e) y[e] = load(d + e * d_block);
        VD_UNROLL
        for (int r = 0; r < R; ++r) {
            const Vec x = broadcast(v[r]);
            VD_UNROLL
            for (int e = 0; e < Vectors; ++e) s[r][e] += x * y[e];
        }
    }
    VD_UNROLL
    for (int e = 0; e < Vectors; ++e)
        for (int r = 0; r < R; ++r) {
            float* to = sum + e * sum_block + r * kLanes;
            store(to, first ? s[r][e] : load(to) + s[r][e]);
        }
}

using Accumulate = void (*)(const float*, const float*, Index, Index, float*, Index, bool);
struct AccumulateTable {
    Accumulate by_vectors[kOuterVectors];
};
template <int... I>
constexpr AccumulateTable accumulate_table(Lanes<I...>) {
    return {{&accumulate<kOuterRows, I + 1>...}};
}
constexpr AccumulateTable kAccumulate = accumulate_table(MakeLanes<kOuterVectors>::Type{});

struct Slice {
    Index group, row0, row1, block0, block1;
};

template <int M>
Slice slice_at(const Plan<M>& plan, Index item) {
    const Index share = item % (plan.row_slices * plan.output_slices);
    const Index rows = Winograd<M>::kTile / plan.row_slices, row = share % plan.row_slices * rows;
    const Index part = share / plan.row_slices;
    return {item / (plan.row_slices * plan.output_slices), row, row + rows,
            plan.output_blocks * part / plan.output_slices,
            plan.output_blocks * (part + 1) / plan.output_slices};
}

template <int M>
void transform_chunk(const ConvShape& g, const Plan<M>& plan, const Slice& part, const float* x,
                     const float* dy, Index first, Index last, float* v, float* d, Vec* rows) {
    const Index block = plan.max_tiles * kLanes;
    Index offset = 0;
    for (Index i = first; i < last; ++i) {
        const Strip s = plan.tiling.strip(i);
        for (Index b = 0; b < plan.input_blocks; ++b)
            input_strip<M>(planes_at(x, g.n, g.c, g.h, g.w, s.image, b), s, g.pad_h, g.pad_w,
                           part.row0, part.row1, rows, v + b * block + offset, plan.v_plane);
        for (Index b = part.block0; b < part.block1; ++b)
            gradient_strip<M>(planes_at(dy, g.n, g.k, g.p, g.q, s.image, b), s, part.row0, part.row1,
                              rows, d + (b - part.block0) * block + offset, plan.d_plane);
        offset += s.tiles * kLanes;
    }
}

template <int M>
void accumulate_chunk(const Plan<M>& plan, const Slice& part, Index tiles, const float* v,
                      const float* d, float* sums, bool first) {
    const Index block = plan.max_tiles * kLanes, sum_block = plan.inputs * kLanes;
    for (Index q = part.row0 * Winograd<M>::kTile; q < part.row1 * Winograd<M>::kTile; ++q)
        for (Index b = part.block0; b < part.block1; b += kOuterVectors) {
            const Accumulate products =
                kAccumulate.by_vectors[least(kOuterVectors, part.block1 - b) - 1];
            const float* y = d + q * plan.d_plane + (b - part.block0) * block;
            float* to = sums + q * plan.sum_plane + b * sum_block;
            for (Index c = 0; c < plan.inputs; c += kOuterRows)
                products(v + q * plan.v_plane + c / kLanes * block + c % kLanes, y, block, tiles,
                         to + c * kLanes, sum_block, first);
        }
}

// G^T u G for kLanes outputs by inputs [first, last), added to dw (k, c, 3, 3).
template <int M>
void finish(const ConvShape& g, const Plan<M>& plan, const float* sums, Index block, Index first,
            Index last, float* dw) {
    using W = Winograd<M>;
    constexpr Index kAhead = 4;  // more streams than the hardware prefetcher follows
    const Index outputs = least(kLanes, g.k - block * kLanes);
    for (Index c = first; c < last; ++c) {
        Vec u[W::kPlanes], half[3 * W::kTile], taps[9];
        const float* from = sums + (block * plan.inputs + c) * kLanes;
        for (int q = 0; q < W::kPlanes; ++q) {
            u[q] = load(from + q * plan.sum_plane);
            __builtin_prefetch(from + q * plan.sum_plane + kAhead * kLanes);
            for (Index e = 1; e < plan.groups; ++e)
                u[q] += load(from + q * plan.sum_plane + e * plan.group_floats);
        }
        for (int j = 0; j < W::kTile; ++j) W::filter_gradient(u + j, W::kTile, half + j, W::kTile);
        for (int i = 0; i < 3; ++i) W::filter_gradient(half + i * W::kTile, 1, taps + 3 * i, 1);
        TapRows rows;
        taps_to_rows(taps, rows);
        float* to = dw + (block * kLanes * g.c + c) * 9;
        for (Index i = 0; i < outputs; ++i, to += g.c * 9)
            for (int tap = 0; tap < 9; ++tap) to[tap] += rows.tap[i][tap];
    }
}

template <int M>
void weight_gradient(Team* team, const ConvShape& g, const float* x, const float* dy, float* dw,
                     void* workspace) {
    using W = Winograd<M>;
    const Plan<M> plan(g, team_size(team));
    if (plan.tiling.strips == 0) return;  // no images: nothing to add
    Arena shared(workspace, plan.floats(team_size(team)));
    float* sums = shared.floats(plan.groups * plan.group_floats);
    parallel(team, plan.groups * plan.row_slices * plan.output_slices, [&](Index item, int worker) {
        Arena arena = shared.worker(worker, plan.worker_floats);
        float* v = arena.floats(W::kPlanes * plan.v_plane);
        float* d = arena.floats(W::kPlanes * plan.d_plane);
        Vec* rows = arena.vectors(plan.row_vectors);
        const Slice part = slice_at<M>(plan, item);
        const Index begin = plan.tiling.strips * part.group / plan.groups;
        const Index end = plan.tiling.strips * (part.group + 1) / plan.groups;
        for (Index i = begin; i < end; i += plan.chunk) {
            const Index last = least(i + plan.chunk, end);
            transform_chunk<M>(g, plan, part, x, dy, i, last, v, d, rows);
            accumulate_chunk<M>(plan, part, plan.tiling.tiles(i, last), v, d,
                                sums + part.group * plan.group_floats, i == begin);
        }
    });
    constexpr Index kInputs = 32;  // of one item
    const Index parts = ceil_div(g.c, kInputs);
    parallel(team, plan.output_blocks * parts, [&](Index item, int) {
        const Index first = item % parts * kInputs;
        finish<M>(g, plan, sums, item / parts, first, least(first + kInputs, g.c), dw);
    });
}

}  // namespace
}  // namespace verydeep::VD_ISA

using namespace verydeep;
using namespace verydeep::VD_ISA;

// Bytes of workspace with this number of threads.
VD_EXPORT_COUNT(winograd_weight_bytes)(std::int64_t m, const ConvShape* g, std::int64_t threads) {
    return 4 * (m == 4 ? Plan<4>(*g, threads).floats(threads) : Plan<2>(*g, threads).floats(threads));
}

// dw += the gradient of the weights.
VD_EXPORT(winograd_weight)(Team* team, std::int64_t m, const ConvShape* g, const float* x,
                           const float* dy, float* dw, void* workspace) {
    if (m == 4)
        weight_gradient<4>(team, *g, x, dy, dw, workspace);
    else
        weight_gradient<2>(team, *g, x, dy, dw, workspace);
}
VD_REPEATABLE(winograd_weight)
