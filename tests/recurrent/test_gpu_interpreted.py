"""The GPU kernels run by Triton's interpreter on the CPU: every cell against the reference, forward and gradients."""

import os
import subprocess
import sys

import pytest
import torch

if not torch.cuda.is_available():  # where there is a GPU the kernels are compiled, and test_gpu.py runs them
    os.environ["TRITON_INTERPRET"] = "1"  # read where a kernel is defined

pytest.importorskip("triton")

from calls import converted, errors, make_call, outputs_and_gradients

from asr.errors import BackendError
from asr.recurrent import reference
from asr.recurrent.gpu import backend, kernels, launch

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
    monkeypatch.setattr(launch.settings, "strategy", "auto")
    monkeypatch.setattr(launch.settings, "recompute_gates", False)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def make(cell, options, lengths=RAGGED, *, dtype=torch.float32, **sizes):
    torch.manual_seed(0)
    return converted(make_call(cell, lengths, **options, **sizes), dtype)


def assert_matches_reference(call, bound=2e-6):
    expected = outputs_and_gradients(reference.run, converted(call, torch.float64))
    found = errors(outputs_and_gradients(backend.run, call), expected)
    assert max(found.values()) < bound, found


def tile(monkeypatch, **changes):
    """Cut kernels into small tiles, so that small sizes have several."""
    small = launch.Tiling(rows=16, units=16, depth=16, split_units=16)
    monkeypatch.setattr(backend, "choose_tiling", lambda *_: small._replace(**changes))


def test_the_kernels_are_interpreted():
    assert type(kernels.forward_kernel).__name__ == "InterpretedFunction", (
        "asr.recurrent.gpu.kernels was imported before TRITON_INTERPRET was set"
    )


@pytest.mark.parametrize("case", [*CASES, *MORE_CASES])
def test_a_ragged_batch_matches_the_reference(case):
    assert_matches_reference(make(*(CASES | MORE_CASES)[case]))


@pytest.mark.parametrize("case", ["lstm", "gru_after"])
def test_a_dense_batch_matches_the_reference(case):
    assert_matches_reference(make(*CASES[case], lengths=[4, 4]))


@pytest.mark.parametrize(("case", "hidden", "lengths"), [("lstm", 1, [1]), ("gru_before", 7, [2, 1, 2])])
def test_odd_sizes_match_the_reference(case, hidden, lengths):
    assert_matches_reference(make(*CASES[case], lengths, hidden_size=hidden, input_size=3))


@pytest.mark.parametrize("case", ["peephole", "gru_before", "projection_noise_clip"])
def test_several_tiles_and_split_products_match_the_reference(case, monkeypatch):
    cell, options = (CASES | MORE_CASES)[case]
    tile(monkeypatch, split=2 if case == "gru_before" else 4)
    lengths = [2, 0, 1, *[1] * 14, 2]  # two blocks of rows, the second over after one step
    assert_matches_reference(
        make(cell, options | ({"proj_size": 17} if "proj_size" in options else {}), lengths, hidden_size=18)
    )


@pytest.mark.parametrize("case", [*CASES, "projection_noise_clip"])
def test_the_persistent_kernel_computes_the_same_numbers(case, monkeypatch):
    call = make(*(CASES | MORE_CASES)[case], lengths=[2, 3])
    expected = outputs_and_gradients(backend.run, call)
    monkeypatch.setattr(launch.settings, "strategy", "persistent")
    found = outputs_and_gradients(backend.run, call)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("case", [*CASES, "clip", "projection_noise_clip", "gru_before_noise"])
def test_gates_computed_again_give_the_same_gradients(case, monkeypatch):
    monkeypatch.setattr(launch.settings, "recompute_gates", True)
    assert_matches_reference(make(*(CASES | MORE_CASES)[case], lengths=[3, 2]))


