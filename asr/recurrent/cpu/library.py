"""The compiled CPU kernels, loaded by ctypes, and the structs of src/layer.h that describe a layer to them."""

import ctypes
import functools
import logging
import math
import os
import re
import weakref
from pathlib import Path

import torch
from torch import Tensor

from asr.errors import BackendError
from asr.recurrent.cells import Weights
from asr.recurrent.operators import Arguments

logger = logging.getLogger(__name__)

# src/layer.h, field by field. Noise has other names there than in Noise.
WEIGHT_KINDS = {"float32": 0, "bfloat16": 1, "int8": 2}
NOISE_FIELDS = {"recurrent": "mask", "zoneout_hidden": "zoneout_hidden", "zoneout_cell": "zoneout_cell"}
STATES = ("h0", "c0", "hn", "cn", "reserve", "d_hn", "d_cn", "d_h0", "d_c0")
POINTERS = (
    *Weights._fields,
    "packed",
    *NOISE_FIELDS.values(),
    *STATES,
    *(f"d_{name}" for name in Weights._fields),
)
SIZES = ("cell", "batch", "frames", "input", "hidden", "output", "directions", "threads", "weight_kind")
FRAMES = ("lengths", "x", "y", "d_y", "d_x", "x_bfloat16", "y_bfloat16")
BAD_LENGTHS = 2  # src/entry.cpp's recurrent_forward
NUMBERS = ("cell_clip", "proj_clip", "zoneout_hidden_rate", "zoneout_cell_rate")


class Direction(ctypes.Structure):
    """One direction's pointers."""

    _fields_ = [(name, ctypes.c_void_p) for name in POINTERS]


class Layer(ctypes.Structure):
    """A layer, described to the kernels. Tensors that it points to are kept alive with it."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in SIZES),
        *((name, ctypes.c_void_p) for name in FRAMES),
        *((name, ctypes.c_float) for name in NUMBERS),
        ("direction", Direction * 2),
    ]

    def __init__(self, *sizes: int):
        super().__init__(*sizes)
        self.kept: list[Tensor] = []

    def address(self, tensor: Tensor) -> int:
        """Return where the kernels find a tensor's elements, copied where they are not contiguous."""
        if not tensor.is_cpu:
            raise ValueError(f"x is on the cpu, but another tensor of the layer on {tensor.device}")
        tensor = tensor.contiguous()
        self.kept.append(tensor)
        return tensor.data_ptr()

    def set_frames(self, name: str, tensor: Tensor) -> None:
        """Point a field, or the one for bfloat16, at frames."""
        setattr(self, f"{name}_bfloat16" if tensor.dtype == torch.bfloat16 else name, self.address(tensor))

    def set_directions(self, names: tuple[str, ...], tensors: list[Tensor]) -> None:
        """Point each direction's fields of these names at its part of a tensor, first axis direction."""
        for name, tensor in zip(names, tensors, strict=False):
            address, size = self.address(tensor), tensor.nbytes // self.directions
            for d in range(self.directions):
                setattr(self.direction[d], name, address + d * size)

    def set_flat(self, names: list[str], tensors: list[Tensor]) -> None:
        """Point each direction's fields at tensors that stand direction after direction."""
        for i, tensor in enumerate(tensors):
            d, place = divmod(i, len(names))
            setattr(self.direction[d], names[place], self.address(tensor))


def describe(arguments: Arguments) -> Layer:
    """Describe what both passes read: sizes, frames, weights, noise and the first state."""
    weight_names = arguments.weight_names.split(",")
    noise_names = [NOISE_FIELDS[name] for name in arguments.noise_names.split(",") if name]
    directions = len(arguments.weights) // len(weight_names)
    layer = Layer(
        cell_number(arguments.step), *arguments.x.shape, *arguments.sizes, directions, torch.get_num_threads()
    )
    layer.set_frames("x", arguments.x)
    layer.lengths = layer.address(arguments.lengths.to("cpu", torch.int64))
    for name, number in zip(NUMBERS, arguments.numbers, strict=True):
        setattr(layer, name, number)
    layer.set_flat(weight_names, arguments.weights)
    layer.set_flat(noise_names, arguments.noise)
    layer.set_directions(("h0", "c0"), arguments.state)
    return layer


