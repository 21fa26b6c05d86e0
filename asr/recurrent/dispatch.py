"""Choose who computes a layer: the fused kernels of the tensor's device, torch's own, or the reference."""

from typing import Protocol

import torch
from torch import Tensor
from torch._C import _functorch  # type: ignore[attr-defined]
from torch.autograd import forward_ad

from asr.errors import BackendError
from asr.recurrent import reference, torch_backend
from asr.recurrent.cells import Call, State
from asr.recurrent.cpu import backend as cpu_backend

BACKENDS = ("auto", "reference", "fused")


class Backend(Protocol):
    """What a backend, a module, has."""

    def refusal(self, call: Call) -> str | None:
        """Return why this backend cannot run the layer, None if it can."""

    def run(self, call: Call) -> tuple[Tensor, State]:
        """Run the layer, every direction; shapes as `reference.run`."""
        ...


def run(backend: str, call: Call) -> tuple[Tensor, State]:
    """Run one layer, every direction; see `reference.run` for the shapes.

    "auto" takes the fused kernels of a CPU, torch's own where those cannot be had, and the reference for what neither
    knows. On a GPU it takes torch's own (cuDNN) first: the Triton kernels pass every test in Triton's interpreter
    but were not yet measured on a device. "fused" raises BackendError, naming what is in the way.
    """
    if backend == "reference":
        return reference.run(call)
    transformed = not torch.compiler.is_compiling() and _is_transformed()
    fused, reason = (None, TRANSFORMED) if transformed else _fused(call)
    if backend == "fused" and fused is None:
        raise BackendError(f"backend 'fused' cannot run this layer: {reason}; use 'auto' or 'reference'")
    # torch's kernels take batches whose shapes depend on the lengths, which a compiled graph cannot.
    by_torch = not (torch.compiler.is_compiling() or transformed) and torch_backend.refusal(call) is None
    if fused is not None and not (backend == "auto" and by_torch and call.x.device.type == "cuda"):
        return fused.run(call)
    return (torch_backend if by_torch else reference).run(call)


TRANSFORMED = "torch.func and forward-mode differentiation cannot look into the fused kernels"


def _is_transformed() -> bool:
    """Return True where forward-mode derivatives, vmap or another of torch.func's transforms follow each tensor.

    They need operators that they can trace. Our kernels work on raw pointers: a forward derivative through them would
    silently be zero.
    """
    return forward_ad._current_level >= 0 or _functorch.maybe_current_level() is not None


def _fused(call: Call) -> tuple[Backend | None, str | None]:
    """Return the fused kernels of the tensor's device, or None and the reason why they cannot run this layer."""
    device = call.x.device.type
    if device == "cpu":
        backend: Backend = cpu_backend
    elif device == "cuda":
        try:
            from asr.recurrent.gpu import backend  # only here: importing Triton takes a second
        except ImportError as error:
            return None, f"the Triton kernels cannot be imported: {error}"
    else:
        return None, f"there are no fused kernels for device {device!r}"
    reason = backend.refusal(call)
    return (backend, None) if reason is None else (None, reason)
