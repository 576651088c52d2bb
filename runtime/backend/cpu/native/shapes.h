// The arguments of kernels: plain structs with the fields of native_signatures.py.
#pragma once

#include <cstdint>

// A 2-D convolution. Shapes: x (n,c,h,w); weight (k,c/group,r,s); y (n,k,p,q).
struct ConvShape {
    std::int64_t n, c, h, w, k, r, s, p, q;
    std::int64_t pad_h, pad_w, stride_h, stride_w, dilation_h, dilation_w, group;
};

// Pooling. Shapes: x (planes,h,w); y (planes,p,q).
struct PoolShape {
    std::int64_t planes, h, w, p, q;
    std::int64_t kernel_h, kernel_w, pad_h, pad_w, stride_h, stride_w;
};

// The inputs of an element-wise operation, at most 8, and what a sum multiplies them by.
struct EltwiseInputs {
    std::int64_t count;
    const float* inputs[8];
    float coefficients[8];
};
