"""Real recordings, in the formats in which corpora come, through the command line."""

import json

import numpy as np
import pytest
import soundfile
import soxr
from helpers import SETTINGS, make_bundle

from asr.audio import load_audio
from asr.cli import main


@pytest.fixture
def untrained(tmp_path):
    make_bundle().save(tmp_path / "bundle")
    return str(tmp_path / "bundle")


def test_every_format_is_read_alike(shared_data, untrained, tmp_path):
    """The hypotheses of an untrained model are noise, but the same audio must give nearly the same noise."""
    sphere = next((shared_data / "an4" / "wav").rglob("*.sph"))
    samples = load_audio(sphere, 16000)
    folder = tmp_path / "audio"
    folder.mkdir()
    (folder / "sphere.sph").write_bytes(sphere.read_bytes())
    soundfile.write(folder / "lossless.flac", samples, 16000)
    high = soxr.resample(samples, 16000, 44100, quality="VHQ")
    soundfile.write(folder / "high.wav", np.stack([high, high], 1), 44100, subtype="FLOAT")
    soundfile.write(folder / "opus.ogg", samples, 16000, format="OGG", subtype="OPUS")
    soundfile.write(folder / "lossy.mp3", samples, 16000)
    soundfile.write(folder / "telephone.wav", soxr.resample(samples, 16000, 8000), 8000)
    out = tmp_path / "out"
    assert main(["transcribe", str(folder), "--model", untrained, "-o", str(out), "-f", "json"]) == 0
    results = {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}
    assert len(results) == 6
    for result in results.values():
        assert result["duration"] == pytest.approx(len(samples) / 16000, abs=0.1)
    assert results["sphere"]["text"] == results["lossless"]["text"]


def test_corpora_as_published(shared_data, untrained, tmp_path):
    opus = (
        sorted((shared_data / "speechocean762").rglob("*.ogg"))[:1]
        or sorted((shared_data / "speechocean762").rglob("*.opus"))[:1]
    )
    digits = sorted((shared_data / "fsdd" / "recordings").glob("*.wav"))[:1]
    flac = sorted((shared_data / "LibriSpeech").rglob("*.flac"))
    files = [str(path) for path in (*opus, *digits, *flac)]
    assert len(files) == 6
    assert main(["transcribe", *files, "--model", untrained, "-o", str(tmp_path / "out")]) == 0


def test_librispeech_recipe_on_four_real_utterances(shared_data, tmp_path, monkeypatch, pytestconfig):
    config = str(pytestconfig.rootpath / "recipes" / "librispeech" / "config.yaml")
    monkeypatch.chdir(tmp_path)
    source = str(shared_data / "LibriSpeech")
    assert main(["prepare", "librispeech", source, "--output-dir", "data/librispeech"]) == 0
    cuts = "data/librispeech/cuts_test-clean.jsonl.gz"
    arguments = ["train", "--config", config, f"--data.train={cuts}", f"--data.dev={cuts}", *SETTINGS]
    smaller = [
        "--run.epochs=2",
        "--text.vocab_size=40",
        "--data.speed_perturb=[0.9,1.1]",
        "--data.batch_seconds=20",
        "--loss.intermediate_layers=[]",
    ]
    assert main([*arguments, *smaller]) == 0
    assert main(["evaluate", "--model", "runs/librispeech/bundle", cuts, "--json", "result.json"]) == 0
    assert len(json.loads((tmp_path / "result.json").read_text())["hypotheses"]) == 4
