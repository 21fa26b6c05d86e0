// The weight matrices as the forward pass multiplies with them: packed into panels, of floats, bfloat16 or int8.
#pragma once
#include <type_traits>

#include "bfloat16.h"
#include "layer.h"
#include "quantized.h"

namespace {

// Left operands of a product, made narrow where the weights are.
struct NarrowRows {
    QuantizedRows integers;
    RoundedRows bfloats;

    // Bytes for `count` rows of up to K numbers.
    static int64_t bytes(int64_t kind, int64_t count, int64_t K) {
        if (kind == INT8) return count * QuantizedRows::row_bytes(K);
        return kind == BFLOAT16 ? count * RoundedRows::row_bytes(K) : 0;
    }
    void place(int64_t kind, void *memory, int64_t count) {
        if (kind == INT8) integers.place(memory, count);
        if (kind == BFLOAT16) bfloats.values = static_cast<RoundedRows::Element *>(memory);
    }
    // Row r from row_of(r), each of K numbers.
    template <class RowOf>
    void make(int64_t kind, int64_t count, int64_t K, RowOf row_of) {
        integers.ld = round_up(K, 4);
        bfloats.ld = round_up(K, 2);
        if constexpr (std::is_same_v<decltype(row_of(0)), const float *>)
            for (int64_t row = 0; row < count && kind == INT8; row++) integers.quantize(row, row_of(row), K);
        for (int64_t row = 0; row < count && kind == BFLOAT16; row++) bfloats.make(row, row_of(row), K);
    }
};

struct Matrix {
    int64_t kind, gates, units, inner;  // (gates * units, inner), packed gate by gate within each panel of units
    char *panels;

    int64_t panel_bytes() const {
        if (kind == INT8) return int8_panel_bytes(inner);
        return kind == BFLOAT16 ? bfloat16_panel_bytes(inner) : inner * PANEL * sizeof(float);
    }
    int64_t bytes() const { return round_up(units, PANEL) / PANEL * gates * panel_bytes(); }
    // The panels of all gates for the units from p * PANEL on.
    char *panel(int64_t p) const { return panels + p * gates * panel_bytes(); }

    // Panels first..end of every gate.
    void pack(const float *weights, int64_t first, int64_t end) const {
        for (int64_t p = first; p < end; p++)
            for (int64_t g = 0; g < gates; g++) {
                const float *from = weights + g * units * inner;
                if (kind == INT8)
                    pack_int8(panel(p), gates, g, from, inner, p * PANEL, units, inner);
                else if (kind == BFLOAT16)
                    pack_bfloat16(panel(p) + g * panel_bytes(), from, inner, p * PANEL, units, inner);
                else
                    pack_transposed(reinterpret_cast<float *>(panel(p) + g * panel_bytes()), from, inner, p * PANEL,
                                    units, inner);
            }
    }

    // out[r][i][:] (+)= rows r times `count` gates from `gate` on, over inner columns k to k + K. Narrow weights take
    // all columns at once, and `narrow` from `row` on instead of `rows`.
    void product(int64_t p, int gate, int count, int R, const float *const *rows, const NarrowRows &narrow, int64_t row,
                 int64_t k, int64_t K, float *out, int64_t row_stride, int64_t out_stride) const {
        if (kind == INT8)
            return each_panel(R, count, IntegerProduct{narrow.integers, row, panel(p), gates, gate, out, row_stride,
                                                       out_stride});
        if (kind == BFLOAT16)
            return each_panel(R, count, BfloatProduct{narrow.bfloats, row, panel(p) + gate * panel_bytes(), out,
                                                      row_stride, out_stride});
        const float *from = reinterpret_cast<const float *>(panel(p) + gate * panel_bytes());
        tile_product(units - p * PANEL, R, rows, K, count, from + k * PANEL, inner * PANEL, out, row_stride, out_stride, k > 0);
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
