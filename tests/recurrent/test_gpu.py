"""The GPU kernels on a GPU: `pytest -m gpu tests/recurrent/test_gpu.py`."""

import pytest
import torch
from torch import nn

pytest.importorskip("triton")

from asr.recurrent import RecurrentLayer, Weights, reference, triton_backend, triton_launch

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
    monkeypatch.setattr(triton_launch.settings, "strategy", "auto")
    monkeypatch.setattr(triton_launch.settings, "recompute_gates", False)


def make(cell, options, batch=5, frames=12, hidden=96, input_size=40, dtype=torch.float32):
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, input_size, hidden, **options).cuda()
    lengths = torch.randint(0, frames + 1, (batch,))
    lengths[batch // 2] = frames
    x = torch.randn(batch, frames, input_size, device="cuda")
    sizes = (layer.output_size, hidden) if layer.cell.lstm_family else (layer.output_size,)
    state = tuple(torch.randn(2, batch, size, device="cuda") / 2 for size in sizes)
    noise = [layer.draw_noise(x) for _ in range(2)]
    weights = [layer.weights(suffix) for suffix in layer._suffixes]
    return convert((cell, layer.options, x, lengths.cuda(), state, weights, noise), dtype)


def convert(arguments, dtype):
    cell, options, x, lengths, state, weights, noise = arguments

    def leaf(t):
        return t.detach().to(dtype).requires_grad_() if isinstance(t, torch.Tensor) else t

    masks = [type(n)(*(m.to(dtype) if isinstance(m, torch.Tensor) else m for m in n)) for n in noise]
    return (
        cell,
        options,
        leaf(x),
        lengths,
        tuple(map(leaf, state)),
        [Weights(*map(leaf, w)) for w in weights],
        masks,
    )


def outputs_and_gradients(run, arguments):
    _, _, x, _, state, weights, _ = arguments
    y, final = run(*arguments)
    leaves = [x, *state, *(t for w in weights for t in w if t is not None)]
    outputs = [y, *final]
    generator = torch.Generator().manual_seed(1)
    cotangents = [torch.randn(t.shape, generator=generator).to(t) for t in outputs]
    return outputs + list(torch.autograd.grad(outputs, leaves, cotangents))


def errors(found, expected):
    return [
        ((f.double() - e.double()).norm() / e.double().norm()).item()
        for f, e in zip(found, expected, strict=True)
    ]


@pytest.mark.parametrize("strategy", ["steps", "persistent", "graph"])
@pytest.mark.parametrize("case", CASES)
def test_fp32_matches_the_reference(case, strategy, monkeypatch):
    monkeypatch.setattr(triton_launch.settings, "strategy", strategy)
    arguments = make(*CASES[case])
    expected = outputs_and_gradients(reference.run, convert(arguments, torch.float64))
    for _ in range(3):  # a graph is captured the second time and replayed the third
        found = outputs_and_gradients(triton_backend.run, arguments)
        assert max(errors(found, expected)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES)
def test_low_precision_errs_at_most_twice_as_much_as_torch(case, dtype):
    arguments = make(*CASES[case], dtype=dtype)
    expected = outputs_and_gradients(reference.run, convert(arguments, torch.float64))
    own = errors(outputs_and_gradients(triton_backend.run, arguments), expected)
    torchs = errors(outputs_and_gradients(reference.run, arguments), expected)
    assert all(o <= 2 * max(t, torch.finfo(dtype).eps / 2) for o, t in zip(own, torchs, strict=True)), (
        own,
        torchs,
    )


@pytest.mark.parametrize(
    ("batch", "hidden"), [(1, 1), (3, 7), (3, 513), (33, 800), (65, 1024), (130, 100), (130, 1024)]
)
def test_sizes(batch, hidden):
    arguments = make("lstm", {}, batch=batch, hidden=hidden, frames=6)
    expected = outputs_and_gradients(reference.run, convert(arguments, torch.float64))
    assert max(errors(outputs_and_gradients(triton_backend.run, arguments), expected)) < 1e-5


@pytest.mark.parametrize(("batch", "hidden"), [(130, 1024), (70, 2048)])
def test_wide_tiles_fit_into_shared_memory(batch, hidden):
    arguments = make("lstm", {}, batch=batch, hidden=hidden, frames=3, dtype=torch.bfloat16)
    found = outputs_and_gradients(triton_backend.run, arguments)
    assert all(torch.isfinite(tensor).all() for tensor in found)


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
    (own,), (other,) = errors([found], [expected]), errors([theirs], [expected])
    assert own <= 2 * other, (own, other)


def test_repeated_runs_agree_to_the_bit_and_poisoned_outputs_do_not_show():
    arguments = make("peephole", {}, batch=40, hidden=512, frames=40, dtype=torch.bfloat16)
    torch.use_deterministic_algorithms(True)  # also fills what torch.empty returns with NaN
    try:
        first = outputs_and_gradients(triton_backend.run, arguments)
        for _ in range(5):
            again = outputs_and_gradients(triton_backend.run, arguments)
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert all(t.isfinite().all() for t in first)
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
