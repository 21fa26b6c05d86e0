"""Layers packed for inference, against the reference in float64 with operands rounded as the precision rounds them."""

import contextlib
import copy

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from asr.errors import BackendError
from asr.recurrent import CELLS, PackedLayer, RecurrentLayer, RecurrentStack, pack_for_inference

MATRICES = ("weight_ih", "weight_hh", "weight_hr")
# float32 sums; for int8 also the rounding of activations to 14 bits or more, carried on from step to step. In bfloat16
# an activation beside the middle of two may be rounded to either.
TOLERANCE = {"float32": 2e-6, "bfloat16": 2e-4, "int8": 2e-4}


def rounded(weight, precision):
    """What a weight is in a precision; int8 has a scale a row."""
    if precision == "int8":
        scale = weight.abs().amax(1, keepdim=True) / 127
        return (weight / scale).round().nan_to_num() * scale
    return weight.to(getattr(torch, precision)).float()


def reference_over_rounded(layer, precision):
    layer = copy.deepcopy(layer)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.startswith(MATRICES):
                parameter.copy_(rounded(parameter, precision))
    layer.backend = "reference"
    return layer.double()


class ProductsOfBfloat16(TorchFunctionMode):
    """What weights are multiplied with is rounded too."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        if function is F.linear:
            values, *rest = arguments
            arguments = (values.bfloat16().to(values.dtype), *rest)
        return function(*arguments, **(options or {}))


def expect(layer, precision, x, lengths, state=None):
    products = ProductsOfBfloat16() if precision == "bfloat16" else contextlib.nullcontext()
    with products:
        return reference_over_rounded(layer, precision)(x, lengths, state)


def check(precision, cell, batch, frames, input_size, hidden_size, **options):
    torch.manual_seed(hidden_size)
    layer = RecurrentLayer(cell, input_size, hidden_size, **options).eval()
    x, lengths = torch.randn(batch, frames, input_size), torch.randint(0, frames + 1, (batch,))
    sizes = (layer.output_size, hidden_size)[: 1 + layer.cell.lstm_family]
    state = tuple(torch.randn(len(layer.directions()), batch, size) / 2 for size in sizes)
    y, final = PackedLayer(layer, precision)(x, lengths, state)
    double_state = tuple(part.double() for part in state)
    expected, expected_final = expect(layer, precision, x.double(), lengths, double_state)
    finals = (final, expected_final) if layer.cell.lstm_family else ((final,), (expected_final,))
    for found, truth in zip((y, *finals[0]), (expected, *finals[1]), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), truth, rtol=0, atol=TOLERANCE[precision])


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", [(1, 3, 1, 1), (3, 5, 7, 7), (13, 4, 40, 100), (2, 3, 600, 513)])
def test_every_cell_and_precision(precision, cell, size):
    check(precision, cell, *size)


@pytest.mark.parametrize("precision", TOLERANCE)
def test_every_option(precision):
    check(precision, "lstm", 5, 7, 6, 39, proj_size=35, proj_clip=0.15, cell_clip=0.5)
    check(precision, "cifg_peephole", 5, 7, 6, 39, proj_size=3, bidirectional=False, bias=False)
    check(precision, "gru", 5, 7, 6, 19, reset="before", zoneout_hidden=0.2)
    check(precision, "lstm", 5, 7, 6, 19, zoneout_cell=0.3)


def test_layer_normalization_magnifies_the_rounding_of_activations_but_little():
    check("float32", "lstm", 5, 7, 6, 19, layer_norm=True)
    check("bfloat16", "cifg", 5, 7, 6, 19, layer_norm=True)
    layer = RecurrentLayer("lstm", 6, 19, layer_norm=True).eval()
    x, lengths = torch.randn(5, 7, 6), torch.tensor([7, 3, 0, 1, 5])
    expected = expect(layer, "int8", x.double(), lengths)[0]
    torch.testing.assert_close(
        PackedLayer(layer, "int8")(x, lengths)[0].double(), expected, rtol=0, atol=1e-3
    )


def test_the_largest_integers_do_not_overflow():
    """All weights and activations at their bounds, the longest sums of 16-bit products."""
    size = 4096
    layer = RecurrentLayer("rnn_tanh", size, 1, bidirectional=False, bias=False)
    for sign in (1.0, -1.0):
        with torch.no_grad():
            layer.weight_ih_l0.fill_(sign / size)
        y = PackedLayer(layer, "int8")(torch.ones(1, 1, size), torch.tensor([1]))[0]
        torch.testing.assert_close(y, torch.tensor([[[sign]]]).tanh(), rtol=1e-4, atol=0)


def test_what_is_not_finite_stays_so():
    layer = PackedLayer(RecurrentLayer("lstm", 4, 5, bidirectional=False), "int8")
    x = torch.randn(2, 3, 4)
    x[0, 1, 2] = float("nan")
    x[1, 1, 0] = float("inf")
    y = layer(x, torch.tensor([3, 3]))[0]
    assert y[:, 0].isfinite().all()
    assert y[:, 1:].isnan().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_seen(value):
    layer = RecurrentLayer("rnn_tanh", 4, 5, bidirectional=False)
    with torch.no_grad():
        layer.weight_ih_l0[2, 1] = value
    y = PackedLayer(layer, "int8")(torch.randn(2, 1, 4), torch.tensor([1, 1]))[0]
    assert y[..., 2].isnan().all()
    assert y[..., [0, 1, 3, 4]].isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_bfloat16_rounds_what_is_not_finite_to_itself(value):
    torch.manual_seed(0)
    layer = RecurrentLayer("lstm", 4, 5, bidirectional=False)
    x, lengths = torch.randn(2, 3, 4), torch.tensor([3, 3])
    x[0, 1, 2] = value
    with torch.no_grad():
        layer.weight_ih_l0[2, 1] = value
    expected = expect(layer, "bfloat16", x.double(), lengths)[0]
    found = PackedLayer(layer, "bfloat16")(x, lengths)[0].double()
    assert expected.isfinite().any()
    assert expected.isnan().any()
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE["bfloat16"], equal_nan=True)


def test_chunks_with_carried_state_give_the_same():
    layer = PackedLayer(RecurrentLayer("lstm", 3, 9, bidirectional=False), "int8")
    x, lengths = torch.randn(2, 11, 3), torch.tensor([11, 11])
    whole, final = layer(x, lengths)
    first, state = layer(x[:, :4], lengths.clamp(max=4))
    second, state = layer(x[:, 4:], lengths - 4, state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=0, atol=0)
    torch.testing.assert_close(state, final, rtol=0, atol=0)


@pytest.mark.parametrize("precision", TOLERANCE)
def test_results_do_not_depend_on_the_number_of_threads(precision):
    layer = PackedLayer(RecurrentLayer("lstm", 40, 150), precision)
    x, lengths = torch.randn(9, 6, 40), torch.randint(0, 7, (9,))
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            found.append(layer(x, lengths)[0])
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=0)


def test_a_whole_model_is_packed_in_place():
    model = torch.nn.ModuleDict({"stack": RecurrentStack("gru", 6, 8, num_layers=2)}).eval()
    x, lengths = torch.randn(3, 5, 6), torch.tensor([5, 2, 3])
    expected = model["stack"](x, lengths)[0]
    assert pack_for_inference(model) is model
    assert sum(isinstance(module, PackedLayer) for module in model.modules()) == 2
    found = model["stack"](x, lengths)[0]
    torch.testing.assert_close(found, expected.detach())
    assert not found.requires_grad


def test_what_it_cannot_do_is_named():
    with pytest.raises(ValueError, match="unknown precision 'int4'; there are float32, bfloat16, int8"):
        PackedLayer(RecurrentLayer("lstm", 2, 3), "int4")
    with pytest.raises(BackendError, match="float64"):
        PackedLayer(RecurrentLayer("lstm", 2, 3).double())
    with pytest.raises(ValueError, match="lengths must lie within 0 and the 4 frames"):
        PackedLayer(RecurrentLayer("lstm", 2, 3))(torch.randn(1, 4, 2), torch.tensor([5]))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("input_size", "hidden_size"), [(6, 5), (33, 50), (1, 1)])
def test_bfloat16_modules_multiply_in_bfloat16(cell, input_size, hidden_size):
    projection = {"proj_size": 35} if (cell, hidden_size) == ("lstm", 50) else {}
    layer = RecurrentLayer(cell, input_size, hidden_size, backend="fused", **projection).eval().bfloat16()
    x, lengths = torch.randn(3, 7, input_size).bfloat16(), torch.tensor([7, 0, 3])
    with torch.no_grad():
        found = layer(x, lengths)[0]
        packed = PackedLayer(layer, "bfloat16")(x, lengths)[0]
    assert found.dtype == packed.dtype == torch.bfloat16
    torch.testing.assert_close(packed, found, rtol=0, atol=0)
    expected = expect(layer.float(), "bfloat16", x.double(), lengths)[0]
    torch.testing.assert_close(found, expected.bfloat16())
    integers = PackedLayer(layer, "int8")(x, lengths)[0]
    assert integers.dtype == torch.bfloat16
    torch.testing.assert_close(integers, found, rtol=0, atol=0.03)
