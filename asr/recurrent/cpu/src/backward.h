// The backward pass of one direction, from the walk's end to its start: the gates' gradients of the step ahead times
// the recurrent weights and, while the sums are in the nearest cache, the cell's derivatives. The weight gradients
// and the input's are one product each over all frames afterwards.
#pragma once
#include <cmath>

#include "cells.h"
#include "gemm.h"
#include "norm_backward.h"
#include "plan.h"
#include "weight_gradients.h"

namespace {

template <class Cell>
class Backward {
   public:
    static constexpr int G = Cell::gates;
    static constexpr int RECURRENT = Cell::gated_product ? 2 : G;  // slots that W_hh carries to the step before

    Backward(const Layer &layer, const Plan &plan, int64_t index)
        : layer(layer),
          plan(plan),
          walk{plan, index == 1},
          own(layer.direction[index]),
          index(index),
          H(layer.hidden),
          P(layer.output),
          Hp(round_up(H, PANEL)),
          Pp(round_up(P, PANEL)),
          slots(layer),
          width(slots.count * Hp),
          normalized(own.norm_hh_weight),
          d_slots(normalized ? 2 * G : Cell::d_slots),
          first_input(d_slots - G),
          d_ld(d_slots * Hp + 16) {}  // an odd number of cache lines, so that frames do not share cache sets

    // Lay out the memory that the whole team uses; every member then runs a copy of this object.
    bool prepare(Buffer &shared, Buffer &gradients) {
        int64_t B = plan.batch;
        const int64_t sums = normalized ? 3 * G + 2 : 0;  // rows of d_norm an utterance
        float *next = shared.take<float>(B * (2 * Pp + Hp) + (d_slots + 2 * Cell::peepholes) * Hp +
                                         (normalized ? B * (3 + sums) + 2 * G + 2 : 0) * Hp);
        d_gates = gradients.take<float>(plan.valid * (d_ld + (own.weight_hr ? Pp : 0)));
        if (!next || !d_gates) return false;
        d_projected = d_gates + plan.valid * d_ld;
        auto cut = [&next](int64_t count) {
            float *piece = next;
            next += count;
            return piece;
        };
        carry_h = cut(B * Pp);
        mask = cut(B * Pp);
        carry_c = cut(B * Hp);
        d_bias = cut(d_slots * Hp);
        d_peephole = cut(Cell::peepholes * Hp);
        float *peepholes = cut(Cell::peepholes * Hp);
        for (int64_t row = 0; row < B; row++) {
            int64_t b = plan.utterance[row];
            copy_padded(mask + row * Pp, own.mask ? own.mask + b * P : nullptr, P, Pp);
            copy_padded(carry_h + row * Pp, own.d_hn ? own.d_hn + b * P : nullptr, P, Pp);
            copy_padded(carry_c + row * Hp, own.d_cn ? own.d_cn + b * H : nullptr, H, Hp);
            if (plan.length[row] == 0) {
                if (own.d_h0) memcpy(own.d_h0 + b * P, carry_h + row * Pp, P * sizeof(float));
                if (own.d_c0) memcpy(own.d_c0 + b * H, carry_c + row * Hp, H * sizeof(float));
            }
        }
        for (int64_t j = 0; j < (d_slots + Cell::peepholes) * Hp; j++) d_bias[j] = 0;
        if (normalized) {
            row_work = cut(B * 3 * Hp);
            d_norm = cut(B * sums * Hp);
            norm_ih = cut(G * Hp);
            norm_hh = cut(G * Hp);
            norm_cell = cut(Hp);
            norm_cell_bias = cut(Hp);
            for (int64_t j = 0; j < B * sums * Hp; j++) d_norm[j] = 0;
            for (int g = 0; g < G; g++) {
                copy_padded(norm_ih + g * Hp, own.norm_ih_weight + g * H, H, Hp);
                copy_padded(norm_hh + g * Hp, own.norm_hh_weight + g * H, H, Hp);
            }
            copy_padded(norm_cell, own.norm_cell_weight, H, Hp);
            copy_padded(norm_cell_bias, own.norm_cell_bias, H, Hp);
        }
        if (own.weight_peephole) {
            for (int64_t i = 0; i < Cell::peepholes; i++)
                copy_padded(peepholes + i * Hp, own.weight_peephole + i * H, H, Hp);
            peephole = peepholes;
        }
        return true;
    }

