"""RecurrentLayer: one uni- or bidirectional recurrent layer over ragged batches."""

import math
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from asr.errors import BackendError
from asr.recurrent import dispatch
from asr.recurrent.cells import CELLS, Call, CellOptions, Noise, State, Weights
from asr.wording import short

WHOLE_NUMBERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)


class RecurrentLayer(nn.Module):
    """One recurrent layer that reads each utterance from its own start and, reversed, from its own end.

    Called as ``layer(x, lengths, state=None) -> (y, state)``: x (batch, frame, input_size); lengths (batch,), whole
    numbers in any order, zero allowed; y (batch, frame, direction * output_size), zero past each length. The state is
    h or, for the LSTM family, (h, c), shaped (direction, batch, size) as torch.nn.LSTM shapes it.
    Parameters are named, shaped and ordered as torch.nn.LSTM's, so that state dicts load both ways.

    Arguments:
        cell: a name in CELLS.
        input_size, hidden_size: widths in features and units.
        proj_size: project h to this width (Sak et al. 2014), LSTM family only; 0 for none.
        bidirectional: read in both directions and concatenate.
        bias: add bias_ih and bias_hh.
        reset: gru only, reset gate "before" or "after" the recurrent product.
        layer_norm: normalize both shares of the gates and the cell (Ba et al. 2016), cells without peepholes.
        cell_clip, proj_clip: bounds on |c| and on |projected h|, 0 for none.
        input_dropout, recurrent_dropout: variational dropout, one mask an utterance (Gal & Ghahramani 2016).
        weight_dropout: DropConnect on weight_hh, one mask a call (Merity et al. 2018).
        zoneout_hidden, zoneout_cell: probability that a unit keeps its state (Krueger et al. 2017).
        forget_bias: initial value of the forget gate's bias; None leaves torch's initialization.
        init: "torch" (uniform within 1/sqrt(hidden)) or "orthogonal" (recurrent and projecting; input Xavier).
        backend: "auto", "reference" or "fused".

    >>> layer = RecurrentLayer("lstm", input_size=40, hidden_size=32)
    >>> y, (h, c) = layer(torch.randn(2, 7, 40), torch.tensor([7, 4]))
    >>> y.shape, h.shape, c.shape
    (torch.Size([2, 7, 64]), torch.Size([2, 2, 32]), torch.Size([2, 2, 32]))
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        *,
        proj_size: int = 0,
        bidirectional: bool = True,
        bias: bool = True,
        reset: str = "after",
        layer_norm: bool = False,
        cell_clip: float = 0.0,
        proj_clip: float = 0.0,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        zoneout_hidden: float = 0.0,
        zoneout_cell: float = 0.0,
        forget_bias: float | None = None,
        init: str = "torch",
        backend: str = "auto",
    ):
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"unknown cell {cell!r}; there are {', '.join(CELLS)}")
        if backend not in dispatch.BACKENDS:
            raise ValueError(f"unknown backend {backend!r}; there are {', '.join(dispatch.BACKENDS)}")
        if input_size < 1 or hidden_size < 1:
            raise ValueError(
                f"input_size and hidden_size must be at least 1, got {input_size} and {hidden_size}"
            )
        check_dropout(input=input_dropout, recurrent=recurrent_dropout, weight=weight_dropout)
        check_zoneout(hidden=zoneout_hidden, cell=zoneout_cell)
        self.cell_name = cell
        self.cell = CELLS[cell]
        self.options = CellOptions(hidden_size, proj_size, reset, layer_norm, cell_clip, proj_clip)
        if (proj_size or layer_norm or cell_clip or zoneout_cell) and not self.cell.lstm_family:
            raise ValueError(f"cell {cell!r} has no cell state to project, normalize, clip or zone out")
        if layer_norm and self.cell.peepholes:
            raise ValueError(f"layer normalization is defined for cells without peepholes, not for {cell!r}")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.output_size = self.options.output_size
        self.bidirectional = bidirectional
        self.input_dropout = input_dropout
        self.recurrent_dropout = recurrent_dropout
        self.weight_dropout = weight_dropout
        self.zoneout_hidden = zoneout_hidden
        self.zoneout_cell = zoneout_cell
        self.backend = backend
        for suffix in self.directions():
            for name, shape in self._shapes(bias).items():
                self.register_parameter(
                    name + suffix,
                    None if shape is None else nn.Parameter(torch.empty(shape)),
                )
        self.reset_parameters(init, forget_bias)

    def directions(self) -> tuple[str, ...]:
        """Return the suffix of each direction's parameters, as in `weight_ih_l0_reverse`."""
        return ("_l0", "_l0_reverse") if self.bidirectional else ("_l0",)

    def _shapes(self, bias: bool) -> dict[str, tuple[int, ...] | None]:
        """Return the shape of each field of Weights, None where this layer has no such parameter."""
        gates = len(self.cell.gates) * self.hidden_size
        norm_gates = (gates,) if self.options.layer_norm else None
        norm_cell = (self.hidden_size,) if self.options.layer_norm else None
        return {
            "weight_ih": (gates, self.input_size),
            "weight_hh": (gates, self.output_size),
            "bias_ih": (gates,) if bias else None,
            "bias_hh": (gates,) if bias else None,
            "weight_hr": (self.output_size, self.hidden_size) if self.options.proj_size else None,
            "weight_peephole": (len(self.cell.peepholes), self.hidden_size) if self.cell.peepholes else None,
            "norm_ih_weight": norm_gates,
            "norm_ih_bias": norm_gates,
            "norm_hh_weight": norm_gates,
            "norm_hh_bias": norm_gates,
            "norm_cell_weight": norm_cell,
            "norm_cell_bias": norm_cell,
        }

    @torch.no_grad()
    def reset_parameters(self, init: str = "torch", forget_bias: float | None = None) -> None:
        """Initialize every parameter; see the class for the choices."""
        if init not in ("torch", "orthogonal"):
            raise ValueError(f"unknown init {init!r}; there are torch, orthogonal")
        bound = 1 / math.sqrt(self.hidden_size)
        for name, parameter in self.named_parameters():
            if name.startswith("norm"):
                parameter.fill_(1.0 if "weight" in name else 0.0)
            elif init == "orthogonal" and name.startswith("bias"):
                parameter.zero_()
            elif init == "orthogonal" and name.startswith("weight_hr"):
                nn.init.orthogonal_(parameter)
            elif init == "orthogonal" and name.startswith(("weight_ih", "weight_hh")):
                fill = nn.init.orthogonal_ if name.startswith("weight_hh") else nn.init.xavier_uniform_
                for gate in parameter.chunk(len(self.cell.gates)):
                    fill(gate)
            else:
                parameter.uniform_(-bound, bound)
        if forget_bias is not None and "f" in self.cell.gates:
            self._set_forget_bias(forget_bias)

    def _set_forget_bias(self, value: float) -> None:
        start = self.cell.gates.index("f") * self.hidden_size
        for suffix in self.directions():
            for name, share in (("bias_ih", value), ("bias_hh", 0.0)):
                parameter = getattr(self, name + suffix)
                if parameter is not None:
                    parameter[start : start + self.hidden_size] = share

    def weights(self, suffix: str) -> Weights:
        """Return one direction's parameters, DropConnect applied to weight_hh in training."""
        weights = Weights(*(getattr(self, name + suffix) for name in Weights._fields))
        if self.training and self.weight_dropout:
            weights = weights._replace(
                weight_hh=nn.functional.dropout(weights.weight_hh, self.weight_dropout)
            )
        return weights

    def draw_noise(self, x: Tensor) -> Noise:
        """Draw one direction's masks in training; in evaluation zoneout is its exact expectation."""
        if not self.training:
            return Noise(None, float(self.zoneout_hidden), float(self.zoneout_cell))
        batch, frames = x.shape[:2]
        recurrent, keep = None, 1 - self.recurrent_dropout
        if self.recurrent_dropout:
            recurrent = x.new_empty(batch, self.output_size).bernoulli_(keep) / keep
        return Noise(
            recurrent,
            _ones_at(self.zoneout_hidden, (batch, frames, self.output_size), x),
            _ones_at(self.zoneout_cell, (batch, frames, self.hidden_size), x),
        )

    def __prepare_scriptable__(self) -> nn.Module:
        refuse_scripting(self)

    def forward(
        self, x: Tensor, lengths: Tensor | Sequence[int], state: Tensor | State | None = None
    ) -> tuple[Tensor, Tensor | State]:
        """Run the layer; see the class for shapes."""
        lengths, state = checked_arguments(self, x, lengths, state)
        if self.training and self.input_dropout:
            x = x * nn.functional.dropout(x.new_ones(x.shape[0], 1, x.shape[2]), self.input_dropout)
        weights = [self.weights(suffix) for suffix in self.directions()]
        noise = [self.draw_noise(x) for _ in weights]
        call = Call(self.cell_name, self.options, x, lengths, state, weights, noise)
        y, final = dispatch.run(self.backend, call)
        return y, final if self.cell.lstm_family else final[0]

    def extra_repr(self) -> str:
        """Return the cell and sizes that print(layer) shows."""
        return f"{self.cell_name}, {self.input_size}, {self.hidden_size}, bidirectional={self.bidirectional}"


