// 3x3 convolution at stride 1 by Winograd's F(M x M, 3 x 3): forward, and backward to the data with
// rotated filters.
//
// An item is a chunk of tiles and a slice of output channels. Its transformed tiles and products
// are in the scratch memory of one thread: passing them between threads takes up to 1.5 times as
// long if two cores share no cache.

#include "program.h"
#include "shapes.h"
#include "team.h"
#include "winograd.h"

namespace verydeep::VD_ISA {
namespace {

constexpr Index kChunkFloats = 1 << 18;  // transformed tiles and products, which fill an L2 cache
// With fewer tiles, reading the filters takes longer than the products; the limit is higher if they
// are in memory.
constexpr Index kLeastTiles = 48, kLeastTilesFar = 98;
// Floats ahead in the filters: panels are longer than the page of the hardware prefetcher.
constexpr Index kPrefetch = 512;

struct Job {  // a convolution of `inputs` to `outputs` channels
    Index images, inputs, height, width;
    Index outputs, out_height, out_width;
    Index pad_h, pad_w;

    Job(const ConvShape& g, bool backward)
        : images(g.n),
          inputs(backward ? g.k : g.c),
          height(backward ? g.p : g.h),
          width(backward ? g.q : g.w),
          outputs(backward ? g.c : g.k),
          out_height(backward ? g.h : g.p),
          out_width(backward ? g.w : g.q),
          pad_h(backward ? 2 - g.pad_h : g.pad_h),
          pad_w(backward ? 2 - g.pad_w : g.pad_w) {}
};

template <int M>
struct Plan {
    Tiling tiling;
    FilterLayout filters;
    Index input_blocks, chunk, chunks, slices, max_tiles;
    Index v_plane, m_plane, row_vectors, worker_floats;