    // Back through every step: fills d_gates, the states' and biases' gradients.
    bool run(const Team &team) {
        const int64_t first = team.begin(Hp / PANEL), end = team.end(Hp / PANEL);
        const int64_t first_out = team.begin(Pp / PANEL), end_out = team.end(Pp / PANEL);
        const int64_t K = RECURRENT * Hp;
        Buffer memory;
        float *weight_hh = memory.take<float>((end_out - first_out) * K * PANEL +
                                              (Cell::gated_product ? (end - first) * Hp * PANEL : 0) +
                                              (own.weight_hr ? (end - first) * P * PANEL : 0));
        if (!team.all(weight_hh)) return false;
        float *weight_product = weight_hh + (end_out - first_out) * K * PANEL;
        float *weight_hr = weight_product + (Cell::gated_product ? (end - first) * Hp * PANEL : 0);
        for (int64_t p = first_out; p < end_out; p++)
            for (int slot = 0; slot < RECURRENT; slot++)
                pack_gate(weight_hh + ((p - first_out) * RECURRENT + slot) * Hp * PANEL, own.weight_hh,
                          recurrent_gate(slot), P, p);
        if (Cell::gated_product)
            for (int64_t p = first; p < end; p++)
                pack_gate(weight_product + (p - first) * Hp * PANEL, own.weight_hh, G - 1, P, p);
        if (own.weight_hr)
            for (int64_t p = first; p < end; p++)
                for (int64_t k = 0; k < P; k++)
                    pack_row(weight_hr + ((p - first) * P + k) * PANEL, own.weight_hr + k * H, p * PANEL, H);

        for (int64_t step = plan.frames - 1; step >= 0; step--) {
            const int64_t t = walk.frame(step), n = plan.active[t], continuing = walk.continuing(t);
            if (n == 0) continue;
            auto arrive = [this](const Site &s, const float *sums) { arrive_hidden(s, load(sums)); };
            each_tile(d_gates + walk.ahead() * d_ld, d_ld, K, 0, continuing, t, first_out, end_out, weight_hh, P, arrive);
            each_row(continuing, n, t, first_out, end_out, [this](const Site &s) { arrive_hidden(s, splat(0)); });
            if (own.weight_hr) {
                team.wait();
                each_tile(d_projected, Pp, P, 0, n, t, first, end, weight_hr, H,
                          [this](const Site &s, const float *sums) { leave_output(s, load(sums)); });
            }
            if constexpr (Cell::has_cell_state) {
                if (normalized) {
                    team.wait();
                    for (int64_t row = team.begin(n); row < team.end(n); row++) normalized_step(row, t);
                }
            }
            if constexpr (Cell::gated_product) {
                team.wait();
                each_tile(d_gates + (G - 1) * Hp, d_ld, Hp, 0, n, t, first, end, weight_product, P,
                          [this](const Site &s, const float *sums) {
                              Cell::backward_product(*this, s, load(sums));
                          });
            }
            team.wait();
            const int64_t starting = walk.starting(t);
            if (own.d_h0)
                each_tile(d_gates, d_ld, K, starting, n, t, first_out, end_out, weight_hh, P,
                          [this](const Site &s, const float *sums) {
                              vec d = load(sums) * mask_of(s) + load(carry_h + s.row * Pp + s.unit);
                              store_some(own.d_h0 + s.utterance * P + s.unit, d, P - s.unit);
                          });
            if (own.d_c0)
                each_row(starting, n, t, first, end, [this](const Site &s) {
                    vec d = load(carry_c + s.row * Hp + s.unit);
                    store_some(own.d_c0 + s.utterance * H + s.unit, d, H - s.unit);
                });
        }
        if (normalized) norm_gradients<G>(own, plan.batch, d_norm, d_bias, H, Hp, first, end);
        for (int slot = 0; slot < d_slots; slot++)
            for (int64_t j = first * PANEL; j < end * PANEL && j < H; j++) {
                if (own.d_bias_ih && input_gate(slot) >= 0)
                    own.d_bias_ih[input_gate(slot) * H + j] = d_bias[slot * Hp + j];
                if (own.d_bias_hh && recurrent_gate(slot) >= 0)
                    own.d_bias_hh[recurrent_gate(slot) * H + j] = d_bias[slot * Hp + j];
            }
        if (peephole)
            for (int i = 0; i < Cell::peepholes; i++)
                for (int64_t j = first * PANEL; j < end * PANEL && j < H; j++)
                    own.d_weight_peephole[i * H + j] = d_peephole[i * Hp + j];
        return true;
    }

