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

To add a cell: write its `_forward` and `_backward` function below and name both in the phase functions and in STEPS.
"""

# Device code is compiled by Triton: there a `cfg: tl.constexpr` is the Config itself, and literals are constexpr.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportOptionalMemberAccess=false
# pyright: reportAssignmentType=false, reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false, reportReturnType=false

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

STEPS = ("lstm", "cifg", "gru_after", "gru_before", "rnn_tanh")  # the cells, by cells.Cell.fused


class Config(NamedTuple):
    """What a kernel is compiled for."""

    CELL: str  # one of STEPS
    D: int  # directions
    G: int  # gates
    H: int  # hidden size
    P: int  # output size
    PEEPHOLE: bool
    PROJECTION: bool
    BIAS: bool
    MASK: bool  # variational dropout of h
    SHARE_H: float  # zoneout: 0 none, above 0 this share of every old state, below 0 drawn for each unit
    SHARE_C: float
    CELL_CLIP: float  # 0 for none
    PROJ_CLIP: float
    SAVE: bool  # keep what the gradients need
    ROWS: int  # tile: utterances
    UNITS: int  # tile: hidden units
    DEPTH: int  # tile: summands of a product at a time
    SPLIT: int  # backward: parts of the product's summed axis, 1 or as many as gates in it
    SPLIT_UNITS: int  # tile of such a part: units
    PRECISION: str  # of fp32 products: "ieee" or "tf32"
    INTERPRET: bool  # under Triton's interpreter


class Forward(NamedTuple):
    """What forward kernels read and write: contiguous, in the layer's precision where no other is said.

    B batch, T frames, D, G, H, P as in Config. None where the cell has no such thing.
    """

    lengths: Tensor  # (B,) int32, longest first
    order: Tensor  # (B,) int32: a row's place in the batch
    B: int
    T: int
    gates: Tensor  # (B, T, D, G, H) W_ih x + b_ih; SAVE replaces it by the activated gates
    weight_hh: Tensor  # (D, G*H, P)
    bias_hh: Tensor | None  # (D, G*H)
    weight_hr: Tensor | None  # (D, P, H)
    peephole: Tensor | None  # (D, rows, H)
    mask: Tensor | None  # (D, B, P)
    zoneout_h: Tensor | None  # (D, B, T, P) 1 where a unit keeps its state at a step
    zoneout_c: Tensor | None  # (D, B, T, H)
    y: Tensor  # (B, T, D, P)
    h: Tensor  # (D, B, P) fp32, running state: an element belongs to one program
    c: Tensor | None  # (D, B, H) fp32
    source: Tensor  # (2, D, B, P) h ⊙ mask for the product: step s reads slot s % 2 and writes the other
    middle: Tensor | None  # (D, B, H) what phase 1 multiplies
    kept: Tensor | None  # (B, T, D, H) SAVE: c of the LSTM family, W_hn h + b_hn of gru reset="after"
    unclipped: Tensor | None  # (B, T, D, P) uint8, SAVE: 1 where the projection was within its bound


class Backward(NamedTuple):
    """What backward kernels read and write; dv is the loss's gradient with respect to v."""

    lengths: Tensor
    order: Tensor
    B: int
    T: int
    gates: Tensor  # (B, T, D, G, H) activated
    kept: Tensor | None
    unclipped: Tensor | None
    h0: Tensor  # (D, B, P)
    c0: Tensor | None  # (D, B, H)
    y: Tensor
    weight_hh: Tensor  # (D, P, G*H) transposed; gru reset="before": (D, P, 2*H), gates r and z
    weight_hr: Tensor | None  # (D, H, P) transposed; gru reset="before": (D, P, H), gate n of weight_hh
    peephole: Tensor | None
    mask: Tensor | None
    zoneout_h: Tensor | None
    zoneout_c: Tensor | None
    dy: Tensor  # (B, T, D, P)
    dh: Tensor  # (D, B, P) fp32, what reaches h(t) beside the product; at first the final state's gradient
    dc: Tensor | None  # (D, B, H) fp32
    dgates: Tensor  # (B, T, D, G, H) of W_ih x + b_ih
    dgates_hh: Tensor  # (B, T, D, G, H) of W_hh h + b_hh: the same tensor where both are equal
    dprojected: Tensor | None  # (B, T, D, P) of W_hr m
    middle: Tensor | None  # (B, T, D, H) m = o ⊙ tanh c, for the gradient of W_hr
    partial: Tensor | None  # (SPLIT, D, B, P) fp32
    dpeephole: Tensor | None  # (D, B, rows, H) fp32, summed over steps


