import pytest
import torch

from asr.errors import BackendError
from asr.recurrent import CELLS, RecurrentLayer, cells, cpu_backend, dispatch, native, reference

LENGTHS = torch.tensor([4, 0, 9, 1, 9])


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("lstm", {}),
        ("lstm", {"proj_size": 3}),
        ("lstm", {"bidirectional": False}),
        ("lstm", {"bias": False}),
        ("gru", {}),
        ("rnn_tanh", {}),
    ],
)
def test_torchs_kernels_agree_with_the_equations(cell, options):
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, 5, 7, **options).double()
    x = torch.randn(5, 9, 5, dtype=torch.float64, requires_grad=True)
    sizes = (layer.output_size, 7)[: 1 + layer.cell.lstm_family]
    directions = 2 if layer.bidirectional else 1
    state = tuple(torch.randn(directions, 5, size, dtype=torch.float64, requires_grad=True) for size in sizes)
    weights = [layer.weights(suffix) for suffix in layer._suffixes]
    noise = [layer.draw_noise(x)] * directions
    assert native.refusal(cell, layer.options, x, weights, noise) is None
    results = []
    for module in (native, reference):
        y, final = module.run(cell, layer.options, x, LENGTHS, state, weights, noise)
        loss = y.sin().sum() + sum(part.cos().sum() for part in final)
        results.append((y, *final, *torch.autograd.grad(loss, [x, *state, *layer.parameters()])))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(theirs, ours, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("peephole", {}),
        ("cifg", {}),
        ("gru", {"reset": "before"}),
        ("lstm", {"layer_norm": True}),
        ("lstm", {"cell_clip": 1.0}),
        ("lstm", {"zoneout_hidden": 0.1}),
        ("gru", {"recurrent_dropout": 0.1}),
    ],
)
def test_what_torch_has_no_kernels_for_is_refused(cell, options):
    layer = RecurrentLayer(cell, 5, 7, **options)
    x = torch.randn(2, 4, 5)
    weights, noise = [layer.weights("_l0")], [layer.draw_noise(x)]
    assert native.refusal(cell, layer.options, x, weights, noise)


@pytest.mark.parametrize("cell", CELLS)
def test_auto_gives_shapes_on_the_meta_device(cell):
    layer = RecurrentLayer(cell, 5, 7).to("meta")
    y, _ = layer(torch.empty(5, 9, 5, device="meta"), LENGTHS.to("meta"))
    assert y.is_meta
    assert y.shape == (5, 9, 14)


def test_auto_does_without_a_compiler(monkeypatch):
    layer = RecurrentLayer("lstm", 5, 7)
    x = torch.randn(5, 9, 5)
    expected, _ = layer(x, LENGTHS)
    monkeypatch.setattr(cpu_backend, "refusal", lambda *arguments: "no C++ compiler was found")
    monkeypatch.setattr(reference, "run", None)  # torch's kernels are enough for this cell
    y, _ = layer(x, LENGTHS)
    torch.testing.assert_close(y, expected, atol=1e-6, rtol=1e-5)
    with pytest.raises(dispatch.BackendError, match=r"no C\+\+ compiler"):
        RecurrentLayer("lstm", 5, 7, backend="fused")(x, LENGTHS)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_cell_needs_no_fused_step_to_begin_with(monkeypatch, compiled):
    monkeypatch.setitem(CELLS, "elman", cells.Cell(cells.rnn_tanh_step, "n", "elman"))
    torch.manual_seed(0)
    layer, x, lengths = RecurrentLayer("elman", 3, 4), torch.randn(2, 5, 3), torch.tensor([5, 2])
    run = torch.compile(layer, fullgraph=True, backend="aot_eager") if compiled else layer
    found = run(x, lengths)[0]
    layer.backend = "reference"
    torch.testing.assert_close(found, layer(x, lengths)[0], rtol=0, atol=0)
    layer.backend = "fused"
    with pytest.raises(BackendError, match="cannot run this layer: the CPU kernels lack 'elman'"):
        layer(x, lengths)
