// A vector of WIDTH floats and the functions a cell needs, in the compiler's own vector extensions: one source for
// AVX-512 (16), AVX2 (8) and every other machine (4).
#pragma once
#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t W = WIDTH;
constexpr int64_t PANEL = 2 * W;  // units that one pass of the micro-kernel covers

typedef float vec __attribute__((vector_size(4 * WIDTH)));
typedef int32_t ivec __attribute__((vector_size(4 * WIDTH)));
typedef float unaligned_vec __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

inline vec load(const float *p) { return *reinterpret_cast<const unaligned_vec *>(p); }
inline void store(float *p, vec v) { *reinterpret_cast<unaligned_vec *>(p) = v; }
inline vec splat(float value) { return vec{} + value; }

// The first `left` elements, zero behind them; left may be zero, negative or beyond W.
inline vec load_some(const float *p, int64_t left) {
    if (left >= W) return load(p);
    float padded[W] = {};
    if (left > 0) memcpy(padded, p, left * sizeof(float));
    return load(padded);
}
inline void store_some(float *p, vec v, int64_t left) {
    if (left >= W) return store(p, v);
    float padded[W];
    store(padded, v);
    if (left > 0) memcpy(p, padded, left * sizeof(float));
}

// `count` numbers, or zeros where there are none, followed by zeros up to `size`.
inline void copy_padded(float *to, const float *from, int64_t count, int64_t size) {
    for (int64_t j = 0; j < size; j++) to[j] = from && j < count ? from[j] : 0;
}

inline vec clamp(vec v, float bound) {  // NaN stays NaN
    v = v < -bound ? splat(-bound) : v;
    return v > bound ? splat(bound) : v;
}

// e^v = 2^n e^r with |r| <= ln 2 / 2: minimax fit of degree 6, error below 1 ulp.
inline vec exponential(vec v) {
    v = clamp(v, 87.0f);
    const float round = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    vec shifted = v * 1.44269504f + round;
    vec n = shifted - round;
    vec r = v - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = splat(0.001381456f);
    p = p * r + 0.0083687357f;
    p = p * r + 0.0416683899f;
    p = p * r + 0.1666652048f;
    p = p * r + 0.4999999344f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    ivec power = (reinterpret_cast<ivec>(shifted) << 23) + 0x3f800000;
    return p * reinterpret_cast<vec>(power);
}

inline vec sigmoid(vec v) { return 1.0f / (1.0f + exponential(-v)); }

// Near zero an odd polynomial (weighted minimax fit), so that small values keep their relative precision; elsewhere through e^2v.
inline vec hyperbolic_tangent(vec v) {
    vec square = v * v;
    vec p = splat(-0.0062316395f);
    p = p * square + 0.0210437216f;
    p = p * square - 0.053846105f;
    p = p * square + 0.1333253326f;
    p = p * square - 0.3333331621f;
    vec near_zero = v + v * square * p;
    vec elsewhere = 1.0f - 2.0f / (1.0f + exponential(2.0f * v));
    return square < 0.3f ? near_zero : elsewhere;
}

}  // namespace
