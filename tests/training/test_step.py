"""The gradients of a batch, whatever is wrong with it."""

import copy
import dataclasses
import weakref

import pytest
import torch

from asr.ctc import ctc_loss
from asr.data import Batch
from asr.errors import ConfigError
from asr.model import AcousticModel
from asr.model_config import FrontEndConfig, ModelConfig
from asr.training.config import LossConfig, OptimizerConfig
from asr.training.optimizer import make_optimizer
from asr.training.step import GradientMaker

LENGTHS = (60, 48, 40, 32)


@pytest.fixture
def model():
    torch.manual_seed(0)
    front_end = FrontEndConfig(
        channels=(4, 4), norm="layer"
    )  # batch normalization would tell halves from wholes
    return AcousticModel(ModelConfig(front_end=front_end, layers=3, hidden_size=8, dropout=0.0), 16, 6)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor(LENGTHS)
    inside = torch.arange(60) < lengths.unsqueeze(1)
    return Batch(
        features=torch.randn(4, 60, 16, generator=generator) * inside.unsqueeze(-1),
        feature_lengths=lengths,
        tokens=torch.tensor([[1, 2, 3], [4, 5, 0], [2, 0, 0], [3, 1, 0]]),
        token_lengths=torch.tensor([3, 2, 1, 2]),
        ids=["a", "b", "c", "d"],
        texts=["", "", "", ""],
        seconds=1.8,
    )


def gradients(model, batch, config=None):
    maker = GradientMaker(model, config or LossConfig())
    model.zero_grad()
    loss = maker.add(batch, float(batch.token_lengths.sum()))
    return loss, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, maker


def assert_same(left, right):
    assert left[0] == pytest.approx(right[0], rel=1e-5)
    torch.testing.assert_close(left[1], right[1], rtol=1e-4, atol=1e-6)


def test_a_batch_too_large_for_the_memory_is_halved(model, batch, monkeypatch):
    whole = gradients(model, batch)
    forward, sizes = model.forward, []

    def small(features, lengths):
        sizes.append(len(features))
        if len(features) > 1:
            raise torch.OutOfMemoryError("no memory")
        return forward(features, lengths)

    monkeypatch.setattr(model, "forward", small)
    assert_same(gradients(model, batch), whole)
    assert sizes == [4, 2, 1, 1, 2, 1, 1]


def test_what_did_not_fit_is_gone_before_its_halves_are_tried(model, batch, monkeypatch):
    """Memory runs out in the backward pass as a rule, where all activations are kept."""
    forward, grad, kept = model.forward, torch.autograd.grad, []

    def counted(features, lengths):
        assert [each() for each in kept] == [None] * len(kept)
        logits, lengths = forward(features, lengths)
        kept.append(weakref.ref(logits))
        return logits, lengths

    def small(*arguments, **options):
        if len(kept) == 1:
            raise torch.OutOfMemoryError("no memory")
        return grad(*arguments, **options)

    monkeypatch.setattr(model, "forward", counted)
    monkeypatch.setattr(torch.autograd, "grad", small)
    gradients(model, batch)
    assert len(kept) == 3


