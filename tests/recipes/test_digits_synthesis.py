"""The synthesized digits: the same each time, voices apart, and words where they are said to be."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.data import load_cuts
from asr.data.cuts import speaker_of, text_of

pytest.importorskip("espeakng_loader")
SCRIPT = Path(__file__).resolve().parents[2] / "recipes" / "digits" / "synthesize.py"
SPLITS = ("train", "dev", "test")


def run_python(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parent)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """Two minutes of digits."""
    folder = tmp_path_factory.mktemp("digits")
    summary = run_python(str(SCRIPT), "--output-dir", str(folder), "--hours", "0.03", "--jobs", "2")
    assert ": 15 symbols and space: efghinorstuvwxz" in summary
    return folder


@pytest.fixture(scope="module")
def recipe():
    """The script as a module."""
    specification = importlib.util.spec_from_file_location("synthesize_digits", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["synthesize_digits"] = module
    specification.loader.exec_module(module)
    return module


def cuts_of(folder: Path, split: str):
    return load_cuts(folder / f"cuts_{split}.jsonl.gz")


def test_it_holds_what_was_asked_for(digits, recipe):
    seconds = {split: sum(cut.duration for cut in cuts_of(digits, split)) for split in SPLITS}
    assert sum(seconds.values()) == pytest.approx(
        0.03 * 3600, rel=0.4
    )  # the last utterance of each chunk overshoots
    assert seconds["train"] > 3 * (seconds["dev"] + seconds["test"])
    for split in SPLITS:
        for cut in cuts_of(digits, split):
            words = text_of(cut).split()
            assert 1 <= len(words) <= 7
            assert set(words) <= set(recipe.DIGITS)
            samples, sample_rate = soundfile.read(cut.recording.sources[0].source)
            assert sample_rate == 16000
            assert 0.09 < np.abs(samples).max() < 0.9


def test_the_splits_share_no_voice(digits, recipe):
    variants = {split: {speaker_of(cut).split("+")[1] for cut in cuts_of(digits, split)} for split in SPLITS}
    drawn = {split: set(names) for split, names in recipe.split_variants(0).items()}
    for split in SPLITS:
        assert variants[split]
        assert variants[split] <= drawn[split]
    assert not drawn["train"] & drawn["test"]
    assert not drawn["train"] & drawn["dev"]
    assert not drawn["dev"] & drawn["test"]
    assert min(map(len, drawn.values())) >= 8
    # steph, steph2 and steph3 sound alike
    families = [{name.rstrip("0123456789") for name in names if len(name) > 2} for names in drawn.values()]
    assert sum(map(len, families)) == len(set().union(*families))


def test_the_same_seed_gives_the_same_samples_with_any_number_of_processes(digits, tmp_path):
    again = (
        "from pathlib import Path; from synthesize import synthesize; synthesize(Path({!r}), 0.03, jobs=1)"
    )
    run_python("-c", again.format(str(tmp_path)))
    for split in SPLITS:
        first, second = (sorted((folder / "wav" / split).iterdir()) for folder in (digits, tmp_path))
        assert [path.name for path in first] == [path.name for path in second]
        assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))


def test_words_are_timed_in_order_and_fill_the_speech(digits):
    for cut in cuts_of(digits, "train"):
        (segment,) = cut.supervisions
        words = segment.alignment["word"]
        assert " ".join(word.symbol for word in words) == segment.text
        ends = [0.1, *(word.end for word in words)]
        assert all(word.start >= before - 1e-6 for word, before in zip(words, ends, strict=False))
        assert all(0.03 < word.duration < 1.2 for word in words)
        assert cut.duration - 0.6 < ends[-1] < cut.duration


def test_a_word_sounds_where_its_time_says(recipe):
    """Between two words with a pause the sound stops at the end of the one and starts with the other."""
    espeak = recipe.Espeak(1)
    samples, times = espeak.say("two, nine", "gmw/en-US+m3", rate=160, pitch=50, pitch_range=50)
    (_, first_end), (second_start, second_end) = times
    level = np.abs(samples).max()
    pause = samples[int((first_end + 0.02) * 16000) : int((second_start - 0.02) * 16000)]
    assert len(pause) > 0.05 * 16000
    assert np.abs(pause).max() < 0.05 * level
    for start, end in times:
        spoken = samples[int(start * 16000) : int(end * 16000)]
        assert np.sqrt(np.mean(spoken**2)) > 0.05 * level
    assert second_end <= len(samples) / 16000


def test_a_voice_that_does_not_exist(recipe):
    with pytest.raises(ValueError, match="espeak-ng has no voice xx"):
        recipe.Espeak(1).say("one", "xx", rate=160, pitch=50, pitch_range=50)


@pytest.mark.parametrize(("kind", "decibels"), [("white", 0), ("pink", -3), ("brown", -6)])
def test_noise_has_its_slope(recipe, kind, decibels):
    samples = recipe.noise(kind, 2**17, np.random.default_rng(0))
    assert np.mean(samples**2) == pytest.approx(1)
    power = np.abs(np.fft.rfft(samples)) ** 2
    octaves = [10 * np.log10(power[2**exponent : 2 ** (exponent + 1)].mean()) for exponent in range(9, 16)]
    assert np.diff(octaves).mean() == pytest.approx(decibels, abs=0.5)


def test_babble_is_of_several(recipe):
    generator = np.random.default_rng(0)
    others = [generator.standard_normal(length) for length in (1000, 3000)]
    mixed = recipe.babble(others, 2000, generator)
    assert mixed.shape == (2000,)
    assert np.mean(mixed**2) == pytest.approx(1)


def test_help_says_how(tmp_path):
    done = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, check=True)
    assert "--hours" in done.stdout
