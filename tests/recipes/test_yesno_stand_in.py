"""The stand-in for waves_yesno: the corpus's layout, and yes and no sound different."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.cli import main
from asr.data import load_cuts
from asr.data.cuts import text_of

pytest.importorskip("espeakng_loader")
SCRIPT = Path(__file__).resolve().parents[2] / "recipes" / "yesno" / "stand_in.py"


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("yesno") / "waves_yesno"
    subprocess.run([sys.executable, "-W", "error", str(SCRIPT), "--output-dir", str(folder)], check=True)
    return folder


def test_it_is_read_as_waves_yesno(stand_in, tmp_path):
    assert main(["prepare", "yesno", str(stand_in), "--output-dir", str(tmp_path)]) == 0
    cuts = {split: load_cuts(tmp_path / f"cuts_{split}.jsonl.gz") for split in ("train", "dev", "test")}
    assert {split: len(found) for split, found in cuts.items()} == {"train": 27, "dev": 3, "test": 30}
    for cut in cuts["test"]:
        words = {"1": "YES", "0": "NO"}
        assert text_of(cut) == " ".join(words[digit] for digit in cut.id.split("_"))


def test_files_are_as_published(stand_in):
    files = sorted(stand_in.glob("*.wav"))
    assert len(files) == 60
    for path in files:
        samples, rate = soundfile.read(path)
        assert (rate, samples.ndim) == (8000, 1)
        assert 4 < len(samples) / rate < 9
        assert 0.2 < np.abs(samples).max() < 0.5


def test_yes_and_no_sound_different(stand_in):
    """Words of one kind share their spectrum, rate and pitch apart; the two kinds do not."""
    spectra = {"1": [], "0": []}
    for path in sorted(stand_in.glob("*.wav"))[:10]:
        samples, rate = soundfile.read(path)
        loud = np.convolve(np.abs(samples), np.ones(400) / 400, "same") > 0.015
        edges = np.flatnonzero(np.diff(loud.astype(int), prepend=0, append=0))
        spans = [(a, b) for a, b in edges.reshape(-1, 2) if b - a > 0.1 * rate]
        words = path.stem.split("_")
        if len(spans) == len(words):  # no pause too short to see
            for word, (start, end) in zip(words, spans, strict=True):
                power = np.abs(np.fft.rfft(samples[start:end], 8192))[:4096] ** 2
                spectra[word].append(power.reshape(64, -1).sum(1) / power.sum())
    yes, no = (np.array(spectra[word]) for word in "10")
    assert min(len(yes), len(no)) >= 8

    def typical_distance(some, others):
        return np.median(np.abs(some[:, None] - others[None]).sum(-1))

    assert typical_distance(yes, no) > 2 * max(typical_distance(yes, yes), typical_distance(no, no))


def test_harder_files_of_recordings(tmp_path):
    generator = np.random.default_rng(0)
    (tmp_path / "recordings").mkdir()
    for digit in (1, 9):
        for index in range(4):
            path = tmp_path / "recordings" / f"{digit}_theo_{index}.wav"
            soundfile.write(path, 0.1 * generator.standard_normal(3000), 8000)
    arguments = ["--output-dir", str(tmp_path / "out"), "--recordings", str(tmp_path / "recordings")]
    subprocess.run([sys.executable, "-W", "error", str(SCRIPT), *arguments], check=True)
    files = sorted((tmp_path / "out").glob("*.wav"))
    assert len(files) == 60
    assert all(
        2 < soundfile.info(path).duration < 9 and soundfile.info(path).samplerate == 8000 for path in files
    )
