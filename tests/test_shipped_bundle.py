"""The models that come with asr: small, quick to load, and of use for what they were trained on."""

import numpy as np
import pytest

import asr
from asr.audio import load_audio
from asr.bundle import BUNDLES, LM_FILE, PURPOSES, SHIPPED
from asr.cli import main
from asr.decoding import greedy

HELD_OUT = ("flmm2", "ftmj", "mdxn", "mmdg", "mrab", "mrmg", "mtje")  # by the AN4 recipe
MEGABYTES = {"an4": 5, "english": 12}


@pytest.fixture
def held_out(shared_data):
    """Give the held-out speakers' recordings with what was said."""
    folder = shared_data / "an4"
    texts = {}
    for line in (folder / "etc/an4_train.transcription").read_text().splitlines():
        text, name = line.rsplit(" ", 1)
        texts[name.strip("()")] = text.replace("<s>", "").replace("</s>", "").strip().lower()
    speakers = [folder / "wav/an4_clstk" / speaker for speaker in HELD_OUT]
    return {path: texts[path.stem] for speaker in speakers for path in sorted(speaker.glob("*.sph"))}


@pytest.fixture
def sentences(shared_data):
    """Give four sentences of LibriSpeech's test set with their texts."""
    folder = shared_data / "LibriSpeech"
    lines = [line for path in folder.rglob("*.trans.txt") for line in path.read_text().splitlines()]
    texts = dict(line.lower().split(" ", 1) for line in lines)
    return {path: texts[path.stem] for path in sorted(folder.rglob("*.flac"))}


@pytest.mark.parametrize("name", MEGABYTES)
def test_it_is_small(name):
    folder = BUNDLES / name
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert sizes.pop(LM_FILE, 0) <= 8e6
    assert sum(sizes.values()) < 1e6 * MEGABYTES[name]
    assert "license" in (folder / "README.md").read_text().lower()


def test_an4_recognizes_speakers_that_it_was_not_trained_on(held_out):
    transcripts = asr.load("an4").transcribe(list(held_out))
    texts = [transcript.text for transcript in transcripts]  # type: ignore[union-attr]
    assert asr.score(list(held_out.values()), texts).wer < 0.07


def test_english_recognizes_sentences_with_its_language_model(sentences):
    pytest.importorskip("flashlight.lib.text.decoder")
    rates = []
    for options in ({}, {"lm": "none"}):
        model = asr.load(device="cpu", threads=1, processes=1, **options)
        assert (model.decoder is greedy) == bool(options)
        texts = [transcript.text for transcript in model.transcribe(list(sentences))]  # type: ignore[union-attr]
        rates.append(asr.score(list(sentences.values()), texts).wer)
    assert rates[0] < 0.6
    assert rates[0] < rates[1] < 0.8


def test_its_language_model_is_not_needed(sentences, monkeypatch):
    monkeypatch.setattr("asr.decoding.choice.find_spec", lambda name: None)
    assert asr.load(device="cpu").decoder is greedy


def test_its_language_model_does_not_keep_it_from_streaming():
    pytest.importorskip("flashlight.lib.text.decoder")
    stream = asr.load(device="cpu").stream()
    assert stream.feed(np.zeros(32000, np.float32)) + stream.finish() == []
    with pytest.raises(asr.AsrError, match="a stream is decoded greedily"):
        asr.load(device="cpu", beam_size=8).stream()


def test_a_long_recording_loses_no_words_where_its_windows_meet(held_out, monkeypatch):
    """Utterances that follow each other are harder, but not for the windows: in one piece they are as hard."""
    model = asr.load("an4", device="cpu")
    order = np.random.default_rng(0).permutation(len(held_out))
    texts = list(held_out.values())
    paths = list(held_out)
    recording = np.concatenate([load_audio(paths[i], model.sample_rate) for i in order])
    truth = " ".join(texts[i] for i in order)
    heard = [model.transcribe(recording).text]  # type: ignore[union-attr]
    monkeypatch.setattr("asr.long_audio.WINDOW_SECONDS", len(recording) / model.sample_rate)
    heard.append(model.transcribe(recording).text)  # type: ignore[union-attr]
    in_windows, in_one_piece = (asr.score([truth], [text]).wer for text in heard)
    assert in_windows == pytest.approx(in_one_piece, abs=0.003)


def test_transcribe_without_a_model_tells_what_it_is_for(held_out, capsys):
    path = next(iter(held_out))
    assert main(["transcribe", str(path)]) == 0
    printed = capsys.readouterr()
    assert PURPOSES[SHIPPED.name] in printed.err
    assert printed.out.strip()
