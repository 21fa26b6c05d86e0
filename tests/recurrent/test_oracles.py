"""The layers against torch.nn and onnxruntime, which were written by others."""

import copy

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from asr.recurrent import RecurrentLayer, RecurrentStack, replace_torch_layers

BACKENDS = ("reference", "fused")
LSTM_GATES = [(1, 0), (1, 3), (1, 1), (1, 2)]  # i, o, f, c from our i, f, g, o
# ONNX drives both gates by i, f = 1 - i; ours by f: the same cell with i's sums negated.
COUPLED_GATES = [(-1, 0), (1, 2), (1, 0), (1, 1)]
GRU_GATES = [(1, 1), (1, 0), (1, 2)]  # z, r, h from our r, z, n


def torch_modules():
    yield nn.LSTM(4, 6, bidirectional=True, batch_first=True)
    yield nn.LSTM(4, 6, 3, bidirectional=True, proj_size=3)
    yield nn.LSTM(4, 6, 2, bias=False, batch_first=True)
    yield nn.GRU(4, 6, 2, bidirectional=True)
    yield nn.RNN(4, 6, 2, bidirectional=True, batch_first=True)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("index", range(5))
def test_a_replaced_torch_layer_computes_the_same(backend, index):
    torch.manual_seed(0)
    theirs = list(torch_modules())[index]
    ours = replace_torch_layers(copy.deepcopy(theirs), backend=backend)
    assert type(ours) is not type(theirs)
    x = torch.randn(5, 3, 4)
    lengths = torch.tensor([3, 1, 2, 3, 3]) if theirs.batch_first else torch.tensor([5, 2, 3])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, theirs.batch_first, enforce_sorted=False)
    for given in (x, x[0], packed):
        found, expected = ours(given), theirs(given)
        if given is packed:
            found, expected = (found[0].data, found[1]), (expected[0].data, expected[1])
        torch.testing.assert_close(found, expected)
    state = theirs(x)[1]
    torch.testing.assert_close(ours(x, state), theirs(x, state))


def test_state_dicts_go_both_ways():
    for theirs in torch_modules():
        ours = replace_torch_layers(copy.deepcopy(theirs))
        assert set(ours.state_dict()) == set(theirs.state_dict())
        other = copy.deepcopy(theirs)
        other.load_state_dict(ours.state_dict())
        ours.load_state_dict(other.state_dict())


def test_replacing_inside_a_model_keeps_what_cannot_be_replaced():
    model = nn.ModuleDict({"a": nn.Sequential(nn.LSTM(4, 6)), "b": nn.RNN(4, 6, nonlinearity="relu")})
    replace_torch_layers(model)
    assert type(model["a"][0]).__name__ == "TorchInterface"
    assert type(model["b"]) is nn.RNN


