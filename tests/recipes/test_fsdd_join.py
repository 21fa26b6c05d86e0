"""Joined digits: what is held out, what is said in which order, and that the audio says it."""

import importlib.util
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.cli import main
from asr.data import load_cuts
from asr.data.cuts import speaker_of, text_of
from asr.errors import ManifestError

SCRIPT = Path(__file__).resolve().parents[2] / "recipes" / "fsdd" / "join.py"
RATE = 8000


@pytest.fixture(scope="module")
def join():
    specification = importlib.util.spec_from_file_location("join_fsdd", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["join_fsdd"] = module
    specification.loader.exec_module(module)
    return module


def prepared(folder: Path, indices: range) -> Path:
    """Prepare recordings whose samples tell their digit: level 0.05 for zero to 0.5 for nine."""
    (folder / "recordings").mkdir(parents=True)
    for speaker in ("ann", "bob"):
        for digit in range(10):
            for index in indices:
                samples = np.full(800 + 80 * digit, 0.05 * (digit + 1))
                soundfile.write(folder / "recordings" / f"{digit}_{speaker}_{index}.wav", samples, RATE)
    arguments = [str(folder), "--output-dir", str(folder / "cuts"), "--dev-fraction", "0"]
    assert main(["prepare", "fsdd", *arguments]) == 0
    return folder / "cuts"


def digits_heard(path: str) -> list[int]:
    """Read the digits off a file's levels."""
    samples, rate = soundfile.read(path)
    assert rate == RATE
    levels = np.round(samples / 0.05).astype(int)
    starts = np.flatnonzero((np.diff(levels, prepend=0) != 0) & (levels > 0))
    return [int(levels[start]) - 1 for start in starts]


def test_recordings_5_to_9_are_held_out_and_the_test_set_is_joined(join, tmp_path):
    written = join.prepare(prepared(tmp_path, range(4, 12)), None, 2, 0)
    dev = written["dev_single"]
    assert {cut.id.rsplit("_", 1)[1] for cut in dev} == {"5", "6", "7", "8", "9"}
    assert len(dev) == 2 * 10 * 5
    # Recording 4 is the usual test set's; 10 and 11 train.
    words = {name: sum(len((text_of(cut) or "").split()) for cut in cuts) for name, cuts in written.items()}
    assert words == {"train_joined": 40 * 3, "dev_single": 100, "dev_joined": 200, "test_joined": 40}
    for name, cuts in written.items():
        assert [cut.id for cut in load_cuts(tmp_path / "cuts" / f"cuts_{name}.jsonl.gz")] == [
            cut.id for cut in cuts
        ]


def test_the_audio_says_what_the_text_says(join, tmp_path):
    from asr.data.corpora.published import DIGITS

    written = join.prepare(prepared(tmp_path, range(5, 11)), None, 2, 3)
    joined = written["dev_joined"]
    pauses = []
    for cut in joined:
        words = (text_of(cut) or "").split()
        heard = [DIGITS[digit] for digit in digits_heard(cut.recording.sources[0].source)]
        # Two of the same digit without a pause between them are one level.
        assert [word for word, _ in groupby(heard)] == [word for word, _ in groupby(words)]
        assert 1 <= len(words) <= 7  # one where a speaker's share leaves a single recording
        spoken = sum(0.1 + 0.01 * DIGITS.index(word) for word in words)
        pauses.append((cut.duration - spoken) / (len(words) + 1))
        assert -1e-3 <= pauses[-1] <= 0.5
    assert 0.1 < np.mean(pauses) < 0.2  # 60 % of them, of 0.25 s on average
    speakers = [speaker_of(cut) for cut in joined]
    assert {"ann", "bob"} < set(speakers) <= {"ann", "bob", "several"}


def test_the_same_seed_gives_the_same_sequences(join, tmp_path):
    folders = [prepared(tmp_path / name, range(5, 11)) for name in ("one", "two", "three")]
    texts = [
        [text_of(cut) for cut in join.prepare(folder, None, 1, seed)["train_joined"]]
        for folder, seed in zip(folders, (0, 0, 1), strict=True)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_one_speaker_can_be_held_out(join, tmp_path):
    folder = prepared(tmp_path, range(5, 7))
    written = join.prepare(folder, "bob", 1, 0)
    assert {speaker_of(cut) for cut in written["dev_single"] + written["dev_joined"]} == {"bob"}
    assert {speaker_of(cut) for cut in written["train_joined"]} == {"ann"}
    with pytest.raises(ManifestError, match="no speaker eve to hold out; there are ann, bob"):
        join.prepare(folder, "eve", 1, 0)


def test_nothing_to_hold_out_or_to_train_on(join, tmp_path, monkeypatch, capsys):
    cuts = prepared(tmp_path, range(10, 12))
    monkeypatch.setattr(sys, "argv", ["join.py", str(cuts)])
    assert join.main() == 1
    assert "of 40 recordings 0 would be held out; expected recordings 5 to 9" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["join.py", str(tmp_path / "nowhere")])
    assert join.main() == 1
    assert "there is no manifest" in capsys.readouterr().err
