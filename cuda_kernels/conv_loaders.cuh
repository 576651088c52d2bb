// Loaders that read the operands of a convolution as tiles of a matrix product. The column matrix
// is never written to memory: each of its elements is read from its position in the image.
//
// The positions for depth d of the product are tabulated once per geometry, so that no kernel
// divides by the size of a filter:
//     steps (C*R*S, 2): the distance c*H*W + r*dilation*W + s*dilation within an image,
//                       and r*dilation << 16 | s*dilation, to test the borders of the image
// The table is padded to a multiple of 128, the side of a tile, with rows below every image, so
// that kernels need no test for the end of the depth.
#pragma once

#include <climits>

#include "tile_product.cuh"

// The sizes of a convolution that the loaders of all passes use. Channels are those of one group,
// *_image is the distance from image to image. The output has `pixels` = N*P*Q positions.
struct Conv {
    int C, H, W, K, P, Q, pixels, depth;
    int64_t x_image, y_image;
    int stride_h, stride_w, pad_h, pad_w;
    // The input of a strided convolution's gradient has holes: its rows and columns are `hole`
    // apart, with zeros between them.
    int hole_h, hole_w;
};

// A row above every image: a window that begins there is entirely outside.
constexpr int ABOVE = INT_MIN / 2;

__device__ __forceinline__ bool is_inside(const Conv& of, int h, int w) {
    return static_cast<unsigned>(h) < static_cast<unsigned>(of.H) &&
           static_cast<unsigned>(w) < static_cast<unsigned>(of.W);
}

// Columns of the product: the windows of `index` pixels. Each thread loads the window of one pixel.
template <class Walk_, bool HOLES>
struct WindowLoader {
    using Walk = Walk_;
    const Conv& of;
    const float* image;
    const int2* steps;
    int top, left;

    // x (N,C,H,W); steps (depth, 2); the tile begins at pixel `first`
    __device__ __forceinline__ WindowLoader(const Conv& of_, const float* x, const int* steps_,
                                            int first)
        : of(of_), steps(reinterpret_cast<const int2*>(steps_) + Walk::depth()) {
        const int pixel = first + Walk::index(), plane = of.P * of.Q;
        const int n = pixel / plane, within = pixel - n * plane, p = within / of.Q;
        top = p * of.stride_h - of.pad_h;
        left = (within - p * of.Q) * of.stride_w - of.pad_w;
        // The begin of the window may be before the image; reads are not.
        image = x + n * of.x_image + (HOLES ? 0 : top * of.W + left);
        if (pixel >= of.pixels) {
            top = ABOVE;
        }
    }

    __device__ __forceinline__ float look(int2 at) const {
        const int h = top + (at.y >> 16), w = left + (at.y & 0xffff);
        if (HOLES) {
            const int p = h / of.hole_h, q = w / of.hole_w;
            const bool inside = h >= 0 && w >= 0 && h == p * of.hole_h && w == q * of.hole_w &&
                                p < of.H && q < of.W;
            return inside ? __ldg(image + at.x + p * of.W + q) : 0.0f;
        }
        return is_inside(of, h, w) ? __ldg(image + at.x) : 0.0f;
    }

    __device__ __forceinline__ void fetch(float (&staged)[Walk::COUNT]) {
#pragma unroll
        for (int i = 0; i < Walk::COUNT; ++i) {
            staged[i] = look(__ldg(steps + i * Walk::DEPTH_STEP));
        }
        steps += SLAB;
    }
};

// A position of the output that advances along the depth of the weights' gradient, not dividing.
struct Pixel {
    int n, p, q, left;

    __device__ __forceinline__ Pixel(const Conv& of, int first, int end) : left(end - first) {
        const int plane = of.P * of.Q;
        n = first / plane;
        p = (first - n * plane) / of.Q;
        q = first - n * plane - p * of.Q;
    }

    __device__ __forceinline__ void advance(const Conv& of, int by) {
        left -= by;
        q += by;
        while (q >= of.Q) {
            q -= of.Q;
            if (++p == of.P) {
                p = 0;
                ++n;
            }
        }
    }
};
