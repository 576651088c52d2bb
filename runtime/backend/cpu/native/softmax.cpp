// Soft-max over channels, its gradient, and the gradient of its loss.

#include "program.h"
#include "team.h"
#include "vector.h"

namespace verydeep::VD_ISA {
namespace {

constexpr Index kWide = 64;         // pixels of one item, where a channel is a plane of pixels
constexpr Index kPart = 1 << 14;    // elements of one item, where it is not

// e^x for x <= 0, within two units in the last place; NaN passes. Straight code, which compilers
// turn into vectors.
VD_INLINE float exp_negative(float x) {
    const float least_x = x < -104.f ? -104.f : x;  // below, e^x is no float above zero
    const float n = __builtin_rintf(least_x * 1.44269504f);
    const float r = (least_x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    const float power = p * r * r + r + 1.f;
    // 2^n in two factors: one alone has no float where the result is denormal.
    const std::int32_t e = x == x ? static_cast<std::int32_t>(n) : 0, half = e >> 1;
    const std::int32_t bits[2] = {(half + 127) << 23, (e - half + 127) << 23};
    float factor[2];
    __builtin_memcpy(factor, bits, sizeof factor);
    return power * factor[0] * factor[1];
}

// One row of neighbouring channels. Shapes: x, y (channels).
void softmax_row(Index channels, const float* x, float* y) {
    float top = x[0];
    for (Index c = 1; c < channels; ++c) top = x[c] > top ? x[c] : top;
    for (Index c = 0; c < channels; ++c) y[c] = exp_negative(x[c] - top);
    double sum = 0;
    for (Index c = 0; c < channels; ++c) sum += y[c];
    const float divisor = static_cast<float>(sum);
    for (Index c = 0; c < channels; ++c) y[c] /= divisor;
}

// `count` <= kWide pixels whose channels lie `inner` apart.
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

// body(offset, count): a run of `count` pixels, `offset` that of its first channel's first pixel.
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
    over_pixels(team, outer, channels, inner, [=](Index at, Index count) {
        if (inner == 1)
            softmax_row(channels, x + at, y + at);
        else
            softmax_pixels(channels, inner, count, x + at, y + at);
    });
}
VD_REPEATABLE(softmax_forward)

// dx = y (dy - sum over channels of dy y). Shapes: as forward; dx may be dy.
VD_EXPORT(softmax_backward)(Team* team, std::int64_t outer, std::int64_t channels,
                            std::int64_t inner, const float* y, const float* dy, float* dx) {
    over_pixels(team, outer, channels, inner, [=](Index at, Index count) {
        double sum[kWide];
        for (Index i = 0; i < count; ++i) sum[i] = 0;
        for (Index c = 0; c < channels; ++c)
            for (Index i = 0; i < count; ++i) {
                const Index place = at + c * inner + i;
                sum[i] += static_cast<double>(dy[place]) * static_cast<double>(y[place]);
            }
        for (Index c = 0; c < channels; ++c)
            for (Index i = 0; i < count; ++i) {
                const Index place = at + c * inner + i;
                dx[place] = (dy[place] - static_cast<float>(sum[i])) * y[place];
            }
    });
}
VD_REPEATABLE(softmax_backward)

// dx = scale (prob - 1 at the label); zeros where the label is negative: ignored.
// Shapes: prob, dx (outer, channels, inner); label (outer, inner), below channels.
VD_EXPORT(softmax_loss_backward)(Team* team, std::int64_t outer, std::int64_t channels,
                                 std::int64_t inner, float scale, const float* prob,
                                 const std::int64_t* label, float* dx) {
    over_pixels(team, outer, channels, inner, [=](Index at, Index count) {
        const Index pixel = at / (channels * inner) * inner + at % (channels * inner);
        for (Index c = 0; c < channels; ++c)
            for (Index i = 0; i < count; ++i) {
                const Index place = at + c * inner + i;
                const Index wanted = label[pixel + i];
                const float truth = c == wanted ? 1.f : 0.f;
                dx[place] = wanted < 0 ? 0.f : (prob[place] - truth) * scale;
            }
    });
}
