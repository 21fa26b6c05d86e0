"""Real corpora, each prepared, checked and trained on for a few steps, as a user would."""

import json
from pathlib import Path

import pytest
from helpers import SETTINGS

from asr.cli.main import main

CORPORA = {
    "speechocean762": "speechocean762",  # a Kaldi folder
    "an4": "an4",
    "fsdd": "fsdd",
    "librispeech": "LibriSpeech",
}


def run_steps(train: Path, dev: Path, run: Path) -> int:
    few = ["--run.max_minutes=0.02", "--run.epochs=1"]
    return main(
        ["train", f"--data.train={train}", f"--data.dev={dev}", f"--run.folder={run}", *SETTINGS, *few]
    )


@pytest.mark.slow
@pytest.mark.parametrize("corpus", CORPORA)
def test_prepare_check_train(shared_data, tmp_path, capsys, corpus):
    out = tmp_path / "data"
    arguments = [str(shared_data / CORPORA[corpus]), "--output-dir", str(out)]
    assert main(["prepare", corpus, *arguments]) == 0
    # Of LibriSpeech only four utterances of test-clean are at hand.
    names = ("test", "test-clean") if corpus == "librispeech" else ("train", "dev")
    train, dev = (out / f"cuts_{name}.jsonl.gz" for name in names)
    status = main(
        ["check", str(train), *([str(dev)] if corpus != "librispeech" else []), "--fix", str(out / "good")]
    )
    report = capsys.readouterr().out
    assert status == (1 if corpus == "fsdd" else 0), report
    if corpus == "fsdd":  # some digits are too short for a letter each 40 ms
        assert "too long: " in report
        train = out / "good" / train.name
    assert run_steps(train, dev, tmp_path / "run") == 0
    assert "best dev WER" in capsys.readouterr().out


@pytest.mark.slow
def test_nemo_lines_prepare_check_and_train(shared_data, tmp_path, capsys):
    lines = []
    for transcripts in sorted((shared_data / "LibriSpeech").rglob("*.trans.txt")):
        for line in transcripts.read_text().splitlines():
            key, _, text = line.partition(" ")
            lines.append(
                json.dumps({"audio_filepath": str(transcripts.parent / f"{key}.flac"), "text": text})
            )
    (tmp_path / "all.jsonl").write_text("\n".join(lines) + "\n")
    out = str(tmp_path / "data")
    assert main(["prepare", "manifest", str(tmp_path / "all.jsonl"), "--output-dir", out]) == 0
    train, dev = (tmp_path / "data" / f"cuts_{name}.jsonl.gz" for name in ("train", "dev"))
    assert main(["check", str(train), str(dev)]) == 0
    assert run_steps(train, dev, tmp_path / "run") == 0
