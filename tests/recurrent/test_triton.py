"""The GPU kernels run by Triton's interpreter on the CPU: every cell against the reference, forward and gradients."""

import os
import subprocess
import sys

import pytest
import torch

if not torch.cuda.is_available():  # where there is a GPU the kernels are compiled, and test_gpu.py runs them
    os.environ["TRITON_INTERPRET"] = "1"  # read where a kernel is defined

pytest.importorskip("triton")

from asr.errors import BackendError
from asr.recurrent import RecurrentLayer, Weights, reference, triton_backend, triton_kernels, triton_launch

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled for the GPU here")

CASES = {
    "lstm": ("lstm", {}),
    "peephole": ("peephole", {}),
    "cifg": ("cifg", {}),
    "cifg_peephole": ("cifg_peephole", {}),
    "gru_after": ("gru", {}),
    "gru_before": ("gru", {"reset": "before"}),
    "rnn_tanh": ("rnn_tanh", {}),
}
NOISE = {"recurrent_dropout": 0.4, "zoneout_hidden": 0.3}
NOISE_LSTM = NOISE | {"zoneout_cell": 0.2}
MORE_CASES = {
    "lstm_noise": ("lstm", NOISE_LSTM),
    "cifg_peephole_noise": ("cifg_peephole", NOISE_LSTM),
    "gru_after_noise": ("gru", NOISE),
    "gru_before_noise": ("gru", NOISE | {"reset": "before"}),
    "rnn_tanh_noise": ("rnn_tanh", NOISE),
    "no_bias": ("lstm", {"bias": False}),
    "one_direction": ("lstm", {"bidirectional": False}),
    "clip": ("peephole", {"cell_clip": 0.2}),
    "projection": ("lstm", {"proj_size": 5}),
    "projection_noise_clip": ("peephole", NOISE_LSTM | {"proj_size": 5, "proj_clip": 0.1, "cell_clip": 0.3}),
}
RAGGED = [3, 5, 0, 4]


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    """Give every test the default settings, and NaN in what torch.empty returns."""
    monkeypatch.setattr(triton_launch.settings, "strategy", "auto")
    monkeypatch.setattr(triton_launch.settings, "recompute_gates", False)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def make(cell, options, lengths=RAGGED, *, input_size=6, hidden=10, dtype=torch.float32, training=True):
    """A layer's arguments for `run`: name, options, x, lengths, state, weights, noise."""
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, input_size, hidden, **options).train(training)
    lengths = torch.tensor(lengths)
    batch, directions = len(lengths), len(layer._suffixes)
    x = torch.randn(batch, int(lengths.max()), input_size)
    sizes = (layer.output_size, hidden) if layer.cell.lstm_family else (layer.output_size,)
    state = tuple(torch.randn(directions, batch, size) / 2 for size in sizes)
    noise = [layer.draw_noise(x) for _ in layer._suffixes]
    weights = [layer.weights(suffix) for suffix in layer._suffixes]
    return convert((cell, layer.options, x, lengths, state, weights, noise), dtype)


def convert(arguments, dtype):
    """The same arguments in another precision, as fresh leaves."""
    cell, options, x, lengths, state, weights, noise = arguments

    def leaf(t):
        return t.detach().to(dtype).requires_grad_() if isinstance(t, torch.Tensor) else t

    return (
        cell,
        options,
        leaf(x),
        lengths,
        tuple(map(leaf, state)),
        [Weights(*map(leaf, w)) for w in weights],
        [type(n)(*(t.detach().to(dtype) if isinstance(t, torch.Tensor) else t for t in n)) for n in noise],
    )


def outputs_and_gradients(run, arguments):
    """Name -> tensor: outputs, and the gradients of a random function of all of them."""
    _, _, x, _, state, weights, _ = arguments
    y, final = run(*arguments)
    leaves = {"x": x} | {f"state_{j}": s for j, s in enumerate(state)}
    for d, w in enumerate(weights):
        leaves |= {f"{name}_{d}": t for name, t in w._asdict().items() if t is not None}
    out = {"y": y} | {f"final_{j}": s for j, s in enumerate(final)}
    generator = torch.Generator().manual_seed(1)
    cotangents = [torch.randn(t.shape, generator=generator).to(t.dtype) for t in out.values()]
    gradients = torch.autograd.grad(list(out.values()), list(leaves.values()), cotangents)
    return out | {f"d{name}": g for name, g in zip(leaves, gradients, strict=True)}


def error(found, expected):
    """Relative error in the 2-norm, of each named tensor."""
    assert found.keys() == expected.keys()
    return {
        name: ((found[name].double() - e.double()).norm() / e.double().norm().clamp(min=1e-9)).item()
        for name, e in expected.items()
    }