# Helpers -------------------------------------------------------------------------------------------------------


@triton.jit
def _tanh(x):
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit
def _clip(x, BOUND: tl.constexpr):
    # NaN stays NaN, as in torch.clamp: what diverged is to be seen.
    return (
        x
        if BOUND == 0.0
        else tl.minimum(
            tl.maximum(x, -BOUND, propagate_nan=tl.PropagateNan.ALL), BOUND, propagate_nan=tl.PropagateNan.ALL
        )
    )


@triton.jit
def _load(pointer, row, column, mask):
    """Load a tile as fp32: row (ROWS,) and column (UNITS,) count elements."""
    return tl.load(pointer + row[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _store(pointer, row, column, mask, value):
    tl.store(pointer + row[:, None] + column[None, :], value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def _add(pointer, row, column, mask, value):
    """Add to a tile that belongs to this program: the order of the sum is fixed, no atomics."""
    _store(pointer, row, column, mask, _load(pointer, row, column, mask) + value)


@triton.jit
def _load_units(pointer, column, in_width):
    """Load one value a unit, (1, UNITS)."""
    return tl.load(pointer + column, mask=in_width, other=0.0).to(tl.float32)[None, :]


@triton.jit
def _share(drawn, SHARE: tl.constexpr, WIDTH: tl.constexpr, ptr, at, cfg: tl.constexpr):
    """Zoneout's share of the previous state."""
    s, d, b, _, _, u, _, mask = at
    if SHARE < 0:
        share = _load(drawn, ((d * ptr.B + b) * ptr.T + s) * WIDTH, u, mask)
    else:
        ROWS: tl.constexpr = cfg.ROWS
        UNITS: tl.constexpr = cfg.UNITS
        share = tl.full((ROWS, UNITS), SHARE, tl.float32)
    return share


@triton.jit
def _tiles(B, COLUMNS: tl.constexpr, UNITS: tl.constexpr, cfg: tl.constexpr):
    """How many tiles a phase has."""
    return tl.cdiv(B, cfg.ROWS) * (cfg.D * ((COLUMNS + UNITS - 1) // UNITS))


@triton.jit
def _place(tile, COLUMNS: tl.constexpr, UNITS: tl.constexpr, cfg: tl.constexpr):
    """A tile's first row, direction and first unit."""
    BLOCKS: tl.constexpr = (COLUMNS + UNITS - 1) // UNITS
    return tile // (BLOCKS * cfg.D) * cfg.ROWS, (tile // BLOCKS) % cfg.D, tile % BLOCKS * UNITS


@triton.jit
def _rows(s, first_row, d, ptr, cfg: tl.constexpr):
    """Of each row: its length, whether step s is within it, its place in the batch, its frame at step s."""
    row = first_row + tl.arange(0, cfg.ROWS)
    length = tl.load(ptr.lengths + row, mask=row < ptr.B, other=0)
    active = s < length
    b = tl.load(ptr.order + row, mask=active, other=0).to(tl.int64)
    frame = b * ptr.T + tl.where(d == 0, s, length - 1 - s)
    return length, active, b, frame * cfg.D + d


@triton.jit
def _products(operands, K: tl.constexpr, GATES: tl.constexpr, UNITS: tl.constexpr, cfg: tl.constexpr):
    """Multiply rows a (ROWS, K) by up to four blocks of weight rows (UNITS, K): (ROWS, UNITS) fp32 a block.

    operands: pointers to the rows of a, which of them count, pointers to the rows of the first block, which of
    them exist, and the elements from one block to the next. Loads of a pass by the first-level cache, which other
    multiprocessors' stores do not reach.
    """
    a_row, active, w_row, in_width, stride = operands
    ROWS: tl.constexpr = cfg.ROWS
    zero = tl.zeros((ROWS, UNITS), tl.float32)
    sum_0, sum_1, sum_2, sum_3 = zero, zero, zero, zero
    for start in range(0, K, cfg.DEPTH):
        k = start + tl.arange(0, cfg.DEPTH)
        in_depth = k < K
        a_mask = active[:, None] & in_depth[None, :]
        a = tl.load(a_row[:, None] + k[None, :], mask=a_mask, other=0.0, cache_modifier=".cg")
        w = w_row[None, :] + k[:, None]
        w_mask = in_width[None, :] & in_depth[:, None]
        sum_0 = _dot(a, tl.load(w, mask=w_mask, other=0.0), sum_0, cfg)
        if GATES > 1:
            sum_1 = _dot(a, tl.load(w + stride, mask=w_mask, other=0.0), sum_1, cfg)
        if GATES > 2:
            sum_2 = _dot(a, tl.load(w + 2 * stride, mask=w_mask, other=0.0), sum_2, cfg)
        if GATES > 3:
            sum_3 = _dot(a, tl.load(w + 3 * stride, mask=w_mask, other=0.0), sum_3, cfg)
    return sum_0, sum_1, sum_2, sum_3


@triton.jit
def _product(operands, K: tl.constexpr, UNITS: tl.constexpr, cfg: tl.constexpr):
    total, _, _, _ = _products(operands, K, 1, UNITS, cfg)
    return total


@triton.jit
def _dot(a, w, total, cfg: tl.constexpr):
    if cfg.INTERPRET:  # the interpreter multiplies bfloat16 as the integers that its bits spell
        a, w = a.to(tl.float32), w.to(tl.float32)
    return tl.dot(a, w, total, input_precision=cfg.PRECISION)


@triton.jit
def _grid_barrier(counter, arrivals):
    """Wait until programs have come here `arrivals` times in all, their stores visible to every program."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release", scope="gpu")
    while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < arrivals:
        pass
    tl.debug_barrier()


# Cells, forward --------------------------------------------------------------------------------------------------
# `operands` are the product's. `at` says where the tile is: step, direction, place in the batch, frame (counted over
# both directions), row of a state, units, whether a unit exists, whether an element does. What needs no product is
# loaded before it, so that the two wait for memory together.


@triton.jit
def _input_share(GATE: tl.constexpr, ptr, at, cfg: tl.constexpr):
    """Gate number GATE before the product is added: the input's share and the bias."""
    _, d, _, frame, _, u, in_width, mask = at
    share = _load(ptr.gates, (frame * cfg.G + GATE) * cfg.H, u, mask)
    if cfg.BIAS:
        share += _load_units(ptr.bias_hh + (d * cfg.G + GATE) * cfg.H, u, in_width)
    return share


@triton.jit
def _save_gate(value, GATE: tl.constexpr, ptr, at, cfg: tl.constexpr):
    _, _, _, frame, _, u, _, mask = at
    _store(ptr.gates, (frame * cfg.G + GATE) * cfg.H, u, mask, value)


@triton.jit
def _peephole(ROW: tl.constexpr, ptr, at, cfg: tl.constexpr):
    """Diagonal weights: one row of `weight_peephole`, which has one row fewer than there are gates."""
    _, d, _, _, _, u, in_width, _ = at
    return _load_units(ptr.peephole + (d * (cfg.G - 1) + ROW) * cfg.H, u, in_width)


@triton.jit
def _lstm_forward(operands, ptr, at, cfg: tl.constexpr):
    """cells.lstm_step and, without gate i, cells.cifg_step: o ⊙ tanh c'."""
    _, _, _, frame, state_row, u, _, mask = at
    COUPLED: tl.constexpr = cfg.CELL == "cifg"
    F: tl.constexpr = 0 if COUPLED else 1  # gates are f, g, o or i, f, g, o; peepholes f, o or i, f, o
    old_c = _load(ptr.c, state_row * cfg.H, u, mask)
    i = _input_share(0, ptr, at, cfg)
    f = _input_share(F, ptr, at, cfg)
    g = _input_share(F + 1, ptr, at, cfg)
    o = _input_share(F + 2, ptr, at, cfg)
    if cfg.PEEPHOLE:
        i += old_c * _peephole(0, ptr, at, cfg)
        f += old_c * _peephole(F, ptr, at, cfg)

    sum_0, sum_1, sum_2, sum_3 = _products(operands, cfg.P, cfg.G, cfg.UNITS, cfg)
    f = tl.sigmoid(f + (sum_0 if COUPLED else sum_1))
    g = _tanh(g + (sum_1 if COUPLED else sum_2))
    o += sum_2 if COUPLED else sum_3
    i = 1 - f if COUPLED else tl.sigmoid(i + sum_0)
    new_c = _clip(f * old_c + i * g, cfg.CELL_CLIP)
    if cfg.PEEPHOLE:
        o += new_c * _peephole(F + 1, ptr, at, cfg)
    o = tl.sigmoid(o)
    out = o * _tanh(new_c)
    if cfg.SHARE_C != 0:
        share = _share(ptr.zoneout_c, cfg.SHARE_C, cfg.H, ptr, at, cfg)
        new_c = share * old_c + (1 - share) * new_c
    _store(ptr.c, state_row * cfg.H, u, mask, new_c)
    if cfg.SAVE:
        if not COUPLED:
            _save_gate(i, 0, ptr, at, cfg)
        _save_gate(f, F, ptr, at, cfg)
        _save_gate(g, F + 1, ptr, at, cfg)
        _save_gate(o, F + 2, ptr, at, cfg)
        _store(ptr.kept, frame * cfg.H, u, mask, new_c)
    return out


@triton.jit
def _gru_forward(operands, ptr, at, cfg: tl.constexpr):
    """cells.gru_step with the reset gate after the product."""
    _, d, _, frame, state_row, u, in_width, mask = at
    old_h = _load(ptr.h, state_row * cfg.P, u, mask)
    r = _input_share(0, ptr, at, cfg)
    z = _input_share(1, ptr, at, cfg)
    n = _load(ptr.gates, (frame * cfg.G + 2) * cfg.H, u, mask)

    sum_0, sum_1, recurrent_n, _ = _products(operands, cfg.P, cfg.G, cfg.UNITS, cfg)
    if cfg.BIAS:
        recurrent_n += _load_units(ptr.bias_hh + (d * cfg.G + 2) * cfg.H, u, in_width)
    r = tl.sigmoid(r + sum_0)
    z = tl.sigmoid(z + sum_1)
    n = _tanh(n + r * recurrent_n)
    if cfg.SAVE:
        _save_gate(r, 0, ptr, at, cfg)
        _save_gate(z, 1, ptr, at, cfg)
        _save_gate(n, 2, ptr, at, cfg)
        _store(ptr.kept, frame * cfg.H, u, mask, recurrent_n)
    return (1 - z) * n + z * old_h


@triton.jit
def _gru_before_reset(operands, ptr, at, cfg: tl.constexpr):
    """Phase 0 of cells.gru_step with the reset gate before the product: r ⊙ h ⊙ mask."""
    _, _, _, _, state_row, u, _, mask = at
    h = _load(ptr.h, state_row * cfg.P, u, mask)
    if cfg.MASK:
        h *= _load(ptr.mask, state_row * cfg.P, u, mask)
    r = _input_share(0, ptr, at, cfg)
    z = _input_share(1, ptr, at, cfg)

    sum_0, sum_1, _, _ = _products(operands, cfg.P, 2, cfg.UNITS, cfg)
    r = tl.sigmoid(r + sum_0)
    _save_gate(r, 0, ptr, at, cfg)
    _save_gate(tl.sigmoid(z + sum_1), 1, ptr, at, cfg)
    return r * h


@triton.jit
def _gru_before_forward(operands, ptr, at, cfg: tl.constexpr):
    """Phase 1 of the same."""
    _, _, _, frame, state_row, u, _, mask = at
    old_h = _load(ptr.h, state_row * cfg.P, u, mask)
    z = _load(ptr.gates, (frame * cfg.G + 1) * cfg.H, u, mask)
    n = _input_share(2, ptr, at, cfg)

    n = _tanh(n + _product(operands, cfg.P, cfg.UNITS, cfg))
    if cfg.SAVE:
        _save_gate(n, 2, ptr, at, cfg)
    return (1 - z) * n + z * old_h


@triton.jit
def _rnn_forward(operands, ptr, at, cfg: tl.constexpr):
    """cells.rnn_tanh_step."""
    n = _input_share(0, ptr, at, cfg)
    n = _tanh(n + _product(operands, cfg.P, cfg.UNITS, cfg))
    if cfg.SAVE:
        _save_gate(n, 0, ptr, at, cfg)
    return n


@triton.jit
def _projection_forward(operands, ptr, at, cfg: tl.constexpr):
    """W_hr (o ⊙ tanh c'), clipped."""
    _, _, _, frame, _, u, _, mask = at
    out = _product(operands, cfg.H, cfg.UNITS, cfg)
    if cfg.SAVE and cfg.PROJ_CLIP > 0:
        _store(ptr.unclipped, frame * cfg.P, u, mask, tl.abs(out) <= cfg.PROJ_CLIP)
    return _clip(out, cfg.PROJ_CLIP)


@triton.jit
def forward_phase(PHASE: tl.constexpr, s, tile, ptr, cfg: tl.constexpr):
    """Compute one tile of one phase of step s."""
    COLUMNS: tl.constexpr = cfg.P if PHASE == 1 else cfg.H
    first_row, d, first_unit = _place(tile, COLUMNS, cfg.UNITS, cfg)
    if s < tl.load(ptr.lengths + first_row):
        _, active, b, frame = _rows(s, first_row, d, ptr, cfg)
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
            out = _projection_forward(operands, ptr, at, cfg)
        elif PHASE == 1:
            out = _gru_before_forward(operands, ptr, at, cfg)
        elif cfg.CELL == "gru_before":
            out = _gru_before_reset(operands, ptr, at, cfg)
        elif cfg.CELL == "gru_after":
            out = _gru_forward(operands, ptr, at, cfg)
        elif cfg.CELL == "rnn_tanh":
            out = _rnn_forward(operands, ptr, at, cfg)
        else:
            out = _lstm_forward(operands, ptr, at, cfg)

        if PHASE == 0 and (cfg.PROJECTION or cfg.CELL == "gru_before"):
            _store(ptr.middle, state_row * cfg.H, u, mask, out)
        else:
            if cfg.SHARE_H != 0:
                share = _share(ptr.zoneout_h, cfg.SHARE_H, cfg.P, ptr, at, cfg)
                out = share * _load(ptr.h, state_row * cfg.P, u, mask) + (1 - share) * out
            _store(ptr.y, frame * cfg.P, u, mask, out)
            _store(ptr.h, state_row * cfg.P, u, mask, out)
            if cfg.MASK:
                out *= _load(ptr.mask, state_row * cfg.P, u, mask)
            _store(ptr.source, (((s + 1) % 2) * cfg.D * ptr.B + state_row) * cfg.P, u, mask, out)


# Cells, backward -------------------------------------------------------------------------------------------------
# Each takes the gradient of what the cell's forward function returned back to the gates and the state before.


@triton.jit
def _saved_gate(GATE: tl.constexpr, ptr, at, cfg: tl.constexpr):
    _, _, _, frame, _, u, _, mask = at
    return _load(ptr.gates, (frame * cfg.G + GATE) * cfg.H, u, mask)


@triton.jit
def _store_dgate(pointer, value, GATE: tl.constexpr, at, cfg: tl.constexpr):
    _, _, _, frame, _, u, _, mask = at
    _store(pointer, (frame * cfg.G + GATE) * cfg.H, u, mask, value)


@triton.jit
def _before(initial, sequence, WIDTH: tl.constexpr, at, cfg: tl.constexpr):
    """The previous step's state: the initial one, or that of the frame before in this direction."""
    s, d, _, frame, state_row, u, _, mask = at
    frame -= tl.where(d == 0, cfg.D, -cfg.D)
    at_first = _load(initial, state_row * WIDTH, u, mask & (s == 0))
    return at_first + _load(sequence, frame * WIDTH, u, mask & (s > 0))


@triton.jit
def _output_gradient(operands, length, ptr, at, cfg: tl.constexpr):
    """Of h(t), without the share that zoneout hands to h(t-1), and that share."""
    s, _, _, frame, state_row, u, in_width, mask = at
    _, following, _, _, _ = operands
    GRU: tl.constexpr = cfg.CELL == "gru_after" or cfg.CELL == "gru_before"
    ROWS: tl.constexpr = cfg.ROWS
    UNITS: tl.constexpr = cfg.UNITS
    SPLIT: tl.constexpr = cfg.SPLIT
    # Only where h(t-1) enters h(t) directly does dh hold more than the final state's gradient.
    in_dh = mask if GRU or cfg.SHARE_H != 0 else mask & (s == length - 1)[:, None]
    outside = _load(ptr.dh, state_row * cfg.P, u, in_dh) + _load(ptr.dy, frame * cfg.P, u, mask)
    if cfg.SPLIT == 1:
        grad = _product(operands, _summands(cfg), cfg.UNITS, cfg)
    else:
        grad = tl.zeros((ROWS, UNITS), tl.float32)
        in_partial = following[:, None] & in_width[None, :]
        for part in tl.static_range(SPLIT):
            grad += _load(ptr.partial, (part * cfg.D * ptr.B + state_row) * cfg.P, u, in_partial)
    if cfg.MASK:
        grad *= _load(ptr.mask, state_row * cfg.P, u, mask)
    grad += outside
    carry = tl.zeros((ROWS, UNITS), tl.float32)
    if cfg.SHARE_H != 0:
        carry = grad * _share(ptr.zoneout_h, cfg.SHARE_H, cfg.P, ptr, at, cfg)
        grad -= carry
    return grad, carry


@triton.jit
def _store_carry(carry, ptr, at, cfg: tl.constexpr):
    _, _, _, _, state_row, u, _, mask = at
    if cfg.SHARE_H != 0:
        _store(ptr.dh, state_row * cfg.P, u, mask, carry)


@triton.jit
def _projection_backward(operands, length, ptr, at, cfg: tl.constexpr):
    """Phase 0 with a projection: the gradient of W_hr (o ⊙ tanh c')."""
    _, _, _, frame, _, u, _, mask = at
    grad, carry = _output_gradient(operands, length, ptr, at, cfg)
    if cfg.PROJ_CLIP > 0:
        grad *= _load(ptr.unclipped, frame * cfg.P, u, mask)
    _store(ptr.dprojected, frame * cfg.P, u, mask, grad)
    _store_carry(carry, ptr, at, cfg)


@triton.jit
def _lstm_backward(operands, length, ptr, at, cfg: tl.constexpr):
    """Of `_lstm_forward`. c' is computed again, since zoneout may have kept another."""
    _, _, _, frame, state_row, u, _, mask = at
    COUPLED: tl.constexpr = cfg.CELL == "cifg"
    F: tl.constexpr = 0 if COUPLED else 1
    ROWS: tl.constexpr = cfg.ROWS
    UNITS: tl.constexpr = cfg.UNITS
    f = _saved_gate(F, ptr, at, cfg)
    g = _saved_gate(F + 1, ptr, at, cfg)
    o = _saved_gate(F + 2, ptr, at, cfg)
    i = 1 - f if COUPLED else _saved_gate(0, ptr, at, cfg)
    old_c = _before(ptr.c0, ptr.kept, cfg.H, at, cfg)
    dnew_c = _load(ptr.dc, state_row * cfg.H, u, mask)

    raw_c = f * old_c + i * g
    new_c = _clip(raw_c, cfg.CELL_CLIP)
    tanh_c = _tanh(new_c)
    if cfg.PROJECTION:
        grad = _product(operands, cfg.P, cfg.UNITS, cfg)
        _store(ptr.middle, frame * cfg.H, u, mask, o * tanh_c)
    else:
        grad, carry = _output_gradient(operands, length, ptr, at, cfg)
        _store_carry(carry, ptr, at, cfg)
    do = grad * tanh_c * o * (1 - o)
    dold_c = tl.zeros((ROWS, UNITS), tl.float32)
    if cfg.SHARE_C != 0:
        dold_c = dnew_c * _share(ptr.zoneout_c, cfg.SHARE_C, cfg.H, ptr, at, cfg)
        dnew_c -= dold_c
    dnew_c += grad * o * (1 - tanh_c * tanh_c)
    if cfg.PEEPHOLE:
        dnew_c += do * _peephole(F + 1, ptr, at, cfg)
    if cfg.CELL_CLIP > 0:
        dnew_c = tl.where(tl.abs(raw_c) <= cfg.CELL_CLIP, dnew_c, 0.0)
    dold_c += dnew_c * f
    df = dnew_c * (old_c - g if COUPLED else old_c) * f * (1 - f)
    if not COUPLED:
        di = dnew_c * g * i * (1 - i)
        _store_dgate(ptr.dgates, di, 0, at, cfg)
        if cfg.PEEPHOLE:
            dold_c += di * _peephole(0, ptr, at, cfg)
            _add(ptr.dpeephole, state_row * (cfg.G - 1) * cfg.H, u, mask, di * old_c)
    if cfg.PEEPHOLE:
        dold_c += df * _peephole(F, ptr, at, cfg)
        _add(ptr.dpeephole, (state_row * (cfg.G - 1) + F) * cfg.H, u, mask, df * old_c)
        _add(ptr.dpeephole, (state_row * (cfg.G - 1) + F + 1) * cfg.H, u, mask, do * new_c)
    _store_dgate(ptr.dgates, df, F, at, cfg)
    _store_dgate(ptr.dgates, dnew_c * i * (1 - g * g), F + 1, at, cfg)
    _store_dgate(ptr.dgates, do, F + 2, at, cfg)
    _store(ptr.dc, state_row * cfg.H, u, mask, dold_c)


@triton.jit
def _gru_backward(operands, length, ptr, at, cfg: tl.constexpr):
    """Of `_gru_forward`, and of phase 1 with the reset gate before."""
    _, _, _, frame, state_row, u, _, mask = at
    z = _saved_gate(1, ptr, at, cfg)
    n = _saved_gate(2, ptr, at, cfg)
    old_h = _before(ptr.h0, ptr.y, cfg.P, at, cfg)
    if cfg.CELL == "gru_after":
        r = _saved_gate(0, ptr, at, cfg)
        recurrent_n = _load(ptr.kept, frame * cfg.H, u, mask)

    grad, carry = _output_gradient(operands, length, ptr, at, cfg)
    dz = grad * (old_h - n) * z * (1 - z)
    dn = grad * (1 - z) * (1 - n * n)
    _store_dgate(ptr.dgates, dz, 1, at, cfg)
    _store_dgate(ptr.dgates, dn, 2, at, cfg)
    if cfg.CELL == "gru_after":
        dr = dn * recurrent_n * r * (1 - r)
        _store_dgate(ptr.dgates, dr, 0, at, cfg)
        _store_dgate(ptr.dgates_hh, dr, 0, at, cfg)
        _store_dgate(ptr.dgates_hh, dz, 1, at, cfg)
        _store_dgate(ptr.dgates_hh, dn * r, 2, at, cfg)
    _store(ptr.dh, state_row * cfg.P, u, mask, carry + z * grad)


@triton.jit
def _gru_before_reset_backward(operands, ptr, at, cfg: tl.constexpr):
    """Of `_gru_before_reset`'s reset gate; adds to dh what r ⊙ h passes on."""
    _, _, _, _, state_row, u, _, mask = at
    r = _saved_gate(0, ptr, at, cfg)
    old_h = _before(ptr.h0, ptr.y, cfg.P, at, cfg)
    grad = _product(operands, cfg.P, cfg.UNITS, cfg)
    if cfg.MASK:
        grad *= _load(ptr.mask, state_row * cfg.P, u, mask)
    _store_dgate(ptr.dgates, grad * old_h * r * (1 - r), 0, at, cfg)
    _add(ptr.dh, state_row * cfg.P, u, mask, grad * r)


@triton.jit
def _rnn_backward(operands, length, ptr, at, cfg: tl.constexpr):
    """Of `_rnn_forward`."""
    n = _saved_gate(0, ptr, at, cfg)
    grad, carry = _output_gradient(operands, length, ptr, at, cfg)
    _store_dgate(ptr.dgates, grad * (1 - n * n), 0, at, cfg)
    _store_carry(carry, ptr, at, cfg)


@triton.constexpr_function
def _summands(cfg):
    """Columns of dgates_hh that reach h(t-1) in phase 0."""
    return (2 if cfg.CELL == "gru_before" else cfg.G) * cfg.H


@triton.jit
def backward_phase(PHASE: tl.constexpr, s, tile, ptr, cfg: tl.constexpr):
    """Compute one tile of one phase of the gradients of step s, which follow those of step s + 1."""
    COLUMNS: tl.constexpr = cfg.P if PHASE == 0 else cfg.H
    first_row, d, first_unit = _place(tile, COLUMNS, cfg.UNITS, cfg)
    if s < tl.load(ptr.lengths + first_row):
        length, active, b, frame = _rows(s, first_row, d, ptr, cfg)
        state_row = d * ptr.B + b
        u = first_unit + tl.arange(0, cfg.UNITS)
        in_width = u < COLUMNS
        mask = active[:, None] & in_width[None, :]
        at = (s, d, b, frame, state_row, u, in_width, mask)

        if PHASE == 0:  # from the next step's gates
            a_row = ptr.dgates_hh + (frame + tl.where(d == 0, cfg.D, -cfg.D)) * (cfg.G * cfg.H)
            w_row = ptr.weight_hh + (d * cfg.P + u).to(tl.int64) * _summands(cfg)
            operands = (a_row, s + 1 < length, w_row, in_width, 0)
        else:  # from this step's projection or candidate
            if cfg.PROJECTION:  # noqa: SIM108, a pointer may be absent
                a_row = ptr.dprojected + frame * cfg.P
            else:
                a_row = ptr.dgates + (frame * cfg.G + 2) * cfg.H
            w_row = ptr.weight_hr + (d * cfg.H + u).to(tl.int64) * cfg.P
            operands = (a_row, active, w_row, in_width, 0)

        if PHASE == 0 and cfg.PROJECTION:
            _projection_backward(operands, length, ptr, at, cfg)
        elif PHASE == 1 and cfg.CELL == "gru_before":
            _gru_before_reset_backward(operands, ptr, at, cfg)
        elif cfg.CELL == "gru_before" or cfg.CELL == "gru_after":
            _gru_backward(operands, length, ptr, at, cfg)
        elif cfg.CELL == "rnn_tanh":
            _rnn_backward(operands, length, ptr, at, cfg)
        else:
            _lstm_backward(operands, length, ptr, at, cfg)


@triton.jit
def backward_partial(s, tile, ptr, cfg: tl.constexpr):
    """Compute one tile of phase 0's product for one of SPLIT equal parts of the summed axis, here the gates.

    The gradients of the gates are wide: were each program to read them all, they alone would fill the way from the
    second-level cache. With wider tiles of a part each, that traffic falls by about SPLIT, for a second wait a step.
    """
    tiles = _tiles(ptr.B, cfg.P, cfg.SPLIT_UNITS, cfg)
    part = tile // tiles
    first_row, d, first_unit = _place(tile % tiles, cfg.P, cfg.SPLIT_UNITS, cfg)
    if s + 1 < tl.load(ptr.lengths + first_row):
        _, following, b, frame = _rows(s + 1, first_row, d, ptr, cfg)
        u = first_unit + tl.arange(0, cfg.SPLIT_UNITS)
        in_width = u < cfg.P
        a_row = ptr.dgates_hh + (frame * cfg.G + part) * cfg.H
        w_row = ptr.weight_hh + (d * cfg.P + u).to(tl.int64) * _summands(cfg) + part * cfg.H
        total = _product((a_row, following, w_row, in_width, 0), cfg.H, cfg.SPLIT_UNITS, cfg)
        row = ((part * cfg.D + d) * ptr.B + b) * cfg.P
        _store(ptr.partial, row, u, following[:, None] & in_width[None, :], total)


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
            for tile in range(tl.program_id(0), _tiles(ptr.B, cfg.H, cfg.UNITS, cfg), programs):
                forward_phase(0, s, tile, ptr, cfg)
            if counter is not None:
                arrivals += programs
                _grid_barrier(counter, arrivals)
        if PHASES & 2:
            for tile in range(tl.program_id(0), _tiles(ptr.B, cfg.P, cfg.UNITS, cfg), programs):
                forward_phase(1, s, tile, ptr, cfg)
            if counter is not None:
                arrivals += programs
                _grid_barrier(counter, arrivals)


@triton.jit(do_not_specialize=["first", "last"])
def backward_kernel(ptr, first, last, counter, PHASES: tl.constexpr, cfg: tl.constexpr):
    """Run the gradients of steps last - 1 down to first; see `forward_kernel`. Bit 4 is for `backward_partial`."""
    programs = tl.num_programs(0)
    arrivals = 0
    for step in range(first, last):
        s = last - 1 - (step - first)
        if PHASES & 4:
            tiles = cfg.SPLIT * _tiles(ptr.B, cfg.P, cfg.SPLIT_UNITS, cfg)
            for tile in range(tl.program_id(0), tiles, programs):
                backward_partial(s, tile, ptr, cfg)
            if counter is not None:
                arrivals += programs
                _grid_barrier(counter, arrivals)
        if PHASES & 1:
            for tile in range(tl.program_id(0), _tiles(ptr.B, cfg.P, cfg.UNITS, cfg), programs):
                backward_phase(0, s, tile, ptr, cfg)
            if counter is not None:
                arrivals += programs
                _grid_barrier(counter, arrivals)
        if PHASES & 2:
            for tile in range(tl.program_id(0), _tiles(ptr.B, cfg.H, cfg.UNITS, cfg), programs):
                backward_phase(1, s, tile, ptr, cfg)
            if counter is not None:
                arrivals += programs
                _grid_barrier(counter, arrivals)
