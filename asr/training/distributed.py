"""What the processes of a run exchange: sums, values, gradients and statistics. With one process all of it is local."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn


def total(fabric: Fabric, numbers: Sequence[float]) -> list[float]:
    """Return the sums of each of the numbers over all processes."""
    if fabric.world_size == 1:
        return list(numbers)
    tensor = torch.tensor(numbers, dtype=torch.float64, device=fabric.device)
    torch.distributed.all_reduce(tensor)
    return tensor.tolist()


def gather(fabric: Fabric, value: Any) -> list[Any]:
    """Return the values of all processes, in the order of their ranks."""
    values = [value] * fabric.world_size
    if fabric.world_size > 1:
        torch.distributed.all_gather_object(values, value)
    return values


def gather_lists(fabric: Fabric, values: list) -> list:
    """Return the lists of all processes joined into one."""
    return [value for part in gather(fabric, values) for value in part]


def gather_dicts(fabric: Fabric, values: dict) -> dict:
    """Return the dictionaries of all processes as one; of equal keys the last process's value stays."""
    return {key: value for part in gather(fabric, values) for key, value in part.items()}


def least(fabric: Fabric, number: float) -> float:
    """Return the smallest of the processes' numbers."""
    return min(gather(fabric, number))


def sum_gradients(fabric: Fabric, parameters: Sequence[nn.Parameter]) -> None:
    """Add up the gradients of all processes, which may have split their batches as their memory asks for.

    A parameter without a gradient gets zeros.
    """
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    if fabric.world_size > 1:
        joined = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        torch.distributed.all_reduce(joined)
        for parameter, part in zip(parameters, joined.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)


def average_buffers(fabric: Fabric, model: nn.Module) -> None:
    """Average batch normalization's running statistics, which each process has of its own batches."""
    if fabric.world_size > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                torch.distributed.all_reduce(buffer)
                buffer /= fabric.world_size