def test_computing_gates_again_saves_four_fifths(monkeypatch):
    def saved(recompute):
        monkeypatch.setattr(launch.settings, "recompute_gates", recompute)
        sizes = []
        call = make("lstm", {}, [3, 2])
        own = {t.data_ptr() for t in (call.x, *call.state)}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: (
                sizes.append(t.numel() if t.shape[:2] == (2, 3) and t.data_ptr() not in own else 0),
                t,
            )[1],
            lambda t: t,
        ):
            backend.run(call)
        return sum(sizes)

    output = 2 * 3 * 2 * 10
    assert saved(False) == 6 * output  # y, four gates, c
    assert saved(True) == 2 * output


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", ["lstm", "gru_after", "projection"])
def test_low_precision_errs_no_more_than_it_must(case, dtype):
    call = make(*(CASES | MORE_CASES)[case], dtype=dtype)
    expected = outputs_and_gradients(reference.run, converted(call, torch.float64))
    own = errors(outputs_and_gradients(backend.run, call), expected)
    torchs = errors(outputs_and_gradients(reference.run, call), expected)
    smallest = torch.finfo(dtype).eps / 2
    # The interpreter cuts fp32 to bfloat16 where a GPU rounds, which errs twice as much; test_gpu.py asks for 2.
    factor = 4 if dtype == torch.bfloat16 else 2
    assert all(own[name] <= factor * max(torchs[name], smallest) for name in own), (own, torchs)


def test_evaluation_uses_zoneouts_expectation():
    assert_matches_reference(make("lstm", {"zoneout_hidden": 0.3, "zoneout_cell": 0.2}, training=False))


def test_an_utterance_does_not_depend_on_its_batch():
    call = make("lstm", {}, lengths=[3, 5, 4])
    y, final = backend.run(call)
    state = tuple(part[:, 2:] for part in call.state)
    alone_y, alone = backend.run(call._replace(x=call.x[2:, :4], lengths=call.lengths[2:], state=state))
    torch.testing.assert_close(alone_y[0], y[2, :4], rtol=1e-6, atol=1e-6)
    for part, part_alone in zip(final, alone, strict=True):
        torch.testing.assert_close(part_alone[:, 0], part[:, 2], rtol=1e-6, atol=1e-6)


def test_chunks_with_carried_state_give_the_whole():
    call = make("gru", {"bidirectional": False}, lengths=[5, 5])
    whole, final = backend.run(call)
    first, between = backend.run(call._replace(x=call.x[:, :2], lengths=torch.tensor([2, 2])))
    rest, last = backend.run(call._replace(x=call.x[:, 2:], lengths=torch.tensor([3, 3]), state=between))
    torch.testing.assert_close(torch.cat([first, rest], 1), whole)
    torch.testing.assert_close(last, final)


def test_strided_inputs_give_the_same():
    call = make("lstm", {})
    expected, _ = backend.run(call)
    strided = call.x.detach().transpose(0, 1).contiguous().transpose(0, 1)
    weights = [w._replace(weight_hh=w.weight_hh.detach().t().contiguous().t()) for w in call.weights]
    state = tuple(s.detach().transpose(0, 1).contiguous().transpose(0, 1) for s in call.state)
    found, _ = backend.run(call._replace(x=strided, weights=weights, state=state))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("frames", [0, 3])
def test_utterances_without_frames_keep_their_state(frames):
    call = make("lstm", {}, lengths=[0, 0], frames=frames)
    y, final = backend.run(call)
    assert y.shape == (2, frames, 20)
    assert not y.any()
    torch.testing.assert_close(final, call.state)
    (dc,) = torch.autograd.grad(final[1].sum(), call.state[1])
    assert torch.equal(dc, torch.ones_like(dc))


def test_without_gradients_nothing_is_saved_and_the_result_is_the_same():
    call = make("peephole", {})
    expected, _ = backend.run(call)
    with torch.no_grad():
        found, _ = backend.run(call)
    assert torch.equal(found, expected.detach())


def operator_arguments(case):
    """The operator's own arguments, caught on the way."""
    caught = []
    original = backend.recurrence
    try:
        backend.recurrence = lambda *arguments: caught.append(arguments) or original(*arguments)
        backend.run(
            make(*(CASES | MORE_CASES)[case], lengths=[2, 2])
        )  # padding of what is saved is not written
    finally:
        backend.recurrence = original
    return caught[0]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck's own
