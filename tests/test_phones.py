"""Models with an output of phones and a lexicon, from the saved bundle to transcripts, the service and commands."""

import asyncio
import json
import shutil
import threading

import numpy as np
import pytest
import torch
from helpers import make_corpus, run_asr
from random_bundles import FRONT, LENGTHS, RATE, SMALL, bundle_of, random_parts, speech

import asr
from asr.bundle import LEXICON_FILE, LM_FILE, Bundle, store_decoding
from asr.decoding import greedy, reads_phones
from asr.decoding.pronouncing import JointSearch
from asr.engines.onnx_engine import OnnxEngine
from asr.engines.torch_engine import TorchEngine
from asr.features import FeatureConfig
from asr.lm.kneser_ney import build
from asr.lm.network import NetworkConfig
from asr.lm.units import TokenUnits
from asr.lm_bundle import LmBundle
from asr.model_config import FrontEndConfig, ModelConfig
from asr.torch_bundle import TorchBundle
from asr.training.lm.network import RecurrentLm

PHONES = ("AE", "B", "D", "EH", "K")
CONFIG = ModelConfig(FRONT, layers=2, hidden_size=6, phones=PHONES)
LEXICON = "ab AE B\ncab K AE B\ndead D EH D\nbad B AE D\nbad(2) B EH D\na EH\nbed B EH D\n"
WORDS = {"ab", "cab", "dead", "bad", "a", "bed"}
TEXTS = ["a bad cab", "bed bad", "a dead cab", "ab a bed"]


