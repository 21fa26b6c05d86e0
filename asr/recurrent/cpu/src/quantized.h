// Products with int8 weights: each unit's weights are integers of at most 127 times the unit's scale. The left rows are
// made 16-bit integers, so that all of the error is the weights'. Integers are multiplied and added in pairs of
// neighbors of the inner dimension, as the processor's instructions want them. A 16-bit word holds weights of two
// pairs: one in its high byte, out of which a shift takes it, and one, raised by 128, in its low byte, out of which a
// mask takes it; what the raising adds to a row's sums is the same for all units. (Widening bytes by the instruction
// made for it runs half as fast on Zen 3.)
#pragma once
#include <cmath>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "gemm.h"

namespace {

typedef int16_t short_lane __attribute__((vector_size(4 * WIDTH)));       // W pairs
typedef int16_t half_short_lane __attribute__((vector_size(2 * WIDTH)));  // W values

// sum[j] + a[2j] b[2j] + a[2j + 1] b[2j + 1]
inline __attribute__((always_inline)) int_lane add_products(int_lane sum, short_lane a, short_lane b) {
#if WIDTH == 16 && defined(__AVX512VNNI__)  // all of it in one instruction
    return reinterpret_cast<int_lane>(_mm512_dpwssd_epi32(
        reinterpret_cast<__m512i>(sum), reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif WIDTH == 16 && defined(__AVX512BW__)
    return sum + reinterpret_cast<int_lane>(
                     _mm512_madd_epi16(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif WIDTH == 8 && defined(__AVX2__)
    return sum + reinterpret_cast<int_lane>(
                     _mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#elif WIDTH == 4 && defined(__SSE2__)
    return sum +
           reinterpret_cast<int_lane>(_mm_madd_epi16(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#else
    for (int j = 0; j < W; j++) sum[j] += a[2 * j] * b[2 * j] + a[2 * j + 1] * b[2 * j + 1];
    return sum;
#endif
}

inline __attribute__((always_inline)) short_lane splat_pair(const int16_t *p) {
    int32_t pair;
    memcpy(&pair, p, sizeof(pair));
    return reinterpret_cast<short_lane>(int_lane{} + pair);
}

// Rows of float made integers, each with its scale. `integers` holds `ld` a row, a multiple of 4; zeros fill up.
struct QuantizedRows {
    int16_t *integers;
    float *scales;
    int32_t *raised;  // what a row's sums have too much
    int64_t ld;

    static int64_t row_bytes(int64_t K) {
        return sizeof(float) + sizeof(int32_t) + round_up(K, 4) * sizeof(int16_t);
    }
    void place(void *memory, int64_t count) {
        scales = static_cast<float *>(memory);
        raised = reinterpret_cast<int32_t *>(scales + count);
        integers = reinterpret_cast<int16_t *>(raised + count);
    }

    // The largest integer with which no sum over K overflows 31 bits: weights are up to 127 or, raised, 255.
    static float largest(int64_t K) {
        const double most = 2147483647.0 / ((127 + 255) / 2.0 * (K + 4));
        return most < 32767 ? floor(most) : 32767;
    }

    void quantize(int64_t row, const float *values, int64_t K) {
        const float most = largest(K);
        vec peak = splat(0), poison = splat(0);
        for (int64_t k = 0; k < K; k += PANEL) {
            vec v = load_some(values + k, K - k);
            poison += v * 0.0f;  // NaN where a value is not finite: the results shall be NaN too
            peak = {v.low > peak.low ? v.low : peak.low, v.high > peak.high ? v.high : peak.high};
            peak = {-v.low > peak.low ? -v.low : peak.low, -v.high > peak.high ? -v.high : peak.high};
        }
        float bounds[PANEL], bound = 0;
        store(bounds, peak);
        for (float value : bounds) bound = value > bound ? value : bound;
        scales[row] = bound / most + sum(poison);
        const float inverse = bound > 0 ? most / bound : 0;
        const float round = 12582912.0f;  // 1.5 * 2^23, see exponential()
        int16_t *to = integers + row * ld;
        for (int64_t k = 0; k < ld; k += PANEL) {
            vec v = load_some(values + k, K - k) * inverse + round;
            store_shorts(to + k, v.low, ld - k);
            store_shorts(to + k + W, v.high, ld - k - W);
        }
        raised[row] = 0;
        for (int64_t k = 0; k < ld; k += 4) raised[row] += 128 * (to[k + 2] + to[k + 3]);
    }

   private:
    static void store_shorts(int16_t *to, lane shifted, int64_t left) {
        half_short_lane values =
            __builtin_convertvector(reinterpret_cast<int_lane>(shifted) - 0x4b400000, half_short_lane);
        memcpy(to, &values, left >= W ? sizeof(values) : left > 0 ? left * sizeof(int16_t) : 0);
    }
};

// Panels of int8, those of a unit's gates woven into one stream: PANEL scales a gate; then for each four inner rows and
// gate the words of the low W units and of the high ones. Word 2 j + i of unit j has inner row i in its high byte and
// row 2 + i in its low one.
inline int64_t int8_panel_bytes(int64_t K) { return PANEL * (sizeof(float) + round_up(K, 4)); }

inline void pack_int8(char *panels, int64_t gates, int64_t gate, const float *matrix, int64_t ld, int64_t first,
                      int64_t units, int64_t K) {
    float *scales = reinterpret_cast<float *>(panels) + gate * PANEL;
    uint16_t *words = reinterpret_cast<uint16_t *>(panels + gates * PANEL * sizeof(float)) + gate * 2 * PANEL;
    for (int64_t j = 0; j < PANEL; j++) {
        const float *row = first + j < units ? matrix + (first + j) * ld : nullptr;
        float bound = 0, poison = 0;
        for (int64_t k = 0; row && k < K; k++) {
            bound = fabsf(row[k]) > bound ? fabsf(row[k]) : bound;
            poison += row[k] * 0.0f;  // as in quantize()
        }
        const float scale = bound / 127 > 0 ? bound / 127 : 1;
        scales[j] = scale + poison;
        auto integer = [=](int64_t k) { return row && k < K && poison == 0 ? int(nearbyintf(row[k] / scale)) : 0; };
        for (int64_t k = 0; k < K; k += 4)
            for (int64_t i = 0; i < 2; i++)
                words[k / 4 * gates * 2 * PANEL + 2 * j + i] =
                    uint8_t(integer(k + i)) << 8 | uint8_t(integer(k + 2 + i) + 128);
    }
}

// As FloatProduct: out[r][g][:] = row r times gate g's panel, for R rows from `first_row` on and gates from `gate` on.
struct IntegerProduct {
    static constexpr int lanes = 2;
    const QuantizedRows &left;
    int64_t first_row;
    const char *panels;
    int64_t gates, gate;
    float *out;
    int64_t row_stride, out_stride;

    template <int R, int N>
    __attribute__((noinline)) void run(int first) const {
        int_lane sum[R][N][2];
        const int16_t *row[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            row[r] = left.integers + (first_row + r) * left.ld;
#pragma GCC unroll 4
            for (int g = 0; g < N; g++) sum[r][g][0] = sum[r][g][1] = int_lane{};
        }
        const float *scales = reinterpret_cast<const float *>(panels) + (gate + first) * PANEL;
        const char *words = panels + (gates + gate + first) * 4 * PANEL;
        const int64_t ld = left.ld, stride = gates * 4 * PANEL;
        for (int64_t k = 0; k < ld; k += 4, words += stride) {
#pragma GCC unroll 4
            for (int g = 0; g < N; g++)
#pragma GCC unroll 2
                for (int half = 0; half < 2; half++) {
                    short_lane pairs;
                    memcpy(&pairs, words + g * 4 * PANEL + half * sizeof(pairs), sizeof(pairs));
#if defined(__AVX512BW__)
                    asm("" : "+v"(pairs));  // read once: the compiler would read memory in both of the next instructions
#endif
                    const short_lane first_pair = pairs >> 8, second_pair = pairs & 0xff;
#pragma GCC unroll 8
                    for (int r = 0; r < R; r++) {
                        sum[r][g][half] = add_products(sum[r][g][half], splat_pair(row[r] + k), first_pair);
                        sum[r][g][half] = add_products(sum[r][g][half], splat_pair(row[r] + k + 2), second_pair);
                    }
                }
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int g = 0; g < N; g++) {
                const float scale = left.scales[first_row + r];
                const int32_t raised = left.raised[first_row + r];
                const float *unit_scale = scales + g * PANEL;
                float *to = out + r * row_stride + (first + g) * out_stride;
                store_lane(to, __builtin_convertvector(sum[r][g][0] - raised, lane) * (scale * load_lane(unit_scale)));
                store_lane(to + W,
                           __builtin_convertvector(sum[r][g][1] - raised, lane) * (scale * load_lane(unit_scale + W)));
            }
    }
};

}  // namespace
