"""Layers from replace_torch_layers against torch's own: every attribute, every input form, everything attached."""

import copy
import io
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from asr.errors import BackendError
from asr.recurrent import (
    PackedLayer,
    RecurrentLayer,
    RecurrentStack,
    pack_for_inference,
    replace_torch_layers,
)
from asr.recurrent.interface import TorchInterface

KINDS = {
    "lstm": lambda **options: nn.LSTM(4, 6, **options),
    "deep": lambda **options: nn.LSTM(4, 6, 3, bidirectional=True, **options),
    "projected": lambda **options: nn.LSTM(4, 6, 2, bidirectional=True, proj_size=3, **options),
    "without bias": lambda **options: nn.LSTM(4, 6, 2, bias=False, **options),
    "gru": lambda **options: nn.GRU(4, 6, 2, bidirectional=True, **options),
    "rnn": lambda **options: nn.RNN(4, 6, 2, **options),
}
# torch's own, of a projection and of weights whose norm is a parameter.
pytestmark = [
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated"),
]


def pair(kind, **options):
    torch.manual_seed(0)
    theirs = KINDS[kind](**options)
    return theirs, replace_torch_layers(copy.deepcopy(theirs))


def parts(state):
    return state if isinstance(state, tuple) else (state,)


def random_state(layer, batch):
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    sizes = [layer.proj_size or layer.hidden_size, layer.hidden_size][: 2 if layer.mode == "LSTM" else 1]
    state = tuple(torch.randn(*((rows, batch) if batch else (rows,)), size) for size in sizes)
    return state if len(state) > 1 else state[0]


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_form_of_input(kind, batch_first, with_state):
    theirs, ours = pair(kind, batch_first=batch_first)
    x, lengths = torch.randn(3, 5, 4), torch.tensor([2, 5, 3])
    x = x if batch_first else x.transpose(0, 1)
    inputs = {
        "batched": (x, 3),
        "unbatched": (x[0] if batch_first else x[:, 0], None),
        "unsorted": (pack_padded_sequence(x, lengths, batch_first, enforce_sorted=False), 3),
        "sorted": (pack_padded_sequence(x, lengths.sort(descending=True)[0], batch_first), 3),
    }
    for form, (given, batch) in inputs.items():
        state = (random_state(theirs, batch),) if with_state else ()
        (found, final), (expected, expected_final) = ours(given, *state), theirs(given, *state)
        if batch and form not in ("batched",):
            for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
                torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=0)
            found, expected = found.data, expected.data
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(final, expected_final)
        assert type(final) is type(expected_final)
        assert found.is_contiguous() or not expected.is_contiguous()