@torch.no_grad()
def random_bundle(features=SMALL, config=CONFIG):
    """Weights at random, those of the outputs so that what they find changes as the sound does."""
    model, log_mel = random_parts(features, config)
    hidden, lengths = model.encode(*log_mel(torch.from_numpy(speech()), torch.tensor(LENGTHS), leveled=True))
    frames = torch.cat([model.norms[-1](row[:length]) for row, length in zip(hidden, lengths, strict=True)])
    for output in (model.output, model.phone_output):
        output.weight.copy_(2 * torch.randn_like(output.weight) / frames.std(0))
        output.bias.copy_(-output.weight @ frames.mean(0))
    return bundle_of(model, log_mel)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model with phones, a language model and a lexicon."""
    folder = tmp_path_factory.mktemp("models") / "bundle"
    random_bundle().save(folder)
    build(TEXTS, 2).write_arpa(folder / LM_FILE)
    (folder / LEXICON_FILE).write_text(LEXICON)
    store_decoding(folder, {"lm_weight": 0.2, "word_bonus": 2.0})
    return folder


@pytest.fixture(scope="module")
def decoding(folder):
    pytest.importorskip("flashlight.lib.text")
    return asr.load(folder, "cpu", engine="onnx", threads=1, processes=1)


@pytest.fixture(scope="module")
def recurrent_lm(folder):
    units = TokenUnits(Bundle.load(folder).tokenizer, "basic")
    torch.manual_seed(5)
    model = RecurrentLm(NetworkConfig(hidden_size=8, embedding_size=4), units.size)
    weights = {name: 4 * value.numpy() for name, value in model.state_dict().items()}
    LmBundle(model.config, units, weights).save(folder.parent / "lm")
    return folder.parent / "lm"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    line = "prepare manifest {manifest} -o {folder} --dev-fraction 0.5"
    assert run_asr(line, manifest=make_corpus(folder / "audio", utterances=4), folder=folder) == 0
    return folder / "cuts_dev.jsonl.gz"


def utterances():
    return [row[:length] for row, length in zip(speech(), LENGTHS, strict=True)]


@torch.no_grad()
def test_a_saved_model_keeps_its_phones_and_its_lexicon(folder):
    bundle, loaded = Bundle.load(folder), TorchBundle.load(folder)
    assert bundle.model.phones == loaded.model.config.phones == PHONES
    assert bundle.lexicon == folder / LEXICON_FILE
    saved = TorchBundle.of(random_bundle())
    hidden = torch.randn(1, 4, 12, generator=torch.Generator().manual_seed(1))
    assert saved.model.score_phones(hidden).shape == (1, 4, 1 + len(PHONES))
    assert torch.equal(saved.model.score_phones(hidden), loaded.model.score_phones(hidden))
    assert random_bundle().lexicon is None


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("normalize", ["utterance", "global", "none"])
def test_the_engines_agree_on_phones(normalize, norm):
    features = FeatureConfig(RATE, 128, 128, 50, 11, 0.0, None, normalize)
    front = FrontEndConfig((2, 3), ((1, 3), (3, 1)), ((1, 1), (3, 1)), norm)
    layer_norm = "none" if norm == "none" else "layer"
    config = ModelConfig(front, "gru", layers=1, hidden_size=4, norm=layer_norm, phones=PHONES)
    bundle = random_bundle(features, config)
    onnx, torchs = OnnxEngine(bundle), TorchEngine(bundle)
    found, expected = (engine.log_probs(utterances(), phones=True) for engine in (onnx, torchs))
    narrow = onnx.log_probs(utterances())
    for part, wanted, tokens in zip(found, expected, narrow, strict=True):
        np.testing.assert_allclose(part, wanted, rtol=0, atol=2e-4)
        np.testing.assert_array_equal(part[:, :7], tokens)
        np.testing.assert_allclose(np.exp(part[:, 7:]).sum(1), 1.0, rtol=1e-5)
        assert part.shape[1] == 7 + 1 + len(PHONES)
    empty = np.zeros(0, np.float32)
    for engine in (onnx, torchs):
        assert [part.shape for part in engine.log_probs([empty, empty], phones=True)] == [(0, 13), (0, 13)]


def test_a_recognizer_searches_by_spelling_and_pronunciation(decoding):
    assert isinstance(decoding.decoder.search, JointSearch)
    together = decoding.transcribe(utterances())
    texts = [transcript.text for transcript in together]
    assert len(set(texts)) > 2
    assert set(" ".join(texts).split()) <= WORDS
    for samples, transcript in zip(utterances(), together, strict=True):
        alone = decoding.transcribe(samples)
        assert alone.text == transcript.text
        assert " ".join(word.word for word in transcript.words) == transcript.text
        times = [(word.start, word.end) for word in transcript.words]
        assert times == [(word.start, word.end) for word in alone.words]
        assert all(0 <= start < end <= len(samples) / RATE for start, end in times)
        assert times == sorted(times)
        assert all(0 <= word.confidence <= 1 for word in transcript.words)


def test_a_long_recording_is_read_in_windows(decoding):
    samples = np.concatenate([speech((RATE * 5,), seed=seed)[0] for seed in range(9)])
    transcript = decoding.transcribe(samples)
    assert len(transcript.seams) >= 1
    assert len(transcript.words) > 2
    assert {word.word for word in transcript.words} <= WORDS  # none of two words at a seam
    assert transcript.words[-1].end > transcript.seams[-1]


def test_alignment_and_log_probabilities_are_of_tokens(decoding):
    samples = utterances()[0]
    assert decoding.log_probs(samples).shape[1] == 7
    wide = decoding.log_probs([samples, samples[:900]], phones=True)
    assert [part.shape[1] for part in wide] == [13, 13]
    aligned = decoding.align(samples, "Bad cab!")
    assert aligned.text == "bad cab"
    assert [len(word.word) for word in aligned.words] == [3, 3]


def test_a_recurrent_language_model_ranks_the_best_anew(folder, recurrent_lm):
    pytest.importorskip("flashlight.lib.text")
    options = {"rescore_lm": recurrent_lm, "rescore_weight": 20.0, "nbest": 3, "processes": 1}
    model = asr.load(folder, "cpu", engine="onnx", threads=1, **options)
    assert reads_phones(model.decoder)
    plain = asr.load(folder, "cpu", engine="onnx", threads=1, nbest=3)
    found, before = (one.transcribe(utterances()[:2]) for one in (model, plain))
    assert [one.text for one in found] != [one.text for one in before]
    for transcript in found:
        scores = [transcript.score, *(alternative.score for alternative in transcript.alternatives)]
        assert scores == sorted(scores, reverse=True)
        assert transcript.lm_score < 0
        assert all(word.end > word.start for word in transcript.words)


def test_requests_that_read_phones_and_others_are_computed_together(decoding, monkeypatch):
    pytest.importorskip("starlette", reason="the extra serve is not installed")
    from asr.serve.batching import Batcher
    from asr.serve.metrics import Metrics

    samples, (decode, begun) = utterances()[0], (threading.Event(), threading.Event())
    computed, log_probs = [], decoding.engine.log_probs

    def counted(batch, phones=False):
        begun.set()
        assert decode.wait(20)  # until all requests are there
        computed.append((len(batch), phones))
        return log_probs(batch, phones=phones)

    monkeypatch.setattr(decoding.engine, "log_probs", counted)

    async def requests(batcher, posteriors):
        def request(**options):
            return asyncio.ensure_future(batcher.transcribe([samples], len(samples) / RATE, **options))

        first = request(decoder=greedy)
        await asyncio.to_thread(begun.wait, 20)
        others = [request(), request(decoder=greedy, posteriors=posteriors)]
        await asyncio.sleep(0)
        decode.set()
        return await asyncio.gather(first, *others)

    posteriors = []
    batcher = Batcher(decoding, 0.0, Metrics())
    try:
        first, joint, spelled = asyncio.run(requests(batcher, posteriors))
    finally:
        batcher.close()
    assert computed == [(1, False), (2, True)]
    assert first.text == spelled.text
    assert {token for _, token, _ in posteriors} <= set(range(1, 7))
    assert posteriors
    monkeypatch.undo()
    assert joint.text == decoding.transcribe(samples).text
    assert joint.text != spelled.text


def test_what_a_model_with_phones_holds(folder, capsys):
    assert run_asr("info {folder} --json -", folder=folder) == 0
    model = json.loads(capsys.readouterr().out)["model"]
    assert model["output"].endswith("7 tokens and 5 phones")
    assert model["lexicon"] == "lexicon.txt, 7 pronunciations, 5 phones"
    assert run_asr("info an4 --json -") == 0
    assert json.loads(capsys.readouterr().out)["model"]["lexicon"] == "none of its own"


def test_the_weights_of_a_search_by_pronunciation_are_tuned(folder, manifest, recurrent_lm, tmp_path, capsys):
    pytest.importorskip("flashlight.lib.text")
    names = {"bundle": tmp_path / "bundle", "manifest": manifest, "rescore_lm": recurrent_lm}
    shutil.copytree(folder, names["bundle"])
    line = "lm tune {manifest} --model {bundle} --lm {bundle}/lm.bin --lexicon {bundle}/lexicon.txt"
    line += " --lm-weights 0.3 --word-bonuses 0 2 --blank-penalties 0"
    assert run_asr(line, **names) == 0
    printed = capsys.readouterr().out
    assert len([row for row in printed.splitlines() if row.startswith("     0.30")]) == 2
    line = "lm tune {manifest} --model {bundle} --rescore-lm {rescore_lm} --rescore-weights 0 1 --rescore-bonuses 0"
    assert run_asr(line, **names) == 0
    assert run_asr("evaluate {manifest} --model {bundle} --quiet", **names) == 0
    assert "WER" in capsys.readouterr().out


def test_the_tokens_of_a_model_with_phones_are_exported(folder, manifest, tmp_path, capsys):
    names = {"folder": folder, "tmp": tmp_path, "manifest": manifest}
    assert run_asr("export {folder} -o {tmp}/exported --check {manifest}", **names) == 0
    assert "accepted: expected" in capsys.readouterr().out
    assert len((tmp_path / "exported" / "tokens.txt").read_text().splitlines()) == 7
