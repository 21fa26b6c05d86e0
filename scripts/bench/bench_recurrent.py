"""Time the recurrent layers against torch's: `python scripts/bench/bench_recurrent.py [--quick] [--only WORD]`.

What is compared runs interleaved in one process, in turns. A round in which other processes took more than 5 % of the
cores is thrown away and repeated; after too many of those the case is refused, for its numbers would mean nothing.
Printed are medians, the ratio to the first contender, and how far each is from the case's floor: its operations at
the measured peak of this machine, or its weights at the measured bandwidth of the caches, whichever is longer.
With --busy, for machines that are never quiet, no round is thrown away: the median processor time is taken of one
thread, the least time of several.
"""

import argparse
import copy
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from scripted_loop import ScriptedLoop
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr.engines.onnx_nodes import Nodes
from asr.engines.onnx_recurrent import Layer, Ragged, recurrent_layer
from asr.recurrent import PackedLayer, RecurrentLayer
from asr.recurrent.cpu import library

warnings.filterwarnings(
    "ignore", category=DeprecationWarning
)  # torch.jit is what these loops were written in
SIZES = [
    (400, 1, 512, 512),
    (400, 8, 512, 512),
    (400, 16, 320, 320),
    (800, 16, 640, 640),
    (200, 32, 1024, 1024),
]
INFERENCE_SIZES = [
    (125, 1, 160, 160),
    (400, 1, 320, 320),
    (400, 1, 512, 512),
    (400, 8, 512, 512),
    (400, 16, 320, 320),
]
CHUNK_SIZES = [
    (35, batch, width, width) for width in (256, 512, 650) for batch in (20, 32)
]  # language models
FOREIGN_SHARE = 0.05
SHORT = 0.05  # seconds; shorter calls are repeated
PAUSE = 0.005  # seconds in which threads that wait for more work, spinning, give up
Contenders = dict[str, Callable[[], Tensor]]


def busy_seconds() -> float:
    """CPU time spent on this machine so far, by everyone."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf(
        "SC_CLK_TCK"
    )  # all but idle and waiting for disks


def own_seconds() -> float:
    return sum(os.times()[:2])


def timed(run: Callable[[], object]) -> float:
    """Seconds of one call, of a short one the median of five behind a first, which wakes threads and fills caches."""
    clock = time.process_time if ARGUMENTS.busy and ARGUMENTS.threads == 1 else time.perf_counter

    def once() -> float:
        before = clock()
        run()
        return clock() - before

    time.sleep(PAUSE)
    first = once()
    if first > SHORT:
        return first
    typical = min if ARGUMENTS.busy else statistics.median
    return typical(once() for _ in range(5))


def interleaved(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float] | None:
    """Median milliseconds of each contender, None where other processes kept disturbing."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    refused = 0
    while len(next(iter(times.values()))) < rounds:
        busy, own, start, found = busy_seconds(), own_seconds(), time.perf_counter(), {}
        for name, run in contenders.items():
            found[name] = timed(run)
        elapsed = time.perf_counter() - start
        foreign = (busy_seconds() - busy) - (own_seconds() - own)
        allowed = FOREIGN_SHARE * elapsed * (os.cpu_count() or 1) + 0.02
        if foreign > allowed and not ARGUMENTS.busy:
            refused += 1
            if refused > 3 * rounds:
                return None
            continue
        for name, seconds in found.items():
            times[name].append(seconds)
    typical = min if ARGUMENTS.busy and ARGUMENTS.threads > 1 else statistics.median
    return {name: 1000 * typical(values) for name, values in times.items()}


def bandwidth() -> float:
    """GB/s at which all threads read weights of 8 MiB again and again."""
    weights, best = torch.randn(1 << 21), 0.0
    for _ in range(20):
        before = time.perf_counter()
        weights.sum()
        best = max(best, weights.numel() * 4 / (time.perf_counter() - before) / 1e9)
    return best


