// Element-wise functions: channel-wise affine maps and PReLU, element-wise sums, products and
// maxima; and sums of products for their gradients.

#include "program.h"
#include "shapes.h"
#include "team.h"
#include "vector.h"

namespace verydeep::VD_ISA {
namespace {

constexpr Index kPart = 1 << 14;     // elements of one item
constexpr Index kStretch = 1 << 12;  // elements summed in float before they are added in double

// Read the vector at element i; if count < kLanes, only its first elements.
VD_INLINE Vec load_some(const float* p, Index i, Index count) {
    return count >= kLanes ? load(p + i) : load_part(p + i, count);
}
VD_INLINE void store_some(float* p, Index i, Index count, Vec v) {
    if (count >= kLanes)
        store(p + i, v);
    else
        store_part(p + i, v, count);
}

// step(i, count) over vectors, of which the last may be partial. The operations of an element are
// the same in both cases, so that results do not depend on its position.
template <class Step>
VD_INLINE void each_vector(Index first, Index last, const Step& step) {
    Index i = first;
    for (; i + kLanes <= last; i += kLanes) step(i, Index{kLanes});
    if (i < last) step(i, last - i);
}

// A part of a channel or, if inner is 1, of the channels of one outer index.
struct Run {
    Index channel, first, last;  // last - first elements of x
};

// body(run) over runs of an array (outer, channels, inner).
template <class Body>
void each_run(Team* team, Index outer, Index channels, Index inner, const Body& body) {
    if (outer == 0 || channels == 0 || inner == 0) return;
    const bool is_matrix = inner == 1;
    const Index rows = is_matrix ? outer : outer * channels, length = is_matrix ? channels : inner;
    const Index pieces = ceil_div(length, kPart), together = most(1, kPart / length);
    parallel_parts(team, rows * pieces, together, [&](Index begin, Index end) {
        for (Index item = begin; item < end; ++item) {
            const Index row = item / pieces, first = item % pieces * kPart;
            const Index last = least(first + kPart, length);
            const Index channel = is_matrix ? first : row % channels;
            body(Run{channel, row * length + first, row * length + last});
        }
    });
}

// The vector of a per-channel parameter for element i of a run; `absent` if there is no parameter.
template <bool Matrix>
struct Channelwise {
    const float* values;
    Index offset;
    Vec fixed;

    Channelwise(const float* values, const Run& run, float absent)
        : values(values),
          offset(run.channel - run.first),
          fixed(broadcast(values && !Matrix ? values[run.channel] : absent)) {}
    __attribute__((always_inline)) Vec at(Index i, Index count) const {
        return Matrix && values ? load_some(values, offset + i, count) : fixed;
    }
};

VD_INLINE Vec rectify(Vec v) { return v < Vec{} ? Vec{} : v; }

template <bool Matrix>
void affine_run(const Run& run, const float* x, const float* centre, const float* scale,
                const float* shift, bool relu, float* y) {
    const Channelwise<Matrix> c(centre, run, 0.f), s(scale, run, 1.f), b(shift, run, 0.f);
    each_vector(run.first, run.last, [&](Index i, Index n) __attribute__((always_inline)) {
        const Vec v = (load_some(x, i, n) - c.at(i, n)) * s.at(i, n) + b.at(i, n);
        store_some(y, i, n, relu ? rectify(v) : v);
    });
}

// out = dy where x > 0, else slope * dy
template <bool Matrix>
void prelu_run(const Run& run, const float* x, const float* dy, const float* slope, float* out) {
    const Channelwise<Matrix> s(slope, run, 0.f);
    each_vector(run.first, run.last, [&](Index i, Index n) __attribute__((always_inline)) {
        const Vec v = load_some(dy, i, n);
        store_some(out, i, n, load_some(x, i, n) > Vec{} ? v : v * s.at(i, n));
    });
}

VD_INLINE Vec below_zero(Vec v, bool below) { return below ? (v > Vec{} ? Vec{} : v) : v; }

// The sum of x * y, or with `below` of min(x, 0) * y.
double product_row(const float* x, const float* y, Index count, bool below) {
    double total = 0.;
    for (Index first = 0; first < count; first += kStretch) {
        const Index last = least(first + kStretch, count);
        Vec sum[4] = {};
        Index i = first;
        for (; i + 4 * kLanes <= last; i += 4 * kLanes)
            for (int j = 0; j < 4; ++j)
                sum[j] += below_zero(load(x + i + j * kLanes), below) * load(y + i + j * kLanes);
        each_vector(i, last, [&](Index k, Index n) __attribute__((always_inline)) {
            sum[0] += below_zero(load_some(x, k, n), below) * load_some(y, k, n);
        });
        total += sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
    }
    return total;
}

template <class Combine>
VD_INLINE void combine(Team* team, Index count, const EltwiseInputs& e, const Combine& body) {
    parallel_parts(team, count, kPart, [&](Index first, Index last) {
        each_vector(first, last, [&](Index i, Index n) __attribute__((always_inline)) {
            body(e, i, n);
        });
    });
}

}  // namespace
}  // namespace verydeep::VD_ISA

using namespace verydeep;
using namespace verydeep::VD_ISA;

