"""The fused CPU kernels against the reference in float64: every cell, forward and every gradient."""

import copy
import itertools
import threading

import pytest
import torch
from calls import converted, make_call, outputs_and_gradients

from asr.errors import BackendError
from asr.recurrent import CELLS, RecurrentLayer, pack_for_inference, reference
from asr.recurrent.cpu import backend

LSTM_FAMILY = [name for name, cell in CELLS.items() if cell.lstm_family]
NOISE = {"recurrent_dropout": 0.3, "zoneout_hidden": 0.2}


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch):
    """Fill every fresh tensor with NaN, so that an element that a kernel forgets shows."""
    torch.use_deterministic_algorithms(True)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    yield
    torch.use_deterministic_algorithms(False)


def check(cell, batch, frames, input_size, hidden_size, *, ragged=True, contiguous=True, **options):
    """The kernels' error against float64 is at most twice the reference's own in float32, or 3e-6."""
    torch.manual_seed(batch + frames + hidden_size)
    lengths = torch.randint(0, frames + 1, (batch,)) if ragged else torch.full((batch,), frames)
    sizes = {"frames": frames, "input_size": input_size, "hidden_size": hidden_size}
    call = make_call(cell, lengths, **sizes, **options)
    if not contiguous:
        call = call._replace(x=torch.randn(frames, input_size, batch).permute(2, 0, 1).requires_grad_())
    truth = outputs_and_gradients(reference.run, converted(call, torch.float64))
    # Where a row is divided by a small deviation, the last bit of x moves the reference's own error tenfold.
    shaken = [call._replace(x=shake(call.x)) for _ in range(4 * options.get("layer_norm", False))]
    plain = [outputs_and_gradients(reference.run, own) for own in (call, *shaken)]
    fused = outputs_and_gradients(backend.run, call)
    assert backend.refusal(call) is None
    for name, expected in truth.items():
        scale = max(expected.abs().max().item(), 0.1) if expected.numel() else 1.0
        error = (fused[name] - expected).abs().amax().item() / scale if expected.numel() else 0.0
        errors = [(own[name] - expected).abs().amax().item() / scale for own in plain if expected.numel()]
        allowed = max(errors, default=0.0)
        assert error <= max(3e-6, 2 * allowed), f"{name}: error {error:.1e}, the reference's is {allowed:.1e}"


def shake(x):
    """Move each number by its last bit, or leave it."""
    return (x.detach() * (1 + torch.randint(-1, 2, x.shape) * 2.0**-23)).requires_grad_()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("batch", "frames", "input_size", "hidden_size"),
    [(1, 1, 1, 1), (3, 5, 7, 7), (13, 4, 40, 100), (7, 1, 3, 5), (2, 200, 5, 16)],
)
def test_ragged_batches(cell, batch, frames, input_size, hidden_size):
    check(cell, batch, frames, input_size, hidden_size)


@pytest.mark.parametrize("cell", CELLS)
def test_dense_unidirectional_and_without_bias(cell):
    check(cell, 5, 7, 6, 9, ragged=False)
    check(cell, 5, 7, 6, 9, bidirectional=False, bias=False)
    check(cell, 5, 7, 6, 9, contiguous=False)


@pytest.mark.parametrize("cell", CELLS)
def test_masks_and_zoneout(cell):
    zoneout_cell = {"zoneout_cell": 0.3} if CELLS[cell].lstm_family else {}
    check(cell, 5, 7, 6, 19, **NOISE, **zoneout_cell)


def test_gru_with_the_reset_gate_before_the_product():
    check("gru", 5, 7, 6, 19, reset="before")
    check("gru", 5, 7, 6, 19, reset="before", **NOISE)


@pytest.mark.parametrize("cell", LSTM_FAMILY)
def test_projection_and_clipping(cell):
    check(cell, 5, 7, 6, 19, proj_size=5)
    check(cell, 5, 7, 6, 39, proj_size=35, proj_clip=0.15, **NOISE, zoneout_cell=0.1)
    check(cell, 5, 7, 6, 19, cell_clip=0.3)


@pytest.mark.parametrize("cell", ["lstm", "cifg"])
def test_layer_normalization(cell):
    check(cell, 5, 7, 6, 19, layer_norm=True)
    check(cell, 5, 7, 6, 39, layer_norm=True, proj_size=35, cell_clip=0.9, **NOISE, zoneout_cell=0.1)


def test_wide_layer_and_large_batch():
    check("lstm", 2, 3, 600, 513)
    check("gru", 70, 4, 9, 33)


def test_nothing_to_do():
    layer = RecurrentLayer("lstm", 3, 4, backend="fused")
    x = torch.randn(2, 5, 3, requires_grad=True)
    y, (h, c) = layer(x, torch.tensor([0, 0]))
    assert not y.any()
    assert not h.any()
    assert not c.any()
    y.sum().backward()
    assert x.grad is not None
    assert not x.grad.any()
    assert layer(torch.randn(2, 0, 3), torch.tensor([0, 0]))[0].shape == (2, 0, 8)
    assert layer(torch.randn(0, 5, 3), torch.empty(0, dtype=torch.int64))[0].shape == (
        0,
        5,
        8,
    )


