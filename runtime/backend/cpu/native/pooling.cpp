// Max and average pooling, plane by plane.

#include "program.h"
#include "shapes.h"
#include "team.h"
#include "vector.h"

namespace verydeep::VD_ISA {
namespace {

constexpr float kLowest = -3.402823466e+38f;  // -FLT_MAX, the lower limit in Caffe
constexpr Index kPart = 1 << 16;              // input elements of one item

struct Window {  // rows and columns of the input for one output, and the divisor of Caffe
    Index top, bottom, left, right;
    float area;

    Window(const PoolShape& g, Index p, Index q) {
        top = p * g.stride_h - g.pad_h;
        left = q * g.stride_w - g.pad_w;
        bottom = least(top + g.kernel_h, g.h + g.pad_h);
        right = least(left + g.kernel_w, g.w + g.pad_w);
        area = static_cast<float>(most(1, bottom - top) * most(1, right - left));
        top = most(top, 0);
        left = most(left, 0);
        bottom = least(bottom, g.h);
        right = least(right, g.w);
    }
};

template <class Body>
void each_plane(Team* team, const PoolShape& g, const Body& body) {
    parallel_parts(team, g.planes, most(1, kPart / most(1, g.h * g.w)), [&](Index first, Index last) {
        for (Index i = first; i < last; ++i) body(i);
    });
}

// Every second element from p on, kLanes of them; reads 2 * kLanes floats.
template <int Stride>
VD_INLINE Vec load_strided(const float* p) {
    if constexpr (Stride == 1)
        return load(p);
    else
        return shuffle<Even>(load(p), load(p + kLanes));
}

void max_one(const PoolShape& g, const float* x, Index p, Index q, float* y, std::int32_t* mask) {
    const Window w(g, p, q);
    float best = kLowest;
    Index index = -1;
    for (Index i = w.top; i < w.bottom; ++i)
        for (Index j = w.left; j < w.right; ++j)
            if (x[i * g.w + j] > best) {
                best = x[i * g.w + j];
                index = i * g.w + j;
            }
    y[p * g.q + q] = best;
    mask[p * g.q + q] = static_cast<std::int32_t>(index);
}

// Outputs [q, q + count) of row p, whose windows have no padding at the left and right.
template <int Stride>
VD_INLINE void max_many(const PoolShape& g, const float* x, Index p, Index q, Index count, float* y,
                        std::int32_t* mask) {
    const Window w(g, p, q);
    Vec best = broadcast(kLowest);
    IntVec index = IntVec{} - 1, steps;
    for (int i = 0; i < kLanes; ++i) steps[i] = i * Stride;
    for (Index i = w.top; i < w.bottom; ++i)
        for (Index j = 0; j < g.kernel_w; ++j) {
            const Index offset = i * g.w + w.left + j;
            const Vec v = load_strided<Stride>(x + offset);
            const IntVec greater = v > best;
            best = greater ? v : best;
            index = greater ? steps + static_cast<std::int32_t>(offset) : index;
        }
    if (count == kLanes) {
        store(y + p * g.q + q, best);
        store(mask + p * g.q + q, index);
    } else {
        store_part(y + p * g.q + q, best, count);
        store_part(mask + p * g.q + q, index, count);
    }
}

template <int Stride>
void max_plane(const PoolShape& g, const float* x, const float* end, float* y, std::int32_t* mask) {
    // The windows of outputs [first, last) have no padding at the left and right.
    const Index first = least(ceil_div(g.pad_w, Stride), g.q);
    const Index last = most(first, least(g.q, (g.w + g.pad_w - g.kernel_w) / Stride + 1));
    for (Index p = 0; p < g.p; ++p) {
        const Index bottom = Window(g, p, 0).bottom;
        Index q = 0;
        for (; q < first; ++q) max_one(g, x, p, q, y, mask);
        for (Index count; q < last; q += count) {
            count = least(kLanes, last - q);
            // Vectors may be read beyond a short row, but not beyond the array.
            const Index reach = q * Stride - g.pad_w + g.kernel_w - 1 + Stride * kLanes;
            if (end - x < most(0, bottom - 1) * g.w + reach) break;
            max_many<Stride>(g, x, p, q, count, y, mask);
        }
        for (; q < g.q; ++q) max_one(g, x, p, q, y, mask);
    }
}

void scatter(const float* dy, const std::int32_t* mask, Index count, float* dx) {
    for (Index i = 0; i < count; ++i)
        if (mask[i] >= 0) dx[mask[i]] += dy[i];
}

// Windows of 2x2 without overlap: every input belongs to one output, so dx is written once.
void halves_plane(const PoolShape& g, const float* dy, const std::int32_t* mask, float* dx) {
    IntVec steps;
    for (int i = 0; i < kLanes; ++i) steps[i] = 2 * i;
    for (Index p = 0; p < g.p; ++p) {
        const Index rows = least(2, g.h - 2 * p);
        Index q = 0;
        for (; q + kLanes <= g.q && 2 * (q + kLanes) <= g.w; q += kLanes) {
            const IntVec index = load(mask + p * g.q + q);
            const Vec v = load(dy + p * g.q + q);
            for (Index r = 0; r < rows; ++r) {
                const Index offset = (2 * p + r) * g.w + 2 * q;
                const IntVec own = steps + static_cast<std::int32_t>(offset);
                const Vec even = index == own ? v : Vec{}, odd = index == own + 1 ? v : Vec{};
                store(dx + offset, shuffle<ZipLow>(even, odd));
                store(dx + offset + kLanes, shuffle<ZipHigh>(even, odd));
            }
        }
        for (Index r = 0; r < rows; ++r) zero(dx + (2 * p + r) * g.w + 2 * q, g.w - 2 * q);
        scatter(dy + p * g.q + q, mask + p * g.q + q, g.q - q, dx);
    }
    zero(dx + 2 * g.p * g.w, (g.h - 2 * g.p) * g.w);
}

}  // namespace
}  // namespace verydeep::VD_ISA

