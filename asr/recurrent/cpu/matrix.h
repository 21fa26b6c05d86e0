// The weight matrices as the forward pass multiplies with them: packed into panels, of floats, bfloat16 or int8.
#pragma once
#include "layer.h"
#include "quantised.h"

namespace {

struct Matrix {
    int64_t kind, gates, units, inner;  // (gates * units, inner), packed gate by gate within each panel of units
    char *panels;

    int64_t panel_bytes() const {
        return kind == INT8 ? int8_panel_bytes(inner) : inner * PANEL * (kind == BFLOAT16 ? 2 : 4);
    }
    int64_t bytes() const { return round_up(units, PANEL) / PANEL * gates * panel_bytes(); }
    const char *panel(int64_t p, int gate) const { return panels + (p * gates + gate) * panel_bytes(); }

    // Panels first..end of every gate.
    void pack(const float *weights, int64_t first, int64_t end) const {
        for (int64_t p = first; p < end; p++)
            for (int64_t g = 0; g < gates; g++) {
                char *to = panels + (p * gates + g) * panel_bytes();
                const float *from = weights + g * units * inner;
                if (kind == INT8)
                    pack_int8(panels + p * gates * panel_bytes(), gates, g, from, inner, p * PANEL, units, inner);
                else if (kind == BFLOAT16)
                    pack_bfloat16(reinterpret_cast<uint16_t *>(to), from, inner, p * PANEL, units, inner);
                else
                    pack_transposed(reinterpret_cast<float *>(to), from, inner, p * PANEL, units, inner);
            }
    }

    // out[r][i][:] (+)= rows r times `count` gates from `gate` on, over inner columns k to k + K: all of them for int8,
    // which takes `quantised` from `row` on instead of `rows`.
    void product(int64_t p, int gate, int count, int R, const float *const *rows, const QuantisedRows &quantised,
                 int64_t row, int64_t k, int64_t K, float *out, int64_t row_stride, int64_t out_stride) const {
        const char *from = panel(p, gate);
        if (kind == INT8)
            return tile_product_int8(R, quantised, row, panel(p, 0), gates, gate, count, out, row_stride, out_stride);
        if (kind == BFLOAT16)
            return tile_product(R, rows, K, count, reinterpret_cast<const bfloat_pair *>(from) + k * W, inner * W, out,
                                row_stride, out_stride, k > 0);
        tile_product(R, rows, K, count, reinterpret_cast<const float *>(from) + k * PANEL, inner * PANEL, out,
                     row_stride, out_stride, k > 0);
    }

   private:
    // To the nearest, ties to even.
    static uint16_t bfloat16(float value) {
        uint32_t bits;
        memcpy(&bits, &value, sizeof(bits));
        if (value != value) return bits >> 16 | 0x40;
        return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    }
    static void pack_bfloat16(uint16_t *panel, const float *matrix, int64_t ld, int64_t first, int64_t units,
                              int64_t K) {
        for (int64_t j = 0; j < PANEL; j++)
            for (int64_t k = 0; k < K; k++)  // the pair of units j and j + W
                panel[k * PANEL + (j < W ? 2 * j : 2 * (j - W) + 1)] =
                    first + j < units ? bfloat16(matrix[(first + j) * ld + k]) : 0;
    }
};

// The matrices of one direction, one after the other in memory.
struct Matrices {
    Matrix ih, hh, hr;

    Matrices(const Layer &layer, int64_t gates)
        : ih{layer.weight_kind, gates, layer.hidden, layer.input, nullptr},
          hh{layer.weight_kind, gates, layer.hidden, layer.output, nullptr},
          hr{layer.weight_kind, layer.output < layer.hidden ? 1 : 0, layer.output, layer.hidden, nullptr} {}

    int64_t bytes() const { return ih.bytes() + hh.bytes() + hr.bytes(); }
    void place(void *memory) {
        ih.panels = static_cast<char *>(memory);
        hh.panels = ih.panels + ih.bytes();
        hr.panels = hh.panels + hh.bytes();
    }
};

}  // namespace