def floor_ms(
    gates: int, frames: int, steps: int, input_size: int, hidden: int, passes: int, directions: int
) -> float:
    """The longer of the float32 operations at peak and of the recurrent weights, read at every step, at bandwidth."""
    operations = 2 * frames * gates * hidden * (input_size + hidden) * directions * passes
    bytes_read = steps * gates * hidden * hidden * 4 * directions * min(passes, 2)
    return 1000 * max(operations / PEAK / 1e9, bytes_read / BANDWIDTH / 1e9)


def batch(size: tuple[int, ...], ragged: bool) -> tuple[Tensor, Tensor]:
    frames, count, features, _ = size
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, frames, features, generator=generator, requires_grad=True)
    lengths = torch.randint(frames // 2, frames + 1, (count,), generator=generator)
    return x, lengths if ragged else torch.full((count,), frames)


TITLES: list[str] = []  # of the cases so far, those left out by --only too


def report(
    title: str,
    size: tuple[int, ...],
    contenders: Contenders,
    gates: int,
    lengths: Tensor,
    training_too: bool = True,
    directions: int = 2,
) -> None:
    """Time every contender forward and, unless told otherwise, forward+backward; print a line each."""
    TITLES.append(title)
    if ARGUMENTS.only not in title:
        return
    frames, _, features, hidden = size
    without_gradients = {name: torch.no_grad()(run) for name, run in contenders.items()}
    gradients = {name: torch.randn_like(run()) for name, run in without_gradients.items()}

    def training(name: str) -> Callable[[], None]:
        return lambda: contenders[name]().backward(gradients[name])

    print(f"\n{title}, frames {frames}, batch {len(lengths)}, input {features}, hidden {hidden}")
    rounds: dict[str, Mapping[str, Callable[[], object]]] = {"forward": without_gradients}
    if training_too:
        rounds["forward+backward"] = {name: training(name) for name in contenders}
    for what, runs in rounds.items():
        medians = interleaved(runs, 3 if ARGUMENTS.quick else 7)
        if medians is None:
            print(f"  {what}: refused, other processes are running")
            continue
        passes = 1 if what == "forward" else 3
        floor = floor_ms(gates, int(lengths.sum()), frames, features, hidden, passes, directions)
        ours = next(iter(medians.values()))
        for name, milliseconds in medians.items():
            of_floor = "" if ARGUMENTS.busy else f"   {milliseconds / floor:5.2f} of the floor"
            print(
                f"  {what:17} {name:28} {milliseconds:9.2f} ms   {milliseconds / ours:6.2f} of ours{of_floor}"
            )


def ours(cell: str, size: tuple[int, ...], x: Tensor, lengths: Tensor, **options) -> Callable[[], Tensor]:
    layer = RecurrentLayer(cell, size[2], size[3], backend="fused", **options)
    return fresh(layer, x, lambda: layer(x, lengths)[0])


def fresh(module: nn.Module, x: Tensor, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Run with no gradients of the step before, as a training loop does."""

    def run_afresh() -> Tensor:
        module.zero_grad()
        x.grad = None
        return run()

    return run_afresh


def torchs(
    kind: type,
    size: tuple[int, ...],
    x: Tensor,
    lengths: Tensor,
    packed: bool,
    dtype: torch.dtype = torch.float32,
) -> Callable[[], Tensor]:
    module = kind(size[2], size[3], bidirectional=True, batch_first=True, dtype=dtype)
    if not packed:
        return fresh(module, x, lambda: module(x)[0])

    def run() -> Tensor:
        sequence = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(module(sequence)[0], batch_first=True)[0]

    return fresh(module, x, run)


def scripted(size: tuple[int, ...], x: Tensor, peephole=False, coupled=False, zoneout=0.0, dropout=0.0):
    loop = torch.jit.script(ScriptedLoop(size[2], size[3], peephole, coupled, zoneout, dropout))
    return fresh(loop, x, lambda: loop(x))


def vanilla(sizes: list[tuple[int, ...]]) -> None:
    for size in sizes:
        for ragged in (False, True):
            x, lengths = batch(size, ragged)
            contenders = {"ours": ours("lstm", size, x, lengths)}
            contenders["torch.nn.LSTM"] = torchs(nn.LSTM, size, x, lengths, ragged)
            report(f"lstm {'ragged, torch packed' if ragged else 'dense'}", size, contenders, 4, lengths)


def variants(size: tuple[int, ...]) -> None:
    x, lengths = batch(size, False)
    zoneout, dropout = {"zoneout_hidden": 0.1, "zoneout_cell": 0.1}, {"recurrent_dropout": 0.2}
    cases: tuple[tuple[str, str, dict[str, Any], dict[str, Any] | None], ...] = (
        ("peephole", "peephole", {}, {"peephole": True}),
        ("cifg", "cifg", {}, {"coupled": True}),
        ("zoneout", "lstm", zoneout, {"zoneout": 0.1}),
        ("variational dropout", "lstm", dropout, {"dropout": 0.2}),
        ("projection to half", "lstm", {"proj_size": size[3] // 2}, None),
        ("layer norm", "lstm", {"layer_norm": True}, None),
    )
    for title, cell, options, loop in cases:
        contenders = {
            "ours": ours(cell, size, x, lengths, **options),
            "ours, vanilla": ours("lstm", size, x, lengths),
        }
        if loop:
            contenders["TorchScript loop"] = scripted(size, x, **loop)
        report(title, size, contenders, 3 if cell == "cifg" else 4, lengths)


def relative_error(found: Tensor, truth: Tensor) -> float:
    return float((found.double() - truth).norm() / truth.norm())


def by_onnxruntime(
    layer: RecurrentLayer, x: Tensor, lengths: Tensor, spinning: bool = False, int8: bool = False
) -> Callable[[], Tensor]:
    """The layer as `asr export` and the engine onnx write it; the engine's threads do not spin while they wait."""
    nodes = Nodes()
    weights = [
        {
            name.removesuffix(suffix): part.detach().numpy()
            for name, part in layer.named_parameters()
            if name.endswith(suffix)
        }
        for suffix in layer.directions()
    ]
    ragged = Ragged(nodes, "lengths", nodes.axis("x", 0))
    y, _ = recurrent_layer(nodes, Layer("lstm", weights, layer.hidden_size), "x", ragged)
    shapes = [("float32", ("frame", "batch", size)) for size in (layer.input_size, 2 * layer.hidden_size)]
    graph = nodes.finish({"x": shapes[0], "lengths": ("int64", ("batch",))}, {"y": shapes[1]}, {"y": y})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = ARGUMENTS.threads
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    content = (graph.quantized() if int8 else graph).serialized()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    inputs = {"x": x.detach().transpose(0, 1).contiguous().numpy(), "lengths": lengths.numpy()}
    return lambda: torch.from_numpy(session.run(None, inputs)[0]).transpose(0, 1)


def inference(size: tuple[int, ...]) -> None:
    """Weights packed once, in every precision, against torch's own, its dynamic quantization, and onnxruntime."""
    x, lengths = batch(size, False)
    theirs = nn.LSTM(size[2], size[3], bidirectional=True, batch_first=True).eval()
    layer = RecurrentLayer("lstm", size[2], size[3], backend="fused").eval()
    layer.load_state_dict(theirs.state_dict())
    packed = {precision: PackedLayer(layer, precision) for precision in ("float32", "bfloat16", "int8")}
    dynamic = torch.ao.quantization.quantize_dynamic(nn.Sequential(theirs), {nn.LSTM}, torch.qint8)
    contenders: Contenders = {
        f"ours, {name}": lambda own=own: own(x, lengths)[0] for name, own in packed.items()
    }
    contenders |= {"ours, not packed": lambda: layer(x, lengths)[0], "torch.nn.LSTM": lambda: theirs(x)[0]}
    contenders["torch's dynamic quantization"] = lambda: dynamic(x)[0]
    contenders["onnxruntime"] = by_onnxruntime(layer, x, lengths)
    contenders["onnxruntime, spinning"] = by_onnxruntime(layer, x, lengths, spinning=True)
    contenders["onnxruntime, int8"] = by_onnxruntime(layer, x, lengths, int8=True)
    report("inference beside onnxruntime", size, contenders, 4, lengths, training_too=False)
    if ARGUMENTS.only in TITLES[-1]:
        with torch.no_grad():
            truth = copy.deepcopy(theirs).double()(x.double())[0]
            for name, run in contenders.items():
                print(f"  relative error     {name:28} {relative_error(run(), truth):9.1e}")


def chunk(size: tuple[int, ...]) -> None:
    """One direction over a short chunk with carried state, as language models are trained."""
    x, lengths = batch(size, False)
    state = (torch.randn(1, size[1], size[3]), torch.randn(1, size[1], size[3]))
    theirs = nn.LSTM(size[2], size[3], batch_first=True)
    layer = RecurrentLayer("lstm", size[2], size[3], bidirectional=False, backend="fused")
    contenders: Contenders = {
        "ours": fresh(layer, x, lambda: layer(x, lengths, state)[0]),
        "torch.nn.LSTM": fresh(theirs, x, lambda: theirs(x, state)[0]),
    }
    report("lm chunk", size, contenders, 4, lengths, directions=1)


def bfloat16(size: tuple[int, ...], ragged: bool) -> None:
    x, lengths = batch(size, ragged)
    x = x.detach().bfloat16()
    theirs = torchs(nn.LSTM, size, x, lengths, ragged, torch.bfloat16)
    layer = RecurrentLayer("lstm", size[2], size[3], backend="fused").eval().bfloat16()
    contenders: Contenders = {"ours": lambda: layer(x, lengths)[0], "torch.nn.LSTM": theirs}
    title = f"bfloat16 inference {'ragged, torch packed' if ragged else 'dense'}"
    report(title, size, contenders, 4, lengths, training_too=False)


def gru(sizes: list[tuple[int, ...]]) -> None:
    for size in sizes:
        x, lengths = batch(size, False)
        contenders = {
            "ours": ours("gru", size, x, lengths),
            "torch.nn.GRU": torchs(nn.GRU, size, x, lengths, False),
        }
        report("gru dense", size, contenders, 3, lengths)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Time the recurrent layers against torch's.")
    parser.add_argument("--quick", action="store_true", help="the three smaller sizes, fewer rounds")
    parser.add_argument("--only", default="", help="only cases whose title contains this")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads for everyone")
    parser.add_argument("--busy", action="store_true", help="the machine is shared: see above")
    ARGUMENTS = parser.parse_args()
    torch.set_num_threads(ARGUMENTS.threads)
    PEAK, BANDWIDTH = library.peak_gflops(), bandwidth()
    print(
        f"{platform.machine()}, {ARGUMENTS.threads} threads, torch {torch.__version__}, "
        f"kernels {library.instruction_set().decode()}, peak {PEAK:.0f} GFLOP/s, caches {BANDWIDTH:.0f} GB/s"
    )
    chosen = SIZES[:3] if ARGUMENTS.quick else SIZES
    vanilla(chosen)
    for size in INFERENCE_SIZES:
        inference(size)
    for size in CHUNK_SIZES:
        chunk(size)
    for is_ragged in (False, True):
        for size in chosen[1:]:
            bfloat16(size, is_ragged)
    variants(SIZES[2])
    gru(chosen[:3])
    if not any(ARGUMENTS.only in title for title in TITLES):
        parser.error(
            f"no case's title contains {ARGUMENTS.only!r}; there are {', '.join(dict.fromkeys(TITLES))}"
        )