class Tagger(nn.Module):
    """As models are written: it asks the layer for its sizes, and uses one layer twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.LSTM(6, 6, batch_first=True)
        self.second = self.first
        self.inner = nn.ModuleList([self.first])

    def forward(self, x):
        self.first.flatten_parameters()
        state = x.new_zeros(self.first.num_layers, len(x), self.first.hidden_size)
        return self.second(self.first(x, (state, state))[0])[0]


def test_replacing_keeps_what_is_shared_and_what_models_ask_of_a_layer():
    torch.manual_seed(0)
    model, x = Tagger(), torch.randn(2, 5, 6)
    expected = model(x)
    replace_torch_layers(model)
    assert model.first is model.second is model.inner[0]
    assert len(list(model.parameters())) == 4
    torch.testing.assert_close(model(x), expected)


def test_subclasses_may_do_something_else_and_stay():
    class Own(nn.LSTM):
        pass

    model = nn.Sequential(Own(4, 6))
    replace_torch_layers(model)
    assert type(model[0]) is Own


def test_a_stack_of_any_cell_carries_its_state():
    stack = RecurrentStack("cifg_peephole", 3, 5, 3, proj_size=2, bidirectional=False)
    x = torch.randn(2, 8, 3)
    whole, final = stack(x, torch.tensor([8, 8]))
    first, state = stack(x[:, :3], torch.tensor([3, 3]))
    second, state = stack(x[:, 3:], torch.tensor([5, 5]), state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(state, final)
    assert "weight_ih_l2" in stack.state_dict()


def test_a_stack_refuses_what_does_not_fit():
    stack = RecurrentStack("gru", 3, 5, num_layers=2, bidirectional=False)
    with pytest.raises(ValueError, match=r"first axis must be num_layers \* direction for 2 layers, got"):
        stack(torch.randn(4, 7, 3), torch.full((4,), 7), torch.zeros(1, 4, 5))
    with pytest.raises(ValueError, match="dropout must lie within 0 and 1, got 2"):
        RecurrentStack("gru", 3, 5, num_layers=2, dropout=2.0)


def onnx_result(kind, layer, x, lengths, gates, **attributes):
    """Run ONNX's own operator on a layer's weights; `gates` is ONNX's gate order in ours, with signs."""
    size = layer.hidden_size

    def reorder(tensor):
        return torch.cat([sign * tensor[g * size : (g + 1) * size] for sign, g in gates])

    def stacked(*names):
        rows = [[reorder(getattr(layer, n + side)) for n in names] for side in layer.directions()]
        return torch.stack([torch.cat(row) for row in rows]).detach().numpy()

    inputs = {
        "X": x.transpose(0, 1).contiguous().numpy(),
        "W": stacked("weight_ih"),
        "R": stacked("weight_hh"),
        "B": stacked("bias_ih", "bias_hh"),
        "sequence_lens": lengths.to(torch.int32).numpy(),
    }
    names = [*inputs]
    if kind == "LSTM":
        names += ["", ""]
        if layer.cell.peepholes:  # ONNX wants rows i, o, f
            rows = [getattr(layer, f"weight_peephole{side}") for side in layer.directions()]
            coupled = len(layer.cell.peepholes) == 2
            rows = [
                torch.cat([-row[0], row[1], row[0]] if coupled else [row[0], row[2], row[1]]) for row in rows
            ]
            inputs["P"] = torch.stack(rows).detach().numpy()
            names.append("P")
    node = helper.make_node(
        kind,
        names,
        ["Y"],
        hidden_size=size,
        direction="bidirectional" if layer.bidirectional else "forward",
        **attributes,
    )
    types = {
        np.dtype("float32"): TensorProto.FLOAT,
        np.dtype("int32"): TensorProto.INT32,
    }
    graph = helper.make_graph(
        [node],
        "oracle",
        [helper.make_tensor_value_info(n, types[v.dtype], v.shape) for n, v in inputs.items()],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y = torch.from_numpy(session.run(None, inputs)[0])  # (frame, direction, batch, hidden)
    return y.permute(2, 0, 1, 3).flatten(2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    ("cell", "kind", "gates", "options", "attributes"),
    [
        ("lstm", "LSTM", LSTM_GATES, {}, {}),
        ("peephole", "LSTM", LSTM_GATES, {}, {}),
        ("cifg", "LSTM", COUPLED_GATES, {}, {"input_forget": 1}),
        ("cifg_peephole", "LSTM", COUPLED_GATES, {}, {"input_forget": 1}),
        ("gru", "GRU", GRU_GATES, {"reset": "after"}, {"linear_before_reset": 1}),
        ("gru", "GRU", GRU_GATES, {"reset": "before"}, {"linear_before_reset": 0}),
        ("rnn_tanh", "RNN", [(1, 0)], {}, {}),
    ],
)
def test_onnxruntime_computes_the_same(backend, bidirectional, cell, kind, gates, options, attributes):
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, 4, 6, bidirectional=bidirectional, backend=backend, **options)
    x, lengths = torch.randn(3, 7, 4), torch.tensor([4, 7, 2])
    with torch.no_grad():
        found = layer(x, lengths)[0]
    torch.testing.assert_close(found, onnx_result(kind, layer, x, lengths, gates, **attributes))