def test_evaluation_uses_the_zoneout_rates_expectation():
    layer = RecurrentLayer("lstm", 3, 4, zoneout_hidden=0.2, zoneout_cell=0.4).eval()
    x, lengths = torch.randn(2, 5, 3), torch.tensor([5, 3])
    results = {}
    for layer.backend in ("reference", "fused"):
        results[layer.backend] = layer(x, lengths)[0]
    torch.testing.assert_close(results["fused"], results["reference"])


@pytest.mark.parametrize("cell", CELLS)
def test_chunks_with_carried_state_give_the_same(cell):
    layer = RecurrentLayer(cell, 3, 9, bidirectional=False, backend="fused").eval()
    x, lengths = torch.randn(4, 11, 3), torch.tensor([11, 6, 0, 4])
    with torch.no_grad():
        whole, final = layer(x, lengths)
        parts, state = [], None
        for start, end in itertools.pairwise([0, 4, 5, 11]):
            part, state = layer(x[:, start:end], (lengths - start).clamp(0, end - start), state)
            parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=0)
    torch.testing.assert_close(state, final, rtol=0, atol=0)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_results_do_not_depend_on_the_number_of_threads(cell):
    layer = RecurrentLayer(cell, 40, 150, backend="fused")
    x, lengths = torch.randn(9, 6, 40, requires_grad=True), torch.randint(0, 7, (9,))
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3, 7):
            torch.set_num_threads(count)
            y, _ = layer(x, lengths)
            found.append((y.detach(), *torch.autograd.grad(y.sum(), [x, *layer.parameters()])))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=0)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_single_utterances_are_the_same_on_any_number_of_threads_from_several_at_once(cell):
    layer = RecurrentLayer(cell, 40, 150, backend="fused").eval()
    packed, x, lengths = pack_for_inference(copy.deepcopy(layer)), torch.randn(1, 60, 40), torch.tensor([60])
    threads, found = torch.get_num_threads(), []

    @torch.no_grad()
    def work(count):
        torch.set_num_threads(count)
        found.extend(run(x, lengths)[0] for _ in range(20) for run in (layer, packed))

    try:
        work(1)
        workers = [threading.Thread(target=work, args=(count,)) for count in (2, 2, 2, 4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 5 * 40
    assert all(torch.equal(y, found[0]) for y in found)


def test_two_python_threads_do_not_disturb_each_other():
    layers = [RecurrentLayer(cell, 8, 40, backend="fused") for cell in ("lstm", "gru")]
    x, lengths = torch.randn(6, 20, 8), torch.randint(0, 21, (6,))

    def gradients(layer):
        y, _ = layer(x, lengths)
        return torch.autograd.grad(y.square().sum(), list(layer.parameters()))

    alone = [gradients(layer) for layer in layers]
    together = [[], []]

    def work(i):
        together[i] = [gradients(layers[i]) for _ in range(5)]

    workers = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for expected, rounds in zip(alone, together, strict=True):
        assert len(rounds) == 5
        for found in rounds:
            torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("ours", ["lstm", "gru"])
def test_bfloat16_inference_errs_at_most_twice_as_much_as_torch(ours):
    torch.manual_seed(0)
    theirs = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[ours](20, 33, bidirectional=True, batch_first=True)
    layer = RecurrentLayer(ours, 20, 33, backend="fused")
    layer.load_state_dict(theirs.state_dict())
    x, lengths = torch.randn(4, 30, 20), torch.full((4,), 30)
    with torch.no_grad():
        truth = layer.to(torch.bfloat16).double()
        truth.backend = "reference"
        expected = truth(x.bfloat16().double(), lengths)[0]
        layer = layer.to(torch.bfloat16)
        layer.backend = "fused"
        found = layer(x.bfloat16(), lengths)[0]
        torchs = theirs.to(torch.bfloat16)(x.bfloat16())[0]
    assert found.dtype == torch.bfloat16
    assert (found - expected).abs().max() <= 2 * (torchs - expected).abs().max()


def test_fused_refuses_by_name():
    layer = RecurrentLayer("lstm", 3, 4, backend="fused").double()
    with pytest.raises(BackendError, match="float64"):
        layer(torch.randn(2, 5, 3, dtype=torch.float64), torch.tensor([5, 5]))
    with pytest.raises(ValueError, match="lengths must lie within 0 and the 5 frames"):
        layer.float()(torch.randn(2, 5, 3), torch.tensor([5, 6]))
    x = torch.randn(2, 5, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x, torch.tensor([5, 3]))[0].sum(), x, create_graph=True)
    with pytest.raises(BackendError, match="differentiate twice"):
        gradient.sum().backward()


X, L = torch.zeros(4, 5, 6), torch.tensor([5, 3, 0, 1])
STATE = (torch.zeros(2, 4, 3), torch.zeros(2, 4, 3))


@pytest.mark.parametrize("backend", ["fused", "reference", "int8"])
@pytest.mark.parametrize(
    ("x", "lengths", "state", "message"),
    [
        (torch.zeros(4, 5, 9), L, None, r"x must be floating point \(batch, frame, 6\)"),
        (X.long(), L, None, "x must be floating point"),
        (X, L[:1], None, "lengths must be 4 whole numbers"),
        (X, L.float(), None, "lengths must be 4 whole numbers"),
        (X, L, STATE[0], "the state must have the shapes"),
        (
            X,
            L,
            (STATE[0][:, :1], STATE[1][:, :1]),
            r"the state must have the shapes \[\(2, 4, 3\), \(2, 4, 3\)\], got",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_told_before_any_kernel_reads_memory(backend, x, lengths, state, message):
    layer = RecurrentLayer("lstm", 6, 3, backend="auto" if backend == "int8" else backend)
    if backend == "int8":
        layer = pack_for_inference(layer.eval(), "int8")
    with pytest.raises(ValueError, match=message):
        layer(x, lengths, state)


@pytest.mark.parametrize("backend", ["fused", "reference"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32])
def test_lengths_may_have_any_width(backend, dtype):
    layer = RecurrentLayer("rnn_tanh", 1, 2, backend=backend)
    x, lengths = torch.randn(2, 300, 1), torch.tensor([100, 7])
    torch.testing.assert_close(layer(x, lengths.to(dtype)), layer(x, lengths), rtol=0, atol=0)


def test_tensors_of_several_devices_are_told():
    layer = RecurrentLayer("lstm", 6, 3, backend="fused").to("meta")
    with (
        torch.no_grad(),
        pytest.raises(ValueError, match="x is on the cpu, but another tensor of the layer on meta"),
    ):
        layer(X, L)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reset": "Before"}, "unknown reset 'Before'"),
        ({"recurrent_dropout": 1.0}, "recurrent_dropout must be 0 or more and less than 1"),
        ({"zoneout_hidden": 1.5}, "zoneout_hidden must lie within 0 and 1"),
        ({"cell_clip": -1.0}, "bounds must be 0"),
        ({"proj_clip": 1.0}, "there is no projection to clip"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RecurrentLayer("lstm", 6, 3, **options)


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (-1, 3)])
def test_layers_without_inputs_or_units_are_refused(sizes):
    with pytest.raises(ValueError, match="input_size and hidden_size must be at least 1, got"):
        RecurrentLayer("lstm", *sizes)


@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_what_padding_holds_reaches_neither_outputs_nor_gradients(backend):
    layer = RecurrentLayer("lstm", 6, 3, backend=backend)
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(4, 5, 6, generator=generator)
    dirty = clean.clone()
    dirty[torch.arange(5) >= L.unsqueeze(1)] = float("nan")
    outputs = [layer(x, L)[0] for x in (clean, dirty)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=0)
    gradients = [torch.autograd.grad(y.sum(), list(layer.parameters())) for y in outputs]
    torch.testing.assert_close(gradients[1], gradients[0])


def test_the_gradient_of_the_input_is_made_only_where_it_is_wanted():
    layer = RecurrentLayer("lstm", 6, 3, backend="fused")
    x = torch.randn(4, 5, 6)
    expected = torch.autograd.grad(layer(x.clone().requires_grad_(), L)[0].sum(), list(layer.parameters()))
    found = torch.autograd.grad(layer(x, L)[0].sum(), list(layer.parameters()))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_zoneout_masks_hold_ones_at_their_rate():
    layer = RecurrentLayer("lstm", 3, 50, zoneout_hidden=0.1, zoneout_cell=0.7)
    torch.manual_seed(0)
    noise = layer.draw_noise(torch.zeros(7, 301, 3))
    for mask, rate in ((noise.zoneout_hidden, 0.1), (noise.zoneout_cell, 0.7)):
        assert set(mask.unique().tolist()) == {0.0, 1.0}
        assert mask.shape == (7, 301, 50)
        assert abs(mask.mean().item() - rate) < 4 * (rate * (1 - rate) / mask.numel()) ** 0.5
        for axis in (0, 1, 2):  # nothing repeats along an axis: neighbors agree as often as chance has it
            agree = (
                mask.narrow(axis, 1, mask.shape[axis] - 1) == mask.narrow(axis, 0, mask.shape[axis] - 1)
            ).float()
            assert abs(agree.mean().item() - (rate**2 + (1 - rate) ** 2)) < 0.01
    for rate in (0.0, 1.0):
        ones = RecurrentLayer("lstm", 3, 5, zoneout_cell=rate).draw_noise(torch.zeros(2, 4, 3)).zoneout_cell
        assert torch.as_tensor(ones).eq(rate).all()
