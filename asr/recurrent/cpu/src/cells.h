// The cells, forward and backward, on vectors of units: ../../cells.py in C++. What a cell sees besides its gates' sums
// (states, noise, projection, storage) it reaches through `f`, a Forward or Backward.
//
// `slots` numbers what a frame saves for the backward pass. `d_slots` numbers the gradients of the gates' sums that a
// frame leaves for the weight gradients: those the recurrent weights multiplied come first, those of the input's
// share last; most are both. recurrent_gate(slot) and input_gate(slot) name the weights' gate of a slot, -1 for none.
#pragma once
#include <cmath>

#include "plan.h"
#include "vector.h"

namespace {

// i, f, o = sigma(...), g = tanh(...); c' = f c + i g; h' = o tanh(c'). Coupled: i = 1 - f, gates f, g, o.
template <bool coupled>
struct LongShortTerm {
    enum { I = 0, F = coupled ? 0 : 1, GG, O };
    static constexpr int gates = coupled ? 3 : 4, slots = gates + 1, C = gates, d_slots = gates;
    static constexpr int peepholes = coupled ? 2 : 3;
    static constexpr bool has_cell_state = true, gated_product = false;
    static constexpr bool recurrent_apart(int) { return false; }
    static constexpr int recurrent_gate(int slot) { return slot; }
    static constexpr int input_gate(int slot) { return slot; }

    template <class Forward>
    static inline void forward(Forward &f, const Site &s, const float *sums) {
        vec c = f.cell_state(s);
        vec i_sum = f.gate(s, sums, I), f_sum = f.gate(s, sums, F);
        if (f.peephole) {
            i_sum += f.peephole_of(s, 0) * c;
            if (!coupled) f_sum += f.peephole_of(s, 1) * c;
        }
        vec g = hyperbolic_tangent(f.gate(s, sums, GG));
        vec forget = sigmoid(coupled ? i_sum : f_sum);
        vec in = coupled ? 1.0f - forget : sigmoid(i_sum);
        vec c_new = f.clip_cell(forget * c + in * g);
        vec o_sum = f.gate(s, sums, O);
        if (f.peephole) o_sum += f.peephole_of(s, peepholes - 1) * c_new;
        vec o = sigmoid(o_sum);
        vec c_kept = f.keep_cell_state(s, c, c_new);
        if (!coupled) f.save(s, I, in);
        f.save(s, F, forget);
        f.save(s, GG, g);
        f.save(s, O, o);
        f.save(s, C, c_kept);
        f.emit_cell(s, o, c_new);
    }

    template <class Backward>
    static inline void backward(Backward &b, const Site &s, vec d_m) {
        vec forget = b.saved(s, F), g = b.saved(s, GG), o = b.saved(s, O), c = b.previous_cell_state(s, C);
        vec in = coupled ? 1.0f - forget : b.saved(s, I);
        vec c_raw = forget * c + in * g, c_new = b.clip_cell(c_raw);
        vec d_old = splat(0), d_o;
        vec d_c = b.cell_gradient(s, d_old);  // through zoneout: the new state's share, the old one's in d_old
        d_c += b.output_gradient(s, d_m, o, c_new, d_o);
        if (b.peephole) {
            d_c += b.peephole_of(s, peepholes - 1) * d_o;
            b.add_peephole(s, peepholes - 1, d_o * c_new);
        }
        d_c = b.unless_clipped(c_raw, d_c);
        vec d_g = d_c * in * (1.0f - g * g);
        vec d_f = d_c * (coupled ? c - g : c) * forget * (1.0f - forget);
        vec d_i = coupled ? splat(0) : d_c * g * in * (1.0f - in);
        d_old += d_c * forget;
        if (b.peephole) {
            if (!coupled) {
                d_old += b.peephole_of(s, 0) * d_i;
                b.add_peephole(s, 0, d_i * c);
            }
            d_old += b.peephole_of(s, peepholes - 2) * d_f;
            b.add_peephole(s, peepholes - 2, d_f * c);
        }
        b.carry_cell(s, d_old);
        if (!coupled) b.gate(s, I, d_i);
        b.gate(s, F, d_f);
        b.gate(s, GG, d_g);
        b.gate(s, O, d_o);
    }
};

// GRU, reset gate after the product, as torch: n = tanh(x_n + r (W_hn h + b_hn)); h' = (1 - z) n + z h.
struct GatedAfter {
    enum { R, Z, N, HN };              // saved
    enum { D_HN, D_R, D_Z, D_XN };     // gradients: W_hn h and x_n differ by the factor r
    static constexpr int gates = 3, slots = 4, d_slots = 4, peepholes = 0;
    static constexpr bool has_cell_state = false, gated_product = false;
    static constexpr bool recurrent_apart(int gate) { return gate == N; }
    static constexpr int recurrent_gate(int slot) { return slot == D_XN ? -1 : (slot + 2) % 3; }
    static constexpr int input_gate(int slot) { return slot - 1; }

    template <class Forward>
    static inline void forward(Forward &f, const Site &s, const float *sums) {
        vec r = sigmoid(f.gate(s, sums, R)), z = sigmoid(f.gate(s, sums, Z));
        vec hn = f.recurrent_share(s, sums, N);
        vec n = hyperbolic_tangent(f.input_share(s, N) + r * hn);
        f.save(s, R, r);
        f.save(s, Z, z);
        f.save(s, N, n);
        f.save(s, HN, hn);
        f.emit(s, (1.0f - z) * n + z * f.hidden_state(s));
    }

