// sgemm for row-major matrices: c = alpha op(a) op(b) + beta c.

#include "gemm_skinny.h"
#include "product.h"
#include "program.h"

namespace verydeep::VD_ISA {
namespace {

struct Gemm {
    GemmOperands op;
    const float* a_end;
    const float* b_end;

    explicit Gemm(const GemmOperands& op)
        : op(op), a_end(op.a + op.rows * op.depth), b_end(op.b + op.depth * op.cols) {}

    void pack_a(Index, Index row, Index rows, Index k, Index depth, float* out) const {
        if (op.trans_a)
            pack_rows(op.a + k * op.rows + row, op.rows, rows, depth, out, kRows);
        else
            pack_transposed(op.a + row * op.depth + k, op.depth, rows, depth, a_end, out, kRows);
    }
    void pack_b(Index, Index col, Index cols, Index k, Index depth, float* out) const {
        if (op.trans_b)
            pack_transposed(op.b + col * op.depth + k, op.depth, cols, depth, b_end, out, kPanel);
        else
            pack_rows(op.b + k * op.cols + col, op.cols, cols, depth, out, kPanel);
    }
    void put(const Tile& t) const {
        const float beta = t.first ? op.beta : 1.f;
        for (Index i = 0; i < t.rows; ++i) {
            float* c = op.c + (t.row + i) * op.cols + t.col;
            const float* sums = t.sums + i * kPanel;
            if (beta == 0.f)  // c may have any values, including NaN
                for (Index j = 0; j < t.cols; ++j) c[j] = op.alpha * sums[j];
            else
                for (Index j = 0; j < t.cols; ++j) c[j] = op.alpha * sums[j] + beta * c[j];
        }
    }
};

}  // namespace
}  // namespace verydeep::VD_ISA

using namespace verydeep;
using namespace verydeep::VD_ISA;

// Bytes of workspace with this number of threads.
VD_EXPORT_COUNT(gemm_bytes)(std::int64_t rows, std::int64_t cols, std::int64_t depth,
                            std::int64_t threads) {
    return threads * 4 * ProductPlan(1, rows, cols, depth, threads).worker_floats;
}

// Shapes: op(a) (rows, depth), op(b) (depth, cols), c (rows, cols); beta 0 overwrites.
VD_EXPORT(gemm)(Team* team, std::int64_t trans_a, std::int64_t trans_b, std::int64_t rows,
                std::int64_t cols, std::int64_t depth, float alpha, const float* a, const float* b,
                float beta, float* c, void* workspace) {
    const GemmOperands op{trans_a != 0, trans_b != 0, rows, cols, depth, alpha, beta, a, b, c};
    if (rows < 1 || cols < 1) return;
    if (depth < 1) {
        gemm_of_no_depth(team, op);
        return;
    }
    if (gemm_skinny(team, op)) return;
    const ProductPlan plan(1, rows, cols, depth, team_size(team));
    product(team, Gemm(op), plan, workspace);
}
VD_REPEATABLE(gemm)
