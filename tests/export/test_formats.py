"""Exported files, loaded by the programs that they are for."""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnx_asr
import onnxruntime
import pytest
import sherpa_onnx
from onnx_asr.preprocessors.numpy_preprocessor import NemoPreprocessorNumpy
from random_bundles import FRONT, bundle_of, random_parts, speech

from asr.bundle import BUNDLES, Bundle
from asr.decoding import greedy
from asr.engines.onnx_engine import OnnxEngine
from asr.errors import BundleError
from asr.export import FORMATS, export
from asr.features import FeatureConfig
from asr.model_config import ModelConfig

AN4 = BUNDLES / "an4"

NEMO = FeatureConfig(f_min=0.0)
SHORT = FeatureConfig(n_mels=13, samples="standardized")


def random_bundle(features, **options):
    bundle = bundle_of(*random_parts(features, ModelConfig(FRONT, layers=1, hidden_size=8, **options)))
    # Random models prefer one token; another scale of the scores makes texts out of noise.
    weights = dict(bundle.weights)
    weights["model.output.weight"] = 20 * weights["model.output.weight"]
    return replace(bundle, weights=weights)


def spelled(bundle, log_probs):
    (hypothesis,) = greedy([log_probs])
    return " ".join(bundle.tokenizer.decode(hypothesis.tokens).split())


def standardized(samples):
    return (samples - samples.mean()) / np.sqrt(samples.var() + 1e-5)


def waveforms():
    return [row for seed in (1, 2) for row in speech((16000, 16000), seed)]


@pytest.mark.parametrize("int8", [False, True])
def test_sherpa_onnx_recognizes_what_the_bundle_does(tmp_path, int8):
    bundle = random_bundle(SHORT)
    path = export(bundle, tmp_path, "sherpa-onnx", int8)
    assert path.name == ("model.int8.onnx" if int8 else "model.onnx")
    recognizer = sherpa_onnx.OfflineRecognizer.from_omnilingual_asr_ctc(
        model=str(path), tokens=str(tmp_path / "tokens.txt")
    )
    session = onnxruntime.InferenceSession(path)
    texts = []
    for samples in waveforms():
        stream = recognizer.create_stream()
        stream.accept_waveform(16000, samples)
        recognizer.decode_stream(stream)
        log_probs = session.run(None, {"waveform": standardized(samples)[None]})[0][0]
        texts.append(" ".join(stream.result.text.split()))
        assert texts[-1] == spelled(bundle, log_probs)
        (expected,) = OnnxEngine(bundle).log_probs([samples])
        if not int8:  # the bundle standardizes as well: once more changes nothing
            found = log_probs[:: len(log_probs) // len(expected)]
            np.testing.assert_allclose(np.exp(found), np.exp(expected), atol=1e-4)
            frames = greedy([expected])[0].frames
            starts = [first * bundle.seconds_per_frame for first, _ in frames]
            np.testing.assert_allclose(stream.result.timestamps, starts, atol=1e-4)
    assert any(texts), "a model that recognizes nothing shows nothing"


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_onnx_asr_recognizes_what_the_graph_does(tmp_path, quantization):
    bundle = random_bundle(NEMO)
    path = export(bundle, tmp_path, "onnx-asr", int8=quantization is not None)
    model = onnx_asr.load_model("nemo-conformer-ctc", tmp_path, quantization=quantization)
    session = onnxruntime.InferenceSession(path)
    together = waveforms()
    texts = []
    for samples in together:
        features, lengths = NemoPreprocessorNumpy("nemo80")(samples[None], np.array([len(samples)]))
        log_probs = session.run(None, {"audio_signal": features.astype(np.float32), "length": lengths})[0][0]
        count = bundle.model.front_end.output_frames(int(lengths[0]))
        texts.append(spelled(bundle, log_probs[:count]))
    assert model.recognize(together, sample_rate=16000) == texts
    assert any(texts)
    assert json.loads((tmp_path / "config.json").read_text())["subsampling_factor"] == 2


def test_onnx_asr_is_refused_where_the_features_are_others(tmp_path):
    with pytest.raises(
        BundleError, match=r"trained with others: normalize 'global'; train with .*n_mels 80 or 128"
    ):
        export(Bundle.load(AN4), tmp_path, "onnx-asr")
    assert not list(tmp_path.iterdir())


def test_sherpa_onnx_is_refused_at_other_rates(tmp_path):
    bundle = random_bundle(FeatureConfig(8000, 256, 200, 80, 13))
    with pytest.raises(BundleError, match="the model takes 8000 Hz, sherpa-onnx gives 16000 Hz"):
        export(bundle, tmp_path, "sherpa-onnx")


def test_the_plain_graph_tells_what_it_needs_and_int8_is_small(tmp_path):
    bundle = Bundle.load(AN4)
    whole, small = (export(bundle, tmp_path, int8=int8) for int8 in (False, True))
    assert small.stat().st_size < 0.4 * whole.stat().st_size
    model = onnx.load(small)
    onnx.checker.check_model(model)
    properties = {item.key: item.value for item in model.metadata_props}
    assert (properties["sample_rate"], properties["normalizer"]) == ("16000", "basic")
    assert (tmp_path / "tokens.txt").read_text("utf-8").splitlines()[:2] == ["<blk> 0", "▁t 1"]
    samples = speech((32000,), 3)
    inputs = {"waveform": samples, "lengths": np.array([samples.shape[1]])}
    exact, rounded = (onnxruntime.InferenceSession(path).run(None, inputs)[0] for path in (whole, small))
    (expected,) = OnnxEngine(bundle).log_probs([samples[0]])
    np.testing.assert_allclose(np.exp(exact[0]), np.exp(expected), atol=1e-5)
    assert 1e-6 < np.abs(np.exp(exact) - np.exp(rounded)).max() < 0.1


@pytest.mark.parametrize(
    "options", [{}, {"proj_size": 4, "layer_norm": True}, {"cell": "gru", "zoneout": 0.1}]
)
def test_every_kind_of_layer_is_rounded_by_channel(tmp_path, options):
    bundle = random_bundle(SHORT, **options)
    inputs = {"waveform": speech((16000,)), "lengths": np.array([16000])}
    paths = [export(bundle, tmp_path, int8=int8) for int8 in (False, True)]
    exact, rounded = (onnxruntime.InferenceSession(path).run(None, inputs)[0] for path in paths)
    assert 0 < np.abs(np.exp(exact) - np.exp(rounded)).max() < 0.2
    stored = {item.name: item for item in onnx.load(paths[1]).graph.initializer}
    names = [name for name in stored if name.endswith("_int8")]
    assert len(names) == (4 if "proj_size" in options else 3 if "zoneout" in options else 2)
    assert all(stored[name].data_type == onnx.TensorProto.INT8 for name in names)


def test_an_unknown_format_and_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(BundleError, match=f"there is no format 'tflite'; there are {', '.join(FORMATS)}"):
        export(random_bundle(SHORT), tmp_path, "tflite")
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot write"):
        export(random_bundle(SHORT), tmp_path / "file")
