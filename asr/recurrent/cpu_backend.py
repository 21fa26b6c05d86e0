"""The fused CPU backend: C++ kernels called through ctypes and registered with torch.library.

float32 in training and inference. Inference in bfloat16 multiplies in bfloat16, sums and computes the cell in float32;
float16 is computed in float32 throughout. `pack` and `run_packed` are for weights packed once, in float32, bfloat16 or
int8.
"""

import ctypes
import functools
import math
import os
import re
import warnings
import weakref
from pathlib import Path

import torch
from torch import Tensor

from asr.errors import BackendError
from asr.recurrent.cells import CELLS, CellOptions, Noise, State, Weights, fused_step

# cpu/layer.h, field by field.
WEIGHT_KINDS = {"float32": 0, "bfloat16": 1, "int8": 2}
_WEIGHTS = Weights._fields
_POINTERS = [
    *_WEIGHTS,
    *(
        "packed",
        "mask",
        "zoneout_hidden",
        "zoneout_cell",
        "h0",
        "c0",
        "hn",
        "cn",
        "reserve",
        "d_hn",
        "d_cn",
        "d_h0",
        "d_c0",
    ),
    *(f"d_{name}" for name in _WEIGHTS),
]
_SIZES = [
    "cell",
    "batch",
    "frames",
    "input",
    "hidden",
    "output",
    "directions",
    "threads",
    "weight_kind",
]


class _Direction(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in _POINTERS]


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in _SIZES),
        *(
            (name, ctypes.c_void_p)
            for name in ("lengths", "x", "y", "d_y", "d_x", "x_bfloat16", "y_bfloat16")
        ),
        *(
            (name, ctypes.c_float)
            for name in (
                "cell_clip",
                "proj_clip",
                "zoneout_hidden_rate",
                "zoneout_cell_rate",
            )
        ),
        ("direction", _Direction * 2),
    ]


@functools.cache
def _library() -> ctypes.CDLL:
    """Load the kernels, over the OpenMP runtime that torch has loaded: two of them would fight over the cores."""
    # Only here, or `python -m asr.recurrent.build` would find itself imported already.
    from asr.recurrent import build

    path = build.library()
    loaded = re.findall(r"\S+/lib(?:gomp|iomp5|omp)[^/\s]*\.so\S*", Path("/proc/self/maps").read_text())
    try:
        ctypes.CDLL(loaded[0] if loaded else "libgomp.so.1", mode=ctypes.RTLD_GLOBAL)
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise BackendError(f"the fused CPU kernels cannot be loaded: {error}") from None
    if library.recurrent_layer_size() != ctypes.sizeof(_Layer):
        raise BackendError(f"{path} does not belong to this version of asr; delete it")
    library.recurrent_cell.restype = ctypes.c_int64
    library.recurrent_reserve_width.restype = ctypes.c_int64
    library.recurrent_packed_bytes.restype = ctypes.c_int64
    library.recurrent_pack.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
    library.recurrent_peak.restype = ctypes.c_double
    library.recurrent_take.restype = ctypes.c_void_p
    library.recurrent_take.argtypes = [ctypes.c_int64]
    library.recurrent_give.argtypes = [ctypes.c_void_p]
    return library


@functools.cache
def instruction_set() -> bytes:
    """Name the widest kernels that this processor runs, or those that $ASR_RECURRENT_ISA asks for."""
    from asr.recurrent import build

    wanted = os.environ.get("ASR_RECURRENT_ISA")
    for name in [wanted] if wanted else build.INSTRUCTION_SETS:
        if _library().recurrent_supports(name.encode()):
            return name.encode()
    raise BackendError(f"this processor does not run the {wanted!r} kernels that ASR_RECURRENT_ISA asks for")


def peak_gflops() -> float:
    """Measure the kernels' innermost loop on torch's threads, data in the nearest cache: the floor of any layer."""
    return max(_library().recurrent_peak(instruction_set(), torch.get_num_threads()) for _ in range(5))