using namespace verydeep;
using namespace verydeep::VD_ISA;

// The first maximum in row-major order wins; mask is its flat index in the plane, -1 for none.
VD_EXPORT(max_pool_forward)(Team* team, const PoolShape* g, const float* x, float* y,
                            std::int32_t* mask) {
    const Index in = g->h * g->w, out = g->p * g->q;
    const float* end = x + g->planes * in;
    each_plane(team, *g, [=](Index i) {
        const float* from = x + i * in;
        if (g->stride_w == 1)
            max_plane<1>(*g, from, end, y + i * out, mask + i * out);
        else if (g->stride_w == 2)
            max_plane<2>(*g, from, end, y + i * out, mask + i * out);
        else
            for (Index p = 0; p < g->p; ++p)
                for (Index q = 0; q < g->q; ++q)
                    max_one(*g, from, p, q, y + i * out, mask + i * out);
    });
}
VD_REPEATABLE(max_pool_forward)

// dx[mask] += dy from zero, in the order of the outputs.
VD_EXPORT(max_pool_backward)(Team* team, const PoolShape* g, const float* dy,
                             const std::int32_t* mask, float* dx) {
    const Index in = g->h * g->w, out = g->p * g->q;
    const bool halves = g->kernel_h == 2 && g->kernel_w == 2 && g->stride_h == 2 &&
                        g->stride_w == 2 && g->pad_h == 0 && g->pad_w == 0;
    each_plane(team, *g, [=](Index i) {
        if (halves) {
            halves_plane(*g, dy + i * out, mask + i * out, dx + i * in);
            return;
        }
        zero(dx + i * in, in);
        scatter(dy + i * out, mask + i * out, out, dx + i * in);
    });
}
VD_REPEATABLE(max_pool_backward)

// The sum over the window divided by its area, clipped to the padded input.
VD_EXPORT(ave_pool_forward)(Team* team, const PoolShape* g, const float* x, float* y) {
    const Index in = g->h * g->w, out = g->p * g->q;
    each_plane(team, *g, [=](Index i) {
        const float* from = x + i * in;
        for (Index p = 0; p < g->p; ++p)
            for (Index q = 0; q < g->q; ++q) {
                const Window w(*g, p, q);
                float sum = 0.f;
                for (Index r = w.top; r < w.bottom; ++r)
                    for (Index s = w.left; s < w.right; ++s) sum += from[r * g->w + s];
                y[i * out + p * g->q + q] = sum / w.area;
            }
    });
}
VD_REPEATABLE(ave_pool_forward)

VD_EXPORT(ave_pool_backward)(Team* team, const PoolShape* g, const float* dy, float* dx) {
    const Index in = g->h * g->w, out = g->p * g->q;
    each_plane(team, *g, [=](Index i) {
        float* to = dx + i * in;
        zero(to, in);
        for (Index p = 0; p < g->p; ++p)
            for (Index q = 0; q < g->q; ++q) {
                const Window w(*g, p, q);
                const float share = dy[i * out + p * g->q + q] / w.area;
                for (Index r = w.top; r < w.bottom; ++r)
                    for (Index s = w.left; s < w.right; ++s) to[r * g->w + s] += share;
            }
    });
}
VD_REPEATABLE(ave_pool_backward)
