"""torch.nn.LSTM, GRU and RNN inside any model, computed by this package's layers."""

import logging
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from asr.recurrent import dispatch
from asr.recurrent.cells import CELLS, Call, CellOptions, Noise, State, Weights
from asr.recurrent.layer import RecurrentLayer, refuse_scripting
from asr.recurrent.stack import run_layers

logger = logging.getLogger(__name__)

CELL_OF = {nn.LSTM: "lstm", nn.GRU: "gru", nn.RNN: "rnn_tanh"}
CELL_OF_MODE = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn_tanh"}


class TorchCalls(nn.Module):
    """The calling convention of torch.nn.LSTM, GRU and RNN: ``(input, hx=None) -> (output, hx)``.

    The input may be batched in either order, unbatched or a PackedSequence, whose rows stay where they are.
    """

    mode: str
    input_size: int
    hidden_size: int
    num_layers: int
    dropout: float
    batch_first: bool
    bidirectional: bool
    proj_size: int

    def run_layer(self, index: int, x: Tensor, lengths: Tensor, state: State | None) -> tuple:
        """Run one layer as a RecurrentLayer is called."""
        raise NotImplementedError

    def check_frames(self, x: Tensor) -> None:
        """Raise an error for frames, one utterance's or several, that the layer cannot read."""
        if self.input_size != x.shape[-1]:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {x.shape[-1]}"
            )

    def forward(
        self,
        input: Tensor | PackedSequence,  # noqa: A002 - as torch.nn.LSTM names it
        hx: Tensor | State | None = None,
    ) -> tuple:
        """Run every layer; shapes as torch.nn.LSTM's."""
        state = () if hx is None else (hx,) if isinstance(hx, Tensor) else tuple(hx)
        if isinstance(input, PackedSequence):
            return self._run_packed(input, state)
        if input.dim() not in (2, 3):
            raise ValueError(f"{self.mode}: Expected input to be 2D or 3D, got {input.dim()}D instead")
        batched, batch_axis = input.dim() == 3, 0 if self.batch_first else 1
        if any(part.dim() != input.dim() for part in state):
            found = " and ".join(f"{part.dim()}-D" for part in state)
            raise RuntimeError(
                f"For {input.dim()}-D input, hx should also be {input.dim()}-D but got {found}"
            )
        x = input if batched else input.unsqueeze(batch_axis)
        state = state if batched else tuple(part.unsqueeze(1) for part in state)
        x = x if self.batch_first else x.transpose(0, 1)
        lengths = torch.full((x.shape[0],), x.shape[1], dtype=torch.int64, device=x.device)
        y, final = self._run(x, lengths, state)
        # Contiguous as torch's, so that the output can be viewed in other shapes.
        y = y if self.batch_first else y.transpose(0, 1).contiguous()
        if batched:
            return y, _as_hx(final)
        return y.squeeze(batch_axis), _as_hx(tuple(part.squeeze(1) for part in final))

    def _run_packed(self, given: PackedSequence, state: State) -> tuple:
        # Rows as they lie in memory, longest first: whoever pairs them with other packed data must find them there.
        x, lengths = pad_packed_sequence(PackedSequence(given.data, given.batch_sizes), batch_first=True)
        if given.sorted_indices is not None:
            state = tuple(part.index_select(1, given.sorted_indices) for part in state)
        y, final = self._run(x, lengths.to(x.device), state)
        if given.unsorted_indices is not None:
            final = tuple(part.index_select(1, given.unsorted_indices) for part in final)
        rows = pack_padded_sequence(y, lengths, batch_first=True).data
        return (
            PackedSequence(rows, given.batch_sizes, given.sorted_indices, given.unsorted_indices),
            _as_hx(final),
        )

    def _run(self, x: Tensor, lengths: Tensor, state: State) -> tuple[Tensor, State]:
        self.check_frames(x)
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)[: 2 if self.mode == "LSTM" else 1]
        rows = self.num_layers * (2 if self.bidirectional else 1)
        expected = [(rows, x.shape[0], size) for size in sizes]
        if state and [tuple(part.shape) for part in state] != expected:
            found = [list(part.shape) for part in state]
            raise RuntimeError(f"Expected hidden size {expected}, got {found}")
        layers = [partial(self.run_layer, index) for index in range(self.num_layers)]
        return run_layers(layers, self.dropout if self.training else 0.0, x, lengths, state)