    // Every weight matrix's gradient, shared out among the team by rows of the matrix.
    bool weight_gradients(const Team &team) {
        int64_t widest = layer.input > H ? layer.input : H;
        Buffer memory;
        float *right = memory.take<float>(FRAME_BLOCK * (round_up(widest, PANEL) + TILE_GROUP * TILE));
        if (!right) return false;
        int gates[2 * 4];
        for (int slot = 0; slot < d_slots; slot++) gates[slot] = input_gate(slot);
        weight_gradient(layer, plan.valid, team, d_gates, d_ld, Hp, gates, d_slots, H, layer.input, own.d_weight_ih, right,
                        [this](int64_t b, int64_t t, int64_t j) {
                            return load_some(layer.x + (b * plan.frames + t) * layer.input + j, layer.input - j);
                        });
        for (int slot = 0; slot < d_slots; slot++)
            gates[slot] = Cell::gated_product && slot == G - 1 ? -1 : recurrent_gate(slot);
        weight_gradient(layer, plan.valid, team, d_gates, d_ld, Hp, gates, d_slots, H, P, own.d_weight_hh, right,
                        [this](int64_t b, int64_t t, int64_t j) { return hidden_in(b, t, j); });
        if constexpr (Cell::gated_product) {
            for (int slot = 0; slot < d_slots; slot++) gates[slot] = slot == G - 1 ? slot : -1;
            weight_gradient(layer, plan.valid, team, d_gates, d_ld, Hp, gates, d_slots, H, P, own.d_weight_hh, right,
                            [this](int64_t b, int64_t t, int64_t j) {
                                return hidden_in(b, t, j) * load(own.reserve + (plan.start[b] + t) * width + j);
                            });
        }
        if (own.weight_hr) {
            int only[1] = {0};
            weight_gradient(layer, plan.valid, team, d_projected, Pp, Pp, only, 1, P, H, own.d_weight_hr, right,
                            [this](int64_t b, int64_t t, int64_t j) {
                                return load(own.reserve + (plan.start[b] + t) * width + slots.emitted * Hp + j);
                            });
        }
        return true;
    }

    // Panels of W_ih for d_x; `packed` holds G * Hp rows a panel.
    void pack_input_weights(float *packed, const Team &team) const {
        int64_t panels = round_up(layer.input, PANEL) / PANEL;
        for (int64_t p = team.begin(panels); p < team.end(panels); p++)
            for (int g = 0; g < G; g++)
                pack_gate(packed + (p * G + g) * Hp * PANEL, own.weight_ih, input_gate(first_input + g),
                          layer.input, p);
    }

    // d_x (+)= d_gates W_ih for the valid frames first..end.
    void input_gradient(const float *packed, int64_t first, int64_t end, bool add) const {
        alignas(64) float sums[TILE * PANEL];
        const int64_t I = layer.input, K = G * Hp, count = end - first, tiles = tiles_for(count);
        const float *rows[TILE];
        float *to[TILE];
        for (int64_t k = 0; k < K; k += INNER_BLOCK) {
            const int64_t block = K - k < INNER_BLOCK ? K - k : INNER_BLOCK;
            for (int64_t j = 0; j < I; j += PANEL) {
                int64_t b = 0;
                for (int64_t i = 0; i < tiles; i++) {
                    const int64_t frame = first + tile_start(count, tiles, i);
                    const int64_t R = first + tile_start(count, tiles, i + 1) - frame;
                    for (int64_t r = 0; r < R; r++) {
                        while (frame + r >= plan.start[b] + layer.lengths[b]) b++;
                        to[r] = layer.d_x + (b * plan.frames + frame + r - plan.start[b]) * I + j;
                        rows[r] = d_gates + (frame + r) * d_ld + first_input * Hp + k;
                    }
                    tile_product(I - j, R, rows, block, 1, packed + j * K + k * PANEL, 0, sums, PANEL, 0);
                    for (int64_t r = 0; r < R; r++) {
                        vec sum = load(sums + r * PANEL);
                        if (add || k > 0) sum += load_some(to[r], I - j);
                        store_some(to[r], sum, I - j);
                    }
                }
            }
        }
    }