@pytest.mark.parametrize("utterances", [16, 17, 40])
def test_packed_rows_stay_where_they_are(utterances):
    theirs, ours = pair("lstm")
    packed = pack_sequence([torch.randn(7, 4) for _ in range(utterances)])
    found, expected = ours(packed)[0], theirs(packed)[0]
    torch.testing.assert_close(found.data, expected.data)
    assert found.sorted_indices is None
    assert found.unsorted_indices is None
    torch.testing.assert_close(pad_packed_sequence(found), pad_packed_sequence(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_can_be_viewed_in_another_shape(kind):
    _, ours = pair(kind)
    y, state = ours(torch.randn(7, 3, 4))
    assert y.view(-1, y.shape[2]).shape == (21, y.shape[2])
    assert all(part.is_contiguous() for part in parts(state))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_documented_attribute(kind, batch_first):
    theirs, ours = pair(kind, batch_first=batch_first)
    names = "mode input_size hidden_size num_layers bias batch_first dropout bidirectional proj_size training"
    assert {name: getattr(ours, name) for name in names.split()} == {
        name: getattr(theirs, name) for name in names.split()
    }
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(getattr(ours, name), parameter, rtol=0, atol=0)
    for found, expected in zip(ours.all_weights, theirs.all_weights, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert ours.extra_repr() == theirs.extra_repr()
    assert isinstance(ours, nn.RNNBase)
    ours.flatten_parameters()
    torch.manual_seed(1)
    ours.reset_parameters()
    torch.manual_seed(1)
    theirs.reset_parameters()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)


def test_what_is_assigned_by_name_is_computed_with():
    theirs, ours = pair("lstm")
    x = torch.randn(5, 2, 4)
    for layer in (theirs, ours):
        layer.bias_ih_l0.data[6:12].fill_(1)
        layer.weight_hh_l0 = nn.Parameter(torch.eye(6).repeat(4, 1))
    torch.testing.assert_close(ours(x), theirs(x))
    new = {name: torch.ones_like(p) / 7 for name, p in theirs.named_parameters()}
    found, expected = (torch.func.functional_call(layer, new, (x,)) for layer in (ours, theirs))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_pickles_state_dicts_and_other_precisions(kind):
    theirs, ours = pair(kind)
    x = torch.randn(5, 2, 4)
    expected = theirs(x)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    saved = io.BytesIO()
    torch.save(ours, saved)
    saved.seek(0)
    for again in (copy.deepcopy(ours), torch.load(saved, weights_only=False)):
        torch.testing.assert_close(again(x), expected)
        again.load_state_dict(theirs.state_dict())
        torch.testing.assert_close(again(x), expected)
    KINDS[kind]().load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours.double()(x.double()), theirs.double()(x.double()))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.f, self.b = nn.LSTM(4, 4), nn.LSTM(4, 4)
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            setattr(self.b, name, getattr(self.f, name))

    def forward(self, x):
        return self.f(x)[0] + self.b(x.flip(0))[0].flip(0)


def test_tied_parameters_stay_tied_and_an_optimizer_goes_on():
    torch.manual_seed(0)
    theirs, x, results = Tied(), torch.randn(5, 2, 4), []
    ours = copy.deepcopy(theirs)
    optimizers = [torch.optim.Adam(model.parameters(), 0.1) for model in (theirs, ours)]
    replace_torch_layers(ours)
    assert ours.f.weight_hh_l0 is ours.b.weight_hh_l0
    assert len(list(ours.parameters())) == 4
    for model, optimizer in zip((theirs, ours), optimizers, strict=True):
        for _ in range(3):
            optimizer.zero_grad()
            (model(x) ** 2).sum().backward()
            optimizer.step()
        results.append(model(x))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


def test_frozen_parameters_stay_frozen_and_gradients_where_they_were():
    layer = nn.LSTM(4, 6)
    layer.weight_hh_l0.requires_grad_(False)
    layer.bias_ih_l0.grad = torch.ones(24)
    replace_torch_layers(layer)
    assert not layer.weight_hh_l0.requires_grad
    assert layer.bias_ih_l0.grad.eq(1).all()
    layer(torch.randn(5, 2, 4))[0].sum().backward()
    assert layer.weight_hh_l0.grad is None


def test_hooks_go_on_and_can_be_removed():
    layer, seen = nn.LSTM(4, 6), []
    handles = [
        layer.register_forward_pre_hook(
            lambda module, inputs: seen.append(("before", type(module).__name__))
        ),
        layer.register_forward_hook(lambda module, inputs, output: seen.append(("after", output[0].shape))),
        layer.register_full_backward_hook(lambda module, *gradients: seen.append(("backward", module.mode))),
        layer.weight_hh_l0.register_hook(lambda gradient: seen.append(("gradient", gradient.shape))),
        layer.register_load_state_dict_pre_hook(lambda module, *_: seen.append(("load", module.mode))),
    ]
    layer.register_buffer("scale", torch.ones(1))
    replace_torch_layers(layer)
    layer(torch.randn(5, 2, 4, requires_grad=True))[0].sum().backward()
    layer.load_state_dict(layer.state_dict())
    assert "scale" in layer.state_dict()
    expected = [
        ("before", "TorchInterface"),
        ("after", (5, 2, 6)),
        ("gradient", (24, 6)),
        ("backward", "LSTM"),
    ]
    assert sorted(seen[:4]) == sorted(expected)
    assert seen[4:] == [("load", "LSTM")]
    for handle in handles:
        handle.remove()
    layer(torch.randn(5, 2, 4))
    assert len(seen) == 5


NORMS = {
    "weight norm": lambda layer: nn.utils.weight_norm(layer, "weight_hh_l0"),
    "spectral norm": lambda layer: nn.utils.spectral_norm(layer, "weight_hh_l0"),
    "pruning": lambda layer: prune.random_unstructured(layer, "weight_hh_l0", 0.5),
    "parametrization": lambda layer: parametrizations.weight_norm(layer, "weight_hh_l0"),
}


@pytest.mark.parametrize("norm", NORMS)
def test_what_makes_weights_anew_in_every_call_goes_on(norm):
    models = []
    for _ in range(2):  # what holds weights that were computed cannot be copied
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            models.append(nn.Sequential(NORMS[norm](nn.LSTM(4, 4))))
    (theirs, ours), x = models, torch.randn(5, 2, 4)
    replace_torch_layers(ours)
    assert (type(ours[0]) is TorchInterface) == (norm != "parametrization")
    for _ in range(2):
        gradients = []
        for model in (theirs, ours):
            y = model(x)[0]
            gradients.append((y.detach(), *torch.autograd.grad(y.square().sum(), list(model.parameters()))))
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(0.9)
        torch.testing.assert_close(*gradients)
    assert list(ours.state_dict()) == list(theirs.state_dict())


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_wrong_calls_raise_what_torch_raises(kind):
    theirs, ours = pair(kind)
    state = random_state(theirs, 3)
    calls = [
        (torch.randn(5, 3, 7),),
        (torch.randn(5, 3, 4, 2),),
        (torch.randn(5, 3, 4).double(),),
        (torch.randn(5, 2, 4), state),
        (torch.randn(5, 4), state),
    ]
    for arguments in calls:
        with pytest.raises((RuntimeError, ValueError)) as expected:
            theirs(*arguments)
        with pytest.raises(expected.type):
            ours(*arguments)
    # torch.nn.LSTM computes something of these two without complaint.
    for arguments in ((pack_sequence([torch.randn(5, 7)]),), (pack_sequence([torch.randn(5, 4)]), state)):
        with pytest.raises(RuntimeError, match=r"Expected (4, got 7|hidden size)"):
            ours(*arguments)


def test_dropout_between_layers_is_drawn_in_training_alone():
    layer = replace_torch_layers(nn.LSTM(4, 6, 2, dropout=0.5))
    x = torch.randn(5, 2, 4)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    torch.testing.assert_close(layer(x)[0], layer(x)[0], rtol=0, atol=0)


def test_it_compiles_into_one_graph():
    theirs, ours = pair("deep", batch_first=True)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 5, 4)
    torch.testing.assert_close(compiled(x), theirs(x))


