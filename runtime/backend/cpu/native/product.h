// A blocked matrix product with functors for operands and result, used by sgemm and by the
// convolutions without Winograd transforms.
//
// c[row][col] = sum over depth of a[row][k] * b[k][col]. The division of the depth depends only on
// the depth, and rows, columns and threads divide no sum, so each sum has a fixed order.
#pragma once

#include "arena.h"
#include "team.h"

namespace verydeep::VD_ISA {

constexpr Index kDepth = 256;                       // of one block: its panel of b fits in L1
constexpr Index kBlockRows = 240 / kRows * kRows;   // a packed block of a fills a quarter of L2
constexpr Index kSmallFloats = 1 << 15;             // a block of b up to this size fits in L1 + L2
constexpr Index kBlockCols = 512;                   // a packed block of b fills half of L2

// Transposed: out[k * stride + i] = line[i * line_stride + k] for i < lines, k < depth.
VD_INLINE void pack_transposed(const float* line, Index line_stride, Index lines, Index depth,
                           const float* end, float* out, Index stride) {
    for (Index first = 0; first < lines; first += kLanes) {
        const Index count = least(kLanes, lines - first);
        const float* from = line + first * line_stride;
        for (Index k = 0; k < depth; k += kLanes) {
            Vec r[kLanes];
            for (int i = 0; i < kLanes; ++i)
                r[i] = i < count ? load_within(from + i * line_stride + k, end) : Vec{};
            transpose(r);
            alignas(64) Vec transposed[kLanes];
            VD_UNROLL
            for (int i = 0; i < kLanes; ++i) transposed[i] = r[i];
            float* to = out + k * stride + first;
            const Index rows = least(kLanes, depth - k);
            if (first + kLanes <= stride)
                for (Index i = 0; i < rows; ++i) store(to + i * stride, transposed[i]);
            else
                for (Index i = 0; i < rows; ++i) store_part(to + i * stride, transposed[i], count);
        }
    }
}

// out[k * stride + i] = row[k * row_stride + i] for i < count <= stride.
VD_INLINE void pack_rows(const float* row, Index row_stride, Index count, Index depth,
                             float* out, Index stride) {
    for (Index k = 0; k < depth; ++k, row += row_stride, out += stride) {
        Index i = 0;
        for (; i + kLanes <= count; i += kLanes) store(out + i, load(row + i));
        for (; i < count; ++i) out[i] = row[i];
    }
}

// A rectangle of results. Shapes: sums (rows, kPanel).
struct Tile {
    Index batch, row, col, rows, cols;
    bool first, last;  // whether the block of the depth is the first, the last
    const float* sums;
};

// Shapes: a [depth][kRows]; b [depth][kPanel]; sums [R][kPanel].
template <int R, int Vectors>
void multiply_packed(const float* a, const float* b, Index depth, float* sums) {
    Vec sum[R][Vectors] = {};
    for (Index k = 0; k < depth; ++k, a += kRows, b += kPanel) {
        Vec y[Vectors];
        VD_UNROLL
        for (int e = 0; e < Vectors; ++e) y[e] = load(b + e * kLanes);
        VD_UNROLL
        for (int r = 0; r < R; ++r) {
            const Vec x = broadcast(a[r]);
            VD_UNROLL
            for (int e = 0; e < Vectors; ++e) sum[r][e] += x * y[e];
        }
    }
    VD_UNROLL
    for (int r = 0; r < R; ++r)
        for (int e = 0; e < Vectors; ++e) store(sums + r * kPanel + e * kLanes, sum[r][e]);
}

using MultiplyPacked = void (*)(const float*, const float*, Index, float*);
struct PackedTable {
    MultiplyPacked by_rows[kRows][2];
};
template <int... I>
constexpr PackedTable packed_table(Lanes<I...>) {
    return {{{&multiply_packed<I + 1, 1>, &multiply_packed<I + 1, 2>}...}};
}
static constexpr PackedTable kPacked = packed_table(MakeLanes<kRows>::Type{});

struct ProductPlan {
    Index batches, rows, cols, depth;
    Index depth_block, depth_blocks;
    Index col_block, col_blocks, row_parts, worker_floats;

