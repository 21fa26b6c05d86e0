"""What the cells and phases on a GPU are made of: a launch's constants and pointers, tiles, products, the barrier."""

# Device code is compiled by Triton: there a `cfg: tl.constexpr` is the Config itself, and literals are constexpr.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportOptionalMemberAccess=false
# pyright: reportAssignmentType=false, reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false, reportReturnType=false

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor


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


@triton.jit
def tanh(x):
    """By tl.sigmoid, which every version of Triton has on every device."""
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit
def clip(x, BOUND: tl.constexpr):
    """Bound |x|, 0 for not at all. NaN stays NaN, as in torch.clamp, so that divergence shows."""
    return (
        x
        if BOUND == 0.0
        else tl.minimum(
            tl.maximum(x, -BOUND, propagate_nan=tl.PropagateNan.ALL), BOUND, propagate_nan=tl.PropagateNan.ALL
        )
    )


@triton.jit
def load_tile(pointer, row, column, mask):
    """Load a tile as fp32: row (ROWS,) and column (UNITS,) count elements."""
    return tl.load(pointer + row[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def store_tile(pointer, row, column, mask, value):
    """Store a tile in the precision of its memory."""
    tl.store(pointer + row[:, None] + column[None, :], value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def add_to_tile(pointer, row, column, mask, value):
    """Add to a tile that belongs to this program: the order of the sum is fixed, no atomics."""
    store_tile(pointer, row, column, mask, load_tile(pointer, row, column, mask) + value)


@triton.jit
def load_units(pointer, column, in_width):
    """Load one value a unit, (1, UNITS)."""
    return tl.load(pointer + column, mask=in_width, other=0.0).to(tl.float32)[None, :]


@triton.jit
def zoneout_share(drawn, SHARE: tl.constexpr, WIDTH: tl.constexpr, ptr, at, cfg: tl.constexpr):
    """Return zoneout's share of the previous state."""
    s, d, b, _, _, u, _, mask = at
    if SHARE < 0:
        share = load_tile(drawn, ((d * ptr.B + b) * ptr.T + s) * WIDTH, u, mask)
    else:
        ROWS: tl.constexpr = cfg.ROWS
        UNITS: tl.constexpr = cfg.UNITS
        share = tl.full((ROWS, UNITS), SHARE, tl.float32)
    return share


@triton.jit
def tile_count(B, COLUMNS: tl.constexpr, UNITS: tl.constexpr, cfg: tl.constexpr):
    """Count a phase's tiles."""
    return tl.cdiv(B, cfg.ROWS) * (cfg.D * ((COLUMNS + UNITS - 1) // UNITS))


@triton.jit
def tile_place(tile, COLUMNS: tl.constexpr, UNITS: tl.constexpr, cfg: tl.constexpr):
    """Return a tile's first row, direction and first unit."""
    BLOCKS: tl.constexpr = (COLUMNS + UNITS - 1) // UNITS
    return tile // (BLOCKS * cfg.D) * cfg.ROWS, (tile // BLOCKS) % cfg.D, tile % BLOCKS * UNITS


@triton.jit
def tile_rows(s, first_row, d, ptr, cfg: tl.constexpr):
    """Return for each row: its length, whether step s is within it, its place in the batch, its frame at step s."""
    row = first_row + tl.arange(0, cfg.ROWS)
    length = tl.load(ptr.lengths + row, mask=row < ptr.B, other=0)
    active = s < length
    b = tl.load(ptr.order + row, mask=active, other=0).to(tl.int64)
    frame = b * ptr.T + tl.where(d == 0, s, length - 1 - s)
    return length, active, b, frame * cfg.D + d


@triton.jit
def products(operands, K: tl.constexpr, GATES: tl.constexpr, UNITS: tl.constexpr, cfg: tl.constexpr):
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
def product(operands, K: tl.constexpr, UNITS: tl.constexpr, cfg: tl.constexpr):
    """Multiply by one block of weight rows; see `products`."""
    total, _, _, _ = products(operands, K, 1, UNITS, cfg)
    return total


@triton.jit
def _dot(a, w, total, cfg: tl.constexpr):
    if cfg.INTERPRET:  # the interpreter multiplies bfloat16 as the integers that its bits spell
        a, w = a.to(tl.float32), w.to(tl.float32)
    return tl.dot(a, w, total, input_precision=cfg.PRECISION)


@triton.jit
def grid_barrier(counter, arrivals):
    """Wait until programs have come here `arrivals` times in all, their stores visible to every program."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release", scope="gpu")
    while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < arrivals:
        pass
    tl.debug_barrier()


@triton.constexpr_function
def summands(cfg):
    """Columns of dgates_hh that reach h(t-1) in phase 0."""
    return (2 if cfg.CELL == "gru_before" else cfg.G) * cfg.H
