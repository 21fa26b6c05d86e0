"""The recurrence on a GPU: one step of a layer, both directions, as Triton device functions.

The input's share of the gates and every weight gradient are large matrix products outside; here is only what
must wait for the step before. A step is one or two phases, each a product of the whole batch with recurrent
weights whose result stays in registers for the cell's equations:

    phase 0  h(t-1) W_hh^T, then the gates and, but for two cases that need
    phase 1  (o ⊙ tanh c) W_hr^T, the projection, or (r ⊙ h(t-1)) W_hn^T, the candidate of gru reset="before",
    h(t)

and back in time for the gradients. A program computes tiles of ROWS utterances by UNITS units of one direction.
The same phase functions run as one kernel a phase, or in a persistent kernel whose programs meet at a barrier.

Rows are utterances sorted by length, longest first: at step s a tile whose first row is over does nothing, and
no row that is over is loaded or stored. Direction 1 visits frame length-1-s at step s.

The cells' equations are in cells.py, what everything is made of in primitives.py.
"""

# Device code is compiled by Triton: there a `cfg: tl.constexpr` is the Config itself, and literals are constexpr.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportOptionalMemberAccess=false
# pyright: reportAssignmentType=false, reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false, reportReturnType=false

import triton
import triton.language as tl

from asr.recurrent.gpu.cells import (
    gru_backward,
    gru_before_forward,
    gru_before_reset,
    gru_before_reset_backward,
    gru_forward,
    lstm_backward,
    lstm_forward,
    projection_backward,
    projection_forward,
    rnn_backward,
    rnn_forward,
)
from asr.recurrent.gpu.primitives import (
    grid_barrier,
    load_tile,
    product,
    store_tile,
    summands,
    tile_count,
    tile_place,
    tile_rows,
    zoneout_share,
)


@triton.jit
def forward_phase(PHASE: tl.constexpr, s, tile, ptr, cfg: tl.constexpr):
    """Compute one tile of one phase of step s."""
    COLUMNS: tl.constexpr = cfg.P if PHASE == 1 else cfg.H
    first_row, d, first_unit = tile_place(tile, COLUMNS, cfg.UNITS, cfg)
    if s < tl.load(ptr.lengths + first_row):
        _, active, b, frame = tile_rows(s, first_row, d, ptr, cfg)
        state_row = d * ptr.B + b
        u = first_unit + tl.arange(0, cfg.UNITS)
        in_width = u < COLUMNS
        mask = active[:, None] & in_width[None, :]
        at = (s, d, b, frame, state_row, u, in_width, mask)

        if PHASE == 0:
            a_row = ptr.source + ((s % 2) * cfg.D * ptr.B + state_row) * cfg.P
            w_row = ptr.weight_hh + (d * cfg.G * cfg.H + u).to(tl.int64) * cfg.P
        else:
            a_row = ptr.middle + state_row * cfg.H
            if cfg.PROJECTION:
                w_row = ptr.weight_hr + (d * cfg.P + u).to(tl.int64) * cfg.H
            else:
                w_row = ptr.weight_hh + ((d * cfg.G + 2) * cfg.H + u).to(tl.int64) * cfg.P
        operands = (a_row, active, w_row, in_width, cfg.H * cfg.P)

        if PHASE == 1 and cfg.PROJECTION:
            out = projection_forward(operands, ptr, at, cfg)
        elif PHASE == 1:
            out = gru_before_forward(operands, ptr, at, cfg)
        elif cfg.CELL == "gru_before":
            out = gru_before_reset(operands, ptr, at, cfg)
        elif cfg.CELL == "gru_after":
            out = gru_forward(operands, ptr, at, cfg)
        elif cfg.CELL == "rnn_tanh":
            out = rnn_forward(operands, ptr, at, cfg)
        else:
            out = lstm_forward(operands, ptr, at, cfg)

        if PHASE == 0 and (cfg.PROJECTION or cfg.CELL == "gru_before"):
            store_tile(ptr.middle, state_row * cfg.H, u, mask, out)
        else:
            if cfg.SHARE_H != 0:
                share = zoneout_share(ptr.zoneout_h, cfg.SHARE_H, cfg.P, ptr, at, cfg)
                out = share * load_tile(ptr.h, state_row * cfg.P, u, mask) + (1 - share) * out
            store_tile(ptr.y, frame * cfg.P, u, mask, out)
            store_tile(ptr.h, state_row * cfg.P, u, mask, out)
            if cfg.MASK:
                out *= load_tile(ptr.mask, state_row * cfg.P, u, mask)
            store_tile(ptr.source, (((s + 1) % 2) * cfg.D * ptr.B + state_row) * cfg.P, u, mask, out)


