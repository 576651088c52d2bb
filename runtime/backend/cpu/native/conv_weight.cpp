// The gradient of the weights of any convolution: products of rows of dy with gathered rows of x,
// with vectors along the outputs. It is fast for a first layer of 3 channels, since nothing is
// transposed.
//
// The division of the outputs (n, p, q) into chunks and groups of chunks depends only on the
// geometry; each group is summed separately, and the groups are added in order.

#include "arena.h"
#include "dot.h"
#include "gather.h"
#include "program.h"
#include "team.h"

namespace verydeep::VD_ISA {
namespace {

constexpr Index kChunk = 768;  // outputs: rows of both small operands of a product fit in L1
constexpr Index kBlock = 128;  // rows of each operand that are packed at a time; both fit in L2
constexpr Index kMostGroups = 16, kEnoughItems = 16;
constexpr Index kGroupFloats = 4 << 20;  // total of the sums of all groups

struct Plan {
    Index groups, chunks;  // chunks: total of all groups
    Index conv_groups, rows, cols, row_blocks, col_blocks;
    Index depth, chunk, stride, sum_floats, worker_floats;

    explicit Plan(const ConvShape& g)
        : conv_groups(g.group), rows(g.k / g.group), cols(g.c / g.group * g.r * g.s) {
        depth = g.n * g.p * g.q;
        chunks = most(1, ceil_div(depth, kChunk));
        chunk = round_up(most(1, ceil_div(depth, chunks)), kLanes);
        chunks = ceil_div(depth, chunk);
        stride = round_up(chunk, 16) + 16;  // not a multiple of 4 KiB: other cache sets
        row_blocks = ceil_div(rows, kBlock);
        col_blocks = ceil_div(cols, kBlock);
        sum_floats = round_up(g.group * rows * cols, 16);
        groups = 1;
        while (groups < kMostGroups && groups * 2 <= chunks && items() < kEnoughItems &&
               groups * 2 * sum_floats <= kGroupFloats)
            groups *= 2;
        worker_floats = 2 * piece(kBlock * stride);
    }
    Index items() const { return groups * conv_groups * row_blocks * col_blocks; }
    Index floats(Index threads) const {
        return piece(groups > 1 ? groups * sum_floats : 0) + threads * worker_floats;
    }
};

struct Block {  // a rectangle of the weights of one convolution group
    Index conv_group, row, rows, col, cols;
};

Block block_at(const Plan& plan, Index i) {
    const Index row_block = i / plan.col_blocks % plan.row_blocks, col_block = i % plan.col_blocks;
    const Index row = plan.rows * row_block / plan.row_blocks;
    const Index col = plan.cols * col_block / plan.col_blocks;
    return {i / plan.col_blocks / plan.row_blocks, row,
            plan.rows * (row_block + 1) / plan.row_blocks - row, col,
            plan.cols * (col_block + 1) / plan.col_blocks - col};
}

// Rows of dy, over outputs [first, first + count) of all images. Shapes: out [row][stride].
void pack_gradients(const ConvShape& g, const float* dy, Index channel, Index rows, Index first,
                    Index count, Index stride, float* out) {
    const Index size = g.p * g.q;
    for (Index r = 0; r < rows; ++r)
        for (Index offset = 0; offset < count;) {
            const Index image = (first + offset) / size, pixel = (first + offset) % size;
            const Index length = least(count - offset, size - pixel);
            std::memcpy(out + r * stride + offset, dy + (image * g.k + channel + r) * size + pixel,
                        static_cast<std::size_t>(length) * sizeof(float));
            offset += length;
        }
}

// Rows of the column matrix, for the same outputs. Shapes: out [row][stride].
void pack_inputs(const Gather& gather, const Block& b, Index first, Index count, Index stride,
                 float* out) {
    for (Index from = 0; from < count; from += kPanel) {
        const Runs runs(gather, first + from, least(kPanel, count - from));
        TapIndex tap(gather, b.col);
        for (Index c = 0; c < b.cols; ++c, tap.next(gather))
            for (Index i = 0; i < runs.count; ++i)
                gather_run(gather, b.conv_group, tap, runs.list[i],
                           out + c * stride + from + runs.list[i].offset);
    }
}

void weight_item(const ConvShape& g, const Plan& plan, const Gather& gather, const float* dy,
                 Index group, const Block& b, float* sums, bool overwrite, Arena arena) {
    float* rows = arena.floats(kBlock * plan.stride);
    float* cols = arena.floats(kBlock * plan.stride);
    const Index begin = plan.chunks * group / plan.groups;
    const Index end = plan.chunks * (group + 1) / plan.groups;
    const Index channel = b.conv_group * plan.rows + b.row;
    for (Index i = begin; i < end; ++i) {
        const Index first = i * plan.chunk, count = least(plan.chunk, plan.depth - first);
        pack_gradients(g, dy, channel, b.rows, first, count, plan.stride, rows);
        pack_inputs(gather, b, first, count, plan.stride, cols);
        float* to = sums + channel * plan.cols + b.col;
        const bool fresh = overwrite && i == begin;
        dot_all(rows, plan.stride, b.rows, cols, plan.stride, b.cols, count,
                [&](Index r, Index c, float value) {
                    float& sum = to[r * plan.cols + c];
                    sum = fresh ? value : sum + value;
                });
    }
}

}  // namespace
}  // namespace verydeep::VD_ISA

using namespace verydeep;
using namespace verydeep::VD_ISA;

// Bytes of workspace with this number of threads.
VD_EXPORT_COUNT(conv_weight_bytes)(const ConvShape* g, std::int64_t threads) {
    return 4 * Plan(*g).floats(threads);
}

// dw += the gradient of the weights.
VD_EXPORT(conv_backward_weight)(Team* team, const ConvShape* g, const float* x, const float* dy,
                                float* dw, void* workspace) {
    const Plan plan(*g);
    const Gather columns{x, g->c, g->c / g->group,
                         forward_axis(g->h, g->pad_h, g->stride_h, g->dilation_h, g->r),
                         forward_axis(g->w, g->pad_w, g->stride_w, g->dilation_w, g->s), g->p, g->q};
    const Gather gather = columns.with_long_rows();
    const bool direct = plan.groups == 1;
    Arena shared(workspace, plan.floats(team_size(team)));
    float* partial = shared.floats(direct ? 0 : plan.groups * plan.sum_floats);
    float* sums = direct ? dw : partial;
    const Index blocks = plan.items() / plan.groups;
    parallel(team, plan.items(), [&](Index item, int worker) {
        const Index group = item / blocks;
        weight_item(*g, plan, gather, dy, group, block_at(plan, item % blocks),
                    sums + group * plan.sum_floats, !direct,
                    shared.worker(worker, plan.worker_floats));
    });
    if (direct) return;
    constexpr Index kPart = 4096;
    const Index count = g->k * plan.cols;
    parallel(team, ceil_div(count, kPart), [&](Index item, int) {
        const Index last = least((item + 1) * kPart, count);
        for (Index i = item * kPart; i < last; ++i) {
            float sum = sums[i];
            for (Index e = 1; e < plan.groups; ++e) sum += sums[e * plan.sum_floats + i];
            dw[i] += sum;
        }
    });
}
VD_REPEATABLE(conv_backward_weight)
