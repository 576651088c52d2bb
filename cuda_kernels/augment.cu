// augment.cu -- converts uint8 images to the input blob: crop, mirror, mean, colour shift
// The transform of data_prep/transform.py, for images that were uploaded as bytes: a quarter of the
// traffic, and the host only decodes.
// v1  one output per thread; neighbouring threads read neighbouring pixels, 3 bytes apart, from one
//     or two cache lines                                                            <- launched
// launch: block 256, grid (ceil(C * crop_h * crop_w / 256), N)
// bytes per element: 1 read, 4 written; bound by memory: 64 images of 3x224x224, 48 MB, 0.01 ms on
// an H200 at 4.8 TB/s.
// sm_90: 20 registers, all warps resident
#include "common.cuh"

constexpr int BLOCK = 256;

// in: pixels, the images in sequence, each (height, width, C); start (N,), the first byte of each;
// place (N, 5), height, width, row and column of the crop's corner, 1 to mirror; offset (N, C),
// subtracted from each channel (mean minus colour shift); mean (C, mean_h, mean_w) or null, read at
// the position of the crop, not mirrored. out: y (N, C, crop_h, crop_w).
// y = (pixel - offset - mean) * scale
extern "C" __global__ void __launch_bounds__(BLOCK)
    augment(const uint8_t* pixels, const int64_t* start, const int* place, const float* offset,
            const float* mean, float* y, int C, int crop_h, int crop_w, int mean_h, int mean_w,
            float scale) {
    const int at = global_thread(), n = blockIdx.y;
    if (at >= C * crop_h * crop_w) {
        return;
    }
    const int c = at / (crop_h * crop_w), within = at - c * (crop_h * crop_w);
    const int row = within / crop_w, col = within - row * crop_w;
    const int* const where = place + 5 * n;
    const int source_row = __ldg(where + 2) + row;
    const int source_col = __ldg(where + 3) + (__ldg(where + 4) ? crop_w - 1 - col : col);
    const int64_t pixel = static_cast<int64_t>(source_row) * __ldg(where + 1) + source_col;
    float value = static_cast<float>(__ldg(pixels + __ldg(start + n) + pixel * C + c));
    value -= __ldg(offset + n * C + c);
    if (mean != nullptr) {
        value -= __ldg(mean + (c * mean_h + source_row) * mean_w + source_col);
    }
    y[(static_cast<int64_t>(n) * C * crop_h) * crop_w + at] = value * scale;
}
