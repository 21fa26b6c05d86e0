"""A run over a corpus with planted faults ends with a model and names each of them."""

import numpy as np
import pytest
import soundfile
from helpers import RATE, train_arguments

from asr.bundle import Bundle
from asr.cli import main
from asr.data.batches import BatchMaker
from asr.data.cuts import load_cuts, write_cuts, write_manifest


@pytest.fixture
def faulty(corpus, tmp_path):
    """The corpus with utterances that cannot be used; gives its folder and their ids by fault."""
    for split in ("train", "dev"):
        cuts = list(load_cuts(corpus / "cuts" / f"cuts_{split}.jsonl.gz"))
        if split == "train":
            for cut, name in zip(
                cuts, ("nan", "huge", "gone", "garbage", "rushed", "long", "feature"), strict=False
            ):
                samples, _ = soundfile.read(cut.recording.sources[0].source)
                path = tmp_path / f"{name}.wav"
                if name == "long":
                    samples = np.tile(samples, 12)
                    cut.duration = cut.recording.duration = cut.supervisions[0].duration = len(samples) / RATE
                    cut.recording.num_samples = len(samples)
                if name == "nan":
                    samples[500] = np.nan
                if name == "huge":
                    samples[:] = 1e30
                soundfile.write(path, samples, RATE, subtype="FLOAT")
                cut.recording.sources[0].source = str(path)
                cut.id = name
                if name == "garbage":
                    path.write_bytes(b"no audio at all" * 40)
                if name == "rushed":
                    cut.supervisions[0].text = "abcabc " * 60
        (tmp_path / "cuts").mkdir(exist_ok=True)
        write_cuts(cuts, tmp_path / "cuts", split)
    (tmp_path / "gone.wav").unlink()
    return tmp_path


@pytest.fixture
def nan_feature(monkeypatch):
    """Put a NaN into the features of the utterance "feature"; from samples, which are checked, none comes."""
    make = BatchMaker.__getitem__

    def planted(self, item):
        batch = make(self, item)
        if "feature" in batch.ids:
            batch.features[batch.ids.index("feature"), 3, 5] = float("nan")
        return batch

    monkeypatch.setattr(BatchMaker, "__getitem__", planted)


@pytest.mark.usefixtures("nan_feature")
def test_planted_faults_are_named_and_a_model_is_left(faulty, capsys):
    run = faulty / "run"
    assert main(train_arguments(faulty, run, "--run.epochs=2", "--data.max_seconds=8")) == 1
    told = dict(
        line.removeprefix("left out ").split(": ", 1)
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("left out ")
    )
    assert told.keys() == {"nan", "huge", "gone", "garbage", "rushed", "long", "feature"}
    assert "finite" in told["nan"]
    assert "has samples up to" in told["huge"]
    assert told["feature"] == "its features are not finite"
    assert "gone.wav" in told["gone"]
    assert "garbage.wav" in told["garbage"]
    assert "tokens need at least" in told["rushed"]
    assert "are not between 0.1 s and 8" in told["long"]
    assert Bundle.load(run / "bundle").training["train_utterances"] > 50
    page = (run / "report.html").read_text("utf-8")
    assert all(f"<li>{name}: " in page for name in told)


def test_dev_data_of_which_nothing_can_be_used_ends_the_run(corpus, tmp_path, capsys):
    cuts = load_cuts(corpus / "cuts" / "cuts_dev.jsonl.gz")
    (tmp_path / "damaged.wav").write_bytes(b"no audio")
    for cut in cuts:
        cut.recording.sources[0].source = str(tmp_path / "damaged.wav")
    dev = write_manifest(cuts, tmp_path / "dev.jsonl.gz")
    assert main([*train_arguments(corpus, tmp_path / "run", "--run.epochs=1"), f"--data.dev={dev}"]) == 1
    message = capsys.readouterr().err
    assert "data.dev holds no word that can be measured on, such as" in message
    assert "Traceback" not in message