    // What the cells reach for; all at one site.
    const float *peephole = nullptr;

    vec saved(const Site &s, int slot) const { return load(s.saved + slot * Hp + s.unit); }
    vec previous_cell_state(const Site &s, int slot) const {
        if (s.first) return own.c0 ? load_some(own.c0 + s.utterance * H + s.unit, H - s.unit) : splat(0);
        return load(s.saved - walk.ahead() * width + slot * Hp + s.unit);
    }
    vec previous_hidden_state(const Site &s) const { return hidden_before(s.utterance, s.frame, s.first, s.unit); }
    vec mask_of(const Site &s) const { return own.mask ? load(mask + s.row * Pp + s.unit) : splat(1); }
    vec peephole_of(const Site &s, int i) const { return load(peephole + i * Hp + s.unit); }
    vec clip_cell(vec value) const { return layer.cell_clip > 0 ? clamp(value, layer.cell_clip) : value; }
    vec unless_clipped(vec value, vec gradient) const {
        return layer.cell_clip > 0 ? within(value, layer.cell_clip, gradient) : gradient;
    }
    void add_peephole(const Site &s, int i, vec value) { add(d_peephole + i * Hp + s.unit, value); }
    void carry_hidden(const Site &s, vec value) { add(carry_h + s.row * Pp + s.unit, value); }
    void carry_cell(const Site &s, vec value) { store(carry_c + s.row * Hp + s.unit, value); }
    void gate(const Site &s, int slot, vec value) {
        if (normalized) return store(s.gates + (G + slot) * Hp + s.unit, value);  // normalized_step goes on with it
        store(s.gates + slot * Hp + s.unit, value);
        add(d_bias + slot * Hp + s.unit, value);
    }
    // From the cell's output o tanh(c): the gradient of c, and that of o's sum in d_o.
    vec output_gradient(const Site &s, vec d_m, vec o, vec c, vec &d_o) const {
        if (normalized) {
            d_o = load(row_work + (s.row * 3 + 1) * Hp + s.unit);
            return load(row_work + (s.row * 3 + 2) * Hp + s.unit);
        }
        vec squashed = hyperbolic_tangent(c);
        d_o = d_m * squashed * o * (1.0f - o);
        return d_m * o * (1.0f - squashed * squashed);
    }
    // The gradient of the new cell state; under zoneout the old state's share goes to d_old.
    vec cell_gradient(const Site &s, vec &d_old) const {
        vec d = load(carry_c + s.row * Hp + s.unit);
        if (!own.zoneout_cell && layer.zoneout_cell_rate <= 0) return d;
        vec share = own.zoneout_cell ? load_some(own.zoneout_cell + s.noise * H + s.unit, H - s.unit)
                                     : splat(layer.zoneout_cell_rate);
        d_old += d * share;
        return d * (1.0f - share);
    }

   private:
    const Layer &layer;
    const Plan &plan;
    const Walk walk;
    const Direction &own;
    const int64_t index, H, P, Hp, Pp;
    const Slots<Cell> slots;
    const int64_t width;
    const bool normalized;
    const int d_slots, first_input;  // slots of gradients a frame; the first of the input's share
    const int64_t d_ld;
    float *d_gates = nullptr;      // (valid, d_slots, Hp)
    float *d_projected = nullptr;  // (valid, Pp)
    float *carry_h, *carry_c;      // (B, Pp), (B, Hp): gradients on their way to the step before, past the gates
    float *mask;                   // (B, Pp)
    float *d_bias, *d_peephole;    // (d_slots, Hp), (peepholes, Hp)
    float *row_work;               // (B, 3, Hp) of normalized rows: gradients of the output, of o's sum, of c
    float *d_norm;                 // (B, 3 G + 2, Hp): sums of d, d n_h, d n_x over frames; of d, d n of the cell
    float *norm_ih, *norm_hh, *norm_cell, *norm_cell_bias;  // (G, Hp), (Hp)

