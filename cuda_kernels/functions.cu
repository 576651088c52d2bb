// functions.cu -- functions of one number and their slopes; all may work in place
// v1  four elements a thread as 16 bytes; the kind is the same for all threads     <- launched
// launch: block 256, grid ceil(count / 1024)
// bytes an element: forward 8, backward 16. Bound by memory.
#include "quads.cuh"

constexpr int BLOCK = 256;
// FunctionKind in runtime/backend/pointwise.py, with the parameters of each.
constexpr int ABS = 0;
constexpr int CLIP = 1;
constexpr int THRESHOLD = 2;
constexpr int SIGMOID = 3;
constexpr int TANH = 4;
constexpr int ELU = 5;
constexpr int EXP = 6;
constexpr int LOG = 7;
constexpr int BNLL = 8;
constexpr int POWER = 9;
constexpr int CONSTANT = 10;
constexpr int RELU6 = 11;

__device__ __forceinline__ float sigmoid(float x) {
    const float e = expf(-fabsf(x));
    return (x > 0.0f ? 1.0f : e) / (1.0f + e);
}

__device__ __forceinline__ float value_of(int kind, float a, float b, float c, float x) {
    switch (kind) {
        case ABS: return fabsf(x);
        case CLIP: {
            const float raised = x < a ? a : x;
            return raised > b ? b : raised;
        }
        case THRESHOLD: return x > a ? 1.0f : 0.0f;
        case SIGMOID: return sigmoid(a * x);
        case TANH: return tanhf(x);
        case ELU: return x > 0.0f ? x : a * expm1f(x);
        case EXP: return b * expf(a * x);
        case LOG: return c * logf(a * x + b);
        case BNLL: return (x > 0.0f ? x : 0.0f) + log1pf(expf(-fabsf(x)));
        case POWER: {
            const float inner = x * b + c;
            return a == 1.0f ? inner : a == 2.0f ? inner * inner : powf(inner, a);
        }
        case RELU6: {
            const float raised = x < 0.0f ? 0.0f : x;
            return raised > 6.0f ? 6.0f : raised;
        }
        default: return a;
    }
}

__device__ __forceinline__ float slope_of(int kind, float a, float b, float c, float x, float y) {
    switch (kind) {
        case ABS: return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f;
        case CLIP: return x >= a && x <= b ? 1.0f : 0.0f;
        case SIGMOID: return a * y * (1.0f - y);
        case TANH: return 1.0f - y * y;
        case ELU: return x > 0.0f ? 1.0f : a + y;
        case EXP: return a * y;
        case LOG: return a * c / (a * x + b);
        case BNLL: return sigmoid(x);
        case POWER: {
            const float inner = x * b + c;
            return a == 1.0f ? b : a == 2.0f ? a * b * inner : a * b * (y / inner);
        }
        case RELU6: return y > 0.0f && y < 6.0f ? 1.0f : 0.0f;
        default: return 0.0f;
    }
}

// x (count) in; y (count) out, may be x
extern "C" __global__ void __launch_bounds__(BLOCK)
    function_forward(const float* x, float* y, int64_t count, int kind, float a, float b,
                     float c) {
    const int64_t first = QUAD * global_thread();
    float value[QUAD];
    load_quad(x, first, count, value);
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        value[i] = value_of(kind, a, b, c, value[i]);
    }
    store_quad(y, first, count, value);
}

// x, y, dy (count) in; dx (count) out, may be dy
extern "C" __global__ void __launch_bounds__(BLOCK)
    function_backward(const float* x, const float* y, const float* dy, float* dx, int64_t count,
                      int kind, float a, float b, float c) {
    const int64_t first = QUAD * global_thread();
    float value[QUAD], result[QUAD], gradient[QUAD];
    load_quad(x, first, count, value);
    load_quad(y, first, count, result);
    load_quad(dy, first, count, gradient);
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        gradient[i] *= slope_of(kind, a, b, c, value[i], result[i]);
    }
    store_quad(dx, first, count, gradient);
}

// gate, y, dy (count) in; dx (count) out, may be dy
extern "C" __global__ void __launch_bounds__(BLOCK)
    swish_backward(const float* gate, const float* y, const float* dy, float* dx, int64_t count,
                   float beta) {
    const int64_t first = QUAD * global_thread();
    float open[QUAD], result[QUAD], gradient[QUAD];
    load_quad(gate, first, count, open);
    load_quad(y, first, count, result);
    load_quad(dy, first, count, gradient);
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        const float scaled = beta * result[i];
        gradient[i] *= scaled + open[i] * (1.0f - scaled);
    }
    store_quad(dx, first, count, gradient);
}
