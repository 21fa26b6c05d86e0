"""Several seeds of one training, and the spread of what they come to."""

import json

import pytest
from helpers import train_arguments

from asr.cli import main


def test_seeds_are_trained_once_each(corpus, tmp_path, capfd):
    folder = tmp_path / "run"
    arguments = train_arguments(corpus, folder, "--run.epochs=2", "--run.threads=1")
    assert main([*arguments, "--seeds=1"]) == 0
    first = folder / "seed1" / "checkpoints" / "last.ckpt"
    written = first.stat().st_mtime_ns
    assert main([*arguments, "--seeds=2", "--resume"]) == 0
    assert first.stat().st_mtime_ns == written
    printed = capfd.readouterr().out
    assert "seed 1: finished before" in printed
    assert "mean dev WER" in printed
    found = json.loads((folder / "seeds.json").read_text())
    wers = [json.loads((folder / f"seed{n}" / "summary.json").read_text())["dev_wer"] for n in (1, 2)]
    assert found["dev_wers"] == wers
    assert found["mean"] == pytest.approx(sum(wers) / 2)
    assert (folder / "seed2" / "report.html").is_file()
    assert "seed: 2" in (folder / "seed2" / "config.yaml").read_text()


def test_old_runs_are_not_taken_for_new_ones(corpus, tmp_path, capfd):
    arguments = train_arguments(corpus, tmp_path / "run", "--run.epochs=1")
    assert main([*arguments, "--seeds=1"]) == 0
    capfd.readouterr()
    lost = f"--data.train={tmp_path}/nowhere.jsonl.gz"
    assert main([*arguments, lost, "--seeds=1", "--overwrite"]) == 1
    assert "mean dev WER" not in capfd.readouterr().out
    assert main([*arguments, "--seed=7"]) == 1  # no short form of --seeds
    assert "unknown option --seed" in capfd.readouterr().err


def test_seeds_of_another_configuration_are_not_averaged(corpus, tmp_path, capfd):
    arguments = train_arguments(corpus, tmp_path / "run", "--run.epochs=1", "--run.threads=1")
    assert main([*arguments, "--seeds=1"]) == 0
    assert main([*arguments, "--seeds=2", "--resume", "--optimizer.learning_rate=0.5"]) == 1
    error = capfd.readouterr().err
    assert "a seed that has finished was trained with another configuration" in error
    assert "not 0.5" in error
    assert not (tmp_path / "run" / "seed2").exists()


def test_a_seed_that_fails_ends_the_series(corpus, tmp_path, capfd):
    arguments = train_arguments(corpus, tmp_path / "run", "--run.epochs=1")
    assert main([*arguments, f"--data.train={tmp_path}/nowhere.jsonl.gz", "--seeds=2"]) == 1
    assert "there is no manifest" in capfd.readouterr().err
    assert not (tmp_path / "run" / "seed2").exists()
    assert not (tmp_path / "run" / "seeds.json").exists()
    assert main([*arguments, "--seeds=0"]) == 1
    assert "--seeds is 0; expected at least 1" in capfd.readouterr().err


def test_seeds_of_a_language_model(tmp_path, capfd):
    text, folder = tmp_path / "text.txt", tmp_path / "lm"
    text.write_text("the cat sat\nthe dogs ran\na cat ran\n" * 40)
    sizes = ["--network.hidden_size=8", "--network.embedding_size=4", "--run.epochs=0.7", "--run.threads=1"]
    arguments = ["lm", "train", str(text), "-o", str(folder), *sizes]
    assert main([*arguments, "--seeds=1"]) == 0
    assert main([*arguments, "--seeds=2", "--resume"]) == 0
    printed = capfd.readouterr().out
    assert "seed 1: finished before" in printed
    found = json.loads((folder / "seeds.json").read_text())
    assert f"mean dev perplexity {found['mean']:.2f}, standard deviation {found['deviation']:.2f}" in printed
    runs = [json.loads((folder / f"seed{n}" / "summary.json").read_text()) for n in (1, 2)]
    assert found["dev_perplexities"] == [run["dev_perplexity"] for run in runs]
