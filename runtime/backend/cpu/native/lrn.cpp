// Local response normalisation across channels.

#include "arena.h"
#include "program.h"
#include "team.h"

namespace verydeep::VD_ISA {
namespace {

constexpr Index kWide = 64;  // pixels of one item: full cache lines in the plane of each channel

struct Lrn {
    Index images, channels, inner, size;
    float alpha, beta, k;

    Index blocks() const { return ceil_div(inner, kWide); }
    Index floats() const { return piece(channels * kWide); }  // of one worker
};

// base^-beta, in place. The usual exponent 3/4 takes two square roots.
void negative_power(float* base, Index count, float beta) {
    if (beta == 0.75f) {
        for (Index i = 0; i < count; ++i) base[i] = __builtin_sqrtf(base[i]);
        for (Index i = 0; i < count; ++i) base[i] = 1.f / (base[i] * __builtin_sqrtf(base[i]));
    } else {
        for (Index i = 0; i < count; ++i) base[i] = __builtin_powf(base[i], -beta);
    }
}

// sum = terms[c - before] + ... + terms[c - before + size - 1], where terms outside are zero.
void window_sum(const float* terms, const Lrn& g, Index c, Index before, float* sum) {
    for (Index i = 0; i < kWide; ++i) sum[i] = 0.f;
    for (Index o = most(0, c - before); o < least(g.channels, c - before + g.size); ++o)
        for (Index i = 0; i < kWide; ++i) sum[i] += terms[o * kWide + i];
}

}  // namespace
}  // namespace verydeep::VD_ISA

using namespace verydeep;
using namespace verydeep::VD_ISA;

// Bytes of workspace with this number of threads.
VD_EXPORT_COUNT(lrn_bytes)(std::int64_t channels, std::int64_t threads) {
    return 4 * threads * piece(channels * kWide);
}

// scale = k + alpha / size * (sum of x^2 over the window), y = x scale^-beta.
// Shapes: x, scale, y (images, channels, inner).
VD_EXPORT(lrn_forward)(Team* team, std::int64_t images, std::int64_t channels, std::int64_t inner,
                       std::int64_t size, float alpha, float beta, float k, const float* x,
                       float* scale, float* y, void* workspace) {
    const Lrn g{images, channels, inner, size, alpha, beta, k};
    const Arena shared(workspace, team_size(team) * g.floats());
    parallel(team, images * g.blocks(), [=](Index item, int worker) {
        const Index first = item % g.blocks() * kWide, count = least(kWide, g.inner - first);
        const Index base = item / g.blocks() * g.channels * g.inner + first;
        float* squares = shared.worker(worker, g.floats()).floats(g.channels * kWide);
        for (Index c = 0; c < g.channels; ++c) {
            const float* from = x + base + c * g.inner;
            for (Index i = 0; i < count; ++i) squares[c * kWide + i] = from[i] * from[i];
            for (Index i = count; i < kWide; ++i) squares[c * kWide + i] = 0.f;
        }
        for (Index c = 0; c < g.channels; ++c) {
            float power[kWide];
            window_sum(squares, g, c, (g.size - 1) / 2, power);
            for (Index i = 0; i < kWide; ++i)
                power[i] = power[i] * (g.alpha / static_cast<float>(g.size)) + g.k;
            const Index plane = base + c * g.inner;
            for (Index i = 0; i < count; ++i) scale[plane + i] = power[i];
            negative_power(power, kWide, g.beta);
            for (Index i = 0; i < count; ++i) y[plane + i] = x[plane + i] * power[i];
        }
    });
}
VD_REPEATABLE(lrn_forward)

// dx = dy scale^-beta - 2 alpha beta / size * x * (sum over the window of dy y / scale)
VD_EXPORT(lrn_backward)(Team* team, std::int64_t images, std::int64_t channels, std::int64_t inner,
                        std::int64_t size, float alpha, float beta, const float* x, const float* y,
                        const float* scale, const float* dy, float* dx, void* workspace) {
    const Lrn g{images, channels, inner, size, alpha, beta, 0.f};
    const Arena shared(workspace, team_size(team) * g.floats());
    parallel(team, images * g.blocks(), [=](Index item, int worker) {
        const Index first = item % g.blocks() * kWide, count = least(kWide, g.inner - first);
        const Index base = item / g.blocks() * g.channels * g.inner + first;
        float* ratios = shared.worker(worker, g.floats()).floats(g.channels * kWide);
        for (Index c = 0; c < g.channels; ++c) {
            const Index plane = base + c * g.inner;
            for (Index i = 0; i < count; ++i)
                ratios[c * kWide + i] = dy[plane + i] * y[plane + i] / scale[plane + i];
            for (Index i = count; i < kWide; ++i) ratios[c * kWide + i] = 0.f;
        }
        const float slope = 2.f * g.alpha * g.beta / static_cast<float>(g.size);
        for (Index c = 0; c < g.channels; ++c) {
            const Index plane = base + c * g.inner;
            float sum[kWide], power[kWide];
            window_sum(ratios, g, c, g.size / 2, sum);
            for (Index i = 0; i < count; ++i) power[i] = scale[plane + i];
            negative_power(power, count, g.beta);
            for (Index i = 0; i < count; ++i)
                dx[plane + i] = dy[plane + i] * power[i] - slope * x[plane + i] * sum[i];
        }
    });
}
VD_REPEATABLE(lrn_backward)
