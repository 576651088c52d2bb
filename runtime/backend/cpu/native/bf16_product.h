// A blocked product of bf16 operands with functors for operands and results, on one of the units of
// bf16.h and bf16_tiles.h.
//
// A sum takes its steps in order, independently of the blocks, the threads and the unit.
#pragma once

#include "bf16_tiles.h"
#include "team.h"

namespace verydeep::VD_ISA {

constexpr Index kBf16Steps = 8;      // of one block of the depth
constexpr Index kBf16Rows = 192;     // rows of a packed block: a multiple of the rows of each unit
constexpr Index kBf16Cols = 512;     // columns of a packed block

// Results [row, row + rows) x [col, col + cols). Shapes: sums [rows][stride].
struct Bf16Block {
    Index batch, row, rows, col, cols;
    bool first, last;  // whether the steps begin, end
    float* sums;
    Index stride;
};

template <class Unit>
struct Bf16Plan {
    Index batches, rows, cols, col_block, col_blocks, row_part, row_parts;
    static constexpr Index kDepth = kBf16Steps * kStep;

    Bf16Plan(Index batches, Index rows, Index cols, Index threads)
        : batches(batches), rows(rows), cols(cols) {
        col_blocks = most(1, ceil_div(cols, kBf16Cols));
        if (batches * col_blocks < 4 * threads)
            col_blocks = most(col_blocks, least(ceil_div(cols, 4 * Unit::kCols),
                                                ceil_div(4 * threads, batches)));
        col_block = round_up(most(1, ceil_div(cols, col_blocks)), Unit::kCols);
        col_blocks = most(1, ceil_div(cols, col_block));
        row_parts = 1;
        if (batches * col_blocks < 3 * threads)
            row_parts = least(ceil_div(3 * threads, batches * col_blocks),
                              most(1, ceil_div(rows, 4 * Unit::kRows)));
        row_part = round_up(most(1, ceil_div(rows, row_parts)), Unit::kRows);
        row_parts = most(1, ceil_div(rows, row_part));
    }
    Index items() const { return batches * col_blocks * row_parts; }
    Index worker_floats() const {
        return piece(Unit::kRows * kStep) + piece(kStep * Unit::kCols) +
               piece(Unit::kRows * Unit::kCols) + piece(kBf16Rows * kDepth) +
               piece(col_block * kDepth);
    }
};

template <class Unit, class Problem>
class Bf16Item {
  public:
    Bf16Item(const Problem& problem, const Bf16Plan<Unit>& plan, Arena arena)
        : problem_(problem),
          rows_(arena.floats(Unit::kRows * kStep)),
          cols_(arena.floats(kStep * Unit::kCols)),
          sums_(arena.floats(Unit::kRows * Unit::kCols)),
          a_(reinterpret_cast<Element*>(arena.floats(kBf16Rows * plan.kDepth))),
          b_(reinterpret_cast<Element*>(arena.floats(plan.col_block * plan.kDepth))) {}

    // All steps of one block of results.
    void run(Index batch, Index row, Index rows, Index col, Index cols) {
        const Index begin = problem_.begin(batch), end = problem_.end(batch);
        for (Index step = begin; step < end || step == begin; step += kBf16Steps) {
            const Index steps = most(0, least(kBf16Steps, end - step));
            const bool last = step + kBf16Steps >= end;
            pack_columns(batch, col, cols, step, steps);
            for (Index from = row; from < row + rows; from += kBf16Rows) {
                const Index count = least(kBf16Rows, row + rows - from);
                pack_rows(batch, from, count, step, steps);
                for (Index j = 0; j < cols; j += Unit::kCols)
                    for (Index i = 0; i < count; i += Unit::kRows)
                        multiply({batch, from + i, least(Unit::kRows, count - i), col + j,
                                  least(Unit::kCols, cols - j), step == begin, last, sums_,
                                  Unit::kCols},
                                 a_ + i * steps * kStep, b_ + j * steps * kStep, steps);
            }
        }
    }

  private:
    using Element = typename Unit::Element;

    void pack_columns(Index batch, Index col, Index cols, Index step, Index steps) {
        for (Index j = 0; j < cols; j += Unit::kCols)
            for (Index s = 0; s < steps; ++s) {
                const Index count = least(Unit::kCols, cols - j);
                if (count < Unit::kCols) zero(cols_, kStep * Unit::kCols);
                problem_.columns(batch, col + j, count, step + s, cols_, Unit::kCols);
                Unit::pack_b(cols_, s, steps, b_ + j * steps * kStep);
            }
    }
    void pack_rows(Index batch, Index row, Index rows, Index step, Index steps) {
        for (Index i = 0; i < rows; i += Unit::kRows)
            for (Index s = 0; s < steps; ++s) {
                const Index count = least(Unit::kRows, rows - i);
                if (count < Unit::kRows) zero(rows_, Unit::kRows * kStep);
                problem_.rows(batch, row + i, count, step + s, rows_);
                Unit::pack_a(rows_, s, steps, a_ + i * steps * kStep);
            }
    }
    void multiply(const Bf16Block& block, const Element* a, const Element* b, Index steps) {
        zero(sums_, Unit::kRows * Unit::kCols);
        problem_.start(block);
        Unit::multiply(session_, a, b, steps, block.cols, sums_);
        problem_.put(block);
    }

    const Problem& problem_;
    float *rows_, *cols_, *sums_;
    Element *a_, *b_;
    typename Unit::Session session_;
};

// `problem` gives the steps [begin, end) of a batch; rows and columns of one step (rows: into
// [row][kStep]; columns: into [kStep][stride]); the earlier sums of a block (start; they are zero if
// it writes nothing); and takes the sums (put).
template <class Unit, class Problem>
void bf16_product(Team* team, const Problem& problem, const Bf16Plan<Unit>& plan, void* workspace) {
    const Arena shared(workspace, team_size(team) * plan.worker_floats());
    parallel(team, plan.items(), [&](Index index, int worker) {
        Bf16Item<Unit, Problem> item(problem, plan, shared.worker(worker, plan.worker_floats()));
        const Index part = index % plan.row_parts, block = index / plan.row_parts;
        const Index batch = block / plan.col_blocks, col = block % plan.col_blocks * plan.col_block;
        const Index row = part * plan.row_part;
        item.run(batch, row, least(plan.row_part, plan.rows - row), col,
                 least(plan.col_block, plan.cols - col));
    });
}

// use(unit) with the unit of this instruction set, or with tiles if `tiles`.
template <class Use>
VD_INLINE void with_unit(bool tiles, const Use& use) {
    if (tiles)
        use(TileUnit<FastTiles>{});
    else
        use(VectorUnit{});
}

}  // namespace verydeep::VD_ISA
