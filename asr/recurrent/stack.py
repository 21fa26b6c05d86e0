"""Deep stacks of recurrent layers, and the exchange of layers inside a model."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from asr.recurrent.cells import State
from asr.recurrent.layer import RecurrentLayer


class RecurrentStack(nn.Module):
    """Recurrent layers one above the other (deep LSTM, with `proj_size` deep LSTMP, Sak et al. 2014).

    Called as ``stack(x, lengths, state=None) -> (y, state)`` like RecurrentLayer, with the state's first axis
    num_layers * direction, as torch.nn.LSTM has it. Its state dict has torch.nn.LSTM's names (`weight_ih_l1`,
    `weight_hh_l1_reverse`), so that checkpoints load both ways.

    Arguments:
        cell, input_size, hidden_size, options: as for RecurrentLayer.
        num_layers: number of layers.
        dropout: rate of the dropout between the layers in training.

    >>> stack = RecurrentStack("gru", input_size=40, hidden_size=32, num_layers=3)
    >>> y, h = stack(torch.randn(2, 7, 40), torch.tensor([7, 4]))
    >>> y.shape, h.shape
    (torch.Size([2, 7, 64]), torch.Size([6, 2, 32]))
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        dropout: float = 0.0,
        **options: Any,
    ):
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {num_layers}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must lie within 0 and 1, got {dropout}")
        self.layers = nn.ModuleList()
        for _ in range(num_layers):
            layer = RecurrentLayer(cell, input_size, hidden_size, **options)
            self.layers.append(layer)
            input_size = layer.output_size * (2 if layer.bidirectional else 1)
        self.dropout = dropout
        self.register_state_dict_post_hook(_to_torch_names)
        self.register_load_state_dict_pre_hook(_from_torch_names)

    def forward(
        self, x: Tensor, lengths: Tensor | Sequence[int], state: Tensor | State | None = None
    ) -> tuple[Tensor, Tensor | State]:
        """Run the stack; see the class for shapes."""
        parts: State = () if state is None else (state,) if isinstance(state, Tensor) else state
        if any(part.shape[0] % len(self.layers) for part in parts):
            raise ValueError(
                f"the state's first axis must be num_layers * direction for {len(self.layers)} layers, got "
                f"{[tuple(part.shape) for part in parts]}"
            )
        x, final = run_layers(self.layers, self.dropout if self.training else 0.0, x, lengths, parts)
        h, *c = final
        return x, final if c else h


def run_layers(
    layers: Iterable[Callable], dropout: float, x: Tensor, lengths: Tensor | Sequence[int], state: State
) -> tuple[Tensor, State]:
    """Run layers one above the other, each called as a RecurrentLayer is, with dropout between them.

    Arguments: state, without parts or with its first axis num_layers * direction; the final one is shaped so.
    """
    layers = list(layers)
    chunks = [part.chunk(len(layers)) for part in state]
    finals = []
    for index, layer in enumerate(layers):
        if index and dropout:
            x = nn.functional.dropout(x, dropout)
        x, final = layer(x, lengths, tuple(part[index] for part in chunks) or None)
        finals.append(final if isinstance(final, tuple) else (final,))
    return x, tuple(torch.cat(part) for part in zip(*finals, strict=True))


def _to_torch_names(module: nn.Module, state_dict: dict, prefix: str, _metadata: dict) -> None:
    pattern = re.compile(re.escape(prefix) + r"layers\.(\d+)\.(\w+)_l0(_reverse)?")
    for match in [found for name in state_dict if (found := pattern.fullmatch(name))]:
        index, field, reverse = match.groups("")
        state_dict[f"{prefix}{field}_l{index}{reverse}"] = state_dict.pop(match[0])


def _from_torch_names(module: nn.Module, state_dict: dict, prefix: str, *_: Any) -> None:
    pattern = re.compile(re.escape(prefix) + r"(\w+)_l(\d+)(_reverse)?")
    for match in [found for name in state_dict if (found := pattern.fullmatch(name))]:
        field, index, reverse = match.groups("")
        state_dict[f"{prefix}layers.{index}.{field}_l0{reverse}"] = state_dict.pop(match[0])


def replace_modules(
    module: nn.Module,
    replacement: Callable[[nn.Module], nn.Module | None],
    _done: dict[nn.Module, nn.Module] | None = None,
) -> nn.Module:
    """Replace, in place, every module inside a model for which `replacement` returns one.

    A module that stands in several places is replaced by one, so that shared weights stay shared. Returns the module,
    or its own replacement.
    """
    done = {} if _done is None else _done
    if module not in done:
        new = replacement(module)
        done[module] = module if new is None else new
        if new is None:
            for name, child in list(module._modules.items()):  # named_children() names a shared one once
                if child is not None:
                    setattr(module, name, replace_modules(child, replacement, done))
    return done[module]
