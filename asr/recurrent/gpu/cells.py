"""The cells on a GPU, forward and backward: ../cells.py on one tile of utterances by hidden units.

To add a cell: write its forward and backward function, name both in the phases of kernels.py and its step in STEPS.
"""

# Device code is compiled by Triton: there a `cfg: tl.constexpr` is the Config itself, and literals are constexpr.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportOptionalMemberAccess=false
# pyright: reportAssignmentType=false, reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false, reportReturnType=false

import triton
import triton.language as tl

from asr.recurrent.gpu.primitives import (
    add_to_tile,
    clip,
    load_tile,
    load_units,
    product,
    products,
    store_tile,
    summands,
    tanh,
    zoneout_share,
)

STEPS = ("lstm", "cifg", "gru_after", "gru_before", "rnn_tanh")  # the cells, by cells.Cell.fused


# Cells, forward --------------------------------------------------------------------------------------------------
# `operands` are the product's. `at` says where the tile is: step, direction, place in the batch, frame (counted over
# both directions), row of a state, units, whether a unit exists, whether an element does. What needs no product is
# loaded before it, so that the two wait for memory together.


@triton.jit
def _input_share(GATE: tl.constexpr, ptr, at, cfg: tl.constexpr):
    """Gate number GATE before the product is added: the input's share and the bias."""
    _, d, _, frame, _, u, in_width, mask = at
    share = load_tile(ptr.gates, (frame * cfg.G + GATE) * cfg.H, u, mask)
    if cfg.BIAS:
        share += load_units(ptr.bias_hh + (d * cfg.G + GATE) * cfg.H, u, in_width)
    return share


@triton.jit
def _save_gate(value, GATE: tl.constexpr, ptr, at, cfg: tl.constexpr):
    _, _, _, frame, _, u, _, mask = at
    store_tile(ptr.gates, (frame * cfg.G + GATE) * cfg.H, u, mask, value)


@triton.jit
def _peephole(ROW: tl.constexpr, ptr, at, cfg: tl.constexpr):
    """Diagonal weights: one row of `weight_peephole`, which has one row fewer than there are gates."""
    _, d, _, _, _, u, in_width, _ = at
    return load_units(ptr.peephole + (d * (cfg.G - 1) + ROW) * cfg.H, u, in_width)


@triton.jit
def lstm_forward(operands, ptr, at, cfg: tl.constexpr):
    """cells.lstm_step and, without gate i, cells.cifg_step: o ⊙ tanh c'."""
    _, _, _, frame, state_row, u, _, mask = at
    COUPLED: tl.constexpr = cfg.CELL == "cifg"
    F: tl.constexpr = 0 if COUPLED else 1  # gates are f, g, o or i, f, g, o; peepholes f, o or i, f, o
    old_c = load_tile(ptr.c, state_row * cfg.H, u, mask)
    i = _input_share(0, ptr, at, cfg)
    f = _input_share(F, ptr, at, cfg)
    g = _input_share(F + 1, ptr, at, cfg)
    o = _input_share(F + 2, ptr, at, cfg)
    if cfg.PEEPHOLE:
        i += old_c * _peephole(0, ptr, at, cfg)
        f += old_c * _peephole(F, ptr, at, cfg)

    sum_0, sum_1, sum_2, sum_3 = products(operands, cfg.P, cfg.G, cfg.UNITS, cfg)
    f = tl.sigmoid(f + (sum_0 if COUPLED else sum_1))
    g = tanh(g + (sum_1 if COUPLED else sum_2))
    o += sum_2 if COUPLED else sum_3
    i = 1 - f if COUPLED else tl.sigmoid(i + sum_0)
    new_c = clip(f * old_c + i * g, cfg.CELL_CLIP)
    if cfg.PEEPHOLE:
        o += new_c * _peephole(F + 1, ptr, at, cfg)
    o = tl.sigmoid(o)
    out = o * tanh(new_c)
    if cfg.SHARE_C != 0:
        share = zoneout_share(ptr.zoneout_c, cfg.SHARE_C, cfg.H, ptr, at, cfg)
        new_c = share * old_c + (1 - share) * new_c
    store_tile(ptr.c, state_row * cfg.H, u, mask, new_c)
    if cfg.SAVE:
        if not COUPLED:
            _save_gate(i, 0, ptr, at, cfg)
        _save_gate(f, F, ptr, at, cfg)
        _save_gate(g, F + 1, ptr, at, cfg)
        _save_gate(o, F + 2, ptr, at, cfg)
        store_tile(ptr.kept, frame * cfg.H, u, mask, new_c)
    return out


