"""Deep stacks of recurrent layers, and exchange with torch.nn.LSTM, GRU and RNN."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from asr.recurrent.cells import State
from asr.recurrent.layer import RecurrentLayer

CELL_OF = {nn.LSTM: "lstm", nn.GRU: "gru", nn.RNN: "rnn_tanh"}


class RecurrentStack(nn.Module):
    """Recurrent layers one above the other (deep LSTM, with `proj_size` deep LSTMP, Sak et al. 2014).

    Called as ``stack(x, lengths, state=None) -> (y, state)`` like RecurrentLayer, with the state's first axis
    num_layers * direction, as torch.nn.LSTM has it. Its state dict has torch.nn.LSTM's names (`weight_ih_l1`,
    `weight_hh_l1_reverse`), so that checkpoints load both ways.

    Arguments:
        cell, input_size, hidden_size, options: as for RecurrentLayer.
        num_layers: how many.
        dropout: dropout between the layers in training.

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
        self, x: Tensor, lengths: Tensor, state: Tensor | State | None = None
    ) -> tuple[Tensor, Tensor | State]:
        """Run the stack; see the class for shapes."""
        parts: State = () if state is None else (state,) if isinstance(state, Tensor) else state
        if any(part.shape[0] % len(self.layers) for part in parts):
            raise ValueError(
                f"the state's first axis must be num_layers * direction for {len(self.layers)} layers, got "
                f"{[tuple(part.shape) for part in parts]}"
            )
        chunks = [part.chunk(len(self.layers)) for part in parts]
        finals = []
        for index, layer in enumerate(self.layers):
            if index and self.dropout:
                x = nn.functional.dropout(x, self.dropout, self.training)
            x, final = layer(x, lengths, tuple(part[index] for part in chunks) or None)
            finals.append(final if isinstance(final, tuple) else (final,))
        joined: State = tuple(torch.cat(part) for part in zip(*finals, strict=True))
        h, *c = joined
        return x, joined if c else h


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


class TorchInterface(nn.Module):
    """A stack that is called as torch.nn.LSTM, GRU and RNN are: ``(input, hx=None) -> (output, hx)``.

    The input may be batched in either order, unbatched or a PackedSequence, as for those.
    """

    def __init__(self, stack: RecurrentStack, batch_first: bool):
        super().__init__()
        self.stack = stack
        self.batch_first = batch_first
        self.register_state_dict_post_hook(_drop_stack_name)
        self.register_load_state_dict_pre_hook(_add_stack_name)

    def flatten_parameters(self) -> None:
        """Do nothing: what torch.nn.LSTM wants called for cuDNN's sake has no counterpart here."""

    def forward(
        self,
        input: Tensor | PackedSequence,  # noqa: A002 - as torch.nn.LSTM names it
        hx: Tensor | State | None = None,
    ) -> tuple:
        """Run the stack; shapes as torch.nn.LSTM's."""
        if isinstance(input, PackedSequence):
            x, lengths = pad_packed_sequence(input, batch_first=True)
            y, state = self.stack(x, lengths.to(x.device), hx)
            return pack_padded_sequence(y, lengths, batch_first=True, enforce_sorted=False), state
        if input.dim() == 2:
            hx = None if hx is None else _each(hx, lambda part: part.unsqueeze(1))
            y, state = self(input.unsqueeze(0 if self.batch_first else 1), hx)
            return y.squeeze(0 if self.batch_first else 1), _each(state, lambda part: part.squeeze(1))
        x = input if self.batch_first else input.transpose(0, 1)
        y, state = self.stack(x, x.new_full((x.shape[0],), x.shape[1], dtype=torch.int64), hx)
        return y if self.batch_first else y.transpose(0, 1), state


def _each(state: Tensor | State, change: Any) -> Tensor | State:
    return change(state) if isinstance(state, Tensor) else tuple(change(part) for part in state)


def _drop_stack_name(module: nn.Module, state_dict: dict, prefix: str, _metadata: dict) -> None:
    for name in [name for name in state_dict if name.startswith(f"{prefix}stack.")]:
        state_dict[prefix + name.removeprefix(f"{prefix}stack.")] = state_dict.pop(name)


def _add_stack_name(module: nn.Module, state_dict: dict, prefix: str, *_: Any) -> None:
    own = [name for name in state_dict if re.fullmatch(re.escape(prefix) + r"\w+_l\d+(_reverse)?", name)]
    for name in own:
        state_dict[f"{prefix}stack.{name.removeprefix(prefix)}"] = state_dict.pop(name)


def replace_torch_layers(module: nn.Module, backend: str = "auto") -> nn.Module:
    """Replace every torch.nn.LSTM, GRU and tanh RNN inside a model by this package's, weights included.

    Works in place and returns the module, or its replacement where it is itself such a layer. Inputs, outputs and
    state dicts stay as they were. An RNN with ReLU has no counterpart here and stays, and so do subclasses, whose
    forward pass may be another.

    >>> model = nn.Sequential(nn.LSTM(8, 16, num_layers=2, bidirectional=True, batch_first=True))
    >>> replace_torch_layers(model)[0](torch.randn(2, 5, 8))[0].shape
    torch.Size([2, 5, 32])
    """

    def converted(each: nn.Module) -> nn.Module | None:
        known = type(each) in CELL_OF and getattr(each, "nonlinearity", "tanh") == "tanh"
        return _converted(each, backend) if known else None  # type: ignore[arg-type]

    return replace_modules(module, converted)


def replace_modules(
    module: nn.Module,
    replacement: Callable[[nn.Module], nn.Module | None],
    _done: dict[nn.Module, nn.Module] | None = None,
) -> nn.Module:
    """Replace, in place, every module inside a model for which `replacement` gives one.

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


def _converted(module: nn.RNNBase, backend: str) -> TorchInterface:
    stack = RecurrentStack(
        CELL_OF[type(module)],
        module.input_size,
        module.hidden_size,
        module.num_layers,
        dropout=module.dropout,
        proj_size=module.proj_size,
        bidirectional=module.bidirectional,
        bias=module.bias,
        backend=backend,
    )
    first = next(module.parameters())
    stack.to(device=first.device, dtype=first.dtype).train(module.training)
    stack.load_state_dict(module.state_dict())
    for ours, theirs in zip(stack.state_dict(keep_vars=True).values(), stack.state_dict(), strict=True):
        ours.requires_grad_(getattr(module, theirs).requires_grad)
    interface = TorchInterface(stack, module.batch_first).train(module.training)
    for name in ("input_size", "hidden_size", "num_layers", "bias", "dropout", "bidirectional", "proj_size"):
        setattr(interface, name, getattr(module, name))  # which models size their states by
    return interface
