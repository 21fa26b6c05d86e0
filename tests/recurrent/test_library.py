"""What torch builds around an operator: checks, compiling, exporting, autocast, checkpointing, data parallelizm."""

import os

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from asr.errors import BackendError
from asr.recurrent import CELLS, PackedLayer, RecurrentLayer, replace_torch_layers

LENGTHS = torch.tensor([7, 0, 3])
FIELDS = "weight_ih,weight_hh,bias_ih,bias_hh"


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return RecurrentLayer("lstm", 6, 5, backend="fused")


@pytest.fixture
def x():
    return torch.randn(3, 7, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)


# Memory behind a ragged batch's frames is never written: what compares its values needs a dense batch.
@pytest.mark.parametrize(
    ("lengths", "checks"),
    [
        (
            torch.full((3,), 7),
            ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic"),
        ),
        (LENGTHS, ("test_schema", "test_autograd_registration", "test_faketensor")),
    ],
    ids=["dense", "ragged"],
)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # opcheck looks at clones
def test_opcheck(layer, x, lengths, checks):
    weights = [getattr(layer, f"{name}_l0{side}") for side in ("", "_reverse") for name in FIELDS.split(",")]
    state = [torch.zeros(2, 3, 5, requires_grad=True) for _ in range(2)]
    arguments = (x, lengths, state, weights, [], "lstm", FIELDS, "", [5, 5], [0.0] * 4, "training")
    torch.library.opcheck(torch.ops.asr.recurrent.default, arguments, test_utils=checks)
    strided = (x.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_(), lengths)
    state = [part.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for part in state]
    arguments = (*strided, state, *arguments[3:])
    torch.library.opcheck(torch.ops.asr.recurrent.default, arguments, test_utils=checks)


@pytest.mark.parametrize("cell", CELLS)
def test_gradcheck_of_the_reference(cell):
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, 2, 3, backend="reference").double()
    x = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([3, 2])
    assert torch.autograd.gradcheck(lambda x: layer(x, lengths)[0], x)
    assert torch.autograd.gradgradcheck(lambda x: layer(x, lengths)[0], x)


def test_compile_keeps_one_graph(layer, x):
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    found, expected = compiled(x, LENGTHS)[0], layer(x, LENGTHS)[0]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), x) for y in (found, expected)))


def test_zoneout_compiles_into_the_graph(x):
    layer = RecurrentLayer("lstm", 6, 5, zoneout_hidden=0.5, zoneout_cell=0.5, backend="fused")
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    y = compiled(x, LENGTHS)[0]
    assert torch.isfinite(torch.autograd.grad(y.sum(), x)[0]).all()


@pytest.mark.slow
def test_inductor_compiles_a_model_of_torchs_layout(monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")
    model = nn.Sequential(nn.Linear(6, 6), replace_torch_layers(nn.LSTM(6, 5)))
    x = torch.randn(7, 3, 6)
    found, expected = torch.compile(model)(x)[0], model(x)[0]
    gradients = [torch.autograd.grad(y.square().sum(), list(model.parameters())) for y in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_export_with_dynamic_batch_and_frames(layer, x):
    batch, frame = torch.export.Dim("batch"), torch.export.Dim("frame")
    shapes = {"x": {0: batch, 1: frame}, "lengths": {0: batch}}
    program = torch.export.export(layer.eval(), (x.detach(), LENGTHS), dynamic_shapes=shapes)
    other, lengths = torch.randn(5, 9, 6), torch.tensor([9, 2, 3, 4, 5])
    torch.testing.assert_close(program.module()(other, lengths)[0], layer(other, lengths)[0])


@pytest.mark.filterwarnings("ignore:.*torch.jit:", "ignore::torch.jit.TracerWarning")
def test_a_trace_holds_the_layer_and_not_its_result(layer, x):
    with torch.no_grad():
        traced = torch.jit.trace(layer, (x, LENGTHS), check_trace=False)
        torch.testing.assert_close(traced(2 * x, LENGTHS), layer(2 * x, LENGTHS))
        with pytest.raises(BackendError, match=r"torch\.jit\.trace cannot look into a packed layer"):
            torch.jit.trace(PackedLayer(layer), (x, LENGTHS), check_trace=False)


# torch's own rules for derivatives are written in TorchScript, which warns.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
@pytest.mark.parametrize("grad", [True, False])
def test_forward_derivatives_and_vmap_are_refused_by_name_and_left_to_the_reference_by_auto(layer, x, grad):
    x, tangent = x.detach(), torch.ones_like(x)
    expected = {}
    with torch.set_grad_enabled(grad):
        for layer.backend in ("reference", "auto", "fused"):

            def run(x):
                return layer(x, LENGTHS)[0]

            def dual(x):
                with forward_ad.dual_level():
                    return forward_ad.unpack_dual(run(forward_ad.make_dual(x, tangent))).tangent

            for name, transformed in {
                "jvp": lambda x: torch.func.jvp(run, (x,), (tangent,))[1],
                "dual": dual,
                "vmap": lambda x: torch.func.vmap(run)(torch.stack([x, 2 * x])),
                "grad": torch.func.grad(lambda x: run(x).square().sum()),
            }.items():
                if layer.backend == "fused":
                    with pytest.raises(BackendError, match=r"torch\.func and forward-mode differentiation"):
                        transformed(x)
                else:
                    found = transformed(x)
                    torch.testing.assert_close(found, expected.setdefault(name, found))
                    assert found.any()


def test_autocast_feeds_it_bfloat16(layer, x):
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = layer(nn.Linear(6, 6)(x), LENGTHS)
    y.float().sum().backward()
    assert torch.isfinite(x.grad).all()


def test_activation_checkpointing(layer, x):
    y = checkpoint(lambda x: layer(x, LENGTHS)[0], x, use_reentrant=False)
    (found,) = torch.autograd.grad(y.square().sum(), x)
    (expected,) = torch.autograd.grad(layer(x, LENGTHS)[0].square().sum(), x)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def _train_in_parallel(rank, address, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    torch.manual_seed(0)
    layer = nn.parallel.DistributedDataParallel(RecurrentLayer("gru", 4, 5, backend="fused"))
    x = torch.randn(2, 3, 6, 4)[rank]
    layer(x, torch.tensor([6, 2, 4]))[0].sum().backward()
    torch.save([p.grad for p in layer.parameters()], f"{folder}/{rank}")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_data_parallel_training_averages_gradients(tmp_path):
    address = f"file://{tmp_path}/rendezvous"
    torch.multiprocessing.spawn(_train_in_parallel, (address, str(tmp_path)), nprocs=2)
    first, second = (torch.load(os.path.join(tmp_path, str(rank))) for rank in range(2))  # noqa: PTH118
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_bfloat16_inference_compiles_to_the_same():
    layer = RecurrentLayer("lstm", 6, 5, backend="fused").eval().bfloat16()
    x, lengths = torch.randn(3, 7, 6).bfloat16(), torch.tensor([7, 0, 3])
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        (y, final), (expected, expected_final) = compiled(x, lengths), layer(x, lengths)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close((y, *final), (expected, *expected_final), rtol=0, atol=0)
