// solver_updates.cu -- the updates of all solver types except SGD, each in one pass
// v1  on the host: weights, gradients and histories are copied both ways in each iteration
// v2  one pass, four elements per thread, in the order of operations of runtime/solvers <- launched
// launch: block 256, grid ceil(count / 1024)
// bytes per element: Nesterov, AdaGrad, RMSProp 20; Adam, AdaDelta 28; 4 more if the gradient is
// replaced by the update. Bound by memory: Adam on net D's 138 million weights 0.8 ms at 4.8 TB/s.
//
// Common parameters: dw (count) in, out if `keep`: the values that were subtracted; w (count) in and
// out; histories (count) in and out; rate, replaced by *rates (1) if that is given, as in a replay;
// decay of the weights, by their signs if l1.
#include "quads.cuh"

constexpr int BLOCK = 256;

__device__ __forceinline__ float penalized(float slope, float weight, float decay, int l1) {
    if (decay == 0.0f) {
        return slope;
    }
    const float sign = static_cast<float>(weight > 0.0f) - static_cast<float>(weight < 0.0f);
    return slope + decay * (l1 ? sign : weight);
}

// `rule(slope, first, second, rate)` returns the value to subtract, and changes the histories.
template <class Rule>
__device__ __forceinline__ void update(float* dw, float* w, float* first_history,
                                       float* second_history, int64_t count, float rate,
                                       const float* rates, float decay, int l1, int keep,
                                       Rule rule) {
    if (rates != nullptr) {
        rate = *rates;
    }
    const int64_t start = QUAD * global_thread();
    float slope[QUAD], weight[QUAD], first[QUAD], second[QUAD] = {};
    load_quad(dw, start, count, slope);
    load_quad(w, start, count, weight);
    load_quad(first_history, start, count, first);
    if (second_history != nullptr) {
        load_quad(second_history, start, count, second);
    }
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        const float gradient = penalized(slope[i], weight[i], decay, l1);
        slope[i] = rule(gradient, first[i], second[i], rate);
        weight[i] -= slope[i];
    }
    store_quad(w, start, count, weight);
    store_quad(first_history, start, count, first);
    if (second_history != nullptr) {
        store_quad(second_history, start, count, second);
    }
    if (keep) {
        store_quad(dw, start, count, slope);
    }
}

// ahead: 1 + momentum
extern "C" __global__ void __launch_bounds__(BLOCK)
    nesterov(float* dw, float* w, float* history, int64_t count, float rate, const float* rates,
             float decay, int l1, int keep, float momentum, float ahead) {
    update(dw, w, history, nullptr, count, rate, rates, decay, l1, keep,
           [=](float slope, float& velocity, float&, float step) {
               const float previous = momentum * velocity;
               velocity = previous + step * slope;
               return ahead * velocity - previous;
           });
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    adagrad(float* dw, float* w, float* history, int64_t count, float rate, const float* rates,
            float decay, int l1, int keep, float delta) {
    update(dw, w, history, nullptr, count, rate, rates, decay, l1, keep,
           [=](float slope, float& squares, float&, float step) {
               squares += slope * slope;
               return step * (slope / (sqrtf(squares) + delta));
           });
}

// rest: 1 - rms_decay
extern "C" __global__ void __launch_bounds__(BLOCK)
    rmsprop(float* dw, float* w, float* history, int64_t count, float rate, const float* rates,
            float decay, int l1, int keep, float delta, float rms_decay, float rest) {
    update(dw, w, history, nullptr, count, rate, rates, decay, l1, keep,
           [=](float slope, float& square, float&, float step) {
               square = square * rms_decay + rest * (slope * slope);
               return step * (slope / (sqrtf(square) + delta));
           });
}

// rest: 1 - momentum
extern "C" __global__ void __launch_bounds__(BLOCK)
    adadelta(float* dw, float* w, float* gradients, float* steps, int64_t count, float rate,
             const float* rates, float decay, int l1, int keep, float delta, float momentum,
             float rest) {
    update(dw, w, gradients, steps, count, rate, rates, decay, l1, keep,
           [=](float slope, float& gradient, float& moved, float step) {
               gradient = gradient * momentum + rest * (slope * slope);
               const float move = slope * sqrtf((moved + delta) / (gradient + delta));
               moved = moved * momentum + rest * (move * move);
               return step * move;
           });
}

// rest, rest2: 1 - momentum, 1 - momentum2; the rate includes the correction of the biases
extern "C" __global__ void __launch_bounds__(BLOCK)
    adam(float* dw, float* w, float* means, float* squares, int64_t count, float rate,
         const float* rates, float decay, int l1, int keep, float delta, float momentum, float rest,
         float momentum2, float rest2) {
    update(dw, w, means, squares, count, rate, rates, decay, l1, keep,
           [=](float slope, float& mean, float& square, float step) {
               mean = mean * momentum + rest * slope;
               square = square * momentum2 + rest2 * (slope * slope);
               return step * (mean / (sqrtf(square) + delta));
           });
}

// w (count) in; dw (count) in and out: += decay * sign(w)
extern "C" __global__ void __launch_bounds__(BLOCK)
    l1_decay(const float* w, float* dw, int64_t count, float decay) {
    const int64_t start = QUAD * global_thread();
    float slope[QUAD], weight[QUAD];
    load_quad(dw, start, count, slope);
    load_quad(w, start, count, weight);
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        slope[i] = penalized(slope[i], weight[i], decay, 1);
    }
    store_quad(dw, start, count, slope);
}