@pytest.mark.parametrize("case", ["lstm", "gru_before", "projection_noise_clip"])
def test_opcheck(case):
    def leaf(a):
        if isinstance(a, list):
            return [leaf(part) for part in a]
        return a.detach().clone().requires_grad_(a.requires_grad) if isinstance(a, torch.Tensor) else a

    torch.library.opcheck(backend.recurrence, tuple(leaf(a) for a in operator_arguments(case)))


def test_compile_keeps_one_graph():
    call = make("lstm", {}, lengths=[2, 1])
    x = call.x

    def double(x):
        return backend.run(call._replace(x=x))[0] * 2

    compiled = torch.compile(double, fullgraph=True, backend="aot_eager")
    (expected,) = torch.autograd.grad(double(x).sum(), x)
    (found,) = torch.autograd.grad(compiled(x).sum(), x)
    torch.testing.assert_close(found, expected)


def test_autocast_computes_in_its_precision_and_gives_gradients_in_the_parameters():
    call = make("lstm", {}, lengths=[2, 1])
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = backend.run(call)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert call.weights[0].weight_hh.grad.dtype == torch.float32


def test_activation_checkpointing_gives_the_same_gradients():
    call = make("lstm", {}, lengths=[2, 1])
    x = call.x

    def run(x):
        return backend.run(call._replace(x=x))[0]

    (expected,) = torch.autograd.grad(run(x).sum(), x)
    (found,) = torch.autograd.grad(torch.utils.checkpoint.checkpoint(run, x, use_reentrant=False).sum(), x)
    assert torch.equal(found, expected)


def test_what_the_kernels_cannot_do_is_refused_by_name():
    assert "layer normalization" in backend.refusal(make("lstm", {"layer_norm": True}))
    assert "not float64" in backend.refusal(make("lstm", {}, dtype=torch.float64))
    assert backend.refusal(make("lstm", {})) is None


def test_lengths_beyond_the_frames_end_with_them():
    """To refuse them, as on the CPU, would wait for the device; they may not reach the next utterance's frames."""
    call = make("lstm", {}, lengths=[3, 2])
    expected = backend.run(call)[0]
    found = backend.run(call._replace(lengths=call.lengths + torch.tensor([1, 0])))[0]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("case", ["lstm", "projection", "gru_before", "gru_after"])
def test_what_padding_holds_does_not_reach_the_gradients(case):
    call = make(*(CASES | MORE_CASES)[case], lengths=[3, 1])
    dirty = converted(call._replace(x=call.x.detach().clone()))
    with torch.no_grad():
        dirty.x[1, 1:] = float("nan")
    assert call.x.isfinite().all()
    expected = outputs_and_gradients(backend.run, call)
    found = outputs_and_gradients(backend.run, dirty)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_clipping_hides_nothing_that_diverged():
    call = make("lstm", {"proj_size": 2, "proj_clip": 0.1}, [3])
    with torch.no_grad():
        call.x[0, 1] = float("nan")
    y = backend.run(call)[0]
    assert torch.isfinite(y[0, 0, :2]).all()
    assert torch.isnan(y[0, 1:, :2]).all()


def test_the_gradient_cannot_be_differentiated_again():
    call = make("lstm", {}, lengths=[2, 1])
    (gradient,) = torch.autograd.grad(backend.run(call)[0].sum(), call.x, create_graph=True)
    with pytest.raises(BackendError, match="differentiate twice"):
        gradient.sum().backward()


def test_deterministic_algorithms_are_enough():
    call = make("peephole", {}, lengths=[2, 3])
    one, two = (outputs_and_gradients(backend.run, call) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


COMPILE = """
import torch
import triton
from triton.backends.compiler import GPUTarget

from asr.recurrent.gpu import kernels, primitives


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
    cfg = primitives.Config(cell, 2, gates, 64, 64, not two, False, True, True, -1.0, 0.0 if two else 0.25, 0.0, 0.0,
                         True, 64, 16, 64, 2 if two else 4, 64, "ieee", False)
    for kernel, kind, phases in (
        (kernels.forward_kernel, primitives.Forward, 1 + 2 * two),
        (kernels.backward_kernel, primitives.Backward, 5 + 2 * two),
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