def assert_matches_reference(arguments, bound=2e-6):
    expected = outputs_and_gradients(reference.run, convert(arguments, torch.float64))
    errors = error(outputs_and_gradients(triton_backend.run, arguments), expected)
    assert max(errors.values()) < bound, errors


def tile(monkeypatch, **changes):
    """Cut kernels into small tiles, so that small sizes have several."""
    small = triton_launch.Tiling(rows=16, units=16, depth=16, split_units=16)
    monkeypatch.setattr(triton_backend, "choose_tiling", lambda *_: small._replace(**changes))


def test_the_kernels_are_interpreted():
    assert type(triton_kernels.forward_kernel).__name__ == "InterpretedFunction", (
        "asr.recurrent.triton_kernels was imported before TRITON_INTERPRET was set"
    )


@pytest.mark.parametrize("case", [*CASES, *MORE_CASES])
def test_a_ragged_batch_matches_the_reference(case):
    assert_matches_reference(make(*(CASES | MORE_CASES)[case]))


@pytest.mark.parametrize("case", ["lstm", "gru_after"])
def test_a_dense_batch_matches_the_reference(case):
    assert_matches_reference(make(*CASES[case], lengths=[4, 4]))


@pytest.mark.parametrize(("case", "hidden", "lengths"), [("lstm", 1, [1]), ("gru_before", 7, [2, 1, 2])])
def test_odd_sizes_match_the_reference(case, hidden, lengths):
    assert_matches_reference(make(*CASES[case], lengths, hidden=hidden, input_size=3))


@pytest.mark.parametrize("case", ["peephole", "gru_before", "projection_noise_clip"])
def test_several_tiles_and_split_products_match_the_reference(case, monkeypatch):
    cell, options = (CASES | MORE_CASES)[case]
    tile(monkeypatch, split=2 if case == "gru_before" else 4)
    lengths = [2, 0, 1, *[1] * 14, 2]  # two blocks of rows, the second over after one step
    assert_matches_reference(
        make(cell, options | ({"proj_size": 17} if "proj_size" in options else {}), lengths, hidden=18)
    )


@pytest.mark.parametrize("case", [*CASES, "projection_noise_clip"])
def test_the_persistent_kernel_computes_the_same_numbers(case, monkeypatch):
    arguments = make(*(CASES | MORE_CASES)[case], lengths=[2, 3])
    expected = outputs_and_gradients(triton_backend.run, arguments)
    monkeypatch.setattr(triton_launch.settings, "strategy", "persistent")
    found = outputs_and_gradients(triton_backend.run, arguments)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("case", [*CASES, "clip", "projection_noise_clip", "gru_before_noise"])
def test_gates_computed_again_give_the_same_gradients(case, monkeypatch):
    monkeypatch.setattr(triton_launch.settings, "recompute_gates", True)
    assert_matches_reference(make(*(CASES | MORE_CASES)[case], lengths=[3, 2]))


def test_computing_gates_again_saves_four_fifths(monkeypatch):
    def saved(recompute):
        monkeypatch.setattr(triton_launch.settings, "recompute_gates", recompute)
        sizes = []
        arguments = make("lstm", {}, [3, 2])
        own = {t.data_ptr() for t in (arguments[2], *arguments[4])}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: (
                sizes.append(t.numel() if t.shape[:2] == (2, 3) and t.data_ptr() not in own else 0),
                t,
            )[1],
            lambda t: t,
        ):
            triton_backend.run(*arguments)
        return sum(sizes)

    output = 2 * 3 * 2 * 10
    assert saved(False) == 6 * output  # y, four gates, c
    assert saved(True) == 2 * output


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", ["lstm", "gru_after", "projection"])
def test_low_precision_errs_no_more_than_it_must(case, dtype):
    arguments = make(*(CASES | MORE_CASES)[case], dtype=dtype)
    expected = outputs_and_gradients(reference.run, convert(arguments, torch.float64))
    own = error(outputs_and_gradients(triton_backend.run, arguments), expected)
    torchs = error(outputs_and_gradients(reference.run, arguments), expected)
    smallest = torch.finfo(dtype).eps / 2
    # The interpreter cuts fp32 to bfloat16 where a GPU rounds, which errs twice as much; test_gpu.py asks for 2.
    factor = 4 if dtype == torch.bfloat16 else 2
    assert all(own[name] <= factor * max(torchs[name], smallest) for name in own), (own, torchs)