@functools.cache
def _load_problem() -> str | None:
    try:
        instruction_set()
    except BackendError as error:
        warnings.warn(
            f"{error}; recurrent layers run torch's own kernels or, where it has none, the slow reference",
            stacklevel=2,
        )
        return str(error)
    return None


def refusal(
    cell_name: str,
    options: CellOptions,
    x: Tensor,
    weights: list[Weights],
    noise: list[Noise],
) -> str | None:
    """Say why these kernels cannot run this layer, None if they can."""
    if x.dtype == torch.float64:
        return "the CPU kernels compute in float32, not float64"
    return _known_problem(fused_step(cell_name, options.reset))


def _known_problem(step: str) -> str | None:
    if problem := _load_problem():
        return problem
    known = _library().recurrent_cell(instruction_set(), step.encode()) >= 0
    return None if known else f"the CPU kernels lack {step!r}"


# A graph being compiled cannot load libraries: it asks while it is traced and takes the answer for a constant. So does
# torch.compiler.assume_constant_result, but for importing all of torch._dynamo at start-up.
_known_problem._dynamo_marked_constant = True  # type: ignore[attr-defined]


def run(
    cell_name: str,
    options: CellOptions,
    x: Tensor,
    lengths: Tensor,
    state: State,
    weights: list[Weights],
    noise: list[Noise],
) -> tuple[Tensor, State]:
    """Run one layer, every direction; see `reference.run` for the shapes."""
    masks = [_masks(own) for own in noise]
    present = [name for name in _WEIGHTS if getattr(weights[0], name) is not None]
    zoneout = [float(share) if isinstance(share, float) else 0.0 for share in noise[0][1:]]
    # Through the dispatcher only where someone needs it: its first call imports all of torch._dynamo, seconds that
    # plain inference can do without.
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    plain = not torch.is_grad_enabled() and not traced and type(x) is Tensor
    in_bfloat16 = x.dtype == torch.bfloat16 and not torch.is_grad_enabled()
    y, hn, cn, _ = (_forward if plain else torch.ops.asr.recurrent)(
        x if in_bfloat16 else x.float(),
        lengths,
        [part.float() for part in state],
        [getattr(own, name).float() for own in weights for name in present],
        [mask.float() for own in masks for mask in own.values()],
        ",".join(present),
        ",".join(masks[0]),
        cell_name,
        options.reset,
        options.hidden_size,
        options.output_size,
        [options.cell_clip, options.proj_clip, *zoneout],
        torch.is_grad_enabled(),
        "bfloat16" if in_bfloat16 else "float32",
    )
    final = (hn, cn) if CELLS[cell_name].lstm_family else (hn,)
    return y.to(x.dtype), tuple(part.to(x.dtype) for part in final)


def _masks(noise: Noise) -> dict[str, Tensor]:
    names = ("mask", "zoneout_hidden", "zoneout_cell")
    return {name: part for name, part in zip(names, noise, strict=True) if isinstance(part, Tensor)}


def _cell_number(cell: str, reset: str) -> int:
    return _library().recurrent_cell(instruction_set(), fused_step(cell, reset).encode())


def _layer(
    x: Tensor,
    lengths: Tensor,
    state: list[Tensor],
    weights: list[Tensor],
    noise: list[Tensor],
    weight_names: str,
    noise_names: str,
    cell: str,
    reset: str,
    hidden_size: int,
    output_size: int,
    numbers: list[float],
    keep: list[Tensor],
) -> _Layer:
    """Describe a call to the kernels; tensors that it points to are appended to `keep`."""

    def pointer(tensor: Tensor) -> int:
        if tensor.device.type != "cpu":
            raise ValueError(f"x is on the cpu, but another tensor of the layer on {tensor.device}")
        keep.append(tensor.contiguous())
        return keep[-1].data_ptr()

    names = weight_names.split(",")
    directions = len(weights) // len(names)
    layer = _Layer(
        _cell_number(cell, reset),
        x.shape[0],
        x.shape[1],
        x.shape[2],
        hidden_size,
        output_size,
        directions,
    )
    layer.threads = torch.get_num_threads()
    setattr(layer, _frames("x", x), pointer(x))
    layer.lengths = pointer(lengths.to("cpu", torch.int64))
    (
        layer.cell_clip,
        layer.proj_clip,
        layer.zoneout_hidden_rate,
        layer.zoneout_cell_rate,
    ) = numbers
    noise_list = noise_names.split(",") if noise_names else []
    for d in range(directions):
        own = layer.direction[d]
        for i, name in enumerate(names):
            setattr(own, name, pointer(weights[d * len(names) + i]))
        for i, name in enumerate(noise_list):
            setattr(own, name, pointer(noise[d * len(noise_list) + i]))
        for name, part in zip(("h0", "c0"), state, strict=False):
            setattr(own, name, pointer(part[d]))
    return layer


