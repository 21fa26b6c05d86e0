"""Launch the recurrence on a GPU: how it is cut into programs, and whether it is one kernel or one a step."""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from asr.recurrent.gpu.kernels import backward_kernel
from asr.recurrent.gpu.primitives import Backward, Config, Forward


@dataclass
class Settings:
    """What a user may choose for every layer on a GPU.

    strategy: "persistent" runs a pass as one kernel whose programs wait for each other after each phase; "steps"
    one kernel a phase; "graph" the same, replayed as a CUDA graph once equal addresses come a second time; "auto"
    takes "persistent" where programs can be started together, else "steps".
    recompute_gates: save the cell state alone for the gradients, a fifth of the memory, and pay two large products.
    """

    strategy: str = "auto"
    recompute_gates: bool = False


settings = Settings()


class Tiling(NamedTuple):
    """How a kernel is cut."""

    rows: int  # utterances of a program
    units: int  # hidden units of a program
    depth: int  # summands of a product at a time
    split: int = 1  # parts of the backward product's summed axis
    split_units: int = 64  # units of a program that computes such a part
    warps: int = 4
    stages: int = 4  # loads of a product in flight


# Estimates for an H200, which only decide whether the backward product is split.
_CACHE_BYTES_PER_MICROSECOND = 5.5e6  # from the second-level cache
_BARRIER_MICROSECONDS = 1.5


def choose_tiling(x: Tensor, directions: int, output: int, gates: int) -> Tiling:
    """Cut a phase into about as many tiles as the GPU has multiprocessors, with up to 64 utterances each.

    Every program reads the whole state of its utterances, so few wide tiles mean little traffic, and many narrow
    ones that all multiprocessors share it. The backward product reads all gates' gradients; splitting it by gates
    pays where what it saves in traffic is more than another barrier.
    """
    rows = min(max(triton.next_power_of_2(x.shape[0]), 16), 64)
    if x.device.type == "cpu":  # interpreted: launches cost, sizes do not
        return Tiling(rows, 64, 64)
    blocks = triton.cdiv(x.shape[0], rows) * directions
    row_bytes = rows * gates * output * x.element_size()
    tiles, units = _fit(blocks, output, x.device)
    part_tiles, split_units = _fit(blocks * gates, output, x.device)
    whole = tiles * row_bytes / _CACHE_BYTES_PER_MICROSECOND
    parts = part_tiles * row_bytes / gates / _CACHE_BYTES_PER_MICROSECOND + _BARRIER_MICROSECONDS
    split = gates if parts < whole else 1
    aligned = output * x.element_size() % 16 == 0  # else loads are narrow and go through registers
    depth = 128 if x.element_size() == 2 and aligned else 32
    stage_bytes = max(rows + gates * units, rows + split_units) * depth * x.element_size()
    room = torch.cuda.get_device_properties(x.device).shared_memory_per_block_optin
    return Tiling(rows, units, depth, split, split_units, stages=max(1, min(4, room // stage_bytes)))


def _fit(blocks: int, columns: int, device: torch.device) -> tuple[int, int]:
    """Tiles, and units in one, so that about every multiprocessor has a tile."""
    units = 8
    while units < 64 and blocks * triton.cdiv(columns, units) > _multiprocessors(device):
        units *= 2
    return blocks * triton.cdiv(columns, units), units


def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def launch(
    kernel: Any,
    pointers: Forward | Backward,
    cfg: Config,
    tiling: Tiling,
    phases: dict[int, int],
) -> None:
    """Run every step of a pass. phases: the kernel's bit of each phase and the columns of its product."""
    device = pointers.y.device
    with nullcontext() if cfg.INTERPRET else torch.cuda.device(device):  # Triton takes the current one
        _launch(kernel, pointers, cfg, tiling, phases)


def _launch(
    kernel: Any,
    pointers: Forward | Backward,
    cfg: Config,
    tiling: Tiling,
    phases: dict[int, int],
) -> None:
    blocks = triton.cdiv(pointers.B, cfg.ROWS) * cfg.D
    tiles = {
        bit: blocks * (cfg.SPLIT * triton.cdiv(n, cfg.SPLIT_UNITS) if bit == 4 else triton.cdiv(n, cfg.UNITS))
        for bit, n in phases.items()
    }
    compiled = {"num_warps": tiling.warps, "num_stages": tiling.stages}
    strategy = settings.strategy
    if strategy == "auto":
        strategy = "steps" if cfg.INTERPRET or torch.version.hip else "persistent"

    if strategy == "persistent":
        programs = 1  # the interpreter runs one after another: they cannot wait for each other
        if not cfg.INTERPRET:
            programs = min(max(tiles.values()), _multiprocessors(pointers.y.device))
            compiled["launch_cooperative_grid"] = True
        counter = torch.zeros(1, dtype=torch.int32, device=pointers.y.device)
        kernel[(programs,)](pointers, 0, pointers.T, counter, sum(phases), cfg, **compiled)
        return

    def launch_steps() -> None:
        backward = kernel is backward_kernel
        for s in reversed(range(pointers.T)) if backward else range(pointers.T):
            for bit, programs in tiles.items():
                kernel[(programs,)](pointers, s, s + 1, None, bit, cfg, **compiled)

    if strategy == "graph" and not cfg.INTERPRET and not torch.cuda.is_current_stream_capturing():
        places = ((p.data_ptr(), p.dtype) if isinstance(p, Tensor) else p for p in pointers)
        key = (kernel, cfg, tiling, *places)
        _replay(launch_steps, key)
    else:
        launch_steps()


_GRAPHS_KEPT = 64
_graphs: OrderedDict[tuple, torch.cuda.CUDAGraph | None] = OrderedDict()


def _replay(launch_steps: Callable[[], None], key: tuple) -> None:
    """Launch, and replay what was launched as a CUDA graph from the second time on that a key comes.

    The key holds every address and size. Training steps of equal shapes meet equal addresses, since torch's
    allocator repeats itself; where they do not, nothing is lost but the replay.
    """
    seen = key in _graphs
    graph = _graphs.pop(key, None)
    if seen and graph is None:
        graph = torch.cuda.CUDAGraph()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            graph.capture_begin(capture_error_mode="thread_local")
            launch_steps()
            graph.capture_end()
        torch.cuda.current_stream().wait_stream(aside)
    _graphs[key] = graph
    if len(_graphs) > _GRAPHS_KEPT:
        _graphs.popitem(last=False)
    if graph is None:
        launch_steps()
    else:
        graph.replay()
