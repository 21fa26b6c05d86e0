// Back through layer normalization (Ba et al. 2016).
#pragma once
#include "layer.h"
#include "vector.h"

namespace {

// The gradient before a normalization, from d after it: with e = weight d, inverse (e - mean(e) - n mean(e n)).
inline void denormalize(float *out, const float *d, const float *weight, const float *n, int gates, int64_t H,
                        int64_t Hp, float inverse) {
    vec plain = splat(0), weighted = splat(0);
    for (int64_t j = 0; j < gates * Hp; j += PANEL) {
        vec e = load(d + j) * load(weight + j);
        plain += e;
        weighted += e * load(n + j);
    }
    const float mean = sum(plain) / (gates * H), slope = sum(weighted) / (gates * H);
    for (int64_t j = 0; j < gates * Hp; j += PANEL)
        store(out + j, (load(d + j) * load(weight + j) - mean - load(n + j) * slope) * inverse);
}

// The normalizations' own gradients and the biases', summed over rows in their order.
template <int G>
void norm_gradients(const Direction &own, int64_t batch, const float *d_norm, float *d_bias, int64_t H, int64_t Hp,
                    int64_t first, int64_t end) {
    for (int64_t j = first * PANEL; j < end * PANEL && j < H; j++) {
        auto total = [&](int slot) {
            float value = 0;
            for (int64_t row = 0; row < batch; row++) value += d_norm[(row * (3 * G + 2) + slot) * Hp + j];
            return value;
        };
        for (int g = 0; g < G; g++) {
            const float d = total(g);
            d_bias[g * Hp + j] = d_bias[(G + g) * Hp + j] = d;
            own.d_norm_hh_bias[g * H + j] = own.d_norm_ih_bias[g * H + j] = d;
            own.d_norm_hh_weight[g * H + j] = total(G + g);
            own.d_norm_ih_weight[g * H + j] = total(2 * G + g);
        }
        own.d_norm_cell_bias[j] = total(3 * G);
        own.d_norm_cell_weight[j] = total(3 * G + 1);
    }
}

}  // namespace
