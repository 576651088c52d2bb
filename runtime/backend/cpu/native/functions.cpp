// Functions of one number and their slopes. Straight code, which compilers turn into vectors.

#include "program.h"
#include "team.h"
#include "vector.h"

namespace verydeep::VD_ISA {
namespace {

constexpr Index kPart = 1 << 13;  // elements of one item

enum Kind {
    kAbs,
    kClip,
    kThreshold,
    kSigmoid,
    kTanh,
    kElu,
    kExp,
    kLog,
    kBnll,
    kPower,
    kConstant,
    kRelu6
};

// x = n log 2 + r; returns e^r - 1.
VD_INLINE float reduced(float x, float* n) {
    *n = __builtin_rintf(x * 1.44269504f);
    const float r = (x - *n * 0.693359375f) + *n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return p * r * r + r;
}

VD_INLINE float as_float(std::int32_t bits) {
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}
VD_INLINE std::int32_t as_bits(float value) {
    std::int32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}

// e^x; NaN passes.
VD_INLINE float exponential(float x) {
    float within = x < -104.f ? -104.f : x;  // below it is 0, and above 89 infinite
    within = within > 89.f ? 89.f : within;
    float n;
    const float power = reduced(within, &n) + 1.f;
    // 2^n in two factors: one alone is no float where the result is denormal or just finite.
    const std::int32_t e = x == x ? static_cast<std::int32_t>(n) : 0, half = e >> 1;
    return power * as_float((half + 127) << 23) * as_float((e - half + 127) << 23);
}

// e^x - 1 for x <= 0, with all digits near 0.
VD_INLINE float exponential_minus_1(float x) {
    const float within = x < -50.f ? -50.f : x;
    float n;
    const float rest = reduced(within, &n);
    const float factor = as_float(((x == x ? static_cast<std::int32_t>(n) : 0) + 127) << 23);
    return rest * factor + (factor - 1.f);
}

VD_INLINE float sigmoid(float x) {
    const float e = exponential(x > 0.f ? -x : x);
    return (x > 0.f ? 1.f : e) / (1.f + e);
}

VD_INLINE float hyperbolic_tangent(float x) {
    const float t = exponential_minus_1(x > 0.f ? -2.f * x : 2.f * x);
    const float size = t / (t + 2.f);
    return x > 0.f ? -size : size;
}

VD_INLINE float logarithm(float x) {
    const bool small = x < 1.17549435e-38f;  // denormal
    const std::int32_t bits = as_bits(small ? x * 33554432.f : x);
    // The mantissa in [sqrt(1/2), sqrt(2)) and its exponent.
    const std::int32_t shifted = bits - 0x3f3504f3;
    const float e = static_cast<float>((shifted >> 23) - (small ? 25 : 0));
    const float f = as_float((shifted & 0x7fffff) + 0x3f3504f3) - 1.f, z = f * f;
    float p = 7.0376836292e-2f;
    p = p * f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    const float y = p * f * z - 2.12194440e-4f * e - 0.5f * z;
    const float result = (f + y) + 0.693359375f * e;
    const float infinite = __builtin_inff();
    const float edge = x == 0.f ? -infinite : (x > 0.f ? infinite : __builtin_nanf(""));
    return x > 0.f && x < infinite ? result : edge;
}

// log(1 + e^x)
VD_INLINE float softplus(float x) {
    const float e = exponential(x > 0.f ? -x : x), sum = 1.f + e;
    return (x > 0.f ? x : 0.f) + (logarithm(sum) + (e - (sum - 1.f)) / sum);
}

VD_INLINE float clip(float x, float low, float high) {
    const float raised = x < low ? low : x;
    return raised > high ? high : raised;
}

template <class F>
VD_INLINE void map(Team* team, Index count, const float* x, float* y, const F& f) {
    parallel_parts(team, count, kPart, [=](Index first, Index last) {
        VD_ELEMENTWISE
        for (Index i = first; i < last; ++i) y[i] = f(x[i]);
    });
}

template <class F>
VD_INLINE void map_slope(Team* team, Index count, const float* x, const float* y, const float* dy,
                         float* dx, const F& f) {
    parallel_parts(team, count, kPart, [=](Index first, Index last) {
        VD_ELEMENTWISE
        for (Index i = first; i < last; ++i) dx[i] = dy[i] * f(x[i], y[i]);
    });
}

// y = (b x + c)^a
void power(Team* team, Index count, float a, float b, float c, const float* x, float* y) {
    if (a == 1.f) return map(team, count, x, y, [=](float v) { return v * b + c; });
    if (a == 2.f)
        return map(team, count, x, y, [=](float v) {
            const float inner = v * b + c;
            return inner * inner;
        });
    if (a == 0.5f)
        return map(team, count, x, y, [=](float v) { return __builtin_sqrtf(v * b + c); });
    if (a == -1.f) return map(team, count, x, y, [=](float v) { return 1.f / (v * b + c); });
    map(team, count, x, y, [=](float v) { return __builtin_powf(v * b + c, a); });
}

}  // namespace
}  // namespace verydeep::VD_ISA