@triton.jit
def backward_phase(PHASE: tl.constexpr, s, tile, ptr, cfg: tl.constexpr):
    """Compute one tile of one phase of the gradients of step s, which follow those of step s + 1."""
    COLUMNS: tl.constexpr = cfg.P if PHASE == 0 else cfg.H
    first_row, d, first_unit = tile_place(tile, COLUMNS, cfg.UNITS, cfg)
    if s < tl.load(ptr.lengths + first_row):
        length, active, b, frame = tile_rows(s, first_row, d, ptr, cfg)
        state_row = d * ptr.B + b
        u = first_unit + tl.arange(0, cfg.UNITS)
        in_width = u < COLUMNS
        mask = active[:, None] & in_width[None, :]
        at = (s, d, b, frame, state_row, u, in_width, mask)

        if PHASE == 0:  # from the next step's gates
            a_row = ptr.dgates_hh + (frame + tl.where(d == 0, cfg.D, -cfg.D)) * (cfg.G * cfg.H)
            w_row = ptr.weight_hh + (d * cfg.P + u).to(tl.int64) * summands(cfg)
            operands = (a_row, s + 1 < length, w_row, in_width, 0)
        else:  # from this step's projection or candidate
            if cfg.PROJECTION:  # noqa: SIM108, a pointer may be absent
                a_row = ptr.dprojected + frame * cfg.P
            else:
                a_row = ptr.dgates + (frame * cfg.G + 2) * cfg.H
            w_row = ptr.weight_hr + (d * cfg.H + u).to(tl.int64) * cfg.P
            operands = (a_row, active, w_row, in_width, 0)

        if PHASE == 0 and cfg.PROJECTION:
            projection_backward(operands, length, ptr, at, cfg)
        elif PHASE == 1 and cfg.CELL == "gru_before":
            gru_before_reset_backward(operands, ptr, at, cfg)
        elif cfg.CELL == "gru_before" or cfg.CELL == "gru_after":
            gru_backward(operands, length, ptr, at, cfg)
        elif cfg.CELL == "rnn_tanh":
            rnn_backward(operands, length, ptr, at, cfg)
        else:
            lstm_backward(operands, length, ptr, at, cfg)


@triton.jit
def backward_partial(s, tile, ptr, cfg: tl.constexpr):
    """Compute one tile of phase 0's product for one of SPLIT equal parts of the summed axis, here the gates.

    The gradients of the gates are wide: were each program to read them all, they alone would fill the way from the
    second-level cache. With wider tiles of a part each, that traffic falls by about SPLIT, for a second wait a step.
    """
    tiles = tile_count(ptr.B, cfg.P, cfg.SPLIT_UNITS, cfg)
    part = tile // tiles
    first_row, d, first_unit = tile_place(tile % tiles, cfg.P, cfg.SPLIT_UNITS, cfg)
    if s + 1 < tl.load(ptr.lengths + first_row):
        _, following, b, frame = tile_rows(s + 1, first_row, d, ptr, cfg)
        u = first_unit + tl.arange(0, cfg.SPLIT_UNITS)
        in_width = u < cfg.P
        a_row = ptr.dgates_hh + (frame * cfg.G + part) * cfg.H
        w_row = ptr.weight_hh + (d * cfg.P + u).to(tl.int64) * summands(cfg) + part * cfg.H
        total = product((a_row, following, w_row, in_width, 0), cfg.H, cfg.SPLIT_UNITS, cfg)
        row = ((part * cfg.D + d) * ptr.B + b) * cfg.P
        store_tile(ptr.partial, row, u, following[:, None] & in_width[None, :], total)


# Kernels ---------------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=["first", "last"])
def forward_kernel(ptr, first, last, counter, PHASES: tl.constexpr, cfg: tl.constexpr):
    """Run steps first to last - 1. PHASES is a set of bits: 1 for phase 0, 2 for phase 1.

    Without a counter, a launch runs one phase of one step. With one, an int32 zero, the programs of the launch,
    which must all run at the same time, wait for each other after every phase.
    """
    programs = tl.num_programs(0)
    arrivals = 0
    for s in range(first, last):
        if PHASES & 1:
            for tile in range(tl.program_id(0), tile_count(ptr.B, cfg.H, cfg.UNITS, cfg), programs):
                forward_phase(0, s, tile, ptr, cfg)
            if counter is not None:
                arrivals += programs
                grid_barrier(counter, arrivals)
        if PHASES & 2:
            for tile in range(tl.program_id(0), tile_count(ptr.B, cfg.P, cfg.UNITS, cfg), programs):
                forward_phase(1, s, tile, ptr, cfg)
            if counter is not None:
                arrivals += programs
                grid_barrier(counter, arrivals)


@triton.jit(do_not_specialize=["first", "last"])
def backward_kernel(ptr, first, last, counter, PHASES: tl.constexpr, cfg: tl.constexpr):
    """Run the gradients of steps last - 1 down to first; see `forward_kernel`. Bit 4 is for `backward_partial`."""
    programs = tl.num_programs(0)
    arrivals = 0
    for step in range(first, last):
        s = last - 1 - (step - first)
        if PHASES & 4:
            tiles = cfg.SPLIT * tile_count(ptr.B, cfg.P, cfg.SPLIT_UNITS, cfg)
            for tile in range(tl.program_id(0), tiles, programs):
                backward_partial(s, tile, ptr, cfg)
            if counter is not None:
                arrivals += programs
                grid_barrier(counter, arrivals)
        if PHASES & 1:
            for tile in range(tl.program_id(0), tile_count(ptr.B, cfg.P, cfg.UNITS, cfg), programs):
                backward_phase(0, s, tile, ptr, cfg)
            if counter is not None:
                arrivals += programs
                grid_barrier(counter, arrivals)
        if PHASES & 2:
            for tile in range(tl.program_id(0), tile_count(ptr.B, cfg.H, cfg.UNITS, cfg), programs):
                backward_phase(1, s, tile, ptr, cfg)
            if counter is not None:
                arrivals += programs
                grid_barrier(counter, arrivals)