class TorchInterface(TorchCalls, nn.RNNBase):
    """A torch.nn.LSTM, GRU or tanh RNN whose forward pass this package's kernels compute; all else is torch's own.

    Made by `replace_torch_layers`, which turns a module into this class where it stands: its parameters, attributes,
    hooks, buffers and state dict stay the very same. An nn.RNNBase, but no nn.LSTM, which torch.compile would not
    look into.
    """

    backend: str

    def __prepare_scriptable__(self) -> nn.Module:
        refuse_scripting(self)

    @property
    def cell_name(self) -> str:
        """Name the cell, a key of CELLS."""
        return CELL_OF_MODE[self.mode]

    def check_frames(self, x: Tensor) -> None:
        """Raise torch's own error for frames of another width or precision."""
        self.check_input(x, None)

    def weights(self, index: int) -> list[Weights]:
        """Return one layer's parameters, by name: what weight norm, pruning and the like put there included."""
        sides = ("", "_reverse") if self.bidirectional else ("",)
        return [
            Weights(*(getattr(self, f"{name}_l{index}{side}", None) for name in Weights._fields[:5]))  # type: ignore[arg-type]
            for side in sides
        ]

    def run_layer(self, index: int, x: Tensor, lengths: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Run one layer."""
        options = CellOptions(self.hidden_size, self.proj_size)
        weights, cell = self.weights(index), CELLS[self.cell_name]
        if state is None:
            sizes = (options.output_size, options.hidden_size)[: 1 + cell.lstm_family]
            state = tuple(x.new_zeros(len(weights), x.shape[0], size) for size in sizes)
        call = Call(self.cell_name, options, x, lengths, state, weights, [Noise()] * len(weights))
        return dispatch.run(self.backend, call)

    def recurrent_layer(self, index: int) -> RecurrentLayer:
        """Return one layer as a RecurrentLayer of its own with copies of the weights."""
        weights = self.weights(index)
        layer = RecurrentLayer(
            self.cell_name,
            weights[0].weight_ih.shape[1],
            self.hidden_size,
            proj_size=self.proj_size,
            bidirectional=self.bidirectional,
            bias=self.bias,
            backend=self.backend,
        )
        layer.to(device=weights[0].weight_ih.device, dtype=weights[0].weight_ih.dtype).train(self.training)
        with torch.no_grad():
            for suffix, own in zip(layer.directions(), weights, strict=True):
                for name, part in own._asdict().items():
                    if part is not None:
                        getattr(layer, name + suffix).copy_(part)
        return layer


def _as_hx(state: State) -> Tensor | State:
    h, *c = state
    return state if c else h


def replace_torch_layers(module: nn.Module, backend: str = "auto") -> nn.Module:
    """Make this package's kernels compute every torch.nn.LSTM, GRU and tanh RNN inside a model.

    Works in place and returns the module, which may itself be such a layer. Each layer becomes a TorchInterface with
    the same parameters (tied ones stay tied, an optimizer goes on with them), attributes, inputs, outputs, hooks and
    state dict, weight norm and pruning included. An RNN with ReLU has no counterpart here and stays; so do subclasses
    and layers with parametrizations, whose forward pass may be another.

    >>> model = nn.Sequential(nn.LSTM(8, 16, num_layers=2, bidirectional=True, batch_first=True))
    >>> replace_torch_layers(model)[0](torch.randn(2, 5, 8))[0].shape
    torch.Size([2, 5, 32])
    """
    if backend not in dispatch.BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; there are {', '.join(dispatch.BACKENDS)}")
    for name, layer in module.named_modules():
        if type(layer) in CELL_OF and getattr(layer, "nonlinearity", "tanh") == "tanh":
            layer.__class__ = TorchInterface
            layer.backend = backend  # type: ignore[assignment]
        elif isinstance(layer, nn.RNNBase) and not isinstance(layer, TorchInterface):
            logger.info("replace_torch_layers leaves %s as it is: %r", name or "the module", layer)
    return module
