"""The model that comes with asr: small, quick to load, and of use for what it was trained on."""

import pytest

import asr
from asr.bundle import SHIPPED, SHIPPED_HEARS
from asr.cli import main

SPEAKER = "flmm2"  # one of those that the AN4 recipe holds out


@pytest.fixture
def held_out(shared_data):
    """Give a held-out speaker's recordings with what was said."""
    folder = shared_data / "an4"
    texts = {}
    for line in (folder / "etc/an4_train.transcription").read_text().splitlines():
        text, name = line.rsplit(" ", 1)
        texts[name.strip("()")] = text.replace("<s>", "").replace("</s>", "").strip().lower()
    return {path: texts[path.stem] for path in sorted((folder / "wav/an4_clstk" / SPEAKER).glob("*.sph"))}


def test_it_is_small():
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 5e6
    assert "licence" in (SHIPPED / "README.md").read_text().lower()


def test_it_hears_a_speaker_that_it_was_not_trained_on(held_out):
    transcripts = asr.load().transcribe(list(held_out))
    assert asr.score(list(held_out.values()), [transcript.text for transcript in transcripts]).wer < 0.15


def test_transcribe_without_a_model_says_what_it_hears(held_out, capsys):
    path = next(iter(held_out))
    assert main(["transcribe", str(path)]) == 0
    printed = capsys.readouterr()
    assert SHIPPED_HEARS in printed.err
    assert printed.out.strip()