@triton.jit
def gru_forward(operands, ptr, at, cfg: tl.constexpr):
    """cells.gru_step with the reset gate after the product."""
    _, d, _, frame, state_row, u, in_width, mask = at
    old_h = load_tile(ptr.h, state_row * cfg.P, u, mask)
    r = _input_share(0, ptr, at, cfg)
    z = _input_share(1, ptr, at, cfg)
    n = load_tile(ptr.gates, (frame * cfg.G + 2) * cfg.H, u, mask)

    sum_0, sum_1, recurrent_n, _ = products(operands, cfg.P, cfg.G, cfg.UNITS, cfg)
    if cfg.BIAS:
        recurrent_n += load_units(ptr.bias_hh + (d * cfg.G + 2) * cfg.H, u, in_width)
    r = tl.sigmoid(r + sum_0)
    z = tl.sigmoid(z + sum_1)
    n = tanh(n + r * recurrent_n)
    if cfg.SAVE:
        _save_gate(r, 0, ptr, at, cfg)
        _save_gate(z, 1, ptr, at, cfg)
        _save_gate(n, 2, ptr, at, cfg)
        store_tile(ptr.kept, frame * cfg.H, u, mask, recurrent_n)
    return (1 - z) * n + z * old_h


@triton.jit
def gru_before_reset(operands, ptr, at, cfg: tl.constexpr):
    """Phase 0 of cells.gru_step with the reset gate before the product: r ⊙ h ⊙ mask."""
    _, _, _, _, state_row, u, _, mask = at
    h = load_tile(ptr.h, state_row * cfg.P, u, mask)
    if cfg.MASK:
        h *= load_tile(ptr.mask, state_row * cfg.P, u, mask)
    r = _input_share(0, ptr, at, cfg)
    z = _input_share(1, ptr, at, cfg)

    sum_0, sum_1, _, _ = products(operands, cfg.P, 2, cfg.UNITS, cfg)
    r = tl.sigmoid(r + sum_0)
    _save_gate(r, 0, ptr, at, cfg)
    _save_gate(tl.sigmoid(z + sum_1), 1, ptr, at, cfg)
    return r * h


@triton.jit
def gru_before_forward(operands, ptr, at, cfg: tl.constexpr):
    """Phase 1 of the same."""
    _, _, _, frame, state_row, u, _, mask = at
    old_h = load_tile(ptr.h, state_row * cfg.P, u, mask)
    z = load_tile(ptr.gates, (frame * cfg.G + 1) * cfg.H, u, mask)
    n = _input_share(2, ptr, at, cfg)

    n = tanh(n + product(operands, cfg.P, cfg.UNITS, cfg))
    if cfg.SAVE:
        _save_gate(n, 2, ptr, at, cfg)
    return (1 - z) * n + z * old_h


@triton.jit
def rnn_forward(operands, ptr, at, cfg: tl.constexpr):
    """cells.rnn_tanh_step."""
    n = _input_share(0, ptr, at, cfg)
    n = tanh(n + product(operands, cfg.P, cfg.UNITS, cfg))
    if cfg.SAVE:
        _save_gate(n, 0, ptr, at, cfg)
    return n


@triton.jit
def projection_forward(operands, ptr, at, cfg: tl.constexpr):
    """W_hr (o ⊙ tanh c'), clipped."""
    _, _, _, frame, _, u, _, mask = at
    out = product(operands, cfg.H, cfg.UNITS, cfg)
    if cfg.SAVE and cfg.PROJ_CLIP > 0:
        store_tile(ptr.unclipped, frame * cfg.P, u, mask, tl.abs(out) <= cfg.PROJ_CLIP)
    return clip(out, cfg.PROJ_CLIP)


# Cells, backward -------------------------------------------------------------------------------------------------
# Each takes the gradient of what the cell's forward function returned back to the gates and the state before.


@triton.jit
def _saved_gate(GATE: tl.constexpr, ptr, at, cfg: tl.constexpr):
    _, _, _, frame, _, u, _, mask = at
    return load_tile(ptr.gates, (frame * cfg.G + GATE) * cfg.H, u, mask)


@triton.jit
def _store_dgate(pointer, value, GATE: tl.constexpr, at, cfg: tl.constexpr):
    _, _, _, frame, _, u, _, mask = at
    store_tile(pointer, (frame * cfg.G + GATE) * cfg.H, u, mask, value)


@triton.jit
def _before(initial, sequence, WIDTH: tl.constexpr, at, cfg: tl.constexpr):
    """The previous step's state: the initial one, or that of the frame before in this direction."""
    s, d, _, frame, state_row, u, _, mask = at
    frame -= tl.where(d == 0, cfg.D, -cfg.D)
    at_first = load_tile(initial, state_row * WIDTH, u, tl.where(s == 0, mask, False))
    return at_first + load_tile(sequence, frame * WIDTH, u, tl.where(s > 0, mask, False))


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
    outside = load_tile(ptr.dh, state_row * cfg.P, u, in_dh) + load_tile(ptr.dy, frame * cfg.P, u, mask)
    if cfg.SPLIT == 1:
        grad = product(operands, summands(cfg), cfg.UNITS, cfg)
    else:
        grad = tl.zeros((ROWS, UNITS), tl.float32)
        in_partial = following[:, None] & in_width[None, :]
        for part in tl.static_range(SPLIT):
            grad += load_tile(ptr.partial, (part * cfg.D * ptr.B + state_row) * cfg.P, u, in_partial)
    if cfg.MASK:
        grad *= load_tile(ptr.mask, state_row * cfg.P, u, mask)
    grad += outside
    carry = tl.zeros((ROWS, UNITS), tl.float32)
    if cfg.SHARE_H != 0:
        carry = grad * zoneout_share(ptr.zoneout_h, cfg.SHARE_H, cfg.P, ptr, at, cfg)
        grad -= carry
    return grad, carry