def test_evaluation_uses_zoneouts_expectation():
    assert_matches_reference(make("lstm", {"zoneout_hidden": 0.3, "zoneout_cell": 0.2}, training=False))


def test_an_utterance_does_not_depend_on_its_batch():
    cell, options, x, lengths, state, weights, noise = make("lstm", {}, lengths=[3, 5, 4])
    y, final = triton_backend.run(cell, options, x, lengths, state, weights, noise)
    alone_y, alone = triton_backend.run(
        cell, options, x[2:, :4], lengths[2:], tuple(s[:, 2:] for s in state), weights, noise
    )
    torch.testing.assert_close(alone_y[0], y[2, :4], rtol=1e-6, atol=1e-6)
    for part, part_alone in zip(final, alone, strict=True):
        torch.testing.assert_close(part_alone[:, 0], part[:, 2], rtol=1e-6, atol=1e-6)


def test_chunks_with_carried_state_give_the_whole():
    cell, options, x, _, state, weights, noise = make("gru", {"bidirectional": False}, lengths=[5, 5])
    whole, final = triton_backend.run(cell, options, x, torch.tensor([5, 5]), state, weights, noise)
    first, between = triton_backend.run(cell, options, x[:, :2], torch.tensor([2, 2]), state, weights, noise)
    rest, last = triton_backend.run(cell, options, x[:, 2:], torch.tensor([3, 3]), between, weights, noise)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole)
    torch.testing.assert_close(last, final)


def test_strided_inputs_give_the_same():
    cell, options, x, lengths, state, weights, noise = make("lstm", {})
    expected, _ = triton_backend.run(cell, options, x, lengths, state, weights, noise)
    strided = x.detach().transpose(0, 1).contiguous().transpose(0, 1)
    weights = [w._replace(weight_hh=w.weight_hh.detach().t().contiguous().t()) for w in weights]
    state = tuple(s.detach().transpose(0, 1).contiguous().transpose(0, 1) for s in state)
    found, _ = triton_backend.run(cell, options, strided, lengths, state, weights, noise)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("frames", [0, 3])
def test_utterances_without_frames_keep_their_state(frames):
    cell, options, _, _, state, weights, noise = make("lstm", {}, lengths=[1, 1])
    x = torch.randn(2, frames, 6, requires_grad=True)
    y, final = triton_backend.run(cell, options, x, torch.tensor([0, 0]), state, weights, noise)
    assert y.shape == (2, frames, 20)
    assert not y.any()
    torch.testing.assert_close(final, state)
    (dc,) = torch.autograd.grad(final[1].sum(), state[1])
    assert torch.equal(dc, torch.ones_like(dc))


def test_without_gradients_nothing_is_saved_and_the_result_is_the_same():
    arguments = make("peephole", {})
    expected, _ = triton_backend.run(*arguments)
    with torch.no_grad():
        found, _ = triton_backend.run(*arguments)
    assert torch.equal(found, expected.detach())


def operator_arguments(case):
    """The operator's own arguments, caught on the way."""
    caught = []
    original = triton_backend.recurrence
    try:
        triton_backend.recurrence = lambda *arguments: caught.append(arguments) or original(*arguments)
        triton_backend.run(
            *make(*(CASES | MORE_CASES)[case], lengths=[2, 2])
        )  # padding of what is saved is not written
    finally:
        triton_backend.recurrence = original
    return caught[0]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck's own
@pytest.mark.parametrize("case", ["lstm", "gru_before", "projection_noise_clip"])
def test_opcheck(case):
    arguments = [
        a.detach().clone().requires_grad_(a.requires_grad) if isinstance(a, torch.Tensor) else a
        for a in operator_arguments(case)
    ]
    torch.library.opcheck(triton_backend.recurrence, tuple(arguments))


def test_compile_keeps_one_graph():
    cell, options, x, lengths, state, weights, noise = make("lstm", {}, lengths=[2, 1])

    def double(x):
        return triton_backend.run(cell, options, x, lengths, state, weights, noise)[0] * 2

    compiled = torch.compile(double, fullgraph=True, backend="aot_eager")
    (expected,) = torch.autograd.grad(double(x).sum(), x)
    (found,) = torch.autograd.grad(compiled(x).sum(), x)
    torch.testing.assert_close(found, expected)


def test_autocast_computes_in_its_precision_and_gives_gradients_in_the_parameters():
    arguments = make("lstm", {}, lengths=[2, 1])
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = triton_backend.run(*arguments)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert arguments[5][0].weight_hh.grad.dtype == torch.float32


