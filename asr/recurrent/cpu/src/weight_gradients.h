// A weight matrix's gradient: one product over all frames, gradients of the gates' sums times what the weights
// multiplied.
#pragma once
#include "gemm.h"
#include "plan.h"

namespace {

constexpr int64_t FRAME_BLOCK = 256;  // frames summed at a time: their rows stay in cache
constexpr int64_t AHEAD = 8;          // frames fetched ahead of those being packed
constexpr int64_t TILE_GROUP = 8;     // tiles whose left operands are packed together: whole cache lines are read

// The first `left` of TILE numbers, zeros behind them.
inline void copy_tile(float *to, const float *from, int64_t left) {
    if (left >= TILE)
        memcpy(to, from, TILE * sizeof(float));
    else
        for (int64_t r = 0; r < TILE; r++) to[r] = r < left ? from[r] : 0;
}

// out[gate][u][:] = sum over frames of left[frame][slot][u] right(frame)[:], for each slot with a gate.
template <class Right>
void weight_gradient(const Layer &layer, int64_t frames, const Team &team, const float *left, int64_t ld, int64_t slot_size, const int *gates,
                     int slots, int64_t units, int64_t columns, float *out, float *right_block, Right right) {
    const int64_t panels = round_up(columns, PANEL) / PANEL;
    const int64_t groups = (units + TILE_GROUP * TILE - 1) / (TILE_GROUP * TILE);
    const int64_t first = team.begin(slots * groups), end = team.end(slots * groups);
    float *left_block = right_block + FRAME_BLOCK * panels * PANEL;
    alignas(64) float edge[TILE * PANEL];
    for (int slot = 0; slot < slots && frames == 0 && team.rank == 0; slot++)
        if (gates[slot] >= 0) memset(out + gates[slot] * units * columns, 0, units * columns * sizeof(float));
    int64_t b = 0, t = 0;
    for (int64_t frame = 0; frame < frames;) {
        int64_t block = 0;
        for (; block < FRAME_BLOCK && frame + block < frames; block++, t++) {
            while (t == layer.lengths[b]) b++, t = 0;
            for (int64_t p = 0; p < panels; p++) {
                float *to = right_block + (p * FRAME_BLOCK + block) * PANEL;
                store(to, right(b, t, p * PANEL));
            }
        }
        for (int64_t item = first; item < end; item++) {
            const int64_t slot = item / groups, u = item % groups * TILE_GROUP * TILE;
            const int gate = gates[slot];
            if (gate < 0) continue;
            const int64_t wanted = units - u < TILE_GROUP * TILE ? units - u : TILE_GROUP * TILE;
            const int64_t tiles = tiles_for(wanted);
            for (int64_t k = 0; k < block; k++) {
                const float *from = left + (frame + k) * ld + slot * slot_size + u;
                for (int64_t j = 0; j < TILE_GROUP * TILE; j += 16) __builtin_prefetch(from + AHEAD * ld + j);
                for (int64_t i = 0; i < tiles; i++)
                    copy_tile(left_block + (i * FRAME_BLOCK + k) * TILE, from + i * TILE, wanted - i * TILE);
            }
            for (int64_t p = 0; p < panels; p++)
                for (int64_t i = 0; i < tiles; i++) {
                    const int64_t rows = wanted - i * TILE < TILE ? wanted - i * TILE : TILE;
                    const int64_t width = columns - p * PANEL < PANEL ? columns - p * PANEL : PANEL;
                    float *to = out + (gate * units + u + i * TILE) * columns + p * PANEL;
                    const float *a = left_block + i * FRAME_BLOCK * TILE;
                    const float *panel = right_block + p * FRAME_BLOCK * PANEL;
                    if (rows == TILE && width == PANEL) {
                        multiply_packed<TILE, 2>(a, block, panel, to, columns, frame > 0);
                        continue;
                    }
                    (width > W ? multiply_packed<TILE, 2> : multiply_packed<TILE, 1>)(a, block, panel, edge, PANEL, false);
                    for (int64_t r = 0; r < rows; r++)
                        for (int64_t j = 0; j < width; j++)
                            to[r * columns + j] = (frame > 0 ? to[r * columns + j] : 0) + edge[r * PANEL + j];
                }
        }
        frame += block;
    }
}

}  // namespace