def refuse_scripting(module: nn.Module) -> NoReturn:
    """Raise BackendError: what torch.jit.script calls before it compiles a module."""
    raise BackendError(
        f"torch.jit.script cannot compile {type(module).__name__}, whose kernels are no TorchScript; use torch.export, "
        "torch.compile or torch.jit.trace"
    )


def checked_arguments(
    layer: Any, x: Tensor, lengths: Tensor | Sequence[int], state: Tensor | State | None
) -> tuple[Tensor, State]:
    """Return the lengths as an int64 tensor and the state that a layer starts from, zeros unless it was given.

    Raises ValueError for tensors whose shapes or types do not fit, since kernels read memory by the layer's sizes.
    """
    if x.dim() != 3 or x.shape[2] != layer.input_size or not x.is_floating_point():
        raise ValueError(
            f"x must be floating point (batch, frame, {layer.input_size}), got {x.dtype} of {tuple(x.shape)}"
        )
    if not isinstance(lengths, Tensor):
        lengths = _as_tensor(lengths, len(x))
    if lengths.shape != x.shape[:1] or lengths.dtype not in WHOLE_NUMBERS:
        raise ValueError(
            f"lengths must be {x.shape[0]} whole numbers, got {lengths.dtype} of {tuple(lengths.shape)}"
        )
    lengths = lengths.to(torch.int64)  # in eight bits they could not be compared with frame numbers
    sizes = (layer.output_size, layer.hidden_size)[: 1 + layer.cell.lstm_family]
    shapes = [(2 if layer.bidirectional else 1, x.shape[0], size) for size in sizes]
    if state is None:
        return lengths, tuple(x.new_zeros(shape) for shape in shapes)
    given = (state,) if isinstance(state, Tensor) else tuple(state)
    if [tuple(part.shape) for part in given] != shapes:
        found = [tuple(part.shape) for part in given]
        raise ValueError(f"the state must have the shapes {shapes}, got {found}")
    return lengths, given