// y = (x - centre) * scale + shift along channels, then max(., 0) if `relu`; absent parameters are
// null. Shapes: x, y (outer, channels, inner); centre, scale, shift (channels).
VD_EXPORT(affine)(Team* team, std::int64_t outer, std::int64_t channels, std::int64_t inner,
                  const float* x, const float* centre, const float* scale, const float* shift,
                  std::int64_t relu, float* y) {
    const auto run = inner == 1 ? &affine_run<true> : &affine_run<false>;
    each_run(team, outer, channels, inner,
             [=](const Run& r) { run(r, x, centre, scale, shift, relu != 0, y); });
}
VD_REPEATABLE(affine)

// out = dy where x > 0, else slope * dy. Shapes: x, dy, out (outer, channels, inner).
VD_EXPORT(prelu)(Team* team, std::int64_t outer, std::int64_t channels, std::int64_t inner,
                 const float* x, const float* dy, const float* slope, float* out) {
    const auto run = inner == 1 ? &prelu_run<true> : &prelu_run<false>;
    each_run(team, outer, channels, inner, [=](const Run& r) { run(r, x, dy, slope, out); });
}
VD_REPEATABLE(prelu)

// sums[c] += sum of x * y over outer and inner; with `below` of min(x, 0) * y.
VD_EXPORT(product_sums)(Team* team, std::int64_t outer, std::int64_t channels, std::int64_t inner,
                        const float* x, const float* y, std::int64_t below, float* sums) {
    const Index part = most(1, least(64, kPart / most(1, outer * inner)));
    parallel_parts(team, channels, part, [=](Index first, Index last) {
        double sum[64] = {};
        for (Index o = 0; o < outer; ++o)
            for (Index c = first; c < last; ++c) {
                const Index at = (o * channels + c) * inner;
                if (inner == 1)
                    sum[c - first] += double{below && x[at] > 0.f ? 0.f : x[at]} * double{y[at]};
                else
                    sum[c - first] += product_row(x + at, y + at, inner, below != 0);
            }
        for (Index c = first; c < last; ++c) sums[c] += static_cast<float>(sum[c - first]);
    });
}
VD_REPEATABLE(product_sums)

// y = the sum of coefficient * input, in order, then max(., 0) if `relu`
VD_EXPORT(eltwise_sum)(Team* team, std::int64_t count, const EltwiseInputs* inputs,
                       std::int64_t relu, float* y) {
    const auto finish = [=](Index i, Index n, Vec sum) __attribute__((always_inline)) {
        store_some(y, i, n, relu ? rectify(sum) : sum);
    };
    const EltwiseInputs& e = *inputs;
    if (e.count == 2 && e.coefficients[0] == 1.f && e.coefficients[1] == 1.f) {
        combine(team, count, e, [=](const EltwiseInputs& in, Index i, Index n) {
            finish(i, n, load_some(in.inputs[0], i, n) + load_some(in.inputs[1], i, n));
        });
        return;
    }
    combine(team, count, e, [=](const EltwiseInputs& in, Index i, Index n) {
        Vec sum = Vec{};
        for (Index k = 0; k < in.count; ++k)
            sum += broadcast(in.coefficients[k]) * load_some(in.inputs[k], i, n);
        finish(i, n, sum);
    });
}
VD_REPEATABLE(eltwise_sum)

// y = the product of the inputs, in order
VD_EXPORT(eltwise_product)(Team* team, std::int64_t count, const EltwiseInputs* inputs, float* y) {
    combine(team, count, *inputs, [=](const EltwiseInputs& in, Index i, Index n) {
        Vec product = load_some(in.inputs[0], i, n);
        for (Index k = 1; k < in.count; ++k) product *= load_some(in.inputs[k], i, n);
        store_some(y, i, n, product);
    });
}
VD_REPEATABLE(eltwise_product)

// y = the largest input, winner = its index: of the first two inputs the second, unless the first
// is larger; a later one if it is larger than those before.
VD_EXPORT(eltwise_max)(Team* team, std::int64_t count, const EltwiseInputs* inputs, float* y,
                       std::int32_t* winner) {
    const EltwiseInputs e = *inputs;
    parallel_parts(team, count, kPart, [=](Index first, Index last) {
        for (Index i = first; i < last; ++i) {
            float best = e.inputs[0][i];
            std::int32_t index = 0;
            for (std::int32_t k = 1; k < e.count; ++k) {
                const float value = e.inputs[k][i];
                if (k == 1 ? !(best > value) : value > best) {
                    best = value;
                    index = k;
                }
            }
            y[i] = best;
            winner[i] = index;
        }
    });
}
VD_REPEATABLE(eltwise_max)

// dx = dy where winner is `index`, else 0
VD_EXPORT(eltwise_max_backward)(Team* team, std::int64_t count, std::int64_t index, const float* dy,
                                const std::int32_t* winner, float* dx) {
    const std::int32_t expected = static_cast<std::int32_t>(index);
    parallel_parts(team, count, kPart, [=](Index first, Index last) {
        for (Index i = first; i < last; ++i) dx[i] = winner[i] == expected ? dy[i] : 0.f;
    });
}
VD_REPEATABLE(eltwise_max_backward)
