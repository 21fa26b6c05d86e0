"""The cells: their equations in plain PyTorch, which are the specification every fast backend is tested against.

Legend, for one step of one direction: x_t input, h hidden state (the output), c cell state, i f g o input, forget,
candidate and output gate, r z n reset, update and candidate gate, W weights, b biases, p diagonal peephole weights,
⊙ elementwise product, σ the logistic function. A cell sees the input's share of the gates, `W_ih x_t + b_ih`, ready
made (it needs no recurrence) and adds the rest. To add a cell: write its step, add one line to `CELLS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

State = tuple[Tensor, ...]  # (h,) or (h, c); h (batch, output), c (batch, hidden)
RESETS = ("before", "after")


class Weights(NamedTuple):
    """One direction's parameters, shaped and ordered as torch.nn.LSTM's; None where the cell has none.

    G is the number of gates, H the hidden size, P the output size (`proj_size`, or H without projection).
    """

    weight_ih: Tensor  # (G*H, input)
    weight_hh: Tensor  # (G*H, P)
    bias_ih: Tensor | None = None  # (G*H,)
    bias_hh: Tensor | None = None  # (G*H,)
    weight_hr: Tensor | None = None  # (P, H), projection
    weight_peephole: Tensor | None = None  # (len(peepholes), H)
    norm_ih_weight: Tensor | None = None  # (G*H,), layer normalization of the input's share
    norm_ih_bias: Tensor | None = None
    norm_hh_weight: Tensor | None = None  # (G*H,), of the recurrent share
    norm_hh_bias: Tensor | None = None
    norm_cell_weight: Tensor | None = None  # (H,), of the cell state before the output gate
    norm_cell_bias: Tensor | None = None


@dataclass(frozen=True)
class CellOptions:
    """What a cell's equations depend on besides its weights. Raises ValueError for what cannot be."""

    hidden_size: int
    proj_size: int = 0
    reset: str = "after"  # gru: reset gate "before" or "after" the recurrent product
    layer_norm: bool = False
    cell_clip: float = 0.0  # bound on |c|, 0 for none
    proj_clip: float = 0.0  # bound on |projected h|, 0 for none

    def __post_init__(self) -> None:
        if self.reset not in RESETS:
            raise ValueError(f"unknown reset {self.reset!r}; there are {', '.join(RESETS)}")
        if self.cell_clip < 0 or self.proj_clip < 0:
            raise ValueError(
                f"bounds must be 0 (none) or more, got cell_clip {self.cell_clip}, proj_clip {self.proj_clip}"
            )
        if self.proj_clip and not self.proj_size:
            raise ValueError(
                f"proj_clip is {self.proj_clip}, but there is no projection to clip: proj_size is 0"
            )
        if not 0 <= self.proj_size < self.hidden_size:
            raise ValueError(
                f"proj_size must be 0 or below hidden_size {self.hidden_size}, got {self.proj_size}"
            )

    @property
    def output_size(self) -> int:
        """Width of h: the projection's where there is one."""
        return self.proj_size or self.hidden_size


class Noise(NamedTuple):
    """One direction's random masks, drawn once per call so that every backend sees the same ones.

    Dropout masks hold 0 or 1 / (1 - rate). Zoneout holds the share of the previous state to keep: 0 or 1 a unit
    and step in training; in evaluation no tensor but the rate itself, the exact expectation.
    """

    recurrent: Tensor | None = None  # (batch, P): variational dropout of h on its way into the gates
    zoneout_hidden: Tensor | float = 0.0  # (batch, frame, P)
    zoneout_cell: Tensor | float = 0.0  # (batch, frame, H)


class Call(NamedTuple):
    """A layer to run: the argument that every backend takes."""

    cell: str  # a name in CELLS
    options: CellOptions
    x: Tensor  # (batch, frame, input)
    lengths: Tensor  # (batch,) int64, zero allowed
    state: State  # h (direction, batch, P) and, for the LSTM family, c (direction, batch, H)
    weights: list[Weights]  # one item a direction; the second direction reads each utterance in reverse
    noise: list[Noise]  # one item a direction


def layer_norm(values: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Normalize the last axis (Ba et al. 2016), epsilon 1e-5."""
    return F.layer_norm(values, values.shape[-1:], weight, bias)


def input_gates(x: Tensor, w: Weights, options: CellOptions) -> Tensor:
    """Return every frame's `W_ih x + b_ih`, layer-normalized where the options ask for it.

    Arguments: x (..., input). Returns (..., G*H).
    """
    if options.layer_norm:
        return layer_norm(F.linear(x, w.weight_ih), w.norm_ih_weight, w.norm_ih_bias) + _or_zero(w.bias_ih)
    return F.linear(x, w.weight_ih, w.bias_ih)


def recurrent_gates(h: Tensor, w: Weights, options: CellOptions, mask: Tensor | None) -> Tensor:
    """Return one step's `W_hh h + b_hh`, h masked by variational dropout (Gal & Ghahramani 2016)."""
    h = h if mask is None else h * mask
    if options.layer_norm:
        return layer_norm(F.linear(h, w.weight_hh), w.norm_hh_weight, w.norm_hh_bias) + _or_zero(w.bias_hh)
    return F.linear(h, w.weight_hh, w.bias_hh)


def _or_zero(bias: Tensor | None) -> Tensor | float:
    return 0.0 if bias is None else bias


def lstm_step(gates_x: Tensor, state: State, w: Weights, options: CellOptions, mask: Tensor | None) -> State:
    """LSTM with forget gate (Hochreiter & Schmidhuber 1997; Gers et al. 2000), as torch.nn.LSTM.

    i, f, o = σ(...), g = tanh(...) of W_ih x_t + b_ih + W_hh h + b_hh; c' = f ⊙ c + i ⊙ g; h' = o ⊙ tanh(c').
    Peepholes (Gers & Schmidhuber 2000) add p_i ⊙ c and p_f ⊙ c to i and f, p_o ⊙ c' to o.
    """
    h, c = state
    i, f, g, o = (gates_x + recurrent_gates(h, w, options, mask)).chunk(4, -1)
    if w.weight_peephole is not None:
        i = i + w.weight_peephole[0] * c
        f = f + w.weight_peephole[1] * c
    c = _clip(torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g), options.cell_clip)
    return _lstm_output(o, c, w, options), c


