"""Choose who computes a layer: the reference, or the fused kernels of the tensor's device.

A fused backend is a module with two functions:
    refusal(cell_name, options, x, weights, noise) -> str | None   why it cannot run this, or None if it can
    run(cell_name, options, x, lengths, state, weights, noise) -> (y, state)   as `reference.run`
"""

from types import ModuleType

from torch import Tensor

from asr.errors import BackendError
from asr.recurrent import cpu_backend, reference
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

    "auto" takes the fused kernels where they can run this layer and the reference elsewhere; "fused" raises
    BackendError, naming what is in the way.
    """
    module = reference
    if backend != "reference":
        fused = fused_module(x.device.type)
        reason = fused if isinstance(fused, str) else fused.refusal(cell_name, options, x, weights, noise)
        if reason is None:
            module = fused
        elif backend == "fused":
            raise BackendError(f"backend 'fused' cannot run this layer: {reason}; use 'auto' or 'reference'")
    return module.run(cell_name, options, x, lengths, state, weights, noise)


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
