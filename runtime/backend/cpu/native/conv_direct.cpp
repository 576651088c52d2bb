// Convolution with any kernel, stride, dilation and group, as a product with gathered columns:
// forward, and backward to the data.
//
// In the backward pass, the outputs of one phase (row and column modulo the stride) use the same
// taps, and the pass is a convolution of stride 1 for them. So there is no scatter and no
// multiplication by zeros between strides.

#include "finish.h"
#include "gather.h"
#include "phase_axis.h"
#include "product.h"
#include "program.h"

namespace verydeep::VD_ISA {
namespace {

// The output planes: column (n, i, j) is element (first + i * step) of each axis.
struct Target {
    float* y;
    Index channels, group_channels, height, width;
    Index first_row, row_step, first_col, col_step;
    const float* bias;
    bool relu;

    bool contiguous() const { return row_step == 1 && col_step == 1; }
};

struct Convolution {
    Gather gather;
    Target target;
    Index out_width;

    Convolution(const Gather& columns, const Target& outputs)
        : gather(columns.with_long_rows()), target(outputs), out_width(columns.out_width) {}

    void pack_b(Index group, Index col, Index cols, Index k, Index depth, float* out) const {
        gather_panel(gather, group, col, cols, k, depth, out);
    }
    float* plane(Index image, Index channel) const {
        return target.y + (image * target.channels + channel) * target.height * target.width;
    }
    void put(const Tile& t) const {
        const Index size = gather.columns_of_image();
        for (Index offset = 0; offset < t.cols;) {
            const Index image = (t.col + offset) / size, pixel = (t.col + offset) % size;
            const Index count = least(t.cols - offset, size - pixel);
            for (Index i = 0; i < t.rows; ++i) {
                const Index channel = t.batch * target.group_channels + t.row + i;
                const float bias = target.bias ? target.bias[channel] : 0.f;
                const float* sums = t.sums + i * kPanel + offset;
                if (target.contiguous())
                    finish_run(plane(image, channel) + pixel, sums, count, bias, t.first,
                               t.last && target.relu);
                else
                    put_strided(plane(image, channel), sums, pixel, count, t.first);
            }
            offset += count;
        }
    }
    void put_strided(float* y, const float* sums, Index pixel, Index count, bool first) const {
        for (Index j = 0; j < count; ++j) {
            const Index row = (pixel + j) / out_width, col = (pixel + j) % out_width;
            float& to = y[(target.first_row + row * target.row_step) * target.width +
                          target.first_col + col * target.col_step];
            to = first ? sums[j] : to + sums[j];
        }
    }
};

struct Forward : Convolution {
    const float* weight;
    const float* weight_end;

    Forward(const ConvShape& g, const float* x, const float* w, const float* bias, bool relu,
            float* y)
        : Convolution({x, g.c, g.c / g.group,
                       forward_axis(g.h, g.pad_h, g.stride_h, g.dilation_h, g.r),
                       forward_axis(g.w, g.pad_w, g.stride_w, g.dilation_w, g.s), g.p, g.q},
                      {y, g.k, g.k / g.group, g.p, g.q, 0, 1, 0, 1, bias, relu}),
          weight(w),
          weight_end(w + g.k * (g.c / g.group) * g.r * g.s) {}

    ProductPlan plan(const ConvShape& g, Index threads) const {
        return {g.group, g.k / g.group, g.n * g.p * g.q, gather.depth(), threads};
    }
    void pack_a(Index group, Index row, Index rows, Index k, Index depth, float* out) const {
        const Index line = gather.depth();
        pack_transposed(weight + (group * target.group_channels + row) * line + k, line, rows, depth,
                    weight_end, out, kRows);
    }
};

struct Phase : Convolution {
    PhaseAxis rows, cols;
    const float* weight;
    Index kernel_h, kernel_w, outputs;  // outputs: per group, in the forward pass

    Phase(const ConvShape& g, const PhaseAxis& down, const PhaseAxis& across, Index phase_h,
          Index phase_w, const float* dy, const float* w, float* dx)
        : Convolution({dy, g.k, g.k / g.group, down.axis, across.axis, down.outputs, across.outputs},
                      {dx, g.c, g.c / g.group, g.h, g.w, phase_h, g.stride_h, phase_w, g.stride_w,
                       nullptr, false}),
          rows(down),
          cols(across),
          weight(w),
          kernel_h(g.r),
          kernel_w(g.s),
          outputs(g.k / g.group) {}

    ProductPlan plan(const ConvShape& g, Index threads) const {
        return {g.group, g.c / g.group, g.n * rows.outputs * cols.outputs, gather.depth(), threads};
    }
    void pack_a(Index group, Index row, Index count, Index k, Index depth, float* out) const {
        const Index taps = kernel_h * kernel_w;
        TapIndex tap(gather, k);
        for (Index i = 0; i < depth; ++i, tap.next(gather), out += kRows) {
            const Index r = rows.first + tap.down * rows.step, s = cols.first + tap.across * cols.step;
            const Index filter = (group * outputs + tap.channel) * target.group_channels + row;
            const float* from = weight + filter * taps + r * kernel_w + s;
            for (Index c = 0; c < count; ++c) out[c] = from[c * taps];
        }
    }
};

template <class Use>
void each_phase(const ConvShape& g, const float* dy, const float* w, float* dx, const Use& use) {
    for (Index h = 0; h < least(g.stride_h, g.h); ++h)
        for (Index v = 0; v < least(g.stride_w, g.w); ++v) {
            const PhaseAxis down(h, g.h, g.p, g.pad_h, g.stride_h, g.dilation_h, g.r);
            const PhaseAxis across(v, g.w, g.q, g.pad_w, g.stride_w, g.dilation_w, g.s);
            use(Phase(g, down, across, h, v, dy, w, dx));
        }
}

}  // namespace
}  // namespace verydeep::VD_ISA

using namespace verydeep;
using namespace verydeep::VD_ISA;

// Bytes of workspace for a pass with this number of threads.
VD_EXPORT_COUNT(conv_bytes)(const ConvShape* g, std::int64_t backward, std::int64_t threads) {
    if (!backward) {
        const Forward forward(*g, nullptr, nullptr, nullptr, false, nullptr);
        return threads * 4 * forward.plan(*g, threads).worker_floats;
    }
    Index floats = 0;
    each_phase(*g, nullptr, nullptr, nullptr, [&](const Phase& phase) {
        floats = most(floats, phase.plan(*g, threads).worker_floats);
    });
    return threads * 4 * floats;
}

// y = conv(x, weight) + bias, then max(., 0) if `relu`.
VD_EXPORT(conv_forward)(Team* team, const ConvShape* g, const float* x, const float* weight,
                        const float* bias, std::int64_t relu, float* y, void* workspace) {
    const Forward forward(*g, x, weight, bias, relu != 0, y);
    product(team, forward, forward.plan(*g, team_size(team)), workspace);
}
VD_REPEATABLE(conv_forward)

// dx = the gradient of the input.
VD_EXPORT(conv_backward_data)(Team* team, const ConvShape* g, const float* dy, const float* weight,
                              float* dx, void* workspace) {
    each_phase(*g, dy, weight, dx, [&](const Phase& phase) {
        product(team, phase, phase.plan(*g, team_size(team)), workspace);
    });
}
VD_REPEATABLE(conv_backward_data)
