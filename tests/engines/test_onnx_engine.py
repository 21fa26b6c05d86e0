"""The onnx engine against the torch engine: batches, streams, what does not fit, and that PyTorch is not needed."""

import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers import make_corpus
from random_bundles import FRONT, LENGTHS, SMALL, bundle_of, options_of, random_parts, speech

from asr.bundle import BUNDLES, Bundle
from asr.engines import chosen_engine, make_engine
from asr.engines.onnx_engine import OnnxEngine
from asr.engines.torch_engine import TorchEngine
from asr.errors import AsrError, BundleError
from asr.model_config import ModelConfig
from asr.recognizer import Recognizer
from asr.recurrent.cells import CELLS

AN4 = BUNDLES / "an4"


def test_a_batch_is_that_of_torch():
    bundle = bundle_of(*random_parts(SMALL, ModelConfig(FRONT, "cifg", layers=2, hidden_size=5)))
    samples = [row[:length] for row, length in zip(speech(), LENGTHS, strict=True)]
    found, expected = OnnxEngine(bundle).log_probs(samples), TorchEngine(bundle).log_probs(samples)
    for part, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(part, wanted, rtol=0, atol=1e-4)
    empty = np.zeros(0, np.float32)
    assert [part.shape for part in OnnxEngine(bundle).log_probs([empty, empty])] == [(0, 7), (0, 7)]


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(
    ("cell", "options"), [(c, o) for c in CELLS for o in itertools.islice(options_of(c), 2)]
)
def test_the_parts_of_a_stream_are_those_of_torch(cell, options, bidirectional):
    features = replace(SMALL, normalize="global")
    config = ModelConfig(FRONT, cell, layers=2, hidden_size=5, bidirectional=bidirectional, **options)
    bundle = bundle_of(*random_parts(features, config))
    ours, torchs = OnnxEngine(bundle).stages(), TorchEngine(bundle).stages()
    samples = speech()[0]
    found, expected = ours.features(samples), torchs.features(samples)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    found, expected = ours.convolve(expected), torchs.convolve(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    states = [None, None]
    for begin, chunk, end in ((0, 3, 3), (3, 6, 9), (9, 4, 13)):
        hidden = expected[begin : end + 2 * bidirectional]
        results = []
        for i, stages in enumerate((ours, torchs)):
            log_probs, states[i] = stages.recur(hidden, states[i], chunk)
            results.append(log_probs)
        assert results[0].shape == (chunk, 7)
        np.testing.assert_allclose(*results, rtol=0, atol=1e-4)


def test_utterance_statistics_are_left_to_the_stream():
    bundle = bundle_of(*random_parts(SMALL, ModelConfig(FRONT, layers=1, hidden_size=4)))
    samples = speech()[0]
    found, expected = (engine(bundle).stages().features(samples) for engine in (OnnxEngine, TorchEngine))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_weights_that_do_not_fit_are_named(tmp_path):
    bundle = Bundle.load(AN4)
    wider = replace(bundle, model=replace(bundle.model, hidden_size=161))
    with pytest.raises(
        BundleError,
        match=r"recurrent.0.weight_ih_l0 is \(640, 640\), expected \(644, 640\); copy the bundle again",
    ):
        OnnxEngine(wider)
    peephole = replace(bundle, model=replace(bundle.model, cell="peephole"))
    with pytest.raises(BundleError, match="weight_peephole_l0 is no such array"):
        OnnxEngine(peephole)


def test_a_graph_that_onnxruntime_cannot_run_is_one_sentence(monkeypatch):
    monkeypatch.setattr("asr.engines.onnx_nodes.OPSET", 999)
    with pytest.raises(
        AsrError, match=r"cannot run the model's graph \(.*\); pip install --upgrade onnxruntime"
    ):
        OnnxEngine(Bundle.load(AN4)).log_probs([np.zeros(1000, np.float32)])


def test_memory_that_is_too_small_is_told_apart(monkeypatch):
    class Full:
        def run(self, *_):
            raise RuntimeError("Failed to allocate memory for requested buffer of size 400")

    engine = OnnxEngine(Bundle.load(AN4))
    monkeypatch.setattr(engine, "_session", Full())
    with pytest.raises(MemoryError, match="of size 400"):
        engine.log_probs([np.zeros(1000, np.float32)])


def test_auto_is_onnx_on_the_cpu_and_torch_for_what_only_it_can(monkeypatch):
    monkeypatch.setattr("asr.engines.GPU_DRIVERS", ())
    assert chosen_engine("auto", "float32") == chosen_engine("cpu", "float32") == "onnx"
    assert chosen_engine("cpu", "int8") == chosen_engine("cuda", "float32") == "torch"
    monkeypatch.setattr("asr.engines.GPU_DRIVERS", ("/",))
    assert chosen_engine("auto", "float32") == "torch"
    assert chosen_engine("cpu", "float32") == "onnx"


def test_what_the_engine_cannot_do_names_the_one_that_can():
    bundle = Bundle.load(AN4)
    with pytest.raises(
        AsrError, match=r"float32 on the CPU, not in int8 on cpu; take the engine torch \(pip"
    ):
        make_engine(bundle, "cpu", engine="onnx", compute_type="int8")
    with pytest.raises(AsrError, match="not in float32 on cuda"):
        make_engine(bundle, "cuda", engine="onnx")


WITHOUT_TORCH = """
import sys
for name in ("torch", "torchaudio", "lhotse", "lightning", "jsonargparse", "jinja2", "yaml"):
    sys.modules[name] = None  # as if it were not installed
from asr.cli import main
for line in sys.argv[1:]:
    assert main(line.split()) == 0, line
"""


def test_a_light_install_transcribes_evaluates_and_scores(tmp_path):
    corpus = make_corpus(tmp_path / "corpus", utterances=2)
    audio, text = (tmp_path / "corpus" / f"utterance00.{suffix}" for suffix in ("wav", "txt"))
    commands = [
        f"prepare manifest {corpus} --output-dir {tmp_path / 'cuts'} --dev-fraction 0.5",
        f"transcribe {audio} --device cpu",
        f"evaluate --model an4 {tmp_path / 'cuts' / 'cuts_dev.jsonl.gz'} --device cpu",
        f"score {text} {text} --format lines",
    ]
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *commands],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "word" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"engine": "torch"},
            r"the engine torch needs the package torch, which is not installed; pip install",
        ),
        (
            {"compute_type": "int8"},
            r"compute type int8 on cpu needs the package torch, .*recurrent-asr\[torch\]",
        ),
    ],
)
def test_a_package_that_is_absent_is_named_with_its_extra(monkeypatch, options, message):
    monkeypatch.setattr("asr.engines.find_spec", lambda name: None if name == "torch" else True)
    with pytest.raises(AsrError, match=message):
        make_engine(Bundle.load(AN4), "cpu", **options)


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_a_stream_of_standardized_samples_is_that_of_the_whole(engine):
    features = replace(SMALL, normalize="global", samples="standardized")
    config = ModelConfig(FRONT, layers=1, hidden_size=8, bidirectional=False)
    bundle = bundle_of(*random_parts(features, config))
    weights = dict(bundle.weights)
    weights["model.output.weight"] = 20 * weights["model.output.weight"]
    recognizer = Recognizer(
        replace(bundle, weights=weights), make_engine(replace(bundle, weights=weights), "cpu", engine=engine)
    )
    samples = speech((24000,))[0]
    stream = recognizer.stream()
    stream.feed(samples)
    stream.finish()
    assert stream.text == recognizer.transcribe(samples).text != ""


def test_an_onnxruntime_that_is_too_old_is_one_sentence(monkeypatch):
    monkeypatch.delattr("onnxruntime.SessionOptions.add_external_initializers")
    with pytest.raises(
        AsrError, match=r"onnxruntime \S+ cannot run the model's graph .*--upgrade onnxruntime"
    ):
        OnnxEngine(Bundle.load(AN4)).log_probs([np.zeros(1000, np.float32)])
