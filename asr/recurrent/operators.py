"""What both fused backends register with torch.library: an operator over a flattened layer, and its gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asr.errors import BackendError
from asr.recurrent.cells import CELLS, Call, State

SCHEMA = (
    "Tensor x, Tensor lengths, Tensor[] state, Tensor[] weights, Tensor[] noise, str step, str weight_names, "
    "str noise_names, int[] sizes, float[] numbers, str mode"
)


class Arguments(NamedTuple):
    """A Call as lists and strings, which is what an operator of torch may take; SCHEMA names the same."""

    x: Tensor  # (batch, frame, input)
    lengths: Tensor  # (batch,)
    state: list[Tensor]  # h (direction, batch, output) and, for the LSTM family, c (direction, batch, hidden)
    weights: list[Tensor]  # those that `weight_names` names, how directions lie is the backend's affair
    noise: list[Tensor]  # those that `noise_names` names
    step: str  # Cell.fused
    weight_names: str  # fields of Weights, joined by commas
    noise_names: str  # fields of Noise
    sizes: list[int]  # hidden, output
    numbers: list[float]  # cell_clip, proj_clip, zoneout's rates of h and c where no masks were drawn
    mode: str  # what is kept for the gradients, and the precision: the backend's own words


def names(call: Call) -> tuple[list[str], list[str]]:
    """Return the fields of Weights that the layer has and those of Noise that hold masks."""
    weights, noise = call.weights[0], call.noise[0]
    return (
        [name for name, part in zip(weights._fields, weights, strict=True) if part is not None],
        [name for name, part in zip(noise._fields, noise, strict=True) if isinstance(part, Tensor)],
    )


def numbers(call: Call) -> list[float]:
    """Return the layer's bounds and zoneout rates as `Arguments.numbers` has them."""
    rates = [0.0 if isinstance(share, Tensor) else float(share) for share in call.noise[0][1:]]
    return [call.options.cell_clip, call.options.proj_clip, *rates]


def final_state(call: Call, h: Tensor, c: Tensor) -> State:
    """Return the state as callers know it: c only for cells that have one."""
    return (h, c) if CELLS[call.cell].lstm_family else (h,)


def operator(name: str, outputs: int) -> Callable[[Callable], Any]:
    """Register a function of Arguments' fields, which returns y, h, c and `outputs` more that its gradient needs."""
    schema = f"({SCHEMA}) -> ({', '.join(['Tensor'] * (3 + outputs))})"
    return torch.library.custom_op(f"asr::{name}", mutates_args=(), schema=schema)


def backward_operator(name: str) -> Callable[[Callable], Any]:
    """Register a function of d_y, d_state, needs_d_x, y, what else the operator left and Arguments' fields.

    It returns the gradients of x (without elements where it needs none), of each state and of each weight in one list.
    Its own shapes, which torch asks for where it only traces, follow from those of its arguments.
    """
    schema = f"(Tensor d_y, Tensor[] d_state, bool needs_d_x, Tensor y, Tensor[] saved, {SCHEMA}) -> Tensor[]"

    def register(function: Callable) -> Any:
        registered = torch.library.custom_op(f"asr::{name}", function, mutates_args=(), schema=schema)
        registered.register_fake(_backward_shapes)
        registered.register_autograd(_refuse_double_backward)
        return registered

    return register


def differentiate(forward: Any, backward: Any) -> None:
    """Make `backward`, a backward_operator, the gradient of `forward`, an operator."""

    def run_backward(ctx: Any, *gradients: Tensor | None) -> tuple:
        d_x, d_state, d_weights = _gradients(ctx, backward, ctx.needs_input_grad[0], *gradients)
        return d_x, None, d_state, d_weights, [None] * ctx.counts[2], *[None] * len(ctx.rest)

    forward.register_autograd(run_backward, setup_context=_save_for_backward)


def direct(forward: Callable, backward: Callable, dispatched_backward: Any) -> Callable:
    """Return `forward`, a function of Arguments' fields, with its gradient and without torch's dispatcher.

    The dispatcher's Python costs a short chunk's training step a tenth of its time. A gradient that will itself be
    differentiated still goes through it, by `dispatched_backward`.
    """

    class Direct(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, counts: tuple[int, ...], rest: tuple, x: Tensor, lengths: Tensor, *tensors: Tensor
        ):
            inputs = (x, lengths, *_split(list(tensors), counts)[:3], *rest)
            output = forward(*inputs)
            _save_for_backward(ctx, inputs, output)
            ctx.mark_non_differentiable(*output[3:])
            return output

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor | None) -> tuple:
            function = dispatched_backward if torch.is_grad_enabled() else backward
            d_x, d_state, d_weights = _gradients(ctx, function, ctx.needs_input_grad[2], *gradients)
            return None, None, d_x, None, *d_state, *d_weights, *[None] * ctx.counts[2]

    def run(x: Tensor, lengths: Tensor, state: list, weights: list, noise: list, *rest: Any) -> tuple:
        counts = (len(state), len(weights), len(noise))
        return Direct.apply(counts, rest, x, lengths, *state, *weights, *noise)

    return run


def _gradients(
    ctx: Any,
    backward: Callable,
    needs_d_x: bool,
    d_y: Tensor | None,
    d_h: Tensor | None,
    d_c: Tensor | None,
    *_: Any,
) -> tuple[Tensor | None, list[Tensor], list[Tensor]]:
    """Return the gradients of x, of each state and of each weight."""
    x, lengths, *tensors = ctx.saved_tensors
    state, weights, noise, (y, *saved) = _split(tensors, ctx.counts)
    d_y = torch.zeros_like(y) if d_y is None else d_y
    finals = zip(state, (d_h, d_c), strict=False)
    d_state = [torch.zeros_like(part) if given is None else given for part, given in finals]
    arguments = (x, lengths, state, weights, noise, *ctx.rest)
    d_x, *gradients = backward(d_y, d_state, needs_d_x, y, saved, *arguments)
    return d_x if needs_d_x else None, gradients[: len(state)], gradients[len(state) :]


def _save_for_backward(ctx: Any, inputs: tuple, output: tuple) -> None:
    x, lengths, state, weights, noise, *ctx.rest = inputs
    y, _, _, *saved = output
    # Without this what was saved, the largest of all, would get gradients of zeros.
    ctx.set_materialize_grads(False)
    ctx.counts = (len(state), len(weights), len(noise))
    ctx.save_for_backward(x, lengths, *state, *weights, *noise, y, *saved)


def _split(tensors: list[Tensor], counts: tuple[int, ...]) -> list[list[Tensor]]:
    """Cut a list into pieces of these lengths and the rest."""
    pieces = []
    for count in counts:
        pieces.append(tensors[:count])
        tensors = tensors[count:]
    return [*pieces, tensors]


def _backward_shapes(_d_y, _d_state, needs_d_x, _y, _saved, *values) -> list[Tensor]:
    arguments = Arguments(*values)
    x = arguments.x
    d_x = x.new_empty(x.shape if needs_d_x else 0)
    return [d_x, *(tensor.new_empty(tensor.shape) for tensor in (*arguments.state, *arguments.weights))]


def _refuse_double_backward(_ctx: Any, *_: Any) -> None:
    raise BackendError("backend 'fused' cannot differentiate twice; use backend 'reference'")
