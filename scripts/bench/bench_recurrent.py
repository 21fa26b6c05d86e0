"""Time the recurrent layers against torch's: `python scripts/bench/bench_recurrent.py [--quick] [--only WORD]`.

What is compared runs interleaved in one process, in turns. A round in which other processes took more than 5 % of the
cores is thrown away and repeated; after too many of those the case is refused, for its numbers would mean nothing.
Printed are medians, the ratio to the first contender, and how far each is from the case's floor: its operations at
the measured peak of this machine, or its weights at the measured bandwidth of the caches, whichever is longer.
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

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

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
FOREIGN_SHARE = 0.05
Contenders = dict[str, Callable[[], Tensor]]


def busy_seconds() -> float:
    """CPU time spent on this machine so far, by everyone."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf(
        "SC_CLK_TCK"
    )  # all but idle and waiting for disks


def own_seconds() -> float:
    return sum(os.times()[:2])


def interleaved(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float] | None:
    """Median milliseconds of each contender, None where other processes kept disturbing."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    refused = 0
    while len(next(iter(times.values()))) < rounds:
        busy, own, start, found = busy_seconds(), own_seconds(), time.perf_counter(), {}
        for name, run in contenders.items():
            before = time.perf_counter()
            run()
            found[name] = time.perf_counter() - before
        elapsed = time.perf_counter() - start
        foreign = (busy_seconds() - busy) - (own_seconds() - own)
        if foreign > FOREIGN_SHARE * elapsed * (os.cpu_count() or 1) + 0.02:
            refused += 1
            if refused > 3 * rounds:
                return None
            continue
        for name, seconds in found.items():
            times[name].append(seconds)
    return {name: 1000 * statistics.median(values) for name, values in times.items()}


def bandwidth() -> float:
    """GB/s at which all threads read weights of 8 MiB again and again."""
    weights, best = torch.randn(1 << 21), 0.0
    for _ in range(20):
        before = time.perf_counter()
        weights.sum()
        best = max(best, weights.numel() * 4 / (time.perf_counter() - before) / 1e9)
    return best


def floor_ms(gates: int, frames: int, steps: int, input_size: int, hidden: int, passes: int) -> float:
    """The longer of the float32 operations at peak and of the recurrent weights, read at every step, at bandwidth."""
    operations = 2 * frames * gates * hidden * (input_size + hidden) * 2 * passes
    bytes_read = steps * gates * hidden * hidden * 4 * 2 * min(passes, 2)
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
        floor = floor_ms(gates, int(lengths.sum()), frames, features, hidden, passes)
        ours = next(iter(medians.values()))
        for name, milliseconds in medians.items():
            print(
                f"  {what:17} {name:28} {milliseconds:9.1f} ms   {milliseconds / ours:6.2f} of ours"
                f"   {milliseconds / floor:5.2f} of the floor"
            )


def ours(cell: str, size: tuple[int, ...], x: Tensor, lengths: Tensor, **options) -> Callable[[], Tensor]:
    layer = RecurrentLayer(cell, size[2], size[3], backend="fused", **options)
    return lambda: layer(x, lengths)[0]


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
        return lambda: module(x)[0]

    def run() -> Tensor:
        sequence = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(module(sequence)[0], batch_first=True)[0]

    return run


class ScriptedLoop(nn.Module):
    """What one writes without fused kernels: a TorchScript loop over the steps, both directions."""

    def __init__(
        self, features: int, hidden: int, peephole: bool, coupled: bool, zoneout: float, dropout: float
    ):
        super().__init__()
        gates = (3 if coupled else 4) * hidden
        self.weight_ih = nn.Parameter(torch.randn(2, gates, features) / hidden**0.5)
        self.weight_hh = nn.Parameter(torch.randn(2, gates, hidden) / hidden**0.5)
        self.bias = nn.Parameter(torch.zeros(2, gates))
        self.peepholes = nn.Parameter(torch.zeros(2, 3, hidden))
        self.hidden, self.peephole, self.coupled, self.zoneout, self.dropout = (
            hidden,
            peephole,
            coupled,
            zoneout,
            dropout,
        )

    def forward(self, x: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        for d in range(2):
            steps = x if d == 0 else x.flip(1)
            shares = torch.matmul(steps, self.weight_ih[d].t()) + self.bias[d]
            h = torch.zeros(x.size(0), self.hidden)
            c = torch.zeros(x.size(0), self.hidden)
            mask = torch.ones_like(h)
            if self.dropout > 0:
                mask = torch.empty_like(h).bernoulli_(1 - self.dropout) / (1 - self.dropout)
            weight = self.weight_hh[d].t()
            ys: list[Tensor] = []
            for t in range(x.size(1)):
                sums = (shares[:, t] + torch.matmul(h * mask, weight)).chunk(3 if self.coupled else 4, 1)
                f, g, o = sums[0] if self.coupled else sums[1], sums[-2], sums[-1]
                i = sums[0]
                if self.peephole:
                    f = f + self.peepholes[d, 1] * c
                    i = i + self.peepholes[d, 0] * c
                f = torch.sigmoid(f)
                i = 1 - f if self.coupled else torch.sigmoid(i)
                c_new = f * c + i * torch.tanh(g)
                if self.peephole:
                    o = o + self.peepholes[d, 2] * c_new
                h_new = torch.sigmoid(o) * torch.tanh(c_new)
                if self.zoneout > 0:
                    keep_h = torch.empty_like(h).bernoulli_(self.zoneout)
                    keep_c = torch.empty_like(h).bernoulli_(self.zoneout)
                    h_new = keep_h * h + (1 - keep_h) * h_new
                    c_new = keep_c * c + (1 - keep_c) * c_new
                h, c = h_new, c_new
                ys.append(h)
            y = torch.stack(ys, 1)
            outputs.append(y if d == 0 else y.flip(1))
        return torch.cat(outputs, 2)


def scripted(size: tuple[int, ...], x: Tensor, peephole=False, coupled=False, zoneout=0.0, dropout=0.0):
    loop = torch.jit.script(ScriptedLoop(size[2], size[3], peephole, coupled, zoneout, dropout))
    return lambda: loop(x)


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


def inference_at_batch_one(size: tuple[int, ...]) -> None:
    """Weights packed once, in every precision, against torch's own and its dynamic quantization."""
    x, lengths = batch(size, False)
    theirs = nn.LSTM(size[2], size[3], bidirectional=True, batch_first=True).eval()
    layer = RecurrentLayer("lstm", size[2], size[3], backend="fused").eval()
    layer.load_state_dict(theirs.state_dict())
    packed = {precision: PackedLayer(layer, precision) for precision in ("int8", "bfloat16", "float32")}
    dynamic = torch.ao.quantization.quantize_dynamic(nn.Sequential(theirs), {nn.LSTM}, torch.qint8)
    contenders: Contenders = {
        f"ours, {name}": lambda own=own: own(x, lengths)[0] for name, own in packed.items()
    }
    contenders |= {"ours, not packed": lambda: layer(x, lengths)[0], "torch.nn.LSTM": lambda: theirs(x)[0]}
    contenders["torch's dynamic quantization"] = lambda: dynamic(x)[0]
    report("packed for inference", size, contenders, 4, lengths, training_too=False)
    if ARGUMENTS.only in "packed for inference":
        with torch.no_grad():
            truth = copy.deepcopy(theirs).double()(x.double())[0]
            for name, run in contenders.items():
                print(f"  relative error     {name:28} {relative_error(run(), truth):9.1e}")


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
    ARGUMENTS = parser.parse_args()
    torch.set_num_threads(ARGUMENTS.threads)
    PEAK, BANDWIDTH = library.peak_gflops(), bandwidth()
    print(
        f"{platform.machine()}, {ARGUMENTS.threads} threads, torch {torch.__version__}, "
        f"kernels {library.instruction_set().decode()}, peak {PEAK:.0f} GFLOP/s, caches {BANDWIDTH:.0f} GB/s"
    )
    chosen = SIZES[:3] if ARGUMENTS.quick else SIZES
    vanilla(chosen)
    inference_at_batch_one(SIZES[0])
    for is_ragged in (False, True):
        for size in chosen[1:]:
            bfloat16(size, is_ragged)
    variants(SIZES[2])
    gru(chosen[:3])
    if not any(ARGUMENTS.only in title for title in TITLES):
        parser.error(
            f"no case's title contains {ARGUMENTS.only!r}; there are {', '.join(dict.fromkeys(TITLES))}"
        )
