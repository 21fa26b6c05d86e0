"""Choose who computes a layer: the fused kernels of the tensor's device, torch's own, or the reference.

A backend is a module with two functions:
    refusal(cell_name, options, x, weights, noise) -> str | None   why it cannot run this, or None if it can
    run(cell_name, options, x, lengths, state, weights, noise) -> (y, state)   as `reference.run`
"""

from types import ModuleType

import torch
from torch import Tensor
from torch._C import _functorch  # type: ignore[attr-defined]
from torch.autograd import forward_ad

from asr.errors import BackendError
from asr.recurrent import cpu_backend, native, reference
from asr.recurrent.cells import CellOptions, Noise, State, Weights

BACKENDS = ("auto", "reference", "fused")


def run(
    backend: str,
    cell_name: str,
    options: CellOptions,
    x: Tensor,
    lengths: Tensor,
    state: State,
    weights: list[Weights],
    noise: list[Noise],
) -> tuple[Tensor, State]:
    """Run one layer, every direction, with `backend`; see `reference.run` for the shapes.

    "auto" takes the fused kernels of a CPU, torch's own where those cannot be had, and the reference for what neither
    knows. On a GPU it takes torch's own (cuDNN) first: the Triton kernels pass every test in Triton's interpreter
    but were not yet measured on a device. "fused" raises BackendError, naming what is in the way.
    """
    arguments = (cell_name, options, x, weights, noise)
    if backend == "reference":
        return reference.run(cell_name, options, x, lengths, state, weights, noise)
    watched = _watched()
    fused = watched or fused_module(x.device.type)
    reason = fused.refusal(*arguments) if isinstance(fused, ModuleType) else fused
    if backend == "fused":
        if reason is not None or isinstance(fused, str):
            raise BackendError(f"backend 'fused' cannot run this layer: {reason}; use 'auto' or 'reference'")
        return fused.run(cell_name, options, x, lengths, state, weights, noise)
    # torch's kernels take batches whose shapes depend on the lengths, which a compiled graph cannot.
    own_kernels = not (torch.compiler.is_compiling() or watched) and native.refusal(*arguments) is None
    if isinstance(fused, ModuleType) and reason is None and not (own_kernels and x.device.type == "cuda"):
        module = fused
    else:
        module = native if own_kernels else reference
    return module.run(cell_name, options, x, lengths, state, weights, noise)


def _watched() -> str | None:
    """Say so where derivatives forward, vmap or another of torch.func's follow each tensor, None elsewhere.

    They see operators. Behind pointers they lose sight: a forward derivative would come out as zero, with no error.
    """
    if torch.compiler.is_compiling():
        return None
    if forward_ad._current_level >= 0 or _functorch.maybe_current_level() is not None:
        return "torch.func and forward-mode differentiation cannot look into the fused kernels"
    return None


def fused_module(device_type: str) -> ModuleType | str:
    """Give the module with the fused kernels for a device, or say why there is none."""
    if device_type == "cpu":
        return cpu_backend
    if device_type == "cuda":
        try:
            from asr.recurrent import triton_backend  # only here: importing Triton takes a second
        except ImportError as error:
            return f"the Triton kernels cannot be imported: {error}"
        return triton_backend
    return f"there are no fused kernels for device {device_type!r}"