def test_activation_checkpointing_gives_the_same_gradients():
    cell, options, x, lengths, state, weights, noise = make("lstm", {}, lengths=[2, 1])

    def run(x):
        return triton_backend.run(cell, options, x, lengths, state, weights, noise)[0]

    (expected,) = torch.autograd.grad(run(x).sum(), x)
    (found,) = torch.autograd.grad(torch.utils.checkpoint.checkpoint(run, x, use_reentrant=False).sum(), x)
    assert torch.equal(found, expected)


def test_what_the_kernels_cannot_do_is_refused_by_name():
    with pytest.raises(BackendError, match="layer normalization"):
        triton_backend.run(*make("lstm", {"layer_norm": True}))
    with pytest.raises(BackendError, match="not float64"):
        triton_backend.run(*make("lstm", {}, dtype=torch.float64))


def test_lengths_beyond_the_frames_end_with_them():
    """To refuse them, as on the CPU, would wait for the device; they may not reach the next utterance's frames."""
    cell, options, x, lengths, state, weights, noise = make("lstm", {}, lengths=[3, 2])
    expected = triton_backend.run(cell, options, x, lengths, state, weights, noise)[0]
    found = triton_backend.run(cell, options, x, lengths + torch.tensor([1, 0]), state, weights, noise)[0]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("case", ["lstm", "projection", "gru_before", "gru_after"])
def test_what_padding_holds_does_not_reach_the_gradients(case):
    arguments = make(*(CASES | MORE_CASES)[case], lengths=[3, 1])
    cell, options, x, lengths, state, weights, noise = convert(arguments, torch.float32)
    with torch.no_grad():
        x[1, 1:] = float("nan")
    expected = outputs_and_gradients(triton_backend.run, arguments)
    found = outputs_and_gradients(triton_backend.run, (cell, options, x, lengths, state, weights, noise))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_clipping_hides_nothing_that_diverged():
    cell, options, x, lengths, state, weights, noise = make("lstm", {"proj_size": 2, "proj_clip": 0.1}, [3])
    with torch.no_grad():
        x[0, 1] = float("nan")
    y = triton_backend.run(cell, options, x, lengths, state, weights, noise)[0]
    assert torch.isfinite(y[0, 0, :2]).all()
    assert torch.isnan(y[0, 1:, :2]).all()


def test_the_gradient_cannot_be_differentiated_again():
    _, _, x, *_ = arguments = make("lstm", {}, lengths=[2, 1])
    (gradient,) = torch.autograd.grad(triton_backend.run(*arguments)[0].sum(), x, create_graph=True)
    with pytest.raises(BackendError, match="differentiate twice"):
        gradient.sum().backward()


def test_deterministic_algorithms_are_enough():
    arguments = make("peephole", {}, lengths=[2, 3])
    one, two = (outputs_and_gradients(triton_backend.run, arguments) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


COMPILE = """
import torch
import triton
from triton.backends.compiler import GPUTarget

from asr.recurrent import triton_kernels as kernels


class Driver:  # what the compiler asks of one; there is no GPU
    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device=None):
        return 0


triton.runtime.driver.set_active(Driver())
SINGLE = {"lengths": torch.int32, "order": torch.int32, "unclipped": torch.uint8} | dict.fromkeys(
    ["h", "c", "dh", "dc", "partial", "dpeephole"], torch.float32
)


def arguments(kind, absent):
    return kind(*(
        17 if name in ("B", "T") else None if name in absent
        else torch.empty(1, dtype=SINGLE.get(name, torch.bfloat16))
        for name in kind._fields
    ))


for cell, gates in (("lstm", 4), ("gru_before", 3)):
    two = cell == "gru_before"
    cfg = kernels.Config(cell, 2, gates, 64, 64, not two, False, True, True, -1.0, 0.0 if two else 0.25, 0.0, 0.0,
                         True, 64, 16, 64, 2 if two else 4, 64, "ieee", False)
    for kernel, kind, phases in (
        (kernels.forward_kernel, kernels.Forward, 1 + 2 * two),
        (kernels.backward_kernel, kernels.Backward, 5 + 2 * two),
    ):
        compiled = kernel.warmup(arguments(kind, ()), 0, 17, torch.empty(1, dtype=torch.int32), phases, cfg,
                                 grid=(1,), num_warps=4, num_stages=3, launch_cooperative_grid=True)
        assert "wgmma" in compiled.asm["ptx"] and "ld.global.gpu.acquire" in compiled.asm["ptx"]
        print(kernel.__name__, cell, compiled.metadata.shared)
"""


@pytest.mark.slow
def test_the_kernels_compile_for_a_gpu_where_there_is_none(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 4