    // Both shares of a normalized layer have gradients of their own: recurrent ones first.
    int recurrent_gate(int slot) const { return normalized ? (slot < G ? slot : -1) : Cell::recurrent_gate(slot); }
    int input_gate(int slot) const { return normalized ? slot - G : Cell::input_gate(slot); }

    static void add(float *to, vec value) { store(to, load(to) + value); }
    int64_t user(const Site &s) const { return s.utterance * plan.frames + s.frame; }

    vec hidden_before(int64_t b, int64_t t, bool first, int64_t unit) const {
        int64_t left = P - unit;
        if (first) return own.h0 ? load_some(own.h0 + b * P + unit, left) : splat(0);
        return load_some(layer.y + ((b * plan.frames + t - walk.ahead()) * layer.directions + index) * P + unit, left);
    }
    // What the recurrent weights multiplied at frame t: the state before it, masked.
    vec hidden_in(int64_t b, int64_t t, int64_t unit) const {
        int64_t length = layer.lengths[b];
        vec h = hidden_before(b, t, t == (walk.reverse ? length - 1 : 0), unit);
        return own.mask ? h * load_some(own.mask + b * P + unit, P - unit) : h;
    }

    // The gradient of the cell's output has arrived.
    void leave_output(const Site &s, vec d_m) {
        if (normalized)
            store(row_work + s.row * 3 * Hp + s.unit, d_m);
        else
            Cell::backward(*this, s, d_m);
    }

    // Back through a row's three normalizations and the cell between them.
    void normalized_step(int64_t row, int64_t t) {
        Site s = site(row, t);
        float *d_m = row_work + row * 3 * Hp, *d_o = d_m + Hp, *d_c = d_o + Hp;
        float *sums = d_norm + row * (3 * G + 2) * Hp;
        const float *deviations = s.saved + slots.deviations * Hp, *n_cell = s.saved + slots.cell * Hp;
        for (int64_t j = 0; j < Hp; j += PANEL) {
            s.unit = j;
            vec n = load(n_cell + j), o = saved(s, Cell::O), d = load(d_m + j);
            vec squashed = hyperbolic_tangent(n * load(norm_cell + j) + load(norm_cell_bias + j));
            store(d_o + j, d * squashed * o * (1.0f - o));
            d = d * o * (1.0f - squashed * squashed);
            add(sums + 3 * G * Hp + j, d);
            add(sums + (3 * G + 1) * Hp + j, d * n);
            store(d_c + j, d);
        }
        denormalize(d_c, d_c, norm_cell, n_cell, 1, H, Hp, deviations[2]);
        for (s.unit = 0; s.unit < Hp; s.unit += PANEL) Cell::backward(*this, s, splat(0));
        float *d = s.gates + G * Hp;
        const float *n_h = s.saved + slots.recurrent * Hp, *n_x = s.saved + slots.input * Hp;
        for (int64_t j = 0; j < G * Hp; j += PANEL) {
            add(sums + j, load(d + j));
            add(sums + G * Hp + j, load(d + j) * load(n_h + j));
            add(sums + 2 * G * Hp + j, load(d + j) * load(n_x + j));
        }
        denormalize(s.gates, d, norm_hh, n_h, G, H, Hp, deviations[0]);
        denormalize(d, d, norm_ih, n_x, G, H, Hp, deviations[1]);
    }

    // panel[unit of the gate][:] = columns of one gate's weights (H, columns), zero for padding units.
    void pack_gate(float *panel, const float *weight, int gate, int64_t columns, int64_t p) const {
        for (int64_t u = 0; u < H; u++)
            pack_row(panel + u * PANEL, weight + (gate * H + u) * columns, p * PANEL, columns);
        for (int64_t j = H * PANEL; j < Hp * PANEL; j++) panel[j] = 0;
    }