    Plan(const Job& job, Index threads)
        : tiling(job.images, job.out_height, job.out_width, M), filters(job.inputs, job.outputs) {
        constexpr Index kPlanes = Winograd<M>::kPlanes;
        input_blocks = ceil_div(job.inputs, kLanes);
        const Index channels = (input_blocks + filters.output_blocks) * kLanes;
        const Index enough = kPlanes * filters.plane > kFarFloats ? kLeastTilesFar : kLeastTiles;
        const Index tiles = most(enough, kChunkFloats / (kPlanes * channels));
        chunks = most(1, ceil_div(tiling.strips, most(1, tiles / tiling.span)));
        slices = 1;
        if (chunks < 6 * threads && chunks % threads != 0) {
            // Balance the load: more chunks if they stay long enough, else slices of the outputs.
            const Index more = round_up(chunks, threads);
            if (tiling.strips / more * tiling.span >= enough)
                chunks = more;
            else
                slices = least(threads, filters.panels());
        }
        chunk = most(1, ceil_div(tiling.strips, chunks));
        chunks = most(1, ceil_div(tiling.strips, chunk));
        max_tiles = chunk * tiling.span;
        v_plane = plane_stride(input_blocks * kLanes * max_tiles);
        m_plane = plane_stride(ceil_div(filters.panels(), slices) * kPanel * max_tiles);
        row_vectors = Winograd<M>::kTile * strip_stride(tiling.span * M + 2);
        worker_floats =
            piece(kPlanes * v_plane) + piece(kPlanes * m_plane) + piece(row_vectors * kLanes);
    }
};

// The products of R tiles, kLanes floats apart in `v`, with one panel of one plane.
// Shapes: v [input block][tile][lane], blocks `v_block` floats apart; u [input][Vectors * kLanes];
// m [output block][tile][lane], blocks `m_block` floats apart.
template <int R, int Vectors>
void multiply(const float* v, Index v_block, const float* u, Index inputs, float* m, Index m_block) {
    Vec sum[R][Vectors] = {};
    auto step = [&](const float* tile) __attribute__((always_inline)) {
        Vec filter[Vectors];
        VD_UNROLL
        for (int e = 0; e < Vectors; ++e) filter[e] = load(u + e * kLanes);
        VD_UNROLL
        for (int r = 0; r < R; ++r) {
            const Vec x = broadcast(tile[r * kLanes]);
            VD_UNROLL
            for (int e = 0; e < Vectors; ++e) sum[r][e] += x * filter[e];
        }
        __builtin_prefetch(u + kPrefetch);
        if (Vectors * kLanes > 16) __builtin_prefetch(u + kPrefetch + 16);
        u += Vectors * kLanes;
    };
    for (; inputs >= kLanes; inputs -= kLanes, v += v_block)
        for (int c = 0; c < kLanes; ++c) step(v + c);
    for (Index c = 0; c < inputs; ++c) step(v + c);
    VD_UNROLL
    for (int r = 0; r < R; ++r)
        for (int e = 0; e < Vectors; ++e) store(m + e * m_block + r * kLanes, sum[r][e]);
}

using Multiply = void (*)(const float*, Index, const float*, Index, float*, Index);
struct MultiplyTable {
    Multiply by_rows[kRows][2];
};
template <int... I>
constexpr MultiplyTable multiply_table(Lanes<I...>) {
    return {{{&multiply<I + 1, 1>, &multiply<I + 1, 2>}...}};
}
constexpr MultiplyTable kMultiply = multiply_table(MakeLanes<kRows>::Type{});

// All tiles of a chunk with panels [first, last), plane by plane: the caches hold the filters and
// tiles of one plane at a time.
template <int M>
void multiply_chunk(const Plan<M>& plan, Index tiles, Index first, Index last, const float* v,
                    const float* filters, float* m) {
    const FilterLayout& layout = plan.filters;
    const Index block = plan.max_tiles * kLanes, runs = ceil_div(tiles, kRows);
    for (Index q = 0; q < Winograd<M>::kPlanes; ++q)
        for (Index panel = first; panel < last; ++panel) {
            const float* u = filters + q * layout.plane + panel * layout.inputs * kPanel;
            float* to = m + q * plan.m_plane + (panel - first) * 2 * block;
            const Index vectors = layout.panel_vectors(panel);
            for (Index run = 0; run < runs; ++run) {
                // Runs of about equal length, because a short last run would be slow.
                const Index from = tiles * run / runs, rows = tiles * (run + 1) / runs - from;
                kMultiply.by_rows[rows - 1][vectors - 1](v + q * plan.v_plane + from * kLanes, block,
                                                         u, layout.inputs, to + from * kLanes, block);
            }
        }
}

struct Operands {
    const float* x;
    const float* filters;
    const float* bias;  // or null
    float* y;
    bool relu;
};

VD_INLINE Target target_at(const Job& job, const Operands& op, Index image, Index block) {
    const Index first = block * kLanes, count = least(kLanes, job.outputs - first);
    const Vec bias = op.bias ? load_within(op.bias + first, op.bias + job.outputs) : Vec{};
    const Index size = job.out_height * job.out_width;
    return {op.y + (image * job.outputs + first) * size, count, job.out_height, job.out_width, bias,
            op.relu};
}

template <int M>
void convolve_item(const Job& job, const Plan<M>& plan, const Operands& op, Index item, Arena arena) {
    using W = Winograd<M>;
    const Index first = item / plan.slices * plan.chunk, slice = item % plan.slices;
    const Index last = least(first + plan.chunk, plan.tiling.strips);
    const Index panels = plan.filters.panels(), block = plan.max_tiles * kLanes;
    const Index panel0 = panels * slice / plan.slices, panel1 = panels * (slice + 1) / plan.slices;
    float* v = arena.floats(W::kPlanes * plan.v_plane);
    float* m = arena.floats(W::kPlanes * plan.m_plane);
    Vec* rows = arena.vectors(plan.row_vectors);

    for (Index b = 0; b < plan.input_blocks; ++b) {
        float* to = v + b * block;
        for (Index i = first; i < last; ++i) {
            const Strip s = plan.tiling.strip(i);
            const Planes x =
                planes_at(op.x, job.images, job.inputs, job.height, job.width, s.image, b);
            input_strip<M>(x, s, job.pad_h, job.pad_w, 0, W::kTile, rows, to, plan.v_plane);
            to += s.tiles * kLanes;
        }
    }
    multiply_chunk<M>(plan, plan.tiling.tiles(first, last), panel0, panel1, v, op.filters, m);
    for (Index b = 2 * panel0; b < least(2 * panel1, plan.filters.output_blocks); ++b) {
        const float* from = m + (b - 2 * panel0) * block;
        for (Index i = first; i < last; ++i) {
            const Strip s = plan.tiling.strip(i);
            output_strip<M>(from, plan.m_plane, s, target_at(job, op, s.image, b), rows);
            from += s.tiles * kLanes;
        }
    }
}

template <int M>
void convolve(Team* team, const Job& job, const Operands& op, void* workspace) {
    const Plan<M> plan(job, team_size(team));
    const Arena shared(workspace, team_size(team) * plan.worker_floats);
    parallel(team, plan.chunks * plan.slices, [&](Index item, int worker) {
        convolve_item<M>(job, plan, op, item, shared.worker(worker, plan.worker_floats));
    });
}

}  // namespace
}  // namespace verydeep::VD_ISA

using namespace verydeep;
using namespace verydeep::VD_ISA;

// Bytes of workspace for a pass with this number of threads.
VD_EXPORT_COUNT(winograd_bytes)(std::int64_t m, const ConvShape* shape, std::int64_t backward,
                                std::int64_t threads) {
    const Job job(*shape, backward != 0);
    return threads * 4 *
           (m == 4 ? Plan<4>(job, threads).worker_floats : Plan<2>(job, threads).worker_floats);
}

// y = conv(x, weight) + bias, then max(., 0) if `relu`; backward: x is dy, y is dx.
VD_EXPORT(winograd)(Team* team, std::int64_t m, const ConvShape* shape, std::int64_t backward,
                    const float* x, const float* filters, const float* bias, std::int64_t relu,
                    float* y, void* workspace) {
    const Job job(*shape, backward != 0);
    const Operands op{x, filters, bias, y, relu != 0};
    if (m == 4)
        convolve<4>(team, job, op, workspace);
    else
        convolve<2>(team, job, op, workspace);
}
VD_REPEATABLE(winograd)