def test_an_unknown_backend_is_refused_before_anything_is_changed():
    model = nn.Sequential(nn.LSTM(4, 6))
    with pytest.raises(ValueError, match="unknown backend 'cuda'; there are auto, reference, fused"):
        replace_torch_layers(model, backend="cuda")
    assert type(model[0]) is nn.LSTM


@pytest.mark.parametrize("kind", KINDS)
def test_replaced_layers_can_be_packed(kind):
    theirs, ours = pair(kind)
    model = nn.Sequential(ours.eval())
    pack_for_inference(model)
    assert sum(isinstance(module, PackedLayer) for module in model.modules()) == theirs.num_layers
    assert not list(model.parameters())
    for given in (
        torch.randn(5, 2, 4),
        torch.randn(5, 4),
        pack_sequence([torch.randn(5, 4), torch.randn(2, 4)]),
    ):
        found, expected = model(given), theirs(given)
        if not isinstance(given, torch.Tensor):
            found, expected = (found[0].data, found[1]), (expected[0].data, expected[1])
        torch.testing.assert_close(found, expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_torchscript_is_refused_in_a_sentence():
    layer = RecurrentLayer("lstm", 4, 6)
    modules = [layer, RecurrentStack("lstm", 4, 6), nn.Sequential(replace_torch_layers(nn.LSTM(4, 6)))]
    for module in (*modules, PackedLayer(layer)):
        with pytest.raises(BackendError, match=r"torch\.jit\.script cannot compile .*; use torch\.export"):
            torch.jit.script(module)


@pytest.mark.parametrize("kind", [list, tuple, lambda lengths: torch.tensor(lengths).numpy()])
def test_lengths_may_be_any_sequence(kind):
    layer, x = RecurrentLayer("lstm", 4, 6), torch.randn(3, 5, 4)
    expected = layer(x, torch.tensor([5, 0, 2]))
    torch.testing.assert_close(layer(x, kind([5, 0, 2])), expected, rtol=0, atol=0)
    torch.testing.assert_close(PackedLayer(layer)(x, kind([5, 0, 2]))[0], expected[0].detach())
    assert layer(x[:0], [])[0].shape == (0, 5, 12)


@pytest.mark.parametrize("lengths", [[5, 2], [5, 2, 1.5], ["a", "b", "c"], [True, True, False], [None] * 3])
def test_sequences_that_are_no_lengths_are_refused(lengths):
    with pytest.raises(ValueError, match="lengths must be 3 whole numbers, got"):
        RecurrentLayer("lstm", 4, 6)(torch.randn(3, 5, 4), lengths)
