// rows.cu -- sums and normalisation of rows, and products with a factor per row
// v1  on the host: the blobs are copied both ways in each pass
// v2  a block per row, summed by a fixed tree; element-wise kernels with four elements per thread
//                                                                                    <- launched
// launch: rows: block 256, grid = rows; element-wise: block 256, grid ceil(count / 1024)
// bytes per element: sum 4, MVN 12 and 20 (two reads from the L2 cache); bound by memory
#include "quads.cuh"

constexpr int BLOCK = 256;
constexpr int SUM = 0, ABSOLUTE = 1, SQUARES = 2, PRODUCTS = 3;

// The sum over the row of `term(index)`, in every thread. scratch is used by each call in turn.
template <class Term>
__device__ __forceinline__ float row_sum(int64_t cols, float (&scratch)[BLOCK / WARP], Term term) {
    float sum = 0.0f;
    for (int64_t i = threadIdx.x; i < cols; i += BLOCK) {
        sum += term(i);
    }
    sum = block_sum<BLOCK>(sum, scratch);
    __syncthreads();
    return sum;
}

// x, other (rows, cols) in, other only for PRODUCTS; out (rows) out: coeff * the sum of the row
extern "C" __global__ void __launch_bounds__(BLOCK)
    reduce_rows(const float* x, const float* other, float* out, int64_t cols, int operation,
                float coeff) {
    SHARED(scratch, float[BLOCK / WARP]);
    const int64_t first = blockIdx.x * cols;
    const float sum = row_sum(cols, scratch, [=](int64_t i) {
        const float value = x[first + i];
        switch (operation) {
            case ABSOLUTE: return fabsf(value);
            case SQUARES: return value * value;
            case PRODUCTS: return value * other[first + i];
            default: return value;
        }
    });
    if (threadIdx.x == 0) {
        out[blockIdx.x] = coeff * sum;
    }
}

// x (rows, cols), dy (rows) in; dx as x out: the gradient of reduce_rows
extern "C" __global__ void __launch_bounds__(BLOCK)
    reduce_rows_backward(const float* x, const float* dy, float* dx, int64_t count, int64_t cols,
                         int operation, float coeff) {
    const int64_t first = QUAD * global_thread();
    float value[QUAD];
    load_quad(x, first, count, value);
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        const float sign = static_cast<float>(value[i] > 0.0f) - static_cast<float>(value[i] < 0.0f);
        const float slope =
            operation == ABSOLUTE ? sign : operation == SQUARES ? 2.0f * value[i] : 1.0f;
        value[i] = first + i < count ? __ldg(dy + (first + i) / cols) * coeff * slope : 0.0f;
    }
    store_quad(dx, first, count, value);
}

// x (rows, cols) in; y as x out, may be x: (x - mean) / divisor; divisor (rows) out, or null for a
// division by 1: sqrt(mean of squares) + eps
extern "C" __global__ void __launch_bounds__(BLOCK)
    mvn_forward(const float* x, float* y, float* divisor, int64_t cols, float eps) {
    SHARED(scratch, float[BLOCK / WARP]);
    const int64_t first = blockIdx.x * cols;
    const float mean = row_sum(cols, scratch, [=](int64_t i) { return x[first + i]; }) / cols;
    float divide = 1.0f;
    if (divisor != nullptr) {
        const float square = row_sum(cols, scratch, [=](int64_t i) {
            const float centred = x[first + i] - mean;
            return centred * centred;
        });
        divide = sqrtf(square / cols) + eps;
        if (threadIdx.x == 0) {
            divisor[blockIdx.x] = divide;
        }
    }
    for (int64_t i = threadIdx.x; i < cols; i += BLOCK) {
        y[first + i] = (x[first + i] - mean) / divide;
    }
}

// y, dy (rows, cols) in; divisor (rows) in, or null; dx as dy out, may be dy
extern "C" __global__ void __launch_bounds__(BLOCK)
    mvn_backward(const float* y, const float* dy, const float* divisor, float* dx, int64_t cols) {
    SHARED(scratch, float[BLOCK / WARP]);
    const int64_t first = blockIdx.x * cols;
    const float mean = row_sum(cols, scratch, [=](int64_t i) { return dy[first + i]; }) / cols;
    float along = 0.0f, divide = 1.0f;
    if (divisor != nullptr) {
        along = row_sum(cols, scratch, [=](int64_t i) { return dy[first + i] * y[first + i]; });
        along /= cols;
        divide = divisor[blockIdx.x];
    }
    for (int64_t i = threadIdx.x; i < cols; i += BLOCK) {
        const float normal = divisor != nullptr ? y[first + i] : 0.0f;
        dx[first + i] = (dy[first + i] - mean - normal * along) / divide;
    }
}

// a (rows), x (rows, cols) in; y as x in, or null; out as x out: a * x + y
extern "C" __global__ void __launch_bounds__(BLOCK)
    scale_rows(const float* a, const float* x, const float* y, float* out, int64_t count,
               int64_t cols) {
    const int64_t first = QUAD * global_thread();
    float value[QUAD], added[QUAD] = {};
    load_quad(x, first, count, value);
    if (y != nullptr) {
        load_quad(y, first, count, added);
    }
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        const float factor = first + i < count ? __ldg(a + (first + i) / cols) : 0.0f;
        value[i] = factor * value[i] + added[i];
    }
    store_quad(out, first, count, value);
}