def cifg_step(gates_x: Tensor, state: State, w: Weights, options: CellOptions, mask: Tensor | None) -> State:
    """LSTM with coupled input and forget gate, i = 1 - f (Greff et al. 2017); peepholes rows f, o."""
    h, c = state
    f, g, o = (gates_x + recurrent_gates(h, w, options, mask)).chunk(3, -1)
    if w.weight_peephole is not None:
        f = f + w.weight_peephole[0] * c
    f = torch.sigmoid(f)
    c = _clip(f * c + (1 - f) * torch.tanh(g), options.cell_clip)
    return _lstm_output(o, c, w, options), c


def _lstm_output(o: Tensor, c: Tensor, w: Weights, options: CellOptions) -> Tensor:
    """h' = o ⊙ tanh(c'), then the projection W_hr h' (LSTMP, Sak et al. 2014)."""
    if w.weight_peephole is not None:
        o = o + w.weight_peephole[-1] * c
    if options.layer_norm:
        c = layer_norm(c, w.norm_cell_weight, w.norm_cell_bias)
    h = torch.sigmoid(o) * torch.tanh(c)
    return h if w.weight_hr is None else _clip(F.linear(h, w.weight_hr), options.proj_clip)


def gru_step(gates_x: Tensor, state: State, w: Weights, options: CellOptions, mask: Tensor | None) -> State:
    """GRU (Cho et al. 2014): h' = (1 - z) ⊙ n + z ⊙ h.

    reset="after", as cuDNN and torch: n = tanh(W_in x_t + b_in + r ⊙ (W_hn h + b_hn)).
    reset="before", as published:      n = tanh(W_in x_t + b_in + W_hn (r ⊙ h) + b_hn).
    """
    (h,) = state
    x_r, x_z, x_n = gates_x.chunk(3, -1)
    h_in = h if mask is None else h * mask
    if options.reset == "after":
        h_r, h_z, h_n = F.linear(h_in, w.weight_hh, w.bias_hh).chunk(3, -1)
        r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + r * h_n)
    else:
        size = options.hidden_size
        bias_rz, bias_n = (
            (None, None) if w.bias_hh is None else (w.bias_hh[: 2 * size], w.bias_hh[2 * size :])
        )
        h_r, h_z = F.linear(h_in, w.weight_hh[: 2 * size], bias_rz).chunk(2, -1)
        r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + F.linear(r * h_in, w.weight_hh[2 * size :], bias_n))
    return ((1 - z) * n + z * h,)


def rnn_tanh_step(
    gates_x: Tensor, state: State, w: Weights, options: CellOptions, mask: Tensor | None
) -> State:
    """Simple recurrent network (Elman 1990): h' = tanh(W_ih x_t + b_ih + W_hh h + b_hh)."""
    return (torch.tanh(gates_x + recurrent_gates(state[0], w, options, mask)),)


def _clip(values: Tensor, bound: float) -> Tensor:
    return values.clamp(-bound, bound) if bound else values


@dataclass(frozen=True)
class Cell:
    """A registry line: the step, the gates in the order in which the weights stack them, and what the cell knows."""

    step: Callable[[Tensor, State, Weights, CellOptions, Tensor | None], State]
    gates: str
    fused: str  # the step's name in the fused backends, which know peepholes by their weights
    peepholes: str = ""  # gates with a diagonal connection, in the order of weight_peephole's rows

    @property
    def lstm_family(self) -> bool:
        """True for cells with a cell state c, which may be projected, clipped and layer-normalized."""
        return "g" in self.gates

    def fused_step(self, options: CellOptions) -> str:
        """Return the name of this cell's step in the fused backends."""
        return self.fused.format(reset=options.reset)


CELLS: dict[str, Cell] = {
    "lstm": Cell(lstm_step, "ifgo", "lstm"),
    "peephole": Cell(lstm_step, "ifgo", "lstm", peepholes="ifo"),
    "cifg": Cell(cifg_step, "fgo", "cifg"),
    "cifg_peephole": Cell(cifg_step, "fgo", "cifg", peepholes="fo"),
    "gru": Cell(gru_step, "rzn", "gru_{reset}"),
    "rnn_tanh": Cell(rnn_tanh_step, "n", "rnn_tanh"),
}
