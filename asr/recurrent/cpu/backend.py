"""The fused CPU backend: C++ kernels called through ctypes and registered with torch.library.

float32 in training and inference. Inference in bfloat16 multiplies in bfloat16, sums and computes the cell in float32;
float16 is computed in float32 throughout. `pack` and `run_packed` are for weights packed once, in float32, bfloat16 or
int8.
"""

import torch
from torch import Tensor

from asr.recurrent.cells import CELLS, Call, State
from asr.recurrent.cpu import library
from asr.recurrent.operators import (
    Arguments,
    backward_operator,
    differentiate,
    direct,
    final_state,
    names,
    numbers,
    operator,
)

TRAINING = "training"  # Arguments.mode: this, which is in float32, or a key of library.WEIGHT_KINDS


def refusal(call: Call) -> str | None:
    """Return why these kernels cannot run this layer, None if they can."""
    if call.x.dtype == torch.float64:
        return "the CPU kernels compute in float32, not float64"
    return _problem_of(CELLS[call.cell].fused_step(call.options))


def _problem_of(step: str) -> str | None:
    if problem := library.problem():
        return problem
    return None if library.cell_number(step) >= 0 else f"the CPU kernels lack {step!r}"


# A graph being compiled cannot load libraries: it asks while it is traced and takes the answer for a constant. So does
# torch.compiler.assume_constant_result, but for importing all of torch._dynamo at start-up.
_problem_of._dynamo_marked_constant = True  # type: ignore[attr-defined]


def run(call: Call) -> tuple[Tensor, State]:
    """Run one layer, every direction; see `reference.run` for the shapes."""
    # Through the dispatcher only where someone needs it: its first call imports all of torch._dynamo, which takes
    # seconds.
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    plain = not traced and type(call.x) is Tensor
    inference = "bfloat16" if call.x.dtype == torch.bfloat16 else "float32"
    arguments = _flatten(call, TRAINING if torch.is_grad_enabled() else inference)
    differentiated = _differentiated if torch.is_grad_enabled() else _forward
    y, h, c, _ = (differentiated if plain else torch.ops.asr.recurrent)(*arguments)
    return _as_given(call, y, h, c)


def pack(call: Call, kind: str) -> list[Tensor]:
    """Pack each direction's matrices for `run_packed`: bytes in an order that this processor's kernels want.

    Only the cell, the weights and the width of x count. `kind` is what a weight becomes: "float32", "bfloat16", or
    "int8" with a scale for each row of a matrix.
    """
    layer = library.describe(_flatten(call, kind))
    layer.weight_kind = library.WEIGHT_KINDS[kind]
    return [library.pack(layer, direction) for direction in range(layer.directions)]


def run_packed(call: Call, packed: list[Tensor], kind: str) -> tuple[Tensor, State]:
    """Run one layer without gradients over matrices from `pack`; those in `call` may be empty, only None counts."""
    arguments = _flatten(call, kind)
    layer = library.describe(arguments)
    for direction, matrices in zip(layer.direction, packed, strict=False):
        direction.packed = matrices.data_ptr()
        if call.options.proj_size:  # the kernels know by this pointer that there is a projection
            direction.weight_hr = matrices.data_ptr()
    y, h, c, _ = _run_forward(layer, arguments)
    return _as_given(call, y, h, c)


def _flatten(call: Call, mode: str) -> Arguments:
    """Return the call as the kernels take it: float32, weights and noise direction after direction."""
    weight_names, noise_names = names(call)
    return Arguments(
        call.x if call.x.dtype == torch.bfloat16 and mode == "bfloat16" else call.x.float(),
        call.lengths,
        [part.float() for part in call.state],
        [getattr(weights, name).float() for weights in call.weights for name in weight_names],
        [getattr(noise, name).float() for noise in call.noise for name in noise_names],
        CELLS[call.cell].fused_step(call.options),
        ",".join(weight_names),
        ",".join(noise_names),
        [call.options.hidden_size, call.options.output_size],
        numbers(call),
        mode,
    )


def _as_given(call: Call, y: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, State]:
    """Return outputs in the precision of the input."""
    return y.to(call.x.dtype), tuple(part.to(call.x.dtype) for part in final_state(call, h, c))


def _forward(*values) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run a layer; returns y, h, c (empty where the cell has none) and what the backward pass needs."""
    arguments = Arguments(*values)
    return _run_forward(library.describe(arguments), arguments)


def _run_forward(layer: library.Layer, arguments: Arguments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = arguments.x
    y = x.new_empty(x.shape[0], x.shape[1], layer.directions * layer.output)
    finals = [torch.empty_like(part, memory_format=torch.contiguous_format) for part in arguments.state]
    layer.set_frames("y", y)
    layer.set_directions(("hn", "cn"), finals)
    reserve = x.new_empty(0)
    if arguments.mode == TRAINING:
        # Rows behind the valid frames are never touched, so they take no memory.
        reserve = library.pooled(library.reserve_shape(layer, x))
        layer.set_directions(("reserve",), [reserve])
    else:
        layer.weight_kind = library.WEIGHT_KINDS[arguments.mode]
    library.forward(layer, arguments.lengths)
    return y, finals[0], finals[1] if len(finals) > 1 else x.new_empty(0), reserve


recurrent = operator("recurrent", outputs=1)(_forward)


@recurrent.register_fake
def _(*values):
    arguments = Arguments(*values)
    x, (h, *c) = arguments.x, arguments.state
    directions, (hidden, output) = h.shape[0], arguments.sizes
    shape: tuple[int, ...] = (0,)
    if arguments.mode == TRAINING:
        layer = library.Layer(library.cell_number(arguments.step), 1, 1, 1, hidden, output, directions)
        layer.proj_clip = arguments.numbers[1]
        layer.direction[0].norm_hh_weight = "norm_hh_weight" in arguments.weight_names  # not null
        shape = library.reserve_shape(layer, x)
    y = x.new_empty(x.shape[0], x.shape[1], directions * output)
    # Contiguous, whatever the strides of the state.
    finals = [part.new_empty(part.shape) for part in (h, *c)]
    return y, finals[0], finals[1] if c else x.new_empty(0), x.new_empty(shape)


def _backward(d_y, d_state, needs_d_x, y, saved, *values) -> list[Tensor]:
    """Return the gradients of x, of each state and of each weight; see `backward_operator`."""
    arguments = Arguments(*values)
    layer = library.describe(arguments)
    state, weights = (
        [torch.empty_like(part, memory_format=torch.contiguous_format) for part in parts]
        for parts in (arguments.state, arguments.weights)
    )
    d_x = arguments.x.new_empty(arguments.x.shape if needs_d_x else 0)
    layer.set_frames("y", y)
    layer.set_frames("d_y", d_y)
    if needs_d_x:
        layer.set_frames("d_x", d_x)
    layer.set_directions(("reserve",), saved)
    layer.set_directions(("d_hn", "d_cn"), d_state)
    layer.set_directions(("d_h0", "d_c0"), state)
    layer.set_flat([f"d_{name}" for name in arguments.weight_names.split(",")], weights)
    library.backward(layer)
    return [d_x, *state, *weights]


recurrent_backward = backward_operator("recurrent_backward")(_backward)
differentiate(recurrent, recurrent_backward)
_differentiated = direct(_forward, _backward, recurrent_backward)
