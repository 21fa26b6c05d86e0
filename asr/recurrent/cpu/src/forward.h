// The forward pass of one direction. For every chunk of frames the input's share of the gates is computed first, then
// the steps run: recurrent product and, while its sums are in the nearest cache, the cell's update.
#pragma once
#include "cells.h"
#include "matrix.h"
#include "plan.h"

namespace {

// Valid frames whose input share is computed ahead. They stay in cache; where weights of more than a cache's size are
// read again for every chunk, more frames share the reading.
inline int64_t chunk_rows(const Layer &layer) { return layer.hidden * layer.input <= 1 << 18 ? 96 : 192; }

template <class Cell>
class Forward {
   public:
    static constexpr int G = Cell::gates;

    Forward(const Layer &layer, const Plan &plan, int64_t index)
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
          weights(layer, G),
          chunk(chunk_rows(layer)) {}

    // Lay out the memory that the whole team uses; every member then runs a copy of this object.
    bool prepare(Buffer &shared, Buffer &packed) {
        int64_t B = plan.batch;
        h_ld = Pp + 16;  // an odd number of cache lines, so that rows do not share cache sets
        middle_ld = Hp + 16;
        float *next = shared.take<float>(B * (2 * h_ld + 2 * Pp + Hp + middle_ld) +
                                         (2 * G + Cell::peepholes + 2 * G + 2) * Hp +
                                         (chunk + B + (normalized ? B : 0)) * G * Hp);
        void *panels = own.packed ? const_cast<void *>(own.packed) : packed.take<char>(weights.bytes());
        if (!next || !panels) return false;
        weights.place(panels);
        auto cut = [&next](int64_t count) {
            float *piece = next;
            next += count;
            return piece;
        };
        h_in[0] = cut(B * h_ld);
        h_in[1] = cut(B * h_ld);
        h = cut(B * Pp);
        mask = cut(B * Pp);
        c = cut(B * Hp);
        middle = cut(B * middle_ld);
        bias = cut(G * Hp);
        bias_apart = cut(G * Hp);
        float *peepholes = cut(Cell::peepholes * Hp);
        norm_ih = cut(G * Hp);
        norm_hh = cut(G * Hp);
        norm_cell = cut(Hp);
        norm_cell_bias = cut(Hp);
        x_share = cut((chunk + B) * G * Hp);
        recurrent = normalized ? cut(B * G * Hp) : nullptr;

        for (int64_t row = 0; row < B; row++) {
            int64_t b = plan.utterance[row];
            copy_padded(mask + row * Pp, own.mask ? own.mask + b * P : nullptr, P, Pp);
            copy_padded(h + row * Pp, own.h0 ? own.h0 + b * P : nullptr, P, Pp);
            copy_padded(c + row * Hp, own.c0 ? own.c0 + b * H : nullptr, H, Hp);
            for (int64_t j = 0; j < Pp; j++)
                h_in[0][row * h_ld + j] = h_in[1][row * h_ld + j] =
                    h[row * Pp + j] * (own.mask ? mask[row * Pp + j] : 1.0f);
            if (plan.length[row] == 0) {
                memcpy(own.hn + b * P, h + row * Pp, P * sizeof(float));
                if (own.cn) memcpy(own.cn + b * H, c + row * Hp, H * sizeof(float));
            }
        }
        for (int g = 0; g < G; g++) {
            copy_padded(bias + g * Hp, own.bias_ih ? own.bias_ih + g * H : nullptr, H, Hp);
            copy_padded(bias_apart + g * Hp, own.bias_hh ? own.bias_hh + g * H : nullptr, H, Hp);
            if (!Cell::recurrent_apart(g))
                for (int64_t j = 0; j < Hp; j++) {
                    bias[g * Hp + j] += bias_apart[g * Hp + j];
                    bias_apart[g * Hp + j] = 0;
                }
        }
        if (normalized) {
            for (int g = 0; g < G; g++) {
                copy_padded(norm_ih + g * Hp, own.norm_ih_weight + g * H, H, Hp);
                copy_padded(norm_hh + g * Hp, own.norm_hh_weight + g * H, H, Hp);
                for (int64_t j = 0; j < H; j++)
                    bias[g * Hp + j] += own.norm_ih_bias[g * H + j] + own.norm_hh_bias[g * H + j];
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

    bool run(const Team &team) {
        const int64_t first = team.begin(Hp / PANEL), end = team.end(Hp / PANEL);
        const int64_t first_out = team.begin(Pp / PANEL), end_out = own.weight_hr ? team.end(Pp / PANEL) : first_out;
        const int64_t I = layer.input, most_rows = chunk + plan.batch, widest = H > I ? H : I;
        Buffer rows_memory, valid_memory, narrow_memory;
        const float **rows = rows_memory.take<const float *>(most_rows);
        int64_t *valid = valid_memory.take<int64_t>(most_rows);  // each row's index in the reserve
        void *narrow_rows = narrow_memory.take<char>(NarrowRows::bytes(layer.weight_kind, most_rows, widest) + 1);
        if (!team.all(rows && valid && narrow_rows)) return false;
        narrow.place(layer.weight_kind, narrow_rows, most_rows);
        if (!own.packed) {
            weights.ih.pack(own.weight_ih, first, end);
            weights.hh.pack(own.weight_hh, first, end);
            weights.hr.pack(own.weight_hr, first_out, end_out);
        }
        zero_padding(team);

        int64_t chunk_end = 0;
        for (int64_t step = 0; step < plan.frames; step++) {
            if (step == chunk_end) {
                int64_t count = 0;
                for (; chunk_end < plan.frames && count < chunk; chunk_end++) {
                    int64_t t = walk.frame(chunk_end);
                    for (int64_t r = 0; r < plan.active[t]; r++) {
                        valid[count] = plan.start[plan.utterance[r]] + t;
                        const int64_t frame = (plan.utterance[r] * plan.frames + t) * I;
                        rows[count++] = layer.x_bfloat16 ? reinterpret_cast<const float *>(layer.x_bfloat16 + frame)
                                                         : layer.x + frame;
                    }
                }
                share_of_input(rows, count, first, end);
                if (normalized) {
                    team.wait();
                    for (int64_t r = team.begin(count); r < team.end(count); r++) normalize_input(r, valid[r]);
                    team.wait();
                }
                x_now = x_share;
            }
            const int64_t t = walk.frame(step), n = plan.active[t];
            if (n == 0) continue;
            h_next = h_in[(step & 1) ^ 1];
            constexpr int products = Cell::gated_product ? 2 : G;
            if (normalized) {
                each_tile(h_in[step & 1], h_ld, n, t, first, end, weights.hh, 0, products,
                          [this](const Site &s, const float *sums) {
                              for (int g = 0; g < G; g++)
                                  store(recurrent + (s.row * G + g) * Hp + s.unit, load(sums + g * PANEL));
                          });
                team.wait();
                for (int64_t row = team.begin(n); row < team.end(n); row++) normalized_step(row, t);
            } else {
                each_tile(h_in[step & 1], h_ld, n, t, first, end, weights.hh, 0, products,
                          [this](const Site &s, const float *sums) { Cell::forward(*this, s, sums); });
            }
            if constexpr (Cell::gated_product) {
                team.wait();
                each_tile(middle, middle_ld, n, t, first, end, weights.hh, 2, 1,
                          [this](const Site &s, const float *sums) { Cell::forward_product(*this, s, sums); });
            }
            if (own.weight_hr) {
                team.wait();
                each_tile(middle, middle_ld, n, t, first_out, end_out, weights.hr, 0, 1,
                          [this](const Site &s, const float *sums) {
                              vec projected = load(sums);
                              if (layer.proj_clip > 0) {
                                  projected = clamp(projected, layer.proj_clip);
                                  save(s, slots.projected, projected);
                              }
                              output(s, projected);
                          });
            }
            x_now += n * G * Hp;
            team.wait();
        }
        return true;
    }

    // What the cells reach for; all at one site.
    const float *peephole = nullptr;

    vec input_share(const Site &s, int g) const {
        return load(s.gates + g * Hp + s.unit) + load(bias + g * Hp + s.unit);
    }
    vec gate(const Site &s, const float *sums, int g) const {
        if (normalized) return load(sums + g * Hp) * load(norm_hh + g * Hp + s.unit) + input_share(s, g);
        return load(sums + g * PANEL) + input_share(s, g);
    }
    vec recurrent_share(const Site &s, const float *sums, int g) const {
        return load(sums + g * PANEL) + load(bias_apart + g * Hp + s.unit);
    }
    vec peephole_of(const Site &s, int i) const { return load(peephole + i * Hp + s.unit); }
    vec cell_state(const Site &s) const { return load(c + s.row * Hp + s.unit); }
    vec hidden_state(const Site &s) const { return load(h + s.row * Pp + s.unit); }
    vec masked_hidden_state(const Site &s) const {
        return own.mask ? hidden_state(s) * load(mask + s.row * Pp + s.unit) : hidden_state(s);
    }
    vec clip_cell(vec value) const { return layer.cell_clip > 0 ? clamp(value, layer.cell_clip) : value; }

    // Zoneout: store and return the state that the next step sees.
    vec keep_cell_state(const Site &s, vec old, vec value) {
        if (own.zoneout_cell || layer.zoneout_cell_rate > 0) {
            vec share = own.zoneout_cell ? load_some(own.zoneout_cell + s.noise * H + s.unit, H - s.unit)
                                         : splat(layer.zoneout_cell_rate);
            value = share * old + (1.0f - share) * value;
        }
        store(c + s.row * Hp + s.unit, value);
        if (s.last) store_some(own.cn + s.utterance * H + s.unit, value, H - s.unit);
        return value;
    }
    void keep_update_gate(const Site &s, vec z) { store(c + s.row * Hp + s.unit, z); }
    vec update_gate(const Site &s) const { return load(c + s.row * Hp + s.unit); }
    void to_product(const Site &s, vec value) { store(middle + s.row * middle_ld + s.unit, value); }

    void save(const Site &s, int slot, vec value) {
        if (s.saved) store(s.saved + slot * Hp + s.unit, value);
    }

    // o tanh(c), c normalized first where the layer is; normalizing waits for the whole row.
    void emit_cell(const Site &s, vec o, vec c_new) {
        if (!normalized) return emit(s, o * hyperbolic_tangent(c_new));
        float *row = recurrent + s.row * G * Hp + s.unit;  // its sums are spent
        store(row, c_new);
        store(row + Hp, o);
    }

    // The cell's output: to the projection, or out.
    void emit(const Site &s, vec value) {
        if (!own.weight_hr) return output(s, value);
        save(s, slots.emitted, value);
        to_product(s, value);
    }

    void output(const Site &s, vec value) {
        int64_t left = P - s.unit;
        if (own.zoneout_hidden || layer.zoneout_hidden_rate > 0) {
            vec share = own.zoneout_hidden ? load_some(own.zoneout_hidden + s.noise * P + s.unit, left)
                                           : splat(layer.zoneout_hidden_rate);
            value = share * hidden_state(s) + (1.0f - share) * value;
        }
        store(h + s.row * Pp + s.unit, value);
        store(h_next + s.row * h_ld + s.unit, own.mask ? value * load(mask + s.row * Pp + s.unit) : value);
        const int64_t at = (user(s) * layer.directions + index) * P + s.unit;
        if (layer.y_bfloat16)
            store_bfloat16(layer.y_bfloat16 + at, value, left);
        else
            store_some(layer.y + at, value, left);
        if (s.last) store_some(own.hn + s.utterance * P + s.unit, value, left);
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
    Matrices weights;
    const int64_t chunk;
    NarrowRows narrow;  // this member's left operands as int8 and bfloat16 weights want them
    int64_t h_ld = 0, middle_ld = 0;
    float *h_in[2];           // (B, h_ld) what the recurrent weights multiply: h, masked; this step's and the next's
    float *h;                 // (B, Pp)
    float *c;                 // (B, Hp); where there is no cell state, the update gate between two products
    float *mask;              // (B, Pp)
    float *middle;            // (B, middle_ld) what a second product multiplies
    float *bias, *bias_apart;  // (G, Hp)
    float *x_share;           // (chunk rows, G, Hp)
    float *recurrent;         // (B, G, Hp) W_hh h, when a row waits to be normalized
    float *norm_ih, *norm_hh, *norm_cell, *norm_cell_bias;  // (G, Hp), (Hp)
    float *x_now = nullptr;  // this step's rows of x_share
    float *h_next = nullptr;       // this step's target in h_in

    int64_t user(const Site &s) const { return s.utterance * plan.frames + s.frame; }

    void normalize_input(int64_t row, int64_t valid) {
        float *values = x_share + row * G * Hp;
        const float inverse = normalize(values, G, H, Hp);
        if (own.reserve) {
            float *saved = own.reserve + valid * width;
            memcpy(saved + slots.input * Hp, values, G * Hp * sizeof(float));
            saved[slots.deviations * Hp + 1] = inverse;
        }
        for (int64_t j = 0; j < G * Hp; j += PANEL) store(values + j, load(values + j) * load(norm_ih + j));
    }

    // The update of one row whose recurrent share is complete.
    void normalized_step(int64_t row, int64_t t) {
        Site s = walk.site(row, t);
        s.saved = own.reserve ? own.reserve + s.valid * width : nullptr;
        s.gates = x_now + row * G * Hp;
        float *values = recurrent + row * G * Hp;
        const float inverse = normalize(values, G, H, Hp);
        if (s.saved) {
            memcpy(s.saved + slots.recurrent * Hp, values, G * Hp * sizeof(float));
            s.saved[slots.deviations * Hp] = inverse;
        }
        for (s.unit = 0; s.unit < Hp; s.unit += PANEL) Cell::forward(*this, s, values + s.unit);
        const float inverse_cell = normalize(values, 1, H, Hp);
        if (s.saved) {
            memcpy(s.saved + slots.cell * Hp, values, Hp * sizeof(float));
            s.saved[slots.deviations * Hp + 2] = inverse_cell;
        }
        for (s.unit = 0; s.unit < Hp; s.unit += PANEL) {
            vec c_scaled = load(values + s.unit) * load(norm_cell + s.unit) + load(norm_cell_bias + s.unit);
            emit(s, load(values + Hp + s.unit) * hyperbolic_tangent(c_scaled));
        }
    }

    // x_share = x W_ih^T for `count` frames and this member's panels.
    void share_of_input(const float **rows, int64_t count, int64_t first, int64_t end) {
        const int64_t I = layer.input, tiles = tiles_for(count);
        const int64_t step = layer.weight_kind == FLOAT32 ? INNER_BLOCK : I;
        if (layer.x_bfloat16)
            narrow.make(layer.weight_kind, count, I,
                        [rows](int64_t row) { return reinterpret_cast<const uint16_t *>(rows[row]); });
        else
            narrow.make(layer.weight_kind, count, I, [rows](int64_t row) { return rows[row]; });
        for (int64_t k = 0; k < I; k += step) {
            int64_t block = I - k < step ? I - k : step;
            for (int64_t p = first; p < end; p++)
                for (int64_t i = 0; i < tiles; i++) {
                    int64_t row = tile_start(count, tiles, i), R = tile_start(count, tiles, i + 1) - row;
                    weights.ih.product(p, 0, G, R, rows + row, narrow, row, k, block,
                                       x_share + row * G * Hp + p * PANEL, G * Hp, Hp);
                }
            for (int64_t row = 0; row < count; row++) rows[row] += block;
        }
    }

    // For n rows and panels first..end: sums = left times `count` gates of the matrix from `gate` on, then the update.
    // Every other step goes through the panels backwards: those it begins with are still in the nearer caches.
    template <class Update>
    void each_tile(const float *left, int64_t ld, int64_t n, int64_t t, int64_t first, int64_t end,
                   const Matrix &matrix, int gate, int count, Update update) {
        alignas(64) float sums[TILE * 4 * PANEL];
        const float *rows[TILE];
        const int64_t tiles = tiles_for(n);
        narrow.make(layer.weight_kind, n, matrix.inner, [=](int64_t row) { return left + row * ld; });
        for (int64_t q = first; q < end; q++) {
            const int64_t p = t & 1 ? first + end - 1 - q : q;
            for (int64_t i = 0; i < tiles; i++) {
                int64_t row = tile_start(n, tiles, i), R = tile_start(n, tiles, i + 1) - row;
                for (int64_t r = 0; r < R; r++) rows[r] = left + (row + r) * ld;
                if (own.reserve && !normalized) fetch(row, R, t, p * PANEL);
                matrix.product(p, gate, count, R, rows, narrow, row, 0, matrix.inner, sums, count * PANEL, PANEL);
                for (int64_t r = 0; r < R; r++) {
                    Site s = walk.site(row + r, t);
                    s.unit = p * PANEL;
                    s.saved = own.reserve ? own.reserve + s.valid * width : nullptr;
                    s.gates = x_now + s.row * G * Hp;
                    update(s, sums + r * count * PANEL);
                }
            }
        }
    }

    // Begin to fetch what the cells of R rows write, while their product is being made.
    // Inline, for a compiler drops calls that do nothing but fetch.
    inline __attribute__((always_inline)) void fetch(int64_t row, int64_t R, int64_t t, int64_t unit) const {
        for (int64_t r = row; r < row + R; r++) {
            const Site s = walk.site(r, t);
            for (int slot = 0; slot < Cell::slots; slot++) prefetch<1>(own.reserve + s.valid * width + slot * Hp + unit);
            prefetch<1>(layer.y + (user(s) * layer.directions + index) * P + unit);
        }
    }

    void zero_padding(const Team &team) {
        for (int64_t row = team.begin(plan.batch); row < team.end(plan.batch); row++)
            for (int64_t t = plan.length[row]; t < plan.frames; t++) {
                const int64_t at = ((plan.utterance[row] * plan.frames + t) * layer.directions + index) * P;
                if (layer.y_bfloat16)
                    memset(layer.y_bfloat16 + at, 0, P * sizeof(uint16_t));
                else
                    memset(layer.y + at, 0, P * sizeof(float));
            }
    }
};

}  // namespace
