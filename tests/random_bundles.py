"""Small bundles with random weights, for engines to agree on."""

import itertools

import numpy as np
import torch

from asr.features import FeatureConfig
from asr.features.log_mel import LogMel
from asr.model import AcousticModel
from asr.model_config import FrontEndConfig
from asr.recurrent.cells import CELLS
from asr.text import CharacterTokenizer
from asr.torch_bundle import TorchBundle

RATE = 8000
SMALL = FeatureConfig(
    sample_rate=RATE, n_fft=256, win_length=201, hop_length=80, n_mels=13, f_max=3500.0, normalize="utterance"
)
FRONT = FrontEndConfig(channels=(3, 4), kernel_sizes=((3, 5), (5, 3)), strides=((2, 2), (1, 3)), norm="batch")
LENGTHS = (6017, 3999, 0, 80, 1, 79, 2400)


def speech(lengths=LENGTHS, seed=0, scale=0.1):
    """Noise whose loudness and pitch vary, padded by loud values that must not matter."""
    generator = np.random.default_rng(seed)
    samples = np.full((len(lengths), max(lengths)), 0.7, np.float32)
    for row, length in zip(samples, lengths, strict=True):
        time = np.arange(length) / RATE
        tone = np.sin(2 * np.pi * generator.uniform(150, 900) * time) * (1 + np.sin(7 * time))
        row[:length] = scale * (tone + 0.05 * generator.standard_normal(length))
    return samples


def random_parts(features, config, seed=1):
    """A model with random weights and statistics everywhere, and its features."""
    torch.manual_seed(seed)
    log_mel = LogMel(features)
    model = AcousticModel(config, features.n_mels, vocab_size=7).eval()
    with torch.no_grad():
        for name, value in itertools.chain(model.named_parameters(), model.named_buffers()):
            if "norm" in name and value.is_floating_point():
                value.uniform_(0.5, 1.5)
        if features.normalize == "global":
            log_mel.fit_statistics(
                row[:length] for row, length in zip(speech(), LENGTHS, strict=True) if length
            )
    return model, log_mel


def bundle_of(model, log_mel):
    letters = CharacterTokenizer(list(" abcde"))
    return TorchBundle(model, log_mel, letters, "basic").bundle()


def options_of(cell):
    """What a cell may be asked for besides."""
    yield {}
    yield {"zoneout": 0.2}
    if CELLS[cell].lstm_family:
        yield {"proj_size": 3}
        yield {"proj_size": 2, "zoneout": 0.1}
    if CELLS[cell].lstm_family and not CELLS[cell].peepholes:
        yield {"layer_norm": True}
        yield {"layer_norm": True, "proj_size": 3}
