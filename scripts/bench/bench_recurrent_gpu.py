"""Time the fused GPU layers against torch's cuDNN ones: `python scripts/bench/bench_recurrent_gpu.py`.

Contenders of a case are timed in turns within one process, by device events; medians. Each row also gives the floor:
the larger of the floating-point operations over the rate of a large matrix product and the bytes that must pass
through device memory over the rate of a large copy (both measured here), and the wait that a recurrence cannot avoid,
its steps times the gap between two kernels of a CUDA graph. Needs torch alone.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr.recurrent import RecurrentLayer
from asr.recurrent.gpu import launch

LSTM_VARIANTS: dict[str, tuple[str, dict]] = {
    "peephole": ("peephole", {}),
    "cifg": ("cifg", {}),
    "zoneout": ("lstm", {"zoneout_hidden": 0.1, "zoneout_cell": 0.1}),
    "dropout": ("lstm", {"recurrent_dropout": 0.2}),
}


def microseconds(run: Callable[[], object]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return 1000 * start.elapsed_time(end)


def medians(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Time the contenders in turns, after three rounds of warming up (which compile and capture)."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 3):
        for name, run in contenders.items():
            elapsed = microseconds(run)
            if turn >= 3:
                times[name].append(elapsed)
    return {name: statistics.median(values) for name, values in times.items()}


@dataclass
class Ceilings:
    """What the device reaches: floating-point operations and bytes a microsecond, microseconds between kernels."""

    operations: float
    bytes: float
    gap: float


def measure_ceilings() -> Ceilings:
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    product = medians({"product": lambda: a @ a}, 10)["product"]
    source = torch.empty(2**31, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    copy = medians({"copy": lambda: target.copy_(source)}, 10)["copy"]
    counter = torch.zeros(1, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(1000):
            counter += 1
    gap = medians({"graph": graph.replay}, 10)["graph"] / 1000
    return Ceilings(2 * 8192**3 / product, 2 * 2**31 / copy, gap)


def floors(
    ceilings: Ceilings, gates: int, size: int, hidden: int, frames: float, steps: int
) -> tuple[float, float]:
    """Microseconds at the least for forward, and for forward and backward, of both directions in bf16.

    frames: valid frames of the whole batch. Forward: two products; x, gates written and read, output, weights.
    Backward: four products; gates and cell read, gradients of gates written and read twice.
    """
    operations = 2 * 2 * frames * gates * hidden * (size + hidden)
    weights = 2 * 2 * gates * hidden * (size + hidden)
    forward_bytes = weights + 2 * frames * (size + 2 * hidden * (2 * gates + 1))
    backward_bytes = weights * 3 + 2 * frames * (2 * size + 2 * hidden * (4 * gates + 4))
    forward = max(operations / ceilings.operations, forward_bytes / ceilings.bytes, steps * ceilings.gap)
    backward = max(
        2 * operations / ceilings.operations, backward_bytes / ceilings.bytes, steps * ceilings.gap
    )
    return forward, forward + backward


def training_memory(run: Callable[[], torch.Tensor]) -> float:
    """MB held after a forward pass for its backward pass."""
    run().sum().backward()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    y = run()
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated() - before
    del y
    return held / 1e6


def without_gradients(run: Callable[[], torch.Tensor]) -> Callable[[], object]:
    def forward() -> object:
        with torch.no_grad():
            return run()

    return forward


def bench_case(args: argparse.Namespace, ceilings: Ceilings, batch: int, hidden: int) -> None:
    dtype, frames = torch.bfloat16, args.frames
    torch.manual_seed(0)
    x = torch.randn(batch, frames, hidden, device="cuda", dtype=dtype, requires_grad=True)
    dy = torch.randn(batch, frames, 2 * hidden, device="cuda", dtype=dtype)
    full = torch.full((batch,), frames)
    ragged = torch.randint(frames // 2, frames + 1, (batch,))
    ragged[0] = frames
    valid = ragged.sum().item() / (batch * frames)

    def ours(
        cell: str, lengths: torch.Tensor, strategy: str = "auto", **options
    ) -> Callable[[], torch.Tensor]:
        layer = RecurrentLayer(cell, hidden, hidden, backend=args.backend, **options).cuda().to(dtype)
        lengths = lengths.cuda()

        def run() -> torch.Tensor:
            launch.settings.strategy = strategy
            return layer(x, lengths)[0]

        return run

    def cudnn(kind: type[nn.RNNBase], lengths: torch.Tensor | None = None) -> Callable[[], torch.Tensor]:
        layer = kind(hidden, hidden, batch_first=True, bidirectional=True).cuda().to(dtype)

        def run() -> torch.Tensor:
            if lengths is None:
                return layer(x)[0]
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=frames)[0]

        return run

    groups: dict[str, tuple[int, torch.Tensor, dict[str, Callable[[], torch.Tensor]]]] = {
        "lstm dense": (
            4,
            full,
            {"cuDNN": cudnn(nn.LSTM)} | {name: ours("lstm", full, name) for name in args.strategies},
        ),
        "lstm ragged": (
            4,
            ragged,
            {"cuDNN packed": cudnn(nn.LSTM, ragged)}
            | {name: ours("lstm", ragged, name) for name in args.strategies},
        ),
        "gru dense": (3, full, {"cuDNN": cudnn(nn.GRU), "auto": ours("gru", full)}),
        "variants dense": (
            4,
            full,
            {"vanilla": ours("lstm", full)}
            | {name: ours(cell, full, **options) for name, (cell, options) in LSTM_VARIANTS.items()},
        ),
    }
    for group, (gates, lengths, contenders) in groups.items():
        forward = medians({name: without_gradients(run) for name, run in contenders.items()}, args.rounds)
        both = medians(
            {name: lambda run=run: run().backward(dy) for name, run in contenders.items()}, args.rounds
        )
        memory = {name: training_memory(run) for name, run in contenders.items()}
        floor_forward, floor_both = floors(ceilings, gates, hidden, hidden, lengths.sum().item(), frames)
        first = next(iter(contenders))
        for name in contenders:
            print(
                f"| {hidden}, {batch} | {group}{f' ({valid:.0%})' if lengths is ragged else ''} | {name} "
                f"| {forward[name] / frames:.2f} | {forward[first] / forward[name]:.2f} "
                f"| {forward[name] / floor_forward:.1f} | {both[name] / frames:.2f} "
                f"| {both[first] / both[name]:.2f} | {both[name] / floor_both:.1f} | {memory[name]:.0f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, nargs="+", default=[512, 800, 1024])
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--strategies", nargs="+", default=["persistent", "graph", "steps"])
    parser.add_argument(
        "--backend", default="fused", help="fused, or reference for the loop in plain PyTorch"
    )
    args = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(1, "bench_recurrent_gpu needs a CUDA GPU, and torch sees none here\n")
    ceilings = measure_ceilings()
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}; measured: product "
        f"{ceilings.operations / 1e6:.0f} TFLOP/s, copy {ceilings.bytes / 1e6:.2f} TB/s, "
        f"{ceilings.gap:.2f} us between kernels of a graph\n\n"
        "Microseconds a step; ratio to the group's first row; multiple of the floor; MB held for backward.\n\n"
        "| hidden, batch | case | contender | forward | ratio | of floor | with backward | ratio | of floor | MB |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    for hidden in args.hidden:
        for batch in args.batch:
            bench_case(args, ceilings, batch, hidden)


if __name__ == "__main__":
    main()
