"""Layers whose weights were packed once, for inference on a CPU: faster for small batches, in int8 most of all."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from asr.errors import BackendError
from asr.recurrent.cells import Call, Noise, State, Weights
from asr.recurrent.cpu import backend
from asr.recurrent.cpu.library import WEIGHT_KINDS
from asr.recurrent.interface import TorchCalls, TorchInterface
from asr.recurrent.layer import RecurrentLayer, checked_arguments, refuse_scripting
from asr.recurrent.stack import replace_modules

PRECISIONS = tuple(WEIGHT_KINDS)
MATRICES = ("weight_ih", "weight_hh", "weight_hr")


class PackedLayer(nn.Module):
    """A RecurrentLayer for inference, called as that one is.

    Its matrices lie in memory in the order in which this processor's kernels read them, as float32, bfloat16 or
    int8 (each row of a matrix with its own scale; activations are 16-bit integers, so that the weights' rounding is
    all that is lost). It has no parameters, no gradients and no state dict: pack anew from the trained layer.

    Arguments:
        layer: a RecurrentLayer on the CPU; DropConnect and dropout are left behind, zoneout keeps its expectation.
        precision: "float32", "bfloat16" or "int8".

    Raises BackendError where the fused CPU kernels cannot run.

    >>> layer = RecurrentLayer("lstm", input_size=40, hidden_size=32)
    >>> PackedLayer(layer, "int8")(torch.randn(2, 7, 40), torch.tensor([7, 4]))[0].shape
    torch.Size([2, 7, 64])
    """

    def __init__(self, layer: RecurrentLayer, precision: str = "float32"):
        super().__init__()
        if precision not in PRECISIONS:
            raise ValueError(f"unknown precision {precision!r}; there are {', '.join(PRECISIONS)}")
        self.cell_name, self.cell, self.options = layer.cell_name, layer.cell, layer.options
        self.input_size, self.hidden_size, self.output_size = (
            layer.input_size,
            layer.hidden_size,
            layer.output_size,
        )
        self.bidirectional = layer.bidirectional
        self.precision = precision
        noise = Noise(None, float(layer.zoneout_hidden), float(layer.zoneout_cell))
        with torch.no_grad():
            weights = [
                Weights(*(getattr(layer, f"{name}{suffix}") for name in Weights._fields))
                for suffix in layer.directions()
            ]
            frames = weights[0].weight_ih.new_empty(0, 0, layer.input_size)
            lengths = torch.empty(0, dtype=torch.int64)
            self.call = Call(
                self.cell_name, self.options, frames, lengths, (), weights, [noise] * len(weights)
            )
            if reason := backend.refusal(self.call):
                raise BackendError(f"the recurrent layer cannot be packed: {reason}")
            self.packed = backend.pack(self.call, precision)
            self.call = self.call._replace(weights=[_without_matrices(own) for own in weights])

    def __prepare_scriptable__(self) -> nn.Module:
        refuse_scripting(self)

    @torch.no_grad()
    def forward(
        self, x: Tensor, lengths: Tensor | Sequence[int], state: Tensor | State | None = None
    ) -> tuple[Tensor, Tensor | State]:
        """Run the layer; see RecurrentLayer for shapes."""
        if torch.jit.is_tracing():  # type: ignore[attr-defined]
            raise BackendError(
                "torch.jit.trace cannot look into a packed layer; trace the layer it was packed from"
            )
        lengths, state = checked_arguments(self, x, lengths, state)
        call = self.call._replace(x=x, lengths=lengths, state=state)
        y, final = backend.run_packed(call, self.packed, self.precision)
        return y, final if self.cell.lstm_family else final[0]

    def extra_repr(self) -> str:
        """Return the cell, sizes and precision that print(layer) shows."""
        return (
            f"{self.cell_name}, {self.input_size}, {self.hidden_size}, bidirectional={self.bidirectional}, "
            f"{self.precision}"
        )


def _without_matrices(weights: Weights) -> Weights:
    """Copy biases, peepholes and norms; of the packed matrices only that they exist is left."""
    present = {name: part for name, part in weights._asdict().items() if part is not None}
    return Weights(
        **{
            name: torch.empty(0) if name in MATRICES else part.float().clone()
            for name, part in present.items()
        }
    )


class PackedTorchLayers(TorchCalls):
    """A TorchInterface whose layers were packed: called as torch.nn.LSTM, GRU and RNN are, without parameters."""

    def __init__(self, interface: TorchInterface, precision: str):
        super().__init__()
        for name in TorchCalls.__annotations__:
            setattr(self, name, getattr(interface, name))
        layers = (interface.recurrent_layer(index) for index in range(interface.num_layers))
        self.layers = nn.ModuleList(PackedLayer(layer, precision) for layer in layers)
        self.train(interface.training)

    def run_layer(self, index: int, x: Tensor, lengths: Tensor, state: State | None) -> tuple:
        """Run one packed layer."""
        return self.layers[index](x, lengths, state)


def pack_for_inference(module: nn.Module, precision: str = "float32") -> nn.Module:
    """Replace every RecurrentLayer, and every layer from `replace_torch_layers`, inside a model by a packed one.

    Works in place and returns the module, or its replacement where it is itself such a layer. For inference on
    this machine's CPU only; keep the trained model, for this one cannot be trained or saved.
    """

    def packed(layer: nn.Module) -> nn.Module | None:
        if isinstance(layer, RecurrentLayer):
            return PackedLayer(layer, precision)
        return PackedTorchLayers(layer, precision) if isinstance(layer, TorchInterface) else None

    return replace_modules(module, packed)