@triton.jit
def _store_carry(carry, ptr, at, cfg: tl.constexpr):
    _, _, _, _, state_row, u, _, mask = at
    if cfg.SHARE_H != 0:
        store_tile(ptr.dh, state_row * cfg.P, u, mask, carry)


@triton.jit
def projection_backward(operands, length, ptr, at, cfg: tl.constexpr):
    """Phase 0 with a projection: the gradient of W_hr (o ⊙ tanh c')."""
    _, _, _, frame, _, u, _, mask = at
    grad, carry = _output_gradient(operands, length, ptr, at, cfg)
    if cfg.PROJ_CLIP > 0:
        grad *= load_tile(ptr.unclipped, frame * cfg.P, u, mask)
    store_tile(ptr.dprojected, frame * cfg.P, u, mask, grad)
    _store_carry(carry, ptr, at, cfg)


@triton.jit
def lstm_backward(operands, length, ptr, at, cfg: tl.constexpr):
    """Of `lstm_forward`. c' is computed again, since zoneout may have kept another."""
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
    dnew_c = load_tile(ptr.dc, state_row * cfg.H, u, mask)

    raw_c = f * old_c + i * g
    new_c = clip(raw_c, cfg.CELL_CLIP)
    tanh_c = tanh(new_c)
    if cfg.PROJECTION:
        grad = product(operands, cfg.P, cfg.UNITS, cfg)
        store_tile(ptr.middle, frame * cfg.H, u, mask, o * tanh_c)
    else:
        grad, carry = _output_gradient(operands, length, ptr, at, cfg)
        _store_carry(carry, ptr, at, cfg)
    do = grad * tanh_c * o * (1 - o)
    dold_c = tl.zeros((ROWS, UNITS), tl.float32)
    if cfg.SHARE_C != 0:
        dold_c = dnew_c * zoneout_share(ptr.zoneout_c, cfg.SHARE_C, cfg.H, ptr, at, cfg)
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
            add_to_tile(ptr.dpeephole, state_row * (cfg.G - 1) * cfg.H, u, mask, di * old_c)
    if cfg.PEEPHOLE:
        dold_c += df * _peephole(F, ptr, at, cfg)
        add_to_tile(ptr.dpeephole, (state_row * (cfg.G - 1) + F) * cfg.H, u, mask, df * old_c)
        add_to_tile(ptr.dpeephole, (state_row * (cfg.G - 1) + F + 1) * cfg.H, u, mask, do * new_c)
    _store_dgate(ptr.dgates, df, F, at, cfg)
    _store_dgate(ptr.dgates, dnew_c * i * (1 - g * g), F + 1, at, cfg)
    _store_dgate(ptr.dgates, do, F + 2, at, cfg)
    store_tile(ptr.dc, state_row * cfg.H, u, mask, dold_c)


@triton.jit
def gru_backward(operands, length, ptr, at, cfg: tl.constexpr):
    """Of `gru_forward`, and of phase 1 with the reset gate before."""
    _, _, _, frame, state_row, u, _, mask = at
    z = _saved_gate(1, ptr, at, cfg)
    n = _saved_gate(2, ptr, at, cfg)
    old_h = _before(ptr.h0, ptr.y, cfg.P, at, cfg)
    if cfg.CELL == "gru_after":
        r = _saved_gate(0, ptr, at, cfg)
        recurrent_n = load_tile(ptr.kept, frame * cfg.H, u, mask)

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
    store_tile(ptr.dh, state_row * cfg.P, u, mask, carry + z * grad)


@triton.jit
def gru_before_reset_backward(operands, ptr, at, cfg: tl.constexpr):
    """Of `gru_before_reset`'s reset gate; adds to dh what r ⊙ h passes on."""
    _, _, _, _, state_row, u, _, mask = at
    r = _saved_gate(0, ptr, at, cfg)
    old_h = _before(ptr.h0, ptr.y, cfg.P, at, cfg)
    grad = product(operands, cfg.P, cfg.UNITS, cfg)
    if cfg.MASK:
        grad *= load_tile(ptr.mask, state_row * cfg.P, u, mask)
    _store_dgate(ptr.dgates, grad * old_h * r * (1 - r), 0, at, cfg)
    add_to_tile(ptr.dh, state_row * cfg.P, u, mask, grad * r)


@triton.jit
def rnn_backward(operands, length, ptr, at, cfg: tl.constexpr):
    """Of `rnn_forward`."""
    n = _saved_gate(0, ptr, at, cfg)
    grad, carry = _output_gradient(operands, length, ptr, at, cfg)
    _store_dgate(ptr.dgates, grad * (1 - n * n), 0, at, cfg)
    _store_carry(carry, ptr, at, cfg)
