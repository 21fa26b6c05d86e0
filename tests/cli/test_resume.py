"""Interrupting a run and going on with it."""

import re
import signal
import subprocess
import sys
import time

import torch
from speech import train_arguments

from asr.bundle import Bundle
from asr.cli import main


def last_checkpoint(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)


def test_ctrl_c_saves_and_says_how_to_go_on(corpus, tmp_path, capsys):
    run = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "asr",
        *train_arguments(corpus, run, "--run.epochs=500", "--data.workers=1"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            break
    time.sleep(0.3)  # into the next epoch
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command with --resume goes on" in errors
    assert "Traceback" not in errors
    before = last_checkpoint(run)
    assert before["epoch"] >= 1

    more = before["epoch"] + 2
    assert main(train_arguments(corpus, run, f"--run.epochs={more}", "--resume")) == 0
    printed = capsys.readouterr().out
    epochs = [int(number) for number in re.findall(r"^epoch (\d+)/", printed, re.MULTILINE)]
    assert epochs
    assert epochs[0] > before["epoch"]
    assert epochs[-1] == more
    assert last_checkpoint(run)["global_step"] > before["global_step"]


def test_resuming_keeps_the_best(corpus, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(train_arguments(corpus, run, "--run.epochs=8")) == 0
    best = re.search(r"best dev WER ([\d.]+) %", capsys.readouterr().out)[1]
    stamp = (run / "bundle" / "config.json").stat().st_mtime_ns
    assert (
        main(train_arguments(corpus, run, "--run.epochs=9", "--optimizer.learning_rate=0", "--resume")) == 0
    )
    again = re.search(r"best dev WER ([\d.]+) %", capsys.readouterr().out)[1]
    assert float(again) <= float(best)
    if again == best:
        assert (run / "bundle" / "config.json").stat().st_mtime_ns == stamp


def test_another_model_is_not_resumed(corpus, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(train_arguments(corpus, run, "--run.epochs=1")) == 0
    assert main(train_arguments(corpus, run, "--run.epochs=2", "--resume", "--model.hidden_size=8")) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "last.ckpt does not fit this configuration" in error


def test_a_run_is_kept_when_its_successor_cannot_begin(corpus, tmp_path):
    run = tmp_path / "run"
    assert main(train_arguments(corpus, run, "--run.epochs=1")) == 0
    assert main(train_arguments(corpus, run, "--overwrite", f"--data.train={tmp_path}/typo.jsonl.gz")) == 1
    assert (run / "bundle" / "config.json").is_file()


def test_global_normalisation_and_moving_average(corpus, tmp_path):
    run = tmp_path / "run"
    settings = ("--run.epochs=2", "--features.normalise=global", "--optimizer.ema=0.9")
    assert main(train_arguments(corpus, run, *settings)) == 0
    bundle = Bundle.load(run / "bundle")
    assert torch.isfinite(bundle.log_mel.mean).all()
    assert (bundle.log_mel.std > 0).all()
    trained = last_checkpoint(run)["state_dict"]
    assert not torch.equal(trained["model.output.weight"], trained["average.module.output.weight"])
