// Soft-max over channels, its gradient, and the gradient of its loss.

#include "program.h"
#include "team.h"
#include "vector.h"

namespace verydeep::VD_ISA {
namespace {

constexpr Index kWide = 64;         // pixels of one item, if a channel is a plane of pixels
constexpr Index kPart = 1 << 14;    // elements of one item otherwise

// e^x for x <= 0, with an error of at most 2 ulp; NaN stays NaN. Without branches, so that
// compilers can vectorise it.
VD_INLINE float exp_negative(float x) {
    const float least_x = x < -104.f ? -104.f : x;  // below, e^x is 0 in float
    const float n = __builtin_rintf(least_x * 1.44269504f);
    const float r = (least_x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    const float power = p * r * r + r + 1.f;
    // 2^n in two factors, because 2^n itself is not a float if the result is denormal.
    const std::int32_t e = x == x ? static_cast<std::int32_t>(n) : 0, half = e >> 1;
    const std::int32_t bits[2] = {(half + 127) << 23, (e - half + 127) << 23};
    float factor[2];
    __builtin_memcpy(factor, bits, sizeof factor);
    return power * factor[0] * factor[1];
}

// One row of adjacent channels. Shapes: x, y (channels).
void softmax_row(Index channels, const float* x, float* y) {
    float top = x[0];
    for (Index c = 1; c < channels; ++c) top = x[c] > top ? x[c] : top;
    for (Index c = 0; c < channels; ++c) y[c] = exp_negative(x[c] - top);
    double sum = 0;
    for (Index c = 0; c < channels; ++c) sum += y[c];
    const float divisor = static_cast<float>(sum);
    for (Index c = 0; c < channels; ++c) y[c] /= divisor;
}

// `count` <= kWide pixels whose channels are `inner` elements apart.
void softmax_pixels(Index channels, Index inner, Index count, const float* x, float* y) {
    float top[kWide];
    double sum[kWide];
    for (Index i = 0; i < count; ++i) top[i] = x[i], sum[i] = 0;
    for (Index c = 1; c < channels; ++c)
        for (Index i = 0; i < count; ++i) {
            const float value = x[c * inner + i];
            top[i] = value > top[i] ? value : top[i];
        }
    for (Index c = 0; c < channels; ++c)
        for (Index i = 0; i < count; ++i) {
            y[c * inner + i] = exp_negative(x[c * inner + i] - top[i]);
            sum[i] += y[c * inner + i];
        }
    for (Index i = 0; i < count; ++i) top[i] = static_cast<float>(sum[i]);
    for (Index c = 0; c < channels; ++c)
        for (Index i = 0; i < count; ++i) y[c * inner + i] /= top[i];
}

// body(offset, count) for runs of `count` pixels; `offset` is that of the first channel of the
// first pixel.
template <class Body>
void over_pixels(Team* team, Index outer, Index channels, Index inner, const Body& body) {
    if (inner == 1) {
        const Index rows = most(1, kPart / most(1, channels));
        parallel_parts(team, outer, rows, [&](Index first, Index last) {
            for (Index row = first; row < last; ++row) body(row * channels, 1);
        });
        return;
    }
    const Index blocks = ceil_div(inner, kWide);
    parallel(team, outer * blocks, [&](Index item, int) {
        const Index first = item % blocks * kWide;
        body(item / blocks * channels * inner + first, least(kWide, inner - first));
    });
}

}  // namespace
}  // namespace verydeep::VD_ISA

using namespace verydeep;
using namespace verydeep::VD_ISA;

// y = e^(x - max) / sum. Shapes: x, y (outer, channels, inner); y may be x.
VD_EXPORT(softmax_forward)(Team* team, std::int64_t outer, std::int64_t channels,
                           std::int64_t inner, const float* x, float* y) {
    if (channels < 1) return;
    over_pixels(team, outer, channels, inner, [=](Index offset, Index count) {
        if (inner == 1)
            softmax_row(channels, x + offset, y + offset);
        else
            softmax_pixels(channels, inner, count, x + offset, y + offset);
    });
}
VD_REPEATABLE(softmax_forward)

// dx = y (dy - sum over channels of dy y). Shapes: as forward; dx may be dy.
VD_EXPORT(softmax_backward)(Team* team, std::int64_t outer, std::int64_t channels,
                            std::int64_t inner, const float* y, const float* dy, float* dx) {
    over_pixels(team, outer, channels, inner, [=](Index offset, Index count) {
        double sum[kWide];
        for (Index i = 0; i < count; ++i) sum[i] = 0;
        for (Index c = 0; c < channels; ++c)
            for (Index i = 0; i < count; ++i) {
                const Index element = offset + c * inner + i;
                sum[i] += static_cast<double>(dy[element]) * static_cast<double>(y[element]);
            }
        for (Index c = 0; c < channels; ++c)
            for (Index i = 0; i < count; ++i) {
                const Index element = offset + c * inner + i;
                dx[element] = (dy[element] - static_cast<float>(sum[i])) * y[element];
            }
    });
}
VD_REPEATABLE(softmax_backward)

// dx = scale (prob - 1 at the label); 0 if the label is negative (ignored).
// Shapes: prob, dx (outer, channels, inner); label (outer, inner), below channels.
VD_EXPORT(softmax_loss_backward)(Team* team, std::int64_t outer, std::int64_t channels,
                                 std::int64_t inner, float scale, const float* prob,
                                 const std::int64_t* label, float* dx) {
    over_pixels(team, outer, channels, inner, [=](Index offset, Index count) {
        const Index pixel = offset / (channels * inner) * inner + offset % (channels * inner);
        for (Index c = 0; c < channels; ++c)
            for (Index i = 0; i < count; ++i) {
                const Index element = offset + c * inner + i;
                const Index true_class = label[pixel + i];
                const float target = c == true_class ? 1.f : 0.f;
                dx[element] = true_class < 0 ? 0.f : (prob[element] - target) * scale;
            }
    });
}
