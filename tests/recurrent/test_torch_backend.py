import pytest
import torch
from calls import converted, make_call, outputs_and_gradients

from asr.errors import BackendError
from asr.recurrent import CELLS, RecurrentLayer, cells, dispatch, reference, torch_backend
from asr.recurrent.cpu import backend as cpu_backend

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
    call = converted(make_call(cell, LENGTHS, input_size=5, hidden_size=7, **options), torch.float64)
    assert torch_backend.refusal(call) is None
    theirs, ours = (outputs_and_gradients(module.run, call) for module in (torch_backend, reference))
    assert "dbias_hh_0" in ours or not options.get("bias", True)
    for name, expected in ours.items():
        torch.testing.assert_close(theirs[name], expected, atol=1e-12, rtol=1e-12)


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
    assert torch_backend.refusal(make_call(cell, [2, 4], input_size=5, hidden_size=7, **options))


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
