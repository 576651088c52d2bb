// How a convolution reads its operands as the tiles of a matrix product: nothing is laid out in
// memory, each element of the column matrix is found where it stands in the image.
//
// What depth d of the product means is tabulated once per geometry, so that no kernel divides by
// the size of a filter:
//     steps (C*R*S, 2): the distance c*H*W + r*dilation*W + s*dilation within an image,
//                       and r*dilation << 16 | s*dilation, to see where the image ends
#pragma once

#include "tile_product.cuh"

// What the loaders of all passes know of a convolution of one group. Channels are those of a group,
// *_image is the distance from image to image. The output has `pixels` = N*P*Q places.
struct Conv {
    int C, H, W, K, P, Q, pixels, depth;
    int64_t x_image, y_image;
    int stride_h, stride_w, pad_h, pad_w;
    // The input of a strided convolution's gradient has holes: its rows and columns stand `hole`
    // apart, with zeros between them.
    int hole_h, hole_w;
};

// Columns of the product: what the windows of `index` pixels see. A thread keeps one pixel.
template <class Walk_, bool HOLES>
struct WindowLoader {
    using Walk = Walk_;
    const float* image;
    const int2* step;
    int top, left, offset, depths_left;
    int height, width, row, hole_h, hole_w;

    // x (N,C,H,W); steps (depth, 2); the tile begins at pixel `first`
    __device__ __forceinline__ WindowLoader(const Conv& of, const float* x, const int* steps,
                                            int first)
        : step(reinterpret_cast<const int2*>(steps) + Walk::depth()),
          depths_left(of.depth - Walk::depth()),
          height(of.H), width(of.W), row(of.W), hole_h(of.hole_h), hole_w(of.hole_w) {
        const int pixel = first + Walk::index(), plane = of.P * of.Q;
        const int n = pixel / plane, within = pixel - n * plane, p = within / of.Q;
        top = p * of.stride_h - of.pad_h;
        left = (within - p * of.Q) * of.stride_w - of.pad_w;
        image = x + n * of.x_image;
        offset = HOLES ? 0 : top * of.W + left;
        if (pixel >= of.pixels) {
            depths_left = 0;
        }
        if (HOLES) {
            height = (of.H - 1) * hole_h + 1;
            width = (of.W - 1) * hole_w + 1;
        }
    }

    __device__ __forceinline__ float look(int2 at) const {
        const int h = top + (at.y >> 16), w = left + (at.y & 0xffff);
        bool inside = static_cast<unsigned>(h) < static_cast<unsigned>(height) &&
                      static_cast<unsigned>(w) < static_cast<unsigned>(width);
        int place = offset + at.x;
        if (HOLES) {
            inside = inside && h % hole_h == 0 && w % hole_w == 0;
            place = at.x + h / hole_h * row + w / hole_w;
        }
        return inside ? __ldg(image + place) : 0.0f;
    }

    __device__ __forceinline__ void fetch(float (&staged)[Walk::COUNT]) {
#pragma unroll
        for (int i = 0; i < Walk::COUNT; ++i) {
            staged[i] = i * Walk::DEPTH_STEP < depths_left
                            ? look(__ldg(step + i * Walk::DEPTH_STEP))
                            : 0.0f;
        }
        step += SLAB;
        depths_left -= SLAB;
    }
};

// A place of the output that moves on along the depth of the weights' gradient, without dividing.
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
