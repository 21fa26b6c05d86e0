// Vectors and the functions a cell needs, in the compiler's own vector extensions: one source for AVX-512 (WIDTH 16
// floats a register), AVX2 (8) and every other machine (4).
#pragma once
#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t W = WIDTH;
constexpr int64_t PANEL = 2 * W;

typedef float lane __attribute__((vector_size(4 * WIDTH)));
typedef int32_t int_lane __attribute__((vector_size(4 * WIDTH)));
typedef float unaligned_lane __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

inline __attribute__((always_inline)) lane load_lane(const float *p) { return *reinterpret_cast<const unaligned_lane *>(p); }
inline __attribute__((always_inline)) void store_lane(float *p, lane v) { *reinterpret_cast<unaligned_lane *>(p) = v; }
inline __attribute__((always_inline)) lane splat_lane(float value) { return lane{} + value; }

// W rows of W numbers become W columns: rows interleaved with those half of the way on, log2(W) times.
#if WIDTH == 16
#define FIRST_HALVES 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define SECOND_HALVES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif WIDTH == 8
#define FIRST_HALVES 0, 8, 1, 9, 2, 10, 3, 11
#define SECOND_HALVES 4, 12, 5, 13, 6, 14, 7, 15
#else
#define FIRST_HALVES 0, 4, 1, 5
#define SECOND_HALVES 2, 6, 3, 7
#endif
#if defined(__clang__)
#define INTERLEAVE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define INTERLEAVE(a, b, ...) __builtin_shuffle(a, b, int_lane{__VA_ARGS__})
#endif
inline __attribute__((always_inline)) void transpose(lane *row) {
    lane next[W];
#pragma GCC unroll 4
    for (int round = 1; round < W; round *= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < W / 2; i++) {
            next[2 * i] = INTERLEAVE(row[i], row[i + W / 2], FIRST_HALVES);
            next[2 * i + 1] = INTERLEAVE(row[i], row[i + W / 2], SECOND_HALVES);
        }
#pragma GCC unroll 16
        for (int i = 0; i < W; i++) row[i] = next[i];
    }
}

// PANEL units: what a cell computes with. Two registers, because one alone would wait for its own results.
struct vec {
    lane low, high;
};

#define EACH_LANE(operation) \
    inline __attribute__((always_inline)) vec operator operation(vec a, vec b) {                                          \
        return {a.low operation b.low, a.high operation b.high};                           \
    }                                                                                      \
    inline __attribute__((always_inline)) vec operator operation(float a, vec b) { return {a operation b.low, a operation b.high}; } \
    inline __attribute__((always_inline)) vec operator operation(vec a, float b) { return {a.low operation b, a.high operation b}; }
EACH_LANE(+)
EACH_LANE(-)
EACH_LANE(*)
EACH_LANE(/)
#undef EACH_LANE
inline __attribute__((always_inline)) vec &operator+=(vec &a, vec b) { return a = a + b; }

inline __attribute__((always_inline)) vec load(const float *p) { return {load_lane(p), load_lane(p + W)}; }
inline __attribute__((always_inline)) void store(float *p, vec v) {
    store_lane(p, v.low);
    store_lane(p + W, v.high);
}
// Begin to fetch PANEL numbers.
template <int to_write>
inline __attribute__((always_inline)) void prefetch(const float *p) {
    for (int64_t j = 0; j < PANEL; j += 16) __builtin_prefetch(p + j, to_write);
}
inline __attribute__((always_inline)) vec splat(float value) { return {splat_lane(value), splat_lane(value)}; }

// The first `left` of PANEL numbers, zero behind them; left may be zero, negative or beyond PANEL.
inline __attribute__((always_inline)) vec load_some(const float *p, int64_t left) {
    if (left >= PANEL) return load(p);
    float padded[PANEL] = {};
    if (left > 0) memcpy(padded, p, left * sizeof(float));
    return load(padded);
}
inline __attribute__((always_inline)) void store_some(float *p, vec v, int64_t left) {
    if (left >= PANEL) return store(p, v);
    float padded[PANEL];
    store(padded, v);
    if (left > 0) memcpy(p, padded, left * sizeof(float));
}

// v with zeros from position `left` on.
inline __attribute__((always_inline)) vec only(vec v, int64_t left) {
    if (left >= PANEL) return v;
    float values[PANEL];
    store(values, v);
    return load_some(values, left);
}
inline __attribute__((always_inline)) float sum(vec v) {
    float values[PANEL], total = 0;
    store(values, v);
    for (float value : values) total += value;
    return total;
}

// `count` numbers, or zeros where there are none, followed by zeros up to `size`.
inline __attribute__((always_inline)) void copy_padded(float *to, const float *from, int64_t count, int64_t size) {
    for (int64_t j = 0; j < size; j++) to[j] = from && j < count ? from[j] : 0;
}

inline __attribute__((always_inline)) lane clamp(lane v, float bound) {  // NaN stays NaN
    v = v < -bound ? splat_lane(-bound) : v;
    return v > bound ? splat_lane(bound) : v;
}
inline __attribute__((always_inline)) vec clamp(vec v, float bound) { return {clamp(v.low, bound), clamp(v.high, bound)}; }

// value where |position| <= bound, zero elsewhere.
inline __attribute__((always_inline)) lane within(lane position, float bound, lane value) {
    value = position > bound ? splat_lane(0) : value;
    return position < -bound ? splat_lane(0) : value;
}
inline __attribute__((always_inline)) vec within(vec position, float bound, vec value) {
    return {within(position.low, bound, value.low), within(position.high, bound, value.high)};
}

// e^v = 2^n e^r with |r| <= ln 2 / 2: minimax fit of degree 6, error below 1 ulp.
inline __attribute__((always_inline)) lane exponential(lane v) {
    v = clamp(v, 87.0f);
    const float round = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    lane shifted = v * 1.44269504f + round;
    lane n = shifted - round;
    lane r = v - n * 0.693359375f + n * 2.12194440e-4f;
    lane p = splat_lane(0.001381456f);
    p = p * r + 0.0083687357f;
    p = p * r + 0.0416683899f;
    p = p * r + 0.1666652048f;
    p = p * r + 0.4999999344f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int_lane power = (reinterpret_cast<int_lane>(shifted) << 23) + 0x3f800000;
    return p * reinterpret_cast<lane>(power);
}

inline __attribute__((always_inline)) lane sigmoid(lane v) { return 1.0f / (1.0f + exponential(-v)); }

// Near zero an odd polynomial (weighted minimax fit), so that small values keep their relative precision; elsewhere
// through e^2v.
inline __attribute__((always_inline)) lane hyperbolic_tangent(lane v) {
    lane square = v * v;
    lane p = splat_lane(-0.0062316395f);
    p = p * square + 0.0210437216f;
    p = p * square - 0.053846105f;
    p = p * square + 0.1333253326f;
    p = p * square - 0.3333331621f;
    lane near_zero = v + v * square * p;
    lane elsewhere = 1.0f - 2.0f / (1.0f + exponential(2.0f * v));
    return square < 0.3f ? near_zero : elsewhere;
}

inline __attribute__((always_inline)) vec sigmoid(vec v) { return {sigmoid(v.low), sigmoid(v.high)}; }
inline __attribute__((always_inline)) vec hyperbolic_tangent(vec v) { return {hyperbolic_tangent(v.low), hyperbolic_tangent(v.high)}; }

}  // namespace
