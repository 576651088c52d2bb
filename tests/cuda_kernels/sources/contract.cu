// contract.cu -- what a driver must be able to run
#include "common.cuh"

constexpr int BLOCK = 64;

extern "C" __global__ void __launch_bounds__(BLOCK)
scale(const float* __restrict__ x, float* __restrict__ y, int n, float factor) {
    const int64_t i = global_thread();
    if (i < n) y[i] = factor * x[i];
}

// Every type of argument, with paddings between them; out (10) gets what arrived.
extern "C" __global__ void every_type(const uint8_t* bytes, double a, int b, int64_t c, float d,
                                      uint64_t e, unsigned f, const int* null, double* out,
                                      const uint16_t* halves) {
    const double values[10] = {1.0 * bytes[1], a, 1.0 * b, 1.0 * c, d, 1.0 * e, 1.0 * f,
                               null == nullptr ? 1.0 : 0.0, 1.0 * halves[2], 8.0};
    out[threadIdx.x] = values[threadIdx.x];
}

// out (grid z, y, x, block z, y, x): every thread writes its own number
extern "C" __global__ void positions(int* out) {
    const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    const int threads = blockDim.x * blockDim.y * blockDim.z;
    out[block * threads + thread] = block * threads + thread;
}

// x (n): its elements from the end to the start, by way of dynamic shared memory
extern "C" __global__ void __launch_bounds__(1024) reverse_dynamic(float* x, int n) {
    SHARED_DYNAMIC(tile, float[20000]);
    for (int i = threadIdx.x; i < n; i += blockDim.x) tile[i] = x[i];
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) x[i] = tile[n - 1 - i];
}