def _as_tensor(lengths: Sequence[int], count: int) -> Tensor:
    try:
        return torch.as_tensor(lengths) if len(lengths) else torch.empty(0, dtype=torch.int64)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"lengths must be {count} whole numbers, got {short(repr(lengths))}") from None


def check_dropout(**rates: float) -> None:
    """Raise ValueError for a rate outside of 0 to below 1, named by its keyword."""
    for name, rate in rates.items():
        if not 0 <= rate < 1:
            raise ValueError(f"{name}_dropout must be 0 or more and less than 1, got {rate}")


def check_zoneout(**rates: float) -> None:
    """Raise ValueError for a rate outside of 0 to 1, named by its keyword."""
    for name, rate in rates.items():
        if not 0 <= rate <= 1:
            raise ValueError(f"zoneout_{name} must lie within 0 and 1, got {rate}")


def _ones_at(rate: float, shape: tuple[int, ...], like: Tensor) -> Tensor | float:
    """Draw zeros and ones, ones at `rate` (to within 2^-17), four from each random number; 0.0 for a rate of 0.

    A mask for every unit and frame would otherwise, drawn one by one on a CPU, take half of a layer's forward time.
    """
    if rate == 0:
        return 0.0
    count = math.prod(shape)
    numbers = torch.randint(-(2**63), 2**63 - 1, ((count + 3) // 4,), device=like.device)
    threshold = round(rate * 2**16) - 2**15
    if threshold > 2**15 - 1:
        return like.new_ones(shape)
    return (numbers.view(torch.int16)[:count] < threshold).view(shape).to(like.dtype)
