// ReLU and dropout.

#include "program.h"
#include "team.h"
#include "vector.h"

namespace verydeep::VD_ISA {
namespace {

constexpr Index kPart = 1 << 16;  // elements of one item

// Philox4x32-10, kWide blocks at a time; data_prep/philox.py describes the words of the counter.
struct Philox {
    static constexpr int kWide = 16;
    std::uint32_t key[2], sample[2], stream;

    // Words 0..3 of blocks [block, block + kWide). Shapes: out [word][block]. The inner loops over
    // blocks are vectorised by compilers.
    void draw(std::uint32_t block, std::uint32_t (*out)[kWide]) const {
        for (int i = 0; i < kWide; ++i) {
            std::uint32_t c0 = block + static_cast<std::uint32_t>(i), c1 = sample[0];
            std::uint32_t c2 = sample[1], c3 = stream, k0 = key[0], k1 = key[1];
            VD_UNROLL
            for (int round = 0; round < 10; ++round) {
                const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0;
                const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c2;
                c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
                c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
                c1 = static_cast<std::uint32_t>(p1);
                c3 = static_cast<std::uint32_t>(p0);
                k0 += 0x9E3779B9u;
                k1 += 0xBB67AE85u;
            }
            out[0][i] = c0;
            out[1][i] = c1;
            out[2][i] = c2;
            out[3][i] = c3;
        }
    }
};

}  // namespace
}  // namespace verydeep::VD_ISA

using namespace verydeep;
using namespace verydeep::VD_ISA;

// y = x where x > 0, else slope x; NaN stays NaN, and a slope of 0 does not multiply infinity.
VD_EXPORT(relu_forward)(Team* team, std::int64_t count, float slope, const float* x, float* y) {
    parallel_parts(team, count, kPart, [=](Index first, Index last) {
        if (slope == 0.f)
            for (Index i = first; i < last; ++i) y[i] = x[i] < 0.f ? 0.f : x[i];
        else
            for (Index i = first; i < last; ++i) y[i] = x[i] < 0.f ? slope * x[i] : x[i];
    });
}
VD_REPEATABLE(relu_forward)

// dx = dy where x > 0, else slope dy
VD_EXPORT(relu_backward)(Team* team, std::int64_t count, float slope, const float* x,
                         const float* dy, float* dx) {
    parallel_parts(team, count, kPart, [=](Index first, Index last) {
        Index i = first;
        for (; i + kLanes <= last; i += kLanes) {
            const Vec gate = load(x + i) > Vec{} ? broadcast(1.f) : broadcast(slope);
            store(dx + i, load(dy + i) * gate);
        }
        for (; i < last; ++i) dx[i] = dy[i] * (x[i] > 0.f ? 1.f : slope);
    });
}
VD_REPEATABLE(relu_backward)

// Element j of sample n is kept if the upper 24 bits of word j of the stream of the sample are at
// least `threshold`. Shapes: x, y, mask (samples, count).
VD_EXPORT(dropout_forward)(Team* team, std::int64_t samples, std::int64_t count,
                           std::uint64_t first_sample, std::uint64_t seed, std::uint32_t stream,
                           std::uint32_t threshold, float scale, const float* x,
                           std::uint8_t* mask, float* y) {
    constexpr Index kDraw = 4 * Philox::kWide, kDraws = 64;  // kDraws * kDraw elements per item
    const Index parts = ceil_div(count, kDraw * kDraws);
    parallel(team, samples * parts, [=](Index item, int) {
        const std::uint64_t number = first_sample + static_cast<std::uint64_t>(item / parts);
        const Philox philox{{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)},
                            {static_cast<std::uint32_t>(number),
                             static_cast<std::uint32_t>(number >> 32)},
                            stream};
        const Index row = item / parts * count, begin = item % parts * kDraw * kDraws;
        const Index end = least(begin + kDraw * kDraws, count);
        for (Index element = begin; element < end; element += kDraw) {
            std::uint32_t words[4][Philox::kWide];
            philox.draw(static_cast<std::uint32_t>(element / 4), words);
            std::uint8_t kept[kDraw];
            for (int i = 0; i < Philox::kWide; ++i)
                for (int word = 0; word < 4; ++word)
                    kept[i * 4 + word] = (words[word][i] >> 8) >= threshold;
            const Index n = least(kDraw, end - element);
            std::memcpy(mask + row + element, kept, static_cast<std::size_t>(n));
            for (Index i = 0; i < n; ++i)
                y[row + element + i] = x[row + element + i] * static_cast<float>(kept[i]) * scale;
        }
    });
}

// dx = dy mask scale
VD_EXPORT(dropout_backward)(Team* team, std::int64_t count, float scale, const float* dy,
                            const std::uint8_t* mask, float* dx) {
    parallel_parts(team, count, kPart, [=](Index first, Index last) {
        for (Index i = first; i < last; ++i) dx[i] = dy[i] * static_cast<float>(mask[i]) * scale;
    });
}
VD_REPEATABLE(dropout_backward)