    // The gradient of h has arrived, but for dropout's mask on `sum`: through zoneout, then to projection or cell.
    void arrive_hidden(const Site &s, vec sum) {
        int64_t left = P - s.unit;
        float *carry = carry_h + s.row * Pp + s.unit;
        vec d = sum * mask_of(s) + load(carry) +
                load_some(layer.d_y + (user(s) * layer.directions + index) * P + s.unit, left);
        if (own.zoneout_hidden || layer.zoneout_hidden_rate > 0) {
            vec share = own.zoneout_hidden ? load_some(own.zoneout_hidden + s.noise * P + s.unit, left)
                                           : splat(layer.zoneout_hidden_rate);
            store(carry, d * share);
            d = d * (1.0f - share);
        } else {
            store(carry, splat(0));
        }
        if (!own.weight_hr) return leave_output(s, d);
        if (layer.proj_clip > 0) {  // a projection at the bound was clipped
            vec projected = saved(s, slots.projected);
            d = within(projected, nextafterf(layer.proj_clip, 0), d);
        }
        store(d_projected + s.valid * Pp + s.unit, d);
    }

    Site site(int64_t row, int64_t t) const {
        Site s = walk.site(row, t);
        s.saved = own.reserve + s.valid * width;
        s.gates = d_gates + s.valid * d_ld;
        return s;
    }

    template <class Update>
    void each_row(int64_t from, int64_t to, int64_t t, int64_t first, int64_t end, Update update) {
        for (int64_t row = from; row < to; row++) {
            Site s = site(row, t);
            for (s.unit = first * PANEL; s.unit < end * PANEL; s.unit += PANEL) update(s);
        }
    }

    // Begin to fetch what the cells of R rows read and write, while their product is being made.
    // Inline, for a compiler drops calls that do nothing but fetch.
    inline __attribute__((always_inline)) void fetch(int64_t row, int64_t R, int64_t t, int64_t unit) const {
        for (int64_t r = row; r < row + R; r++) {
            const Site s = site(r, t);
            for (int slot = 0; slot < Cell::slots; slot++) prefetch<0>(s.saved + slot * Hp + unit);
            for (int slot = 0; slot < d_slots; slot++) prefetch<1>(s.gates + slot * Hp + unit);
            prefetch<0>(layer.d_y + (user(s) * layer.directions + index) * P + unit);
        }
    }

    // For rows from..to at frame t and panels first..end: sums = left W, left's rows by valid frame, then the update.
    template <class Update>
    void each_tile(const float *left, int64_t ld, int64_t K, int64_t from, int64_t to, int64_t t, int64_t first,
                   int64_t end, const float *weight, int64_t width, Update update) {
        if (from >= to) return;
        alignas(64) float sums[TILE * 4 * PANEL];
        const float *rows[TILE];
        const int64_t count = to - from, tiles = tiles_for(count);
        const int64_t group = count < 4 ? 4 : 1;  // few rows: several panels at once
        for (int64_t p = first; p < end; p += group) {
            const int panels = end - p < group ? end - p : group;
            for (int64_t i = 0; i < tiles; i++) {
                int64_t row = from + tile_start(count, tiles, i), R = from + tile_start(count, tiles, i + 1) - row;
                for (int64_t r = 0; r < R; r++) rows[r] = left + (plan.start[plan.utterance[row + r]] + t) * ld;
                for (int i = 0; i < panels && !normalized; i++) fetch(row, R, t, (p + i) * PANEL);
                tile_product(width - p * PANEL, R, rows, K, panels, weight + (p - first) * K * PANEL, K * PANEL, sums, panels * PANEL,
                             PANEL);
                for (int64_t r = 0; r < R; r++) {
                    Site s = site(row + r, t);
                    for (int i = 0; i < panels; i++) {
                        s.unit = (p + i) * PANEL;
                        update(s, sums + (r * panels + i) * PANEL);
                    }
                }
            }
        }
    }
};

}  // namespace
