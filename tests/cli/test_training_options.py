"""Two processes, faults, warm starts: what a run promises beyond its weights."""

import csv
import json
import subprocess
import sys

import pytest
import torch
from speech import train_arguments

from asr.bundle import Bundle
from asr.cli import main
from asr.data.manifests import load_cuts, write_cuts


def losses(run):
    with (run / "logs" / "metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]


def test_two_processes_learn_as_one(corpus, tmp_path):
    settings = (
        "--run.epochs=2 --run.log_every=1 --data.batch_seconds=6 --model.front_end.norm=layer --run.accelerator=cpu"
    ).split()
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(train_arguments(corpus, one, *settings, "--optimizer.accumulate_batches=2")) == 0
    command = [sys.executable, "-m", "asr", *train_arguments(corpus, two, *settings, "--run.devices=2")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 2/2") == 1
    assert len(losses(one)) == len(losses(two)) > 10
    assert losses(two) == pytest.approx(losses(one), rel=1e-3)


def test_a_model_that_only_diverges_ends_with_advice(corpus, tmp_path, capsys):
    arguments = ("--run.epochs=30", "--optimizer.learning_rate=1e30", "--optimizer.warmup_epochs=0")
    assert main(train_arguments(corpus, tmp_path / "run", *arguments, "--optimizer.gradient_clip=0")) == 1
    error = capsys.readouterr().err
    assert "skipped: " in error
    assert "10 steps in a row; a lower optimizer.learning_rate" in error


def test_a_warm_start_keeps_the_tokens_that_both_know(corpus, bundle, tmp_path, capsys):
    run = tmp_path / "run"
    settings = ("--run.epochs=1", "--optimizer.learning_rate=0", f"--run.warm_start={bundle}")
    assert main(train_arguments(corpus, run, *settings)) == 0
    assert "begins from a trained model: 5 of 5 tokens" in capsys.readouterr().out
    old, new = (Bundle.load(folder).model.state_dict() for folder in (bundle, run / "bundle"))
    assert all(
        torch.equal(old[name], new[name]) for name in old if "running" not in name and "num_" not in name
    )
    # Another alphabet: b is not known any more, x is new.
    for split in ("train", "dev"):
        cuts = list(load_cuts(corpus / "cuts" / f"cuts_{split}.jsonl.gz"))
        for cut in cuts:
            cut.supervisions[0].text = cut.supervisions[0].text.replace("b", "x")
        (tmp_path / "cuts").mkdir(exist_ok=True)
        write_cuts(cuts, tmp_path / "cuts", split)
    run = tmp_path / "other"
    assert main(train_arguments(tmp_path, run, *settings)) == 0
    assert "begins from a trained model: 4 of 5 tokens" in capsys.readouterr().out
    other = Bundle.load(run / "bundle")
    known, unknown = other.tokenizer.tokens.index("c"), other.tokenizer.tokens.index("x")
    place = Bundle.load(bundle).tokenizer.tokens.index("c")
    weight = other.model.state_dict()["output.weight"]
    assert torch.equal(weight[known], old["output.weight"][place])
    assert not any(torch.equal(weight[unknown], row) for row in old["output.weight"])
    wide = ("--run.epochs=1", f"--run.warm_start={bundle}", "--model.hidden_size=12")
    assert main(train_arguments(corpus, tmp_path / "wide", *wide)) == 1
    assert "run.warm_start: its model differs in" in capsys.readouterr().err


def test_averaging_keeps_the_better_model(corpus, tmp_path):
    run = tmp_path / "run"
    settings = ("--run.epochs=6", "--optimizer.average_checkpoints=2", "--optimizer.layer_decay=0.9")
    assert main(train_arguments(corpus, run, *settings)) == 0
    assert len(list((run / "checkpoints").glob("epoch-*.pt"))) == 2
    recorded = json.loads((run / "bundle" / "config.json").read_text())["training"]["dev_wer"]
    assert json.loads((run / "summary.json").read_text())["dev_wer"] == pytest.approx(recorded, abs=1e-4)
