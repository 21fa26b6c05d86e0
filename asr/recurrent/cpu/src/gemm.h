// Products of tall matrices with packed weights. A panel holds the columns of PANEL = 2 W units, row after row of the
// inner dimension, so that the micro-kernel reads it front to back; an R x PANEL tile of sums stays in registers.
#pragma once
#include "vector.h"

namespace {

// Rows of a full tile: 2 R accumulators, two weights and a broadcast fill the vector registers.
constexpr int TILE = WIDTH == 16 ? 8 : WIDTH == 8 ? 6 : 4;
constexpr int ACCUMULATORS = 2 * TILE;
constexpr int64_t INNER_BLOCK = 1024;  // of the inner dimension; sums of several blocks keep more of their precision

// The left operand: R rows of K numbers, anywhere in memory ...
struct Rows {
    const float *const *row;
    float operator()(int r, int64_t k) const { return row[r][k]; }
};
// ... or packed, R numbers for each k.
template <int R>
struct Packed {
    const float *values;
    float operator()(int r, int64_t k) const { return values[k * R + r]; }
};

// out[r][g][:] (+)= sum over k of a(r, k) * panel g [k][:], for R rows and N panels `panel_stride` apart.
// The order of summation is k's alone, so a row's result does not depend on the rows beside it. With one lane the
// second half of each panel is known to be zero.
template <int R, int N, int LANES = 2, class Left>
inline __attribute__((always_inline)) void multiply(Left left, int64_t K, const float *panel, int64_t panel_stride,
                                                    float *out, int64_t row_stride, int64_t out_stride, bool add) {
    lane sum[R][N][LANES];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int g = 0; g < N; g++) sum[r][g][0] = sum[r][g][LANES - 1] = lane{};
    for (int64_t k = 0; k < K; k++) {
#pragma GCC unroll 4
        for (int g = 0; g < N; g++) {
            const float *w = panel + g * panel_stride + k * PANEL;
            lane w0 = load_lane(w), w1 = load_lane(w + W * (LANES - 1));
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                float a = left(r, k);
                sum[r][g][0] += a * w0;
                if (LANES == 2) sum[r][g][LANES - 1] += a * w1;
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int g = 0; g < N; g++) {
            float *to = out + r * row_stride + g * out_stride;
            store_lane(to, add ? load_lane(to) + sum[r][g][0] : sum[r][g][0]);
            if (LANES == 1)
                store_lane(to + W, lane{});
            else
                store_lane(to + W, add ? load_lane(to + W) + sum[r][g][LANES - 1] : sum[r][g][LANES - 1]);
        }
}

template <int R, int LANES>
__attribute__((noinline)) void multiply_packed(const float *left, int64_t K, const float *panel, float *out,
                                               int64_t row_stride, bool add) {
    for (int r = 0; r < R; r++) {  // comes from far away meanwhile
        prefetch<1>(out + r * row_stride);
        __builtin_prefetch(out + r * row_stride + PANEL - 1, 1);
    }
    multiply<R, 1, LANES>(Packed<R>{left}, K, panel, 0, out, row_stride, 0, add);
}

// Calls product.run<R, N>(first panel) until `panels` are done. Few rows leave registers free: then several panels are
// taken at once, so that enough sums are in flight.
template <int R, class Product>
void each_panel(int panels, const Product &product) {
    constexpr int fit = ACCUMULATORS / (Product::lanes * R), most = fit > 4 ? 4 : fit;
    for (int first = 0, count; first < panels; first += count) {
        count = panels - first < most ? panels - first : most;
        if (count == 1) product.template run<R, 1>(first);
        if constexpr (most >= 2)
            if (count == 2) product.template run<R, 2>(first);
        if constexpr (most >= 3)
            if (count == 3) product.template run<R, 3>(first);
        if constexpr (most >= 4)
            if (count == 4) product.template run<R, 4>(first);
    }
}

// One tile of R rows, 1 <= R <= TILE.
template <class Product>
void each_panel(int R, int panels, const Product &product) {
    switch (R) {
#define TILE_CASE(r) \
    case r:          \
        return each_panel<r>(panels, product);
        TILE_CASE(1)
        TILE_CASE(2)
        TILE_CASE(3)
        TILE_CASE(4)
#if WIDTH >= 8
        TILE_CASE(5)
        TILE_CASE(6)
#endif
#if WIDTH >= 16
        TILE_CASE(7)
        TILE_CASE(8)
#endif
#undef TILE_CASE
    }
}

template <int LANES>
struct FloatProduct {
    static constexpr int lanes = LANES;
    const float *const *rows;
    int64_t K;
    const float *panel;
    int64_t panel_stride;
    float *out;
    int64_t row_stride, out_stride;
    bool add;