def _frames(name: str, tensor: Tensor) -> str:
    """Name the field that holds frames of this precision."""
    return f"{name}_bfloat16" if tensor.dtype == torch.bfloat16 else name


def _set_directions(layer: _Layer, tensors: dict[str, Tensor], keep: list[Tensor]) -> None:
    """Point each direction's fields at its part of these tensors, first axis direction."""
    for name, tensor in tensors.items():
        keep.append(tensor.contiguous())
        for d in range(layer.directions):
            setattr(layer.direction[d], name, keep[-1][d].data_ptr())


def _call(function: str, layer: _Layer) -> None:
    if getattr(_library(), function)(instruction_set(), ctypes.byref(layer)):
        raise MemoryError("the recurrent kernels could not allocate their working memory")


def _pooled(shape: tuple[int, ...]) -> Tensor:
    """Give a tensor of arbitrary contents in memory that goes back to the kernels' pool with it."""
    size = 4 * math.prod(shape)
    if size == 0:
        return torch.empty(shape)
    address = _library().recurrent_take(size)
    if not address:
        raise MemoryError(f"no memory for the {size} bytes that the backward pass needs")
    memory = (ctypes.c_char * size).from_address(address)
    weakref.finalize(memory, _library().recurrent_give, address)
    return torch.frombuffer(memory, dtype=torch.float32).view(shape)


def _reserve_shape(x: Tensor, layer: _Layer) -> tuple[int, ...]:
    width = _library().recurrent_reserve_width(instruction_set(), ctypes.byref(layer))
    return (layer.directions, x.shape[0] * x.shape[1], width)