    ProductPlan(Index batches, Index rows, Index cols, Index depth, Index threads)
        : batches(batches), rows(rows), cols(cols), depth(depth) {
        depth_blocks = most(1, ceil_div(depth, kDepth));
        depth_block = ceil_div(depth, depth_blocks);
        col_blocks = most(1, ceil_div(cols, kBlockCols));
        if (batches * col_blocks < 4 * threads)
            col_blocks = most(col_blocks, least(ceil_div(cols, 3 * kPanel), ceil_div(4 * threads, batches)));
        col_block = round_up(most(1, ceil_div(cols, col_blocks)), kPanel);
        col_blocks = most(1, ceil_div(cols, col_block));
        row_parts = 1;
        if (batches * col_blocks < 3 * threads)
            row_parts = least(ceil_div(3 * threads, batches * col_blocks),
                              most(1, ceil_div(rows, 2 * kRows)));
        worker_floats = piece((kRows + 1) * kPanel) + piece(depth_block * kBlockRows) +
                        piece(depth_block * col_block);
    }
    Index items() const { return batches * col_blocks * row_parts; }
};

// Rows [first, last) of one block of columns, with packed columns `b`.
template <class Problem>
void product_rows(const Problem& problem, Tile tile, Index cols, Index last_row, Index k,
                  Index depth, const float* b, float* a, float* sums) {
    const Index first_col = tile.col;
    for (Index row0 = tile.row; row0 < last_row; row0 += kBlockRows) {
        const Index rows = least(kBlockRows, last_row - row0), runs = ceil_div(rows, kRows);
        for (Index run = 0; run < runs; ++run) {
            const Index from = rows * run / runs, count = rows * (run + 1) / runs - from;
            if (depth > 0)
                problem.pack_a(tile.batch, row0 + from, count, k, depth, a + run * depth * kRows);
        }
        const Index panels = ceil_div(cols, kPanel);
        // A small b stays in the cache for all rows; then results are written in long rows.
        const bool by_rows = depth * cols <= kSmallFloats;
        for (Index i = 0; i < panels * runs; ++i) {
            const Index run = by_rows ? i / panels : i % runs;
            const Index col = (by_rows ? i % panels : i / runs) * kPanel;
            const Index from = rows * run / runs;
            tile.rows = rows * (run + 1) / runs - from;
            tile.row = row0 + from;
            tile.col = first_col + col;
            tile.cols = least(kPanel, cols - col);
            kPacked.by_rows[tile.rows - 1][tile.cols > kLanes](a + run * depth * kRows,
                                                              b + col * depth, depth, sums);
            problem.put(tile);
        }
    }
}

// `problem` packs rows of a (pack_a: into [k][kRows]) and columns of b (pack_b: into [k][kPanel]),
// and stores the tiles (put).
template <class Problem>
void product(Team* team, const Problem& problem, const ProductPlan& plan, void* workspace) {
    const Arena shared(workspace, team_size(team) * plan.worker_floats);
    parallel(team, plan.items(), [&](Index item, int worker) {
        Arena arena = shared.worker(worker, plan.worker_floats);
        // One row more than the sums, because results are read in full vectors.
        float* sums = arena.floats((kRows + 1) * kPanel);
        float* a = arena.floats(plan.depth_block * kBlockRows);
        float* b = arena.floats(plan.depth_block * plan.col_block);
        const Index part = item % plan.row_parts, block = item / plan.row_parts;
        const Index batch = block / plan.col_blocks, col = block % plan.col_blocks * plan.col_block;
        const Index cols = least(plan.col_block, plan.cols - col);
        for (Index i = 0; i < plan.depth_blocks; ++i) {
            const Index k = i * plan.depth_block, depth = least(plan.depth_block, plan.depth - k);
            for (Index j = 0; j < cols && depth > 0; j += kPanel)
                problem.pack_b(batch, col + j, least(kPanel, cols - j), k, depth, b + j * depth);
            Tile tile{batch, plan.rows * part / plan.row_parts, col, 0, 0, i == 0,
                      i + 1 == plan.depth_blocks, sums};
            product_rows(problem, tile, cols, plan.rows * (part + 1) / plan.row_parts, k, depth, b,
                         a, sums);
        }
    });
}

}  // namespace verydeep::VD_ISA