    template <int R, int N>
    __attribute__((noinline)) void run(int first) const {
        const float *row[R];
        for (int r = 0; r < R; r++) row[r] = rows[r];
        multiply<R, N, LANES>(Rows{row}, K, panel + first * panel_stride, panel_stride, out + first * out_stride,
                              row_stride, out_stride, add);
    }
};

// One tile in blocks of the inner dimension, whose sums are added up at the end: long sums keep their precision.
template <int LANES>
void tile_product(int R, const float *const *rows, int64_t K, int panels, const float *panel, int64_t panel_stride,
                  float *out, int64_t row_stride, int64_t out_stride, bool add) {
    if (K <= INNER_BLOCK)
        return each_panel(R, panels,
                          FloatProduct<LANES>{rows, K, panel, panel_stride, out, row_stride, out_stride, add});
    const float *row[TILE];
    for (int64_t k = 0; k < K; k += INNER_BLOCK) {
        for (int r = 0; r < R; r++) row[r] = rows[r] + k;
        const int64_t block = K - k < INNER_BLOCK ? K - k : INNER_BLOCK;
        each_panel(R, panels, FloatProduct<LANES>{row, block, panel + k * PANEL, panel_stride, out, row_stride,
                                                  out_stride, add || k > 0});
    }
}

// The same where no more than `width` columns of each panel are not zero.
inline void tile_product(int64_t width, int R, const float *const *rows, int64_t K, int panels, const float *panel,
                         int64_t panel_stride, float *out, int64_t row_stride, int64_t out_stride, bool add = false) {
    (width > W ? tile_product<2> : tile_product<1>)(R, rows, K, panels, panel, panel_stride, out, row_stride,
                                                    out_stride, add);
}

inline int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// Cut `count` rows into tiles of equal height, give or take one: row where tile i of `tiles` starts.
inline int64_t tiles_for(int64_t count) { return (count + TILE - 1) / TILE; }
inline int64_t tile_start(int64_t count, int64_t tiles, int64_t i) { return count * i / tiles; }

// panel[k][j] = matrix[(first + j) * ld + k], zero for units from `units` on: weights (unit, k) used as x W^T.
inline void pack_transposed(float *panel, const float *matrix, int64_t ld, int64_t first, int64_t units, int64_t K) {
    for (int64_t half = 0; half < PANEL; half += W) {
        const float *rows = matrix + (first + half) * ld;
        const int64_t count = units - first - half;  // of these W units
        int64_t k = 0;
        for (; count >= W && k + W <= K; k += W) {
            lane square[W];
#pragma GCC unroll 16
            for (int j = 0; j < W; j++) square[j] = load_lane(rows + j * ld + k);
            transpose(square);
#pragma GCC unroll 16
            for (int j = 0; j < W; j++) store_lane(panel + (k + j) * PANEL + half, square[j]);
        }
        for (; k < K; k++)
            for (int64_t j = 0; j < W; j++) panel[k * PANEL + half + j] = j < count ? rows[j * ld + k] : 0;
    }
}

// panel[k][j] = row[first + j], zero from `units` on: one row of weights (k, unit) used as x W.
inline void pack_row(float *panel, const float *row, int64_t first, int64_t units) {
    store(panel, load_some(row + first, units - first));
}

}  // namespace
