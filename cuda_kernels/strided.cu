// strided.cu -- copies between arrays whose axes have any strides, and sums of repeated elements
// v1  on the host: the blobs are copied both ways in each pass
// v2  an element per step of a thread; neighbouring threads write neighbouring elements <- launched
// launch: block 256, grid ceil(count / 1024)
// bytes per element: 8, and 4 (1 + repeats) for a sum. Bound by memory; reads along another axis
// than the last take whole sectors of 32 bytes.
#include "quads.cuh"

constexpr int BLOCK = 256;
constexpr int AXES = 6;

// x in, y out. Element (i0,...,i5) of the shape (n0,...,n5), whose product is count, is read from
// x[x_first + i0 xs0 + ...] and written to y[y_first + i0 ys0 + ...]. With `repeats` > 1 the sum of
// x at that place + r * repeat, for r < repeats in order, is written. Strides may be 0 or negative.
extern "C" __global__ void __launch_bounds__(BLOCK)
    strided(const float* x, float* y, int64_t count, int64_t x_first, int64_t y_first, int repeats,
            int64_t repeat, int n0, int n1, int n2, int n3, int n4, int n5, int64_t xs0,
            int64_t xs1, int64_t xs2, int64_t xs3, int64_t xs4, int64_t xs5, int64_t ys0,
            int64_t ys1, int64_t ys2, int64_t ys3, int64_t ys4, int64_t ys5) {
    const int size[AXES] = {n0, n1, n2, n3, n4, n5};
    const int64_t x_stride[AXES] = {xs0, xs1, xs2, xs3, xs4, xs5};
    const int64_t y_stride[AXES] = {ys0, ys1, ys2, ys3, ys4, ys5};
    const int64_t first = static_cast<int64_t>(blockIdx.x) * BLOCK * QUAD + threadIdx.x;
    for (int64_t number = first; number < count && number < first + BLOCK * QUAD;
         number += BLOCK) {
        unsigned rest = static_cast<unsigned>(number);
        int64_t from = x_first, to = y_first;
#pragma unroll
        for (int axis = AXES - 1; axis >= 0; --axis) {
            const unsigned index = rest % static_cast<unsigned>(size[axis]);
            rest /= static_cast<unsigned>(size[axis]);
            from += index * x_stride[axis];
            to += index * y_stride[axis];
        }
        float sum = x[from];
        for (int r = 1; r < repeats; ++r) {
            sum += x[from + r * repeat];
        }
        y[to] = sum;
    }
}
