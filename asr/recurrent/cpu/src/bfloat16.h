// Products of bfloat16 with bfloat16, summed in float: left rows and weights are rounded to the nearest, ties to even.
// Weights lie in pairs of neighbors of the inner dimension, as the instruction made for them multiplies and adds them
// (AVX512-BF16: two products a unit at once). Without it the left rows stay floats, of bfloat16's precision, and the
// weights are widened in registers: half the bytes to read.
#pragma once
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "gemm.h"

namespace {

typedef uint16_t half_word_lane __attribute__((vector_size(2 * WIDTH)));

// W numbers rounded, each the upper half of its word.
inline __attribute__((always_inline)) int_lane round_to_bfloat16(lane v) {
    int_lane bits = reinterpret_cast<int_lane>(v);
    int_lane rounded = bits + 0x7fff + (bits >> 16 & 1);
    return (v == v ? rounded : bits | 0x400000) & int32_t(0xffff0000);
}
inline __attribute__((always_inline)) void store_element(float *to, int_lane rounded, int64_t count) {
    memcpy(to, &rounded, count * sizeof(float));
}
inline __attribute__((always_inline)) void store_element(uint16_t *to, int_lane rounded, int64_t count) {
    half_word_lane halves = __builtin_convertvector(rounded >> 16, half_word_lane);
    memcpy(to, &halves, count * sizeof(uint16_t));
}

// `count` numbers rounded, followed by zeros up to `size`; as floats or in 16 bits.
template <class Element>
inline __attribute__((always_inline)) void round_to_bfloat16(Element *to, const float *from, int64_t count,
                                                             int64_t size) {
    int64_t k = 0;
    for (; k + W <= count; k += W) store_element(to + k, round_to_bfloat16(load_lane(from + k)), W);
    for (; k < size; k += W) {
        float padded[W] = {};
        if (k < count) memcpy(padded, from + k, (count - k) * sizeof(float));
        store_element(to + k, round_to_bfloat16(load_lane(padded)), size - k < W ? size - k : W);
    }
}

// The first `left` of PANEL numbers.
inline __attribute__((always_inline)) void store_bfloat16(uint16_t *to, vec v, int64_t left) {
    store_element(to, round_to_bfloat16(v.low), left < W ? left : W);
    if (left > W) store_element(to + W, round_to_bfloat16(v.high), left < PANEL ? left - W : W);
}

// Rows of float made bfloat16. `ld` of them a row, an even number; a zero fills up.
struct RoundedRows {
#if defined(__AVX512BF16__)
    typedef uint16_t Element;
#else
    typedef float Element;
#endif
    Element *values;
    int64_t ld;

    static int64_t row_bytes(int64_t K) { return round_up(K, 2) * sizeof(Element); }
    void make(int64_t row, const float *from, int64_t K) { round_to_bfloat16(values + row * ld, from, K, ld); }
    void make(int64_t row, const uint16_t *from, int64_t K) {
        Element *to = values + row * ld;
        for (int64_t k = 0; k < ld; k++) {
            const uint32_t bits = k < K ? from[k] : 0;
#if defined(__AVX512BF16__)
            to[k] = bits;
#else
            const uint32_t wide = bits << 16;
            memcpy(to + k, &wide, sizeof(wide));
#endif
        }
    }
};

// A panel of bfloat16: for each two inner rows the pairs of the low W units, then of the high ones.
inline int64_t bfloat16_panel_bytes(int64_t K) { return PANEL * round_up(K, 2) * sizeof(uint16_t); }

inline void pack_bfloat16(char *panel, const float *matrix, int64_t ld, int64_t first, int64_t units, int64_t K) {
    constexpr int64_t LINE = 32;  // of each row at a time, so that what is written stays in the nearest cache
    uint16_t rounded[PANEL][LINE];
    for (int64_t begin = 0; begin < K; begin += LINE) {
        const int64_t count = K - begin < LINE ? K - begin : LINE, even = round_up(count, 2);
        for (int64_t j = 0; j < PANEL; j++) {
            const bool unit = first + j < units;
            round_to_bfloat16(rounded[j], unit ? matrix + (first + j) * ld + begin : nullptr, unit ? count : 0, even);
        }
        for (int64_t k = 0; k < even; k += 2) {
            char *to = panel + (begin + k) * 2 * PANEL;
            for (int64_t j = 0; j < PANEL; j++) memcpy(to + 4 * j, rounded[j] + k, 4);
        }
    }
}

// As FloatProduct: out[r][g][:] = row r times panel g, for R rows from `first_row` on and panels from `panel` on.
struct BfloatProduct {
    static constexpr int lanes = 2;
    const RoundedRows &left;
    int64_t first_row;
    const char *panel;
    float *out;
    int64_t row_stride, out_stride;

    template <int R, int N>
    __attribute__((noinline)) void run(int first) const {
        lane sum[R][N][2];
        const RoundedRows::Element *row[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            row[r] = left.values + (first_row + r) * left.ld;
#pragma GCC unroll 4
            for (int g = 0; g < N; g++) sum[r][g][0] = sum[r][g][1] = lane{};
        }
        const int64_t ld = left.ld, panel_bytes = ld * 2 * PANEL;
        const char *pairs = panel + first * panel_bytes;
        for (int64_t k = 0; k < ld; k += 2, pairs += 4 * PANEL) {
#pragma GCC unroll 4
            for (int g = 0; g < N; g++) {
                const float *words = reinterpret_cast<const float *>(pairs + g * panel_bytes);
                const lane low = load_lane(words), high = load_lane(words + W);
#pragma GCC unroll 8
                for (int r = 0; r < R; r++) add_pair(sum[r][g], row[r] + k, low, high);
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int g = 0; g < N; g++) {
                float *to = out + r * row_stride + (first + g) * out_stride;
                store_lane(to, sum[r][g][0]);
                store_lane(to + W, sum[r][g][1]);
            }
    }

   private:
    // sum += left[0] times the first of each pair + left[1] times the second.
#if defined(__AVX512BF16__)
    static __attribute__((always_inline)) void add_pair(lane *sum, const uint16_t *left, lane low, lane high) {
        int32_t pair;
        memcpy(&pair, left, sizeof(pair));
        const __m512bh both = (__m512bh)(int_lane{} + pair);
        sum[0] = (lane)_mm512_dpbf16_ps((__m512)sum[0], (__m512bh)low, both);
        sum[1] = (lane)_mm512_dpbf16_ps((__m512)sum[1], (__m512bh)high, both);
    }
#else
    static __attribute__((always_inline)) void add_pair(lane *sum, const float *left, lane low, lane high) {
        sum[0] += left[0] * first_of(low);
        sum[1] += left[0] * first_of(high);
        sum[0] += left[1] * second_of(low);
        sum[1] += left[1] * second_of(high);
    }
    static lane first_of(lane pairs) {
        return reinterpret_cast<lane>(reinterpret_cast<int_lane>(pairs) << 16);
    }
    static lane second_of(lane pairs) {
        return reinterpret_cast<lane>(reinterpret_cast<int_lane>(pairs) & int32_t(0xffff0000));
    }
#endif
};

}  // namespace
