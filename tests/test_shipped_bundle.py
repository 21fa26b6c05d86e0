"""The model that comes with asr: small, quick to load, and of use for what it was trained on."""

import numpy as np
import pytest

import asr
from asr.audio import load_audio
from asr.bundle import SHIPPED, SHIPPED_HEARS
from asr.cli import main

HELD_OUT = ("flmm2", "ftmj", "mdxn", "mmdg", "mrab", "mrmg", "mtje")  # by the AN4 recipe


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


def test_it_is_small():
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 5e6
    assert "license" in (SHIPPED / "README.md").read_text().lower()


def test_it_hears_speakers_that_it_was_not_trained_on(held_out):
    transcripts = asr.load().transcribe(list(held_out))
    heard = [transcript.text for transcript in transcripts]  # type: ignore[union-attr]
    assert asr.score(list(held_out.values()), heard).wer < 0.07


def test_a_long_recording_loses_no_words_where_its_windows_meet(held_out, monkeypatch):
    """Utterances that follow each other are harder, but not for the windows: in one piece they are as hard."""
    model = asr.load(device="cpu")
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


def test_transcribe_without_a_model_says_what_it_hears(held_out, capsys):
    path = next(iter(held_out))
    assert main(["transcribe", str(path)]) == 0
    printed = capsys.readouterr()
    assert SHIPPED_HEARS in printed.err
    assert printed.out.strip()