def forward(layer: Layer, lengths: Tensor) -> None:
    """Run the forward pass. Raises ValueError for lengths beyond the frames."""
    status = load().recurrent_forward(instruction_set(), ctypes.byref(layer))
    if status == BAD_LENGTHS:
        raise ValueError(
            f"lengths must lie within 0 and the {layer.frames} frames of x, got {lengths.tolist()}"
        )
    if status:
        raise MemoryError("the recurrent kernels could not allocate their working memory")


def backward(layer: Layer) -> None:
    """Run the backward pass."""
    if load().recurrent_backward(instruction_set(), ctypes.byref(layer)):
        raise MemoryError("the recurrent kernels could not allocate their working memory")


def pack(layer: Layer, direction: int) -> Tensor:
    """Return one direction's matrices as bytes in the order in which this processor's kernels read them."""
    size = load().recurrent_packed_bytes(instruction_set(), ctypes.byref(layer))
    packed = torch.empty(size, dtype=torch.uint8)
    load().recurrent_pack(instruction_set(), ctypes.byref(layer), direction, packed.data_ptr())
    return packed


def reserve_shape(layer: Layer, x: Tensor) -> tuple[int, ...]:
    """Return the shape of what the forward pass leaves for the backward pass."""
    width = load().recurrent_reserve_width(instruction_set(), ctypes.byref(layer))
    return (layer.directions, x.shape[0] * x.shape[1], width)


def pooled(shape: tuple[int, ...]) -> Tensor:
    """Return a tensor of arbitrary contents in memory that goes back to the kernels' pool with it."""
    size = 4 * math.prod(shape)
    if size == 0:
        return torch.empty(shape)
    address = load().recurrent_take(size)
    if not address:
        raise MemoryError(f"no memory for the {size} bytes that the backward pass needs")
    memory = (ctypes.c_char * size).from_address(address)
    weakref.finalize(memory, load().recurrent_give, address)
    return torch.frombuffer(memory, dtype=torch.float32).view(shape)


def cell_number(step: str) -> int:
    """Return the kernels' number of a step, negative where they lack it."""
    return load().recurrent_cell(instruction_set(), step.encode())


def peak_gflops() -> float:
    """Measure the kernels' innermost loop on torch's threads, data in the nearest cache: the floor of any layer."""
    return max(load().recurrent_peak(instruction_set(), torch.get_num_threads()) for _ in range(5))


@functools.cache
def load() -> ctypes.CDLL:
    """Load the kernels, over the OpenMP runtime that torch has loaded: two of them would fight over the cores."""
    # Only here, or `python -m asr.recurrent.cpu.build` would find itself imported already.
    from asr.recurrent.cpu import build

    path = build.library()
    loaded = re.findall(r"\S+/lib(?:gomp|iomp5|omp)[^/\s]*\.so\S*", Path("/proc/self/maps").read_text())
    try:
        ctypes.CDLL(loaded[0] if loaded else "libgomp.so.1", mode=ctypes.RTLD_GLOBAL)
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise BackendError(f"the fused CPU kernels cannot be loaded: {error}") from None
    if library.recurrent_layer_size() != ctypes.sizeof(Layer):
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
    from asr.recurrent.cpu import build

    forced = os.environ.get("ASR_RECURRENT_ISA")
    for name in [forced] if forced else build.INSTRUCTION_SETS:
        if load().recurrent_supports(name.encode()):
            return name.encode()
    raise BackendError(f"this processor does not run the {forced!r} kernels that ASR_RECURRENT_ISA asks for")


@functools.cache
def problem() -> str | None:
    """Return why the kernels cannot run in this process, None if they can; the reason is logged once."""
    try:
        instruction_set()
    except BackendError as error:
        logger.warning(
            "%s; recurrent layers run torch's own kernels or, where it has none, the slow reference", error
        )
        return str(error)
    return None