using namespace verydeep;
using namespace verydeep::VD_ISA;

// y = f(x); see FunctionKind in runtime/backend/pointwise.py for the kinds and their parameters.
VD_EXPORT(function_forward)(Team* team, std::int64_t count, std::int64_t kind, float a, float b,
                            float c, const float* x, float* y) {
    switch (kind) {
        case kAbs: return map(team, count, x, y, [=](float v) { return __builtin_fabsf(v); });
        case kClip: return map(team, count, x, y, [=](float v) { return clip(v, a, b); });
        case kThreshold: return map(team, count, x, y, [=](float v) { return v > a ? 1.f : 0.f; });
        case kSigmoid: return map(team, count, x, y, [=](float v) { return sigmoid(a * v); });
        case kTanh: return map(team, count, x, y, [=](float v) { return hyperbolic_tangent(v); });
        case kElu:
            return map(team, count, x, y, [=](float v) {
                const float below = a * exponential_minus_1(v > 0.f ? 0.f : v);
                return v > 0.f ? v : below;
            });
        case kExp: return map(team, count, x, y, [=](float v) { return b * exponential(a * v); });
        case kLog: return map(team, count, x, y, [=](float v) { return c * logarithm(a * v + b); });
        case kBnll: return map(team, count, x, y, [=](float v) { return softplus(v); });
        case kPower: return power(team, count, a, b, c, x, y);
        case kRelu6: return map(team, count, x, y, [=](float v) { return clip(v, 0.f, 6.f); });
        default: return map(team, count, x, y, [=](float) { return a; });
    }
}
VD_REPEATABLE(function_forward)

// dx = dy f'(x), y = f(x)
VD_EXPORT(function_backward)(Team* team, std::int64_t count, std::int64_t kind, float a, float b,
                             float c, const float* x, const float* y, const float* dy, float* dx) {
    const auto by = [=](const auto& slope) { map_slope(team, count, x, y, dy, dx, slope); };
    switch (kind) {
        case kAbs:
            return by([=](float v, float) { return v > 0.f ? 1.f : (v < 0.f ? -1.f : 0.f); });
        case kClip: return by([=](float v, float) { return v >= a && v <= b ? 1.f : 0.f; });
        case kSigmoid: return by([=](float, float f) { return a * f * (1.f - f); });
        case kTanh: return by([=](float, float f) { return 1.f - f * f; });
        case kElu: return by([=](float v, float f) { return v > 0.f ? 1.f : a + f; });
        case kExp: return by([=](float, float f) { return a * f; });
        case kLog: return by([=](float v, float) { return a * c / (a * v + b); });
        case kBnll: return by([=](float v, float) { return sigmoid(v); });
        case kPower:
            if (a == 1.f) return by([=](float, float) { return b; });
            if (a == 2.f) return by([=](float v, float) { return a * b * (v * b + c); });
            return by([=](float v, float f) { return a * b * (f / (v * b + c)); });
        case kRelu6:
            return by([=](float, float f) { return f > 0.f && f < 6.f ? 1.f : 0.f; });
        default: return by([=](float, float) { return 0.f; });
    }
}
VD_REPEATABLE(function_backward)

// dx = dy (beta y + gate (1 - beta y))
VD_EXPORT(swish_backward)(Team* team, std::int64_t count, float beta, const float* gate,
                          const float* y, const float* dy, float* dx) {
    map_slope(team, count, gate, y, dy, dx, [=](float g, float f) {
        const float scaled = beta * f;
        return scaled + g * (1.f - scaled);
    });
}
VD_REPEATABLE(swish_backward)
