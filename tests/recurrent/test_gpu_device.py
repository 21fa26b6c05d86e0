"""The GPU kernels on a GPU: `pytest -m gpu tests/recurrent/test_gpu.py`."""

import pytest
import torch
from torch import nn

pytest.importorskip("triton")

from calls import converted, errors, make_call, outputs_and_gradients

from asr.recurrent import RecurrentLayer, reference
from asr.recurrent.gpu import backend, launch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"),
]

LSTM_NOISE = {"recurrent_dropout": 0.3, "zoneout_hidden": 0.2, "zoneout_cell": 0.1}
CASES = {
    "lstm": ("lstm", {}),
    "peephole": ("peephole", {}),
    "cifg": ("cifg", {}),
    "cifg_peephole": ("cifg_peephole", {}),
    "gru_after": ("gru", {}),
    "gru_before": ("gru", {"reset": "before"}),
    "rnn_tanh": ("rnn_tanh", {}),
    "noise": ("lstm", LSTM_NOISE),
    "gru_noise": ("gru", {"recurrent_dropout": 0.3, "zoneout_hidden": 0.2, "reset": "before"}),
    "projection": ("peephole", LSTM_NOISE | {"proj_size": 48, "proj_clip": 0.5, "cell_clip": 2.0}),
}


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    monkeypatch.setattr(launch.settings, "strategy", "auto")
    monkeypatch.setattr(launch.settings, "recompute_gates", False)


def make(cell, options, batch=5, frames=12, hidden_size=96, dtype=torch.float32):
    torch.manual_seed(0)
    lengths = torch.randint(0, frames + 1, (batch,))
    lengths[batch // 2] = frames
    call = make_call(cell, lengths, input_size=40, hidden_size=hidden_size, **options)
    return converted(converted(call, "cuda"), dtype)


@pytest.mark.parametrize("strategy", ["steps", "persistent", "graph"])
@pytest.mark.parametrize("case", CASES)
def test_fp32_matches_the_reference(case, strategy, monkeypatch):
    monkeypatch.setattr(launch.settings, "strategy", strategy)
    call = make(*CASES[case])
    expected = outputs_and_gradients(reference.run, converted(call, torch.float64))
    for _ in range(3):  # a graph is captured the second time and replayed the third
        found = outputs_and_gradients(backend.run, call)
        assert max(errors(found, expected).values()) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES)
def test_low_precision_errs_at_most_twice_as_much_as_torch(case, dtype):
    call = make(*CASES[case], dtype=dtype)
    expected = outputs_and_gradients(reference.run, converted(call, torch.float64))
    own = errors(outputs_and_gradients(backend.run, call), expected)
    torchs = errors(outputs_and_gradients(reference.run, call), expected)
    smallest = torch.finfo(dtype).eps / 2
    assert all(own[name] <= 2 * max(torchs[name], smallest) for name in own), (own, torchs)


@pytest.mark.parametrize(
    ("batch", "hidden"), [(1, 1), (3, 7), (3, 513), (33, 800), (65, 1024), (130, 100), (130, 1024)]
)
def test_sizes(batch, hidden):
    call = make("lstm", {}, batch=batch, hidden_size=hidden, frames=6)
    expected = outputs_and_gradients(reference.run, converted(call, torch.float64))
    assert max(errors(outputs_and_gradients(backend.run, call), expected).values()) < 1e-5


@pytest.mark.parametrize(("batch", "hidden"), [(130, 1024), (70, 2048)])
def test_wide_tiles_fit_into_shared_memory(batch, hidden):
    call = make("lstm", {}, batch=batch, hidden_size=hidden, frames=3, dtype=torch.bfloat16)
    found = outputs_and_gradients(backend.run, call)
    assert all(torch.isfinite(tensor).all() for tensor in found.values())


@pytest.mark.parametrize("batch", [32, 64])
@pytest.mark.parametrize(("ours", "torchs"), [("lstm", nn.LSTM), ("gru", nn.GRU)])
def test_bf16_is_as_close_to_float64_as_cudnn(ours, torchs, batch):
    torch.manual_seed(0)
    cudnn = torchs(512, 512, batch_first=True, bidirectional=True).cuda()
    layer = RecurrentLayer(ours, 512, 512, backend="fused").cuda()
    layer.load_state_dict(cudnn.state_dict())
    x = torch.randn(batch, 100, 512, device="cuda")
    expected, _ = cudnn.double()(x.double())
    theirs, _ = cudnn.bfloat16()(x.bfloat16())
    found, _ = layer.bfloat16()(x.bfloat16(), torch.full((batch,), 100, device="cuda"))
    own, other = (errors({"y": y}, {"y": expected})["y"] for y in (found, theirs))
    assert own <= 2 * other, (own, other)


def test_repeated_runs_agree_to_the_bit_and_poisoned_outputs_do_not_show():
    call = make("peephole", {}, batch=40, hidden_size=512, frames=40, dtype=torch.bfloat16)
    torch.use_deterministic_algorithms(True)  # also fills what torch.empty returns with NaN
    try:
        first = outputs_and_gradients(backend.run, call)
        for _ in range(5):
            again = outputs_and_gradients(backend.run, call)
            assert all(torch.equal(first[name], value) for name, value in again.items())
        assert all(t.isfinite().all() for t in first.values())
    finally:
        torch.use_deterministic_algorithms(False)


def test_training_memory_is_at_most_cudnns():
    batch, frames, size = 32, 400, 512
    x = torch.randn(batch, frames, size, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    lengths = torch.full((batch,), frames, device="cuda")
    cudnn = nn.LSTM(size, size, batch_first=True, bidirectional=True).cuda().bfloat16()
    layer = RecurrentLayer("lstm", size, size, backend="fused").cuda().bfloat16()

    def held(run):
        run().sum().backward()  # compile, and let the gradients be there
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        y = run()
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated() - before
        del y
        return held

    assert held(lambda: layer(x, lengths)[0]) <= held(lambda: cudnn(x)[0])


def test_a_users_graph_may_hold_the_layer():
    layer = RecurrentLayer("lstm", 64, 64, backend="fused").cuda()
    x = torch.randn(4, 10, 64, device="cuda")
    lengths = torch.tensor([10, 3, 0, 7], device="cuda")
    with torch.no_grad():
        expected, _ = layer(x, lengths)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found, _ = layer(x, lengths)
        graph.replay()
    torch.testing.assert_close(found, expected)


def test_compile_keeps_one_graph():
    layer = RecurrentLayer("lstm", 64, 64, backend="fused").cuda()
    x = torch.randn(4, 10, 64, device="cuda")
    lengths = torch.tensor([10, 3, 0, 7], device="cuda")
    compiled = torch.compile(lambda x: layer(x, lengths)[0] * 2, fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x, lengths)[0] * 2)
