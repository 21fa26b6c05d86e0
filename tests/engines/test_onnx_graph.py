"""The ONNX graph of a bundle against the torch model: every cell, ragged batches, both directions, odd sizes."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from random_bundles import FRONT, LENGTHS, RATE, SMALL, bundle_of, options_of, random_parts, speech

from asr.bundle import BUNDLES, Bundle
from asr.engines.onnx_graph import recognition_graph
from asr.errors import BundleError
from asr.features import FeatureConfig
from asr.model_config import FrontEndConfig, ModelConfig
from asr.recurrent.cells import CELLS
from asr.torch_bundle import TorchBundle

AN4 = BUNDLES / "an4"


def session_of(model, log_mel):
    graph = recognition_graph(bundle_of(model, log_mel))
    onnx.checker.check_model(graph.serialized(), full_check=True)
    return graph.session(threads=1)


def by_graph(session, samples, lengths):
    log_probs, frames = session.run(None, {"waveform": samples, "lengths": np.array(lengths, np.int64)})
    return [row[:count] for row, count in zip(log_probs, frames, strict=True)]


@torch.inference_mode()
def by_torch(model, log_mel, samples, lengths):
    features, frames = log_mel(torch.from_numpy(samples), torch.tensor(lengths), leveled=True)
    logits, frames = model(features, frames)
    return [row[:count] for row, count in zip(logits.log_softmax(-1).numpy(), frames, strict=True)]


def assert_close(found, expected, tolerance=1e-4):
    assert [len(part) for part in found] == [len(part) for part in expected]
    for part, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(part, wanted, rtol=0, atol=tolerance)
        np.testing.assert_allclose(np.exp(part), np.exp(wanted), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("cell", "bidirectional", "options"),
    [(c, b, o) for c in CELLS for b in (True, False) for o in options_of(c)],
)
def test_every_cell_is_that_of_torch(cell, bidirectional, options):
    config = ModelConfig(FRONT, cell, layers=2, hidden_size=5, bidirectional=bidirectional, **options)
    model, log_mel = random_parts(SMALL, config)
    samples = speech()
    found = by_graph(session_of(model, log_mel), samples, LENGTHS)
    assert_close(found, by_torch(model, log_mel, samples, LENGTHS))


@pytest.mark.parametrize("front_norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("normalize", ["utterance", "global", "none"])
def test_every_normalization_is_that_of_torch(normalize, front_norm):
    samples = "standardized" if front_norm == "layer" else "recorded"
    features = FeatureConfig(RATE, 128, 128, 50, 11, 0.0, None, normalize, samples)
    front = FrontEndConfig((2, 3), ((1, 3), (3, 1)), ((1, 1), (3, 1)), front_norm)
    config = ModelConfig(
        front, "gru", layers=1, hidden_size=4, norm="none" if front_norm == "none" else "layer"
    )
    model, log_mel = random_parts(features, config)
    session = session_of(model, log_mel)
    for scale in (0.1, 3e-4, 1.0):  # at the training data's level, and far from it
        samples = speech(seed=5, scale=scale)
        assert_close(by_graph(session, samples, LENGTHS), by_torch(model, log_mel, samples, LENGTHS))


@pytest.mark.parametrize("options", [{}, {"zoneout": 0.3, "layer_norm": True}])
def test_a_result_depends_neither_on_padding_nor_on_the_batch(options):
    features = FeatureConfig(RATE, 256, 200, 80, 13, normalize="global")
    model, log_mel = random_parts(features, ModelConfig(FRONT, layers=2, hidden_size=6, **options))
    session, samples = session_of(model, log_mel), speech()
    together = by_graph(session, samples, LENGTHS)
    for row, length, expected in zip(samples, LENGTHS, together, strict=True):
        if length:
            (alone,) = by_graph(session, row[None, :length], [length])
            np.testing.assert_allclose(alone, expected, rtol=0, atol=1e-4)


def test_the_shipped_bundle_is_that_of_torch():
    parts = TorchBundle.load(AN4)
    generator = np.random.default_rng(0)
    envelope = np.repeat(generator.uniform(0, 0.3, 32), 2000)
    samples = (envelope * generator.standard_normal(64000)).astype(np.float32)[None]
    lengths = [samples.shape[1]]
    session = recognition_graph(Bundle.load(AN4)).session(threads=1)
    found = by_graph(session, samples, lengths)
    assert_close(found, by_torch(parts.model, parts.log_mel, samples, lengths), 1e-3)


@pytest.mark.parametrize("sizes", [(256, 201, 240), (256, 200, 400), (64, 3, 7), (256, 256, 33)])
def test_windows_and_hops_of_any_size(sizes):
    features = FeatureConfig(RATE, *sizes, n_mels=5, f_min=0.0, normalize="none")
    model, log_mel = random_parts(features, ModelConfig(FRONT, "rnn_tanh", layers=1, hidden_size=3))
    samples = speech()
    found = by_graph(session_of(model, log_mel), samples, LENGTHS)
    assert_close(found, by_torch(model, log_mel, samples, LENGTHS))


def test_what_a_graph_cannot_hold_is_refused():
    bundle = bundle_of(*random_parts(SMALL, ModelConfig(FRONT, layers=1, hidden_size=4)))
    unknown = replace(bundle, model=replace(bundle.model, cell="tree"))
    with pytest.raises(BundleError, match=r"model.cell is 'tree'; an ONNX graph holds lstm, .*engine torch"):
        recognition_graph(unknown)
    short = replace(bundle, features=FeatureConfig(RATE, 256, 2, 80, 13))
    with pytest.raises(BundleError, match="win_length is 2; an ONNX graph needs a window of 3"):
        recognition_graph(short)
