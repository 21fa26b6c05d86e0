// What Python hands to the kernels and back: plain pointers, no torch headers.
//
// Legend for shapes: B batch, T frames, I input, H hidden, P output (the projection's width, or H), G gates, D
// directions; Hp and Pp are H and P rounded up to whole panels. All tensors are contiguous, and float where no other is
// said; null where the layer has none. ../library.py mirrors both structs field by field.
#pragma once
#include <cstdint>

enum WeightKind : int64_t { FLOAT32, BFLOAT16, INT8 };  // of the packed matrices; only inference takes the others

struct Direction {
    // parameters, as RecurrentLayer holds them
    const float *weight_ih;        // (G*H, I)
    const float *weight_hh;        // (G*H, P)
    const float *bias_ih;          // (G*H)
    const float *bias_hh;          // (G*H)
    const float *weight_hr;        // (P, H)
    const float *weight_peephole;  // (2 or 3, H)
    const float *norm_ih_weight, *norm_ih_bias, *norm_hh_weight, *norm_hh_bias;  // (G*H)
    const float *norm_cell_weight, *norm_cell_bias;                              // (H)
    const void *packed;  // the matrices as Kernels::pack left them; null: they are packed in every call
    // noise
    const float *mask;            // (B, P) variational dropout of h
    const float *zoneout_hidden;  // (B, T, P) by step of the walk, else the rate below
    const float *zoneout_cell;    // (B, T, H)
    // state
    const float *h0, *c0;  // (B, P), (B, H); null means zero
    float *hn, *cn;
    float *reserve;  // (valid frames, reserve_width): what the backward pass needs; null in inference
    // gradients coming in: null means zero
    const float *d_hn, *d_cn;
    // gradients going out, shaped as what they are gradients of; d_h0 and d_c0 may be null: not wanted
    float *d_h0, *d_c0;
    float *d_weight_ih, *d_weight_hh, *d_bias_ih, *d_bias_hh, *d_weight_hr, *d_weight_peephole;
    float *d_norm_ih_weight, *d_norm_ih_bias, *d_norm_hh_weight, *d_norm_hh_bias;
    float *d_norm_cell_weight, *d_norm_cell_bias;
};

struct Layer {
    int64_t cell, batch, frames, input, hidden, output, directions, threads, weight_kind;
    const int64_t *lengths;  // (B), each within 0..T
    const float *x;          // (B, T, I)
    float *y;                // (B, T, D*P)
    const float *d_y;        // (B, T, D*P)
    float *d_x;              // (B, T, I); null: not wanted
    const uint16_t *x_bfloat16;  // instead of x, and
    uint16_t *y_bfloat16;        // instead of y: inference with weights in bfloat16
    float cell_clip, proj_clip, zoneout_hidden_rate, zoneout_cell_rate;
    Direction direction[2];
};

// One instruction set's kernels.
struct Kernels {
    int64_t (*cell)(const char *name);        // Layer::cell, or -1
    int64_t (*reserve_width)(const Layer &);  // floats a valid frame and direction
    int64_t (*packed_bytes)(const Layer &);   // of one direction's matrices
    void (*pack)(const Layer &, int64_t direction, void *packed);
    int (*forward)(const Layer &);            // 0, or 1 when memory ran out
    int (*backward)(const Layer &);
    double (*peak)(int threads);
};
