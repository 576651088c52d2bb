// ave_pool.cu -- average pooling as in Caffe, and its gradient
// A window is clipped to the padded image, and its sum divided by the clipped area; padding counts
// as zeros. A window entirely outside (kernel smaller than stride) has mean 0, in Caffe 0 / 0.
// v1  forward: one output per thread; backward: one input per thread, which adds the windows that
//     contain it, in the order of the outputs                                       <- launched
// v2  rows of windows through shared memory: not implemented, since the paper's nets have no
//     average pooling and the overlap is read from the L1 cache
// launch: block 256, grid ceil(elements / 256)
// bytes: each input and output once; bound by memory: 2x2 windows over pool1 of net D at batch 64
// (205 million elements) move 1.03 GB, 0.21 ms on an H200 at 4.8 TB/s. The kernels are slower than
// that: they divide at least once per element
// sm_90: forward 40 registers, backward 33, 3/4 of the warps resident
#include "common.cuh"

constexpr int BLOCK = 256;

// One axis of a window: its begin and end in the padded image, in coordinates of the image.
struct Span {
    int begin, end;

    __device__ __forceinline__ Span(int output, int kernel, int stride, int pad, int size)
        : begin(output * stride - pad), end(min(output * stride - pad + kernel, size + pad)) {}

    __device__ __forceinline__ int length() const { return max(end - begin, 1); }
};

// x (planes, H, W) in; y (planes, P, Q) out. count = planes * P * Q
extern "C" __global__ void __launch_bounds__(BLOCK)
    ave_pool_forward(const float* x, float* y, int64_t count, int H, int W, int P, int Q,
                     int kernel_h, int kernel_w, int stride_h, int stride_w, int pad_h, int pad_w) {
    const int64_t at = global_thread();
    if (at >= count) {
        return;
    }
    const int64_t plane = at / (P * Q);
    const int within = at - plane * (P * Q), p = within / Q;
    const Span rows(p, kernel_h, stride_h, pad_h, H);
    const Span cols(within - p * Q, kernel_w, stride_w, pad_w, W);
    const float* const image = x + plane * H * W;
    float sum = 0.0f;
    for (int h = max(rows.begin, 0); h < min(rows.end, H); ++h) {
        for (int w = max(cols.begin, 0); w < min(cols.end, W); ++w) {
            sum += __ldg(image + h * W + w);
        }
    }
    y[at] = sum / static_cast<float>(rows.length() * cols.length());
}

// dy (planes, P, Q) in; dx (planes, H, W) out. count = planes * H * W
extern "C" __global__ void __launch_bounds__(BLOCK, 4)
    ave_pool_backward(const float* dy, float* dx, int64_t count, int H, int W, int P, int Q,
                      int kernel_h, int kernel_w, int stride_h, int stride_w, int pad_h,
                      int pad_w) {
    const int64_t at = global_thread();
    if (at >= count) {
        return;
    }
    const int64_t plane = at / (H * W);
    const int place = at - plane * (H * W), h = place / W + pad_h, w = place % W + pad_w;
    const int p_begin = h < kernel_h ? 0 : (h - kernel_h) / stride_h + 1;
    const int q_begin = w < kernel_w ? 0 : (w - kernel_w) / stride_w + 1;
    const int p_end = min(h / stride_h + 1, P), q_end = min(w / stride_w + 1, Q);
    const float* const gradient = dy + plane * P * Q;
    float sum = 0.0f;
    for (int p = p_begin; p < p_end; ++p) {
        const int height = Span(p, kernel_h, stride_h, pad_h, H).length();
        for (int q = q_begin; q < q_end; ++q) {
            const int width = Span(q, kernel_w, stride_w, pad_w, W).length();
            sum += __ldg(gradient + p * Q + q) / static_cast<float>(height * width);
        }
    }
    dx[at] = sum;
}