def _forward(
    x: Tensor,
    lengths: Tensor,
    state: list[Tensor],
    weights: list[Tensor],
    noise: list[Tensor],
    weight_names: str,
    noise_names: str,
    cell: str,
    reset: str,
    hidden_size: int,
    output_size: int,
    numbers: list[float],
    training: bool,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run a layer; returns y, h, c (empty where the cell has none) and what the backward pass needs.

    The lists hold what `weight_names` and `noise_names` name, direction after direction; numbers are cell_clip,
    proj_clip and the two zoneout rates of evaluation; `precision` is that of the products, float32 in training.
    """
    keep: list[Tensor] = []
    names = (weight_names, noise_names, cell, reset, hidden_size, output_size, numbers)
    layer = _layer(x, lengths, state, weights, noise, *names, keep)
    layer.weight_kind = WEIGHT_KINDS[precision]
    return _forward_call(layer, x, lengths, state, output_size, training, keep)


def _forward_call(
    layer: _Layer,
    x: Tensor,
    lengths: Tensor,
    state: list[Tensor],
    output_size: int,
    training: bool,
    keep: list[Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run the forward kernels over a layer that is described but for its outputs."""
    if layer.batch and not bool((lengths >= 0).all() and (lengths <= x.shape[1]).all()):
        raise ValueError(
            f"lengths must lie within 0 and the {x.shape[1]} frames of x, got {lengths.tolist()}"
        )
    y = x.new_empty(x.shape[0], x.shape[1], layer.directions * output_size)
    finals = [torch.empty_like(part, memory_format=torch.contiguous_format) for part in state]
    # Rows behind the valid frames are never touched, so they take no memory.
    reserve = _pooled(_reserve_shape(x, layer)) if training else x.new_empty(0)
    setattr(layer, _frames("y", y), y.data_ptr())
    _set_directions(layer, dict(zip(("hn", "cn"), finals, strict=False)), keep)
    if training:
        _set_directions(layer, {"reserve": reserve}, keep)
    _call("recurrent_forward", layer)
    return y, finals[0], finals[1] if len(finals) > 1 else x.new_empty(0), reserve


def pack(cell_name: str, options: CellOptions, weights: list[Weights], kind: str) -> list[Tensor]:
    """Pack each direction's matrices for `run_packed`: bytes in an order that this processor's kernels want.

    `kind` is what a weight becomes: "float32", "bfloat16", or "int8" with a scale for each row of a matrix.
    """
    packed = []
    for own in weights:
        keep: list[Tensor] = []
        x = own.weight_ih.new_empty(1, 0, own.weight_ih.shape[1], dtype=torch.float32)
        tensors = {name: part.float() for name, part in own._asdict().items() if part is not None}
        names = (",".join(tensors), "", cell_name, options.reset, options.hidden_size, options.output_size)
        layer = _layer(x, torch.zeros(1), [], list(tensors.values()), [], *names, [0.0] * 4, keep)
        layer.weight_kind = WEIGHT_KINDS[kind]
        size = _library().recurrent_packed_bytes(instruction_set(), ctypes.byref(layer))
        packed.append(torch.empty(size, dtype=torch.uint8))
        _library().recurrent_pack(instruction_set(), ctypes.byref(layer), 0, packed[-1].data_ptr())
    return packed


def run_packed(
    cell_name: str,
    options: CellOptions,
    x: Tensor,
    lengths: Tensor,
    state: State,
    weights: list[Weights],
    packed: list[Tensor],
    kind: str,
    zoneout: tuple[float, float],
) -> tuple[Tensor, State]:
    """Run one layer without gradients over matrices from `pack`; those in `weights` may be empty, only None counts."""
    keep: list[Tensor] = []
    present = [name for name in _WEIGHTS if getattr(weights[0], name) is not None]
    tensors = [getattr(own, name).float() for own in weights for name in present]
    names = (",".join(present), "", cell_name, options.reset, options.hidden_size, options.output_size)
    numbers = [options.cell_clip, options.proj_clip, *zoneout]
    floats = [part.float() for part in state]
    frames = x if x.dtype == torch.bfloat16 and kind == "bfloat16" else x.float()
    layer = _layer(frames, lengths, floats, tensors, [], *names, numbers, keep)
    layer.weight_kind = WEIGHT_KINDS[kind]
    for d, own in enumerate(packed):
        layer.direction[d].packed = own.data_ptr()
        if options.proj_size:  # the kernels know by this pointer that there is a projection
            layer.direction[d].weight_hr = own.data_ptr()
    y, hn, cn, _ = _forward_call(layer, frames, lengths, floats, options.output_size, False, keep)
    final = (hn, cn) if CELLS[cell_name].lstm_family else (hn,)
    return y.to(x.dtype), tuple(part.to(x.dtype) for part in final)


recurrent = torch.library.custom_op("asr::recurrent", _forward, mutates_args=())


@recurrent.register_fake
def _(
    x,
    lengths,
    state,
    weights,
    noise,
    weight_names,
    noise_names,
    cell,
    reset,
    hidden_size,
    output_size,
    numbers,
    training,
    precision,
):
    directions = state[0].shape[0]
    shape = (0,)
    if training:
        layer = _Layer(_cell_number(cell, reset), 1, 1, 1, int(hidden_size), int(output_size), directions)
        layer.proj_clip = numbers[1]
        layer.direction[0].norm_hh_weight = "norm_hh_weight" in weight_names  # not null
        shape = _reserve_shape(x, layer)
    y = x.new_empty(x.shape[0], x.shape[1], directions * output_size)
    h, *c = (part.new_empty(part.shape) for part in state)  # contiguous, whatever the strides of the state
    return y, h, c[0] if c else x.new_empty(0), x.new_empty(shape)


@torch.library.custom_op("asr::recurrent_backward", mutates_args=())
def recurrent_backward(
    d_y: Tensor,
    d_state: list[Tensor],
    x: Tensor,
    lengths: Tensor,
    state: list[Tensor],
    weights: list[Tensor],
    noise: list[Tensor],
    y: Tensor,
    reserve: Tensor,
    weight_names: str,
    noise_names: str,
    cell: str,
    reset: str,
    hidden_size: int,
    output_size: int,
    numbers: list[float],
    needs_d_x: bool,
) -> list[Tensor]:
    """Give the gradients of x (without elements where it needs none), of each state and of each weight, in one list."""
    keep: list[Tensor] = []
    names = (weight_names, noise_names, cell, reset, hidden_size, output_size, numbers)
    layer = _layer(x, lengths, state, weights, noise, *names, keep)
    d_x = x.new_empty(x.shape if needs_d_x else 0)
    d_initial = [torch.empty_like(part, memory_format=torch.contiguous_format) for part in state]
    d_weights = [torch.empty_like(weight, memory_format=torch.contiguous_format) for weight in weights]
    keep += [y.contiguous(), d_y.contiguous()]
    layer.y, layer.d_y, layer.d_x = (
        keep[-2].data_ptr(),
        keep[-1].data_ptr(),
        d_x.data_ptr() if needs_d_x else None,
    )
    _set_directions(layer, {"reserve": reserve}, keep)
    _set_directions(layer, dict(zip(("d_hn", "d_cn"), d_state, strict=False)), keep)
    _set_directions(layer, dict(zip(("d_h0", "d_c0"), d_initial, strict=False)), keep)
    own_names = weight_names.split(",")
    for i, gradient in enumerate(d_weights):
        setattr(
            layer.direction[i // len(own_names)],
            f"d_{own_names[i % len(own_names)]}",
            gradient.data_ptr(),
        )
    _call("recurrent_backward", layer)
    return [d_x, *d_initial, *d_weights]


@recurrent_backward.register_fake
def _(d_y, d_state, x, lengths, state, weights, *arguments):
    d_x = x.new_empty(x.shape if arguments[-1] else 0)
    return [d_x, *(tensor.new_empty(tensor.shape) for tensor in (*state, *weights))]


def _setup_context(ctx, inputs, output):
    x, lengths, state, weights, noise, *ctx.arguments, _training, _precision = inputs
    y, _, _, reserve = output
    ctx.set_materialize_grads(False)  # or the reserve, the largest of all, gets a gradient of zeros
    ctx.counts = (len(state), len(weights), len(noise))
    ctx.save_for_backward(x, lengths, y, reserve, *state, *weights, *noise)


def _backward(ctx, d_y, d_hn, d_cn, _d_reserve):
    x, lengths, y, reserve, *rest = ctx.saved_tensors
    states, weights, noise = ctx.counts
    state, weight, masks = (
        rest[:states],
        rest[states : states + weights],
        rest[states + weights :],
    )
    d_y = torch.zeros_like(y) if d_y is None else d_y
    finals = zip(state, (d_hn, d_cn), strict=False)
    d_state = [torch.zeros_like(part) if given is None else given for part, given in finals]
    d_x, *rest = torch.ops.asr.recurrent_backward(
        d_y, d_state, x, lengths, state, weight, masks, y, reserve, *ctx.arguments, ctx.needs_input_grad[0]
    )
    return (
        d_x if ctx.needs_input_grad[0] else None,
        None,
        rest[:states],
        rest[states:],
        [None] * noise,
        *[None] * 9,
    )


recurrent.register_autograd(_backward, setup_context=_setup_context)


def _refuse_double_backward(ctx, *_):
    raise BackendError("backend 'fused' cannot differentiate twice; use backend 'reference'")


recurrent_backward.register_autograd(_refuse_double_backward)
