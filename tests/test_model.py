import itertools

import pytest
import torch

from asr.errors import ConfigError
from asr.model import AcousticModel
from asr.model_config import FrontEndConfig, ModelConfig

LENGTHS = torch.tensor([101, 37, 64, 7, 1])


def random_features(seed: int = 0) -> torch.Tensor:
    return torch.randn(len(LENGTHS), 101, 40, generator=torch.Generator().manual_seed(seed))


def front_end(norm: str, time_strides: tuple[int, ...]) -> FrontEndConfig:
    return FrontEndConfig(
        channels=(4, 6), kernel_sizes=((5, 3), (3, 5)), strides=tuple((s, 2) for s in time_strides), norm=norm
    )


def trained_like(model: AcousticModel) -> AcousticModel:
    """Give batch normalization statistics other than its initial ones."""
    model.train()
    for seed in range(3):
        model(3 * random_features(seed) + 1, LENGTHS)
    return model.eval()


@pytest.mark.parametrize(
    ("norm", "strides", "cell"),
    [
        *itertools.product(("batch", "layer", "none"), ((1, 2), (2, 2)), ("lstm",)),
        ("batch", (2, 1), "gru"),
        ("layer", (2, 2), "rnn_tanh"),
    ],
)
@torch.no_grad()
def test_result_does_not_depend_on_the_batch_or_on_padding(norm, strides, cell):
    torch.manual_seed(1)
    config = ModelConfig(front_end=front_end(norm, strides), cell=cell, layers=2, hidden_size=13)
    model = trained_like(AcousticModel(config, 40, 11))
    features = random_features()
    together, lengths = model(features, LENGTHS)
    poisoned, _ = model(  # what lies in the padding must not matter, however much there is
        torch.nn.functional.pad(features, (0, 0, 0, 50), value=1e6).where(
            (torch.arange(151) < LENGTHS[:, None])[..., None], torch.tensor(1e6)
        ),
        LENGTHS,
    )
    for index, frames in enumerate(LENGTHS.tolist()):
        alone, own_length = model(features[index : index + 1, :frames], LENGTHS[index : index + 1])
        assert own_length == lengths[index]
        assert alone.shape[1] == own_length
        torch.testing.assert_close(together[index, : lengths[index]], alone[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(poisoned[index, : lengths[index]], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("strides", [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2)])
def test_output_lengths_tell_what_the_front_end_does(strides):
    model = AcousticModel(ModelConfig(front_end=front_end("none", strides), layers=1, hidden_size=4), 40, 5)
    assert model.subsampling == strides[0] * strides[1]
    for frames in range(1, 40):
        logits, lengths = model(torch.randn(1, frames, 40), torch.tensor([frames]))
        assert model.output_lengths(torch.tensor([frames])).tolist() == lengths.tolist() == [logits.shape[1]]
    assert model.output_lengths(torch.tensor([0])).tolist() == [0]


def test_batch_normalization_ignores_padding_in_training():
    torch.manual_seed(1)
    config = ModelConfig(front_end=front_end("batch", (2, 2)), layers=1, hidden_size=4, dropout=0.0)
    model = AcousticModel(config, 40, 5)
    features = random_features()
    short, _ = model(features, LENGTHS)
    padded, _ = model(torch.nn.functional.pad(features, (0, 0, 0, 60)), LENGTHS)
    torch.testing.assert_close(padded[:, : short.shape[1]][0], short[0], atol=1e-5, rtol=1e-5)


def test_every_parameter_receives_a_gradient():
    model = AcousticModel(ModelConfig(front_end=front_end("batch", (2, 2)), layers=2, hidden_size=5), 40, 7)
    logits, _ = model(random_features(), LENGTHS)
    logits.square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_utterance_without_frames_is_allowed():
    model = AcousticModel(
        ModelConfig(front_end=front_end("layer", (2, 2)), layers=1, hidden_size=5), 40, 7
    ).eval()
    logits, lengths = model(random_features()[:2], torch.tensor([101, 0]))
    assert lengths.tolist() == [26, 0]
    assert torch.isfinite(logits).all()


def test_the_recurrent_layers_begin_as_configured():
    model = AcousticModel(ModelConfig(hidden_size=8, init="orthogonal", forget_bias=1.0), 16, 5)
    for layer in model.recurrent:
        gate = layer.weight_hh_l0[:8]
        torch.testing.assert_close(gate @ gate.T, torch.eye(8))
        assert (layer.bias_ih_l0[8:16] == 1).all()


def test_contradicting_front_end_is_refused():
    with pytest.raises(ConfigError, match="2 channels, 1 kernel_sizes"):
        FrontEndConfig(channels=(4, 4), kernel_sizes=((3, 3),))
    with pytest.raises(ConfigError, match="expected odd numbers"):
        FrontEndConfig(channels=(4,), kernel_sizes=((4, 3),), strides=((2, 2),))