    template <class Backward>
    static inline void backward(Backward &b, const Site &s, vec d_h) {
        vec r = b.saved(s, R), z = b.saved(s, Z), n = b.saved(s, N), h = b.previous_hidden_state(s);
        vec d_n = d_h * (1.0f - z) * (1.0f - n * n);
        b.gate(s, D_HN, d_n * r);
        b.gate(s, D_R, d_n * b.saved(s, HN) * r * (1.0f - r));
        b.gate(s, D_Z, d_h * (h - n) * z * (1.0f - z));
        b.gate(s, D_XN, d_n);
        b.carry_hidden(s, d_h * z);
    }
};

// GRU as published, reset gate before the product: n = tanh(x_n + W_hn (r h) + b_hn). A step has two products.
struct GatedBefore {
    enum { R, Z, N };
    static constexpr int gates = 3, slots = 3, d_slots = 3, peepholes = 0;
    static constexpr bool has_cell_state = false, gated_product = true;
    static constexpr bool recurrent_apart(int) { return false; }
    static constexpr int recurrent_gate(int slot) { return slot; }
    static constexpr int input_gate(int slot) { return slot; }

    template <class Forward>
    static inline void forward(Forward &f, const Site &s, const float *sums) {
        vec r = sigmoid(f.gate(s, sums, R)), z = sigmoid(f.gate(s, sums, Z));
        f.save(s, R, r);
        f.save(s, Z, z);
        f.keep_update_gate(s, z);
        f.to_product(s, r * f.masked_hidden_state(s));
    }

    // After the product W_hn (r h).
    template <class Forward>
    static inline void forward_product(Forward &f, const Site &s, const float *sum) {
        vec n = hyperbolic_tangent(load(sum) + f.input_share(s, N));
        vec z = f.update_gate(s);
        f.save(s, N, n);
        f.output(s, (1.0f - z) * n + z * f.hidden_state(s));
    }

    template <class Backward>
    static inline void backward(Backward &b, const Site &s, vec d_h) {
        vec z = b.saved(s, Z), n = b.saved(s, N), h = b.previous_hidden_state(s);
        b.gate(s, N, d_h * (1.0f - z) * (1.0f - n * n));
        b.gate(s, Z, d_h * (h - n) * z * (1.0f - z));
        b.carry_hidden(s, d_h * z);
    }

    // d_rh: gradient of r h, after the product with W_hn.
    template <class Backward>
    static inline void backward_product(Backward &b, const Site &s, vec d_rh) {
        vec r = b.saved(s, R), mask = b.mask_of(s);
        b.gate(s, R, d_rh * b.previous_hidden_state(s) * mask * r * (1.0f - r));
        b.carry_hidden(s, d_rh * r * mask);
    }
};

// h' = tanh(...).
struct Simple {
    static constexpr int gates = 1, slots = 1, d_slots = 1, peepholes = 0;
    static constexpr bool has_cell_state = false, gated_product = false;
    static constexpr bool recurrent_apart(int) { return false; }
    static constexpr int recurrent_gate(int slot) { return slot; }
    static constexpr int input_gate(int slot) { return slot; }

    template <class Forward>
    static inline void forward(Forward &f, const Site &s, const float *sums) {
        vec n = hyperbolic_tangent(f.gate(s, sums, 0));
        f.save(s, 0, n);
        f.emit(s, n);
    }

    template <class Backward>
    static inline void backward(Backward &b, const Site &s, vec d_h) {
        vec n = b.saved(s, 0);
        b.gate(s, 0, d_h * (1.0f - n * n));
    }
};

// Every cell, by its name in ../../cells.py's Cell.fused.
#define EACH_CELL(cell)                \
    cell(lstm, LongShortTerm<false>)   \
    cell(cifg, LongShortTerm<true>)    \
    cell(gru_after, GatedAfter)        \
    cell(gru_before, GatedBefore)      \
    cell(rnn_tanh, Simple)

// Slots of a frame in the reserve: the cell's own; with layer normalization the normalized recurrent and input shares,
// the normalized cell state and the inverse deviations of the three; the projection's input and, when it is clipped,
// its output.
template <class Cell>
struct Slots {
    int64_t recurrent, input, cell, deviations, emitted, projected, count;

    explicit Slots(const Layer &layer) {
        const bool normalized = layer.direction[0].norm_hh_weight, has_projection = layer.output < layer.hidden;
        recurrent = Cell::slots;
        input = recurrent + Cell::gates;
        cell = input + Cell::gates;
        deviations = cell + 1;
        emitted = normalized ? deviations + 1 : Cell::slots;
        projected = emitted + 1;
        count = emitted + (has_projection ? 1 + (layer.proj_clip > 0) : 0);
    }
};

// Layer normalization (Ba et al. 2016) of `gates` times H values, in place; zeros fill up each gate to Hp.
// Returns the inverse standard deviation.
inline float normalize(float *values, int gates, int64_t H, int64_t Hp) {
    vec total = splat(0), squares = splat(0);
    for (int64_t j = 0; j < gates * Hp; j += PANEL) total += load(values + j);
    const float mean = sum(total) / (gates * H);
    for (int64_t j = 0; j < gates * Hp; j += PANEL) {
        vec centered = only(load(values + j) - mean, H - j % Hp);
        squares += centered * centered;
        store(values + j, centered);
    }
    const float inverse = 1.0f / sqrtf(sum(squares) / (gates * H) + 1e-5f);
    for (int64_t j = 0; j < gates * Hp; j += PANEL) store(values + j, load(values + j) * inverse);
    return inverse;
}

}  // namespace
