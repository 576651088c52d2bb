// c = alpha op(a) op(b) + beta c with operands rounded to bf16, and the rounding of maps.

#include "bf16_product.h"
#include "product.h"
#include "program.h"

namespace verydeep::VD_ISA {
namespace {

struct Gemm {
    bool trans_a, trans_b;
    Index row_count, col_count, depth;
    const float *a, *b;
    float* c;
    bool adds;

    Index begin(Index) const { return 0; }
    Index end(Index) const { return ceil_div(depth, kStep); }
    Index left(Index step) const { return least(kStep, depth - step * kStep); }

    void rows(Index, Index row, Index count, Index step, float* out) const {
        const Index k = step * kStep, used = left(step);
        if (used < kStep) zero(out, count * kStep);
        if (trans_a)
            for (Index i = 0; i < used; ++i)
                for (Index r = 0; r < count; ++r)
                    out[r * kStep + i] = a[(k + i) * row_count + row + r];
        else
            for (Index i = 0; i < count; ++i)
                std::memcpy(out + i * kStep, a + (row + i) * depth + k,
                            static_cast<std::size_t>(used) * sizeof(float));
    }
    void columns(Index, Index col, Index count, Index step, float* out, Index stride) const {
        const Index k = step * kStep, used = left(step);
        if (used < kStep) zero(out, kStep * stride);
        if (trans_b)
            pack_transposed(b + col * depth + k, depth, count, used, b + col_count * depth, out,
                            stride);
        else
            for (Index i = 0; i < used; ++i)
                std::memcpy(out + i * stride, b + (k + i) * col_count + col,
                            static_cast<std::size_t>(count) * sizeof(float));
    }
    void start(const Bf16Block& t) const {
        if (t.first && !adds) return;
        for (Index i = 0; i < t.rows; ++i)
            std::memcpy(t.sums + i * t.stride, c + (t.row + i) * col_count + t.col,
                        static_cast<std::size_t>(t.cols) * sizeof(float));
    }
    void put(const Bf16Block& t) const {
        for (Index i = 0; i < t.rows; ++i)
            std::memcpy(c + (t.row + i) * col_count + t.col, t.sums + i * t.stride,
                        static_cast<std::size_t>(t.cols) * sizeof(float));
    }
};

// Whether the sums of the product can be those of c: they begin at 0 or at c.
bool is_direct(float alpha, float beta) { return alpha == 1.f && (beta == 0.f || beta == 1.f); }

Index copy_floats(Index rows, Index cols, float alpha, float beta) {
    return is_direct(alpha, beta) ? 0 : piece(rows * cols);
}

}  // namespace
}  // namespace verydeep::VD_ISA

using namespace verydeep;
using namespace verydeep::VD_ISA;

// Bytes of workspace; `tiles` as in gemm_bf16.
VD_EXPORT_COUNT(gemm_bf16_bytes)(std::int64_t rows, std::int64_t cols, float alpha, float beta,
                                 std::int64_t tiles, std::int64_t threads) {
    Index floats = copy_floats(rows, cols, alpha, beta);
    with_unit(tiles != 0, [&](auto unit) {
        floats += threads * Bf16Plan<decltype(unit)>(1, rows, cols, threads).worker_floats();
    });
    return 4 * floats;
}

// Shapes: op(a) (rows, depth), op(b) (depth, cols), c (rows, cols); beta 0 overwrites. `tiles`
// selects the unit of tiles, which is emulated if the instruction set has none.
VD_EXPORT(gemm_bf16)(Team* team, std::int64_t tiles, std::int64_t trans_a, std::int64_t trans_b,
                     std::int64_t rows, std::int64_t cols, std::int64_t depth, float alpha,
                     const float* a, const float* b, float beta, float* c, void* workspace) {
    if (rows < 1 || cols < 1) return;
    const bool direct = is_direct(alpha, beta);
    const Index copy = copy_floats(rows, cols, alpha, beta);
    float* sums = direct ? c : Arena(workspace, copy).floats(rows * cols);
    float* rest = static_cast<float*>(workspace) + copy;
    const Gemm problem{trans_a != 0, trans_b != 0, rows, cols, depth, a, b, sums,
                       direct && beta == 1.f};
    with_unit(tiles != 0, [&](auto unit) {
        using Unit = decltype(unit);
        const Bf16Plan<Unit> plan(1, rows, cols, team_size(team));
        bf16_product<Unit>(team, problem, plan, rest);
    });
    if (direct) return;
    parallel_parts(team, rows * cols, 1 << 14, [=](Index first, Index last) {
        for (Index i = first; i < last; ++i) {
            const float product = alpha * sums[i];
            c[i] = beta == 0.f ? product : product + beta * c[i];
        }
    });
}
VD_REPEATABLE(gemm_bf16)

// x = the nearest bf16 numbers.
VD_EXPORT(round_bf16)(Team* team, std::int64_t count, float* x) {
    parallel_parts(team, count, 1 << 14, [=](Index first, Index last) {
        for (Index i = first; i < last; ++i) x[i] = VD_ISA::round_bf16(x[i]);
    });
}
VD_REPEATABLE(round_bf16)
