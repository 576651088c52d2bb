// G g G^T for every filter, once per update of the weights.

#include "program.h"
#include "team.h"
#include "winograd.h"

namespace verydeep::VD_ISA {
namespace {

constexpr Index kGroup = 8;  // input channels of one item

struct Filters {
    const float* weight;  // (k, c, 3, 3)
    Index outputs, inputs;
    Index output_step, input_step;  // floats between filters of adjacent outputs, inputs
    bool flip;
};

// The taps of kLanes outputs for one input channel; lanes after the last output are zero.
VD_INLINE void gather_taps(const Filters& f, Index block, Index input, Vec* taps) {
    TapRows rows = {};
    const Index first = block * kLanes, count = least(kLanes, f.outputs - first);
    const float* w = f.weight + first * f.output_step + input * f.input_step;
    for (Index i = 0; i < count; ++i, w += f.output_step)
        __builtin_memcpy(rows.tap[i], w, 9 * sizeof(float));
    Vec by_tap[9];
    taps_from_rows(rows, by_tap);
    for (int tap = 0; tap < 9; ++tap) taps[f.flip ? 8 - tap : tap] = by_tap[tap];
}

// The filters of one panel for inputs [first, last), collected for kGroup inputs: storing single
// vectors to the many planes would wait for memory.
template <int M>
void transform_group(const Filters& f, const FilterLayout& layout, Index panel, Index first,
                     Index last, float* out) {
    using W = Winograd<M>;
    const Index vectors = layout.panel_vectors(panel), width = vectors * kLanes;
    alignas(64) Vec staged[W::kPlanes][kGroup * 2];
    for (Index input = first; input < last; ++input)
        for (Index e = 0; e < vectors; ++e) {
            Vec taps[9], half[W::kTile * 3];
            gather_taps(f, 2 * panel + e, input, taps);
            for (int j = 0; j < 3; ++j) W::filter(taps + j, 3, half + j, 3);
            for (int i = 0; i < W::kTile; ++i) {
                Vec u[W::kTile];
                W::filter(half + 3 * i, 1, u, 1);
                for (int j = 0; j < W::kTile; ++j)
                    staged[W::kTile * i + j][(input - first) * vectors + e] = u[j];
            }
        }
    float* to = out + panel * layout.inputs * kPanel + first * width;
    const bool far = W::kPlanes * layout.plane > kFarFloats;
    for (int q = 0; q < W::kPlanes; ++q)
        for (Index i = 0; i < (last - first) * vectors; ++i) {
            float* target = to + q * layout.plane + i * kLanes;
            if (far)
                stream(target, staged[q][i]);
            else
                store(target, staged[q][i]);
        }
    if (far) stream_end();
}

template <int M>
void transform_filters(Team* team, const Filters& f, float* workspace) {
    const FilterLayout layout(f.inputs, f.outputs);
    const Index count = Winograd<M>::kPlanes * layout.plane;
    float* out = Arena(workspace, piece(count)).floats(count);
    const Index groups = ceil_div(f.inputs, kGroup);
    parallel(team, layout.panels() * groups, [&](Index item, int) {
        const Index first = item % groups * kGroup;
        transform_group<M>(f, layout, item / groups, first, least(first + kGroup, f.inputs), out);
    });
}

}  // namespace
}  // namespace verydeep::VD_ISA

using namespace verydeep;
using namespace verydeep::VD_ISA;

// The number of floats of transformed filters of `inputs` to `outputs` channels.
VD_EXPORT_COUNT(winograd_filter_floats)(std::int64_t m, std::int64_t inputs, std::int64_t outputs) {
    const Index planes = m == 4 ? Winograd<4>::kPlanes : Winograd<2>::kPlanes;
    return piece(planes * FilterLayout(inputs, outputs).plane);
}

// Transform weights (k, c, 3, 3) to `out`, which is aligned to a cache line: for the forward pass
// or, rotated and transposed, for the backward pass.
VD_EXPORT(winograd_filter)(Team* team, std::int64_t m, const float* weight, std::int64_t k,
                           std::int64_t c, std::int64_t backward, float* out) {
    const Filters f = backward ? Filters{weight, c, k, 9, 9 * c, true}
                               : Filters{weight, k, c, 9 * c, 9, false};
    if (m == 4)
        transform_filters<4>(team, f, out);
    else
        transform_filters<2>(team, f, out);
}
VD_REPEATABLE(winograd_filter)
