// Vectors of any shape, the bias, and the update of the weights.

#include "arena.h"
#include "program.h"
#include "team.h"

namespace verydeep::VD_ISA {
namespace {

constexpr Index kPart = 1 << 16;  // elements of one item, and of one partial sum

Index sum_floats(Index count) { return 2 * ceil_div(count, kPart); }  // one double per part

// The sum of term(i) in double: 16 interleaved sums per part; the parts are added in order.
template <class Term>
double sum_of(Team* team, Index count, void* workspace, const Term& term) {
    constexpr int kWide = 16;
    const Index floats = sum_floats(count);
    double* partial = reinterpret_cast<double*>(Arena(workspace, piece(floats)).floats(floats));
    parallel_parts(team, count, kPart, [&](Index first, Index last) {
        double sum[kWide] = {};
        Index i = first;
        for (; i + kWide <= last; i += kWide)
            for (int j = 0; j < kWide; ++j) sum[j] += term(i + j);
        for (; i < last; ++i) sum[0] += term(i);
        for (int j = 1; j < kWide; ++j) sum[0] += sum[j];
        partial[first / kPart] = sum[0];
    });
    double total = 0.;
    for (Index i = 0; i < ceil_div(count, kPart); ++i) total += partial[i];
    return total;
}

// The sum of adjacent floats: short runs in float vectors, whose sums are added in double.
double sum_row(const float* x, Index count) {
    constexpr Index kStretch = 4096;
    double total = 0.;
    for (Index first = 0; first < count; first += kStretch) {
        const Index last = least(first + kStretch, count);
        Vec sum[4] = {};
        Index i = first;
        for (; i + 4 * kLanes <= last; i += 4 * kLanes)
            for (int j = 0; j < 4; ++j) sum[j] += load(x + i + j * kLanes);
        float rest = 0.f;
        for (; i < last; ++i) rest += x[i];
        total += sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3])) + rest;
    }
    return total;
}

}  // namespace
}  // namespace verydeep::VD_ISA

using namespace verydeep;
using namespace verydeep::VD_ISA;

VD_EXPORT(fill)(Team* team, std::int64_t count, float value, float* x) {
    parallel_parts(team, count, kPart, [=](Index first, Index last) {
        for (Index i = first; i < last; ++i) x[i] = value;
    });
}
VD_REPEATABLE(fill)

VD_EXPORT(copy)(Team* team, std::int64_t bytes, const char* x, char* y) {
    parallel_parts(team, bytes, kPart * 4, [=](Index first, Index last) {
        std::memcpy(y + first, x + first, static_cast<std::size_t>(last - first));
    });
}
VD_REPEATABLE(copy)

// Copy `rows` runs of `bytes`; strides are in bytes, from the start of a run to that of the next.
VD_EXPORT(copy_2d)(Team* team, std::int64_t rows, std::int64_t bytes, const char* x,
                   std::int64_t x_stride, char* y, std::int64_t y_stride) {
    const Index part = most(1, kPart * 4 / most(1, bytes));
    parallel_parts(team, rows, part, [=](Index first, Index last) {
        for (Index row = first; row < last; ++row)
            std::memcpy(y + row * y_stride, x + row * x_stride, static_cast<std::size_t>(bytes));
    });
}
VD_REPEATABLE(copy_2d)

// y += alpha x
VD_EXPORT(axpy)(Team* team, std::int64_t count, float alpha, const float* x, float* y) {
    parallel_parts(team, count, kPart, [=](Index first, Index last) {
        for (Index i = first; i < last; ++i) y[i] += alpha * x[i];
    });
}
VD_REPEATABLE(axpy)

// x *= alpha
VD_EXPORT(scal)(Team* team, std::int64_t count, float alpha, float* x) {
    parallel_parts(team, count, kPart, [=](Index first, Index last) {
        for (Index i = first; i < last; ++i) x[i] *= alpha;
    });
}
VD_REPEATABLE(scal)

// out = x - y
VD_EXPORT(sub)(Team* team, std::int64_t count, const float* x, const float* y, float* out) {
    parallel_parts(team, count, kPart, [=](Index first, Index last) {
        for (Index i = first; i < last; ++i) out[i] = x[i] - y[i];
    });
}
VD_REPEATABLE(sub)

// Bytes of workspace for the three sums below.
VD_EXPORT_COUNT(sum_bytes)(std::int64_t count) { return 4 * piece(sum_floats(count)); }

VD_EXPORT_DOUBLE(asum)(Team* team, std::int64_t count, const float* x, void* workspace) {
    return sum_of(team, count, workspace, [=](Index i) { return double{__builtin_fabsf(x[i])}; });
}

VD_EXPORT_DOUBLE(sumsq)(Team* team, std::int64_t count, const float* x, void* workspace) {
    return sum_of(team, count, workspace, [=](Index i) { return double{x[i]} * double{x[i]}; });
}

VD_EXPORT_DOUBLE(dot)(Team* team, std::int64_t count, const float* x, const float* y,
                      void* workspace) {
    return sum_of(team, count, workspace, [=](Index i) { return double{x[i]} * double{y[i]}; });
}

// y[o][c][i] += bias[c]. Shapes: y (outer, channels, inner).
VD_EXPORT(bias_forward)(Team* team, std::int64_t outer, std::int64_t channels, std::int64_t inner,
                        const float* bias, float* y) {
    const Index part = most(1, kPart / most(1, inner));
    parallel_parts(team, outer * channels, part, [=](Index first, Index last) {
        for (Index row = first; row < last; ++row) {
            const float b = bias[row % channels];
            float* to = y + row * inner;
            for (Index i = 0; i < inner; ++i) to[i] += b;
        }
    });
}
VD_REPEATABLE(bias_forward)

// db[c] += sum of dy over outer and inner. Shapes: dy (outer, channels, inner).
VD_EXPORT(bias_backward)(Team* team, std::int64_t outer, std::int64_t channels, std::int64_t inner,
                         const float* dy, float* db) {
    const Index part = most(1, least(64, kPart / most(1, outer * inner)));
    parallel_parts(team, channels, part, [=](Index first, Index last) {
        double sum[64] = {};
        for (Index o = 0; o < outer; ++o) {
            const float* from = dy + (o * channels + first) * inner;
            for (Index c = 0; c < last - first; ++c)
                sum[c] += inner == 1 ? double{from[c]} : sum_row(from + c * inner, inner);
        }
        for (Index c = first; c < last; ++c) db[c] += static_cast<float>(sum[c - first]);
    });
}
VD_REPEATABLE(bias_backward)

// history = momentum history + lr (dw + decay w); w -= history
VD_EXPORT(sgd_update)(Team* team, std::int64_t count, float lr, float momentum, float decay,
                      const float* dw, float* history, float* w) {
    parallel_parts(team, count, kPart, [=](Index first, Index last) {
        for (Index i = first; i < last; ++i) {
            const float step = momentum * history[i] + lr * (dw[i] + decay * w[i]);
            history[i] = step;
            w[i] -= step;
        }
    });
}
VD_REPEATABLE(sgd_update)