def test_an_utterance_too_large_for_the_memory_is_left_out(model, batch, monkeypatch):
    forward = model.forward

    def small(features, lengths):
        if lengths.max() > 50:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return forward(features, lengths)

    monkeypatch.setattr(model, "forward", small)
    _, found, maker = gradients(model, batch)
    assert list(maker.left_out) == ["a"]
    assert "do not fit into memory" in maker.left_out["a"]
    assert found
    monkeypatch.setattr(model, "forward", lambda *_: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        gradients(model, batch)


def test_faulty_utterances_are_left_out_and_named(model, batch):
    batch.features[1, 3, 3] = float("nan")
    batch.feature_lengths[2] = 0
    batch.token_lengths[3] = 0
    maker = GradientMaker(model, LossConfig())
    assert maker.usable(batch).ids == ["a"]
    assert maker.left_out == {
        "b": "its features are not finite",
        "c": "its 1 tokens need at least 1 frames of logits but its audio gives 0",
        "d": "its transcript is empty",
    }


def test_a_loss_that_is_not_finite_leaves_no_gradient(model, batch):
    with torch.no_grad():
        model.output.bias[0] = float("nan")
    loss, found, maker = gradients(model, batch)
    assert loss != loss
    assert not found
    assert "a: " in maker.faults[0]


def test_activation_checkpointing_changes_nothing(model, batch):
    model.train()
    plain = gradients(model, batch)
    again = copy.deepcopy(model)
    again.checkpoint_activations = True
    assert_same(gradients(again, batch), plain)


def test_lower_layers_recognize_too(model, batch):
    torch.testing.assert_close(
        model.forward(batch.features, batch.feature_lengths)[0],
        model.score(_hidden(model, batch, 2)),
    )
    plain = gradients(model, batch)[0]
    config = LossConfig(intermediate_layers=(1,), intermediate_weight=0.5)
    loss, found, _ = gradients(model, batch, config)
    logits = model.score(_hidden(model, batch, 0))
    lengths = model.output_lengths(batch.feature_lengths)
    lower = ctc_loss(logits, lengths, batch.tokens, batch.token_lengths).item()
    assert loss == pytest.approx((plain + lower) / 2, rel=1e-5)
    assert len(found) == len(list(model.parameters()))
    with pytest.raises(ConfigError, match="layers from 1 to 2"):
        gradients(model, batch, LossConfig(intermediate_layers=(3,)))


def _hidden(model, batch, layer):
    kept = []
    handle = model.recurrent[layer].register_forward_hook(lambda _m, _i, output: kept.append(output[0]))
    model(batch.features, batch.feature_lengths)
    handle.remove()
    return kept[0]


def test_label_smoothing_leaves_padding_out(model, batch):
    config = LossConfig(label_smoothing=0.1)
    whole = gradients(model, batch, config)[0]
    alone = [gradients(model, batch.select([i]), config) for i in range(4)]
    weights = batch.token_lengths / batch.token_lengths.sum()
    assert whole == pytest.approx(
        sum(float(w) * loss for w, (loss, *_) in zip(weights, alone, strict=True)), rel=1e-5
    )


def test_views_are_drawn_together(model, batch):
    """Twins cost nothing; two versions each learn from the other, in a batch as alone, padding left out."""
    config = LossConfig(consistency=0.5)
    twins = dataclasses.replace(batch.select([0, 0, 1, 1, 2, 2, 3, 3]), views=2)
    assert gradients(model, twins, config)[0] == pytest.approx(gradients(model, batch)[0], rel=1e-5)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(twins.features.shape, generator=generator)
    pairs = dataclasses.replace(twins, features=twins.features + noise * (twins.features != 0))
    together, found, _ = gradients(model, pairs, config)
    assert together > 1.01 * gradients(model, pairs)[0]
    alone = [gradients(model, pairs.select([2 * i, 2 * i + 1]), config)[0] for i in range(4)]
    weights = batch.token_lengths / batch.token_lengths.sum()
    assert together == pytest.approx(
        sum(float(w) * loss for w, loss in zip(weights, alone, strict=True)), rel=1e-5
    )

    forward = model.forward

    def small(features, lengths):
        if len(features) > 2:
            raise torch.OutOfMemoryError("no memory")
        return forward(features, lengths)

    model.forward = small
    assert_same(gradients(model, pairs, config), (together, found))


def test_a_fault_in_one_view_takes_its_sister_along(model, batch):
    pairs = dataclasses.replace(batch.select([0, 0, 1, 1, 2, 2, 3, 3]), views=2)
    pairs.features[3, 0] = float("nan")
    maker = GradientMaker(model, LossConfig(consistency=0.2))
    usable = maker.usable(pairs)
    assert usable.views == 2
    assert usable.ids == [pairs.ids[index] for index in (0, 1, 4, 5, 6, 7)]
    assert set(maker.left_out) == {pairs.ids[2]}


def test_gains_of_normalizations_do_not_decay():
    config = ModelConfig(front_end=FrontEndConfig(channels=(4, 4), norm="layer"), layers=1, hidden_size=8)
    model = AcousticModel(config, 16, 6)
    groups = make_optimizer(model, OptimizerConfig(weight_decay=0.1)).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    decaying = {name for name, parameter in model.named_parameters() if decay[id(parameter)]}
    convolutions = {f"front_end.layers.{layer}.conv.weight" for layer in (0, 1)}
    recurrent = {name for name, _ in model.named_parameters() if name.startswith("recurrent.0.weight")}
    assert decaying == convolutions | recurrent | {"output.weight"}


def test_a_step_is_that_of_plain_adamw(batch):
    """Every weight moves as by its own gradient, however a convolution lays it out in memory."""
    torch.manual_seed(0)
    front_end = FrontEndConfig(channels=(4, 4), norm="batch")
    model = AcousticModel(ModelConfig(front_end=front_end, layers=1, hidden_size=8, dropout=0.0), 16, 6)
    plain = copy.deepcopy(model)
    config = OptimizerConfig(learning_rate=0.01)
    optimizer = make_optimizer(model, config)
    tokens = float(batch.token_lengths.sum())
    for part in (batch.select([0, 1]), batch.select([2, 3])):  # two batches a step
        GradientMaker(model, LossConfig()).add(part, tokens)
        share = part.token_lengths.sum() / tokens
        logits, lengths = plain(part.features, part.feature_lengths)
        (share * ctc_loss(logits, lengths, part.tokens, part.token_lengths, part.ids)).backward()
    optimizer.step()
    decay = [
        {"params": [p for p in plain.parameters() if (p.dim() > 1) == is_matrix], "weight_decay": rate}
        for is_matrix, rate in ((True, config.weight_decay), (False, 0.0))
    ]
    torch.optim.AdamW(decay, lr=0.01, betas=config.betas, fused=False, foreach=False).step()
    torch.testing.assert_close(
        dict(model.named_parameters()), dict(plain.named_parameters()), rtol=0, atol=1e-4
    )
