"""Interrupting a run, killing it, and going on with it to the same weights."""

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import train_arguments

from asr.cli import main
from asr.errors import ConfigError
from asr.torch_bundle import TorchBundle
from asr.training.averaging import rank
from asr.training.checkpoint import read_checkpoint, write_checkpoint, write_whole
from asr.training.read_config import flat, read_config, read_yaml
from asr.training.run_folder import changed_keys


def last_checkpoint(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def start(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "asr", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process):
    process.communicate(timeout=120)
    return process.returncode


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(corpus, tmp_path, capsys, number, status):
    run = tmp_path / "run"
    process = start(*train_arguments(corpus, run, "--run.epochs=500", "--data.workers=1"))
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            break
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    for each in map(int, [*children, process.pid]):  # as a cluster does, the loader's processes first
        os.kill(each, number)
        time.sleep(0.2)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert "the same command with --resume continues" in errors
    assert "Traceback" not in errors
    before = last_checkpoint(run)
    assert before["epoch"] >= 2

    more = before["epoch"] + 2
    assert main(train_arguments(corpus, run, f"--run.epochs={more}", "--resume")) == 0
    printed = capsys.readouterr().out
    epochs = [int(number) for number in re.findall(r"^epoch (\d+)/", printed, re.MULTILINE)]
    assert epochs
    assert epochs[0] > before["epoch"]
    assert epochs[-1] == more
    assert last_checkpoint(run)["step"] > before["step"]


# All that chance and state can hide in: dropout, masks, speeds, batch normalization, a moving average, the best epoch.
CHANCES = (
    "--run.epochs=3 --run.deterministic=true --run.checkpoint_minutes=0.001 --data.batch_seconds=5 "
    "--data.speed_perturb=[0.9,1.0,1.1] --spec_augment.time_masks=1 --model.dropout=0.2 --model.zoneout=0.1 "
    "--optimizer.ema=0.9 --optimizer.accumulate_batches=2 --optimizer.average_checkpoints=2"
).split()


def weights_of(run):
    """What a run came to: the bundle's checksum, and the last weights, trained and averaged."""
    state = last_checkpoint(run)
    config = json.loads((run / "bundle" / "config.json").read_text())
    return config["weights_sha256"], state["model"], state["average"], state["history"][-1]["dev_wer"]


def same(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    return torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


def begun(process, run):
    """Wait until a process has come to training: it saves at the first moment."""
    last, before = run / "checkpoints" / "last.ckpt", time.time()
    while process.poll() is None and not (last.exists() and last.stat().st_mtime > before):
        time.sleep(0.01)
    return time.monotonic()


def test_a_run_killed_again_and_again_ends_in_the_same_weights(corpus, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(*train_arguments(corpus, whole, *CHANCES))
    began = begun(process, whole)
    assert finish(process) == 0
    duration, chance = time.monotonic() - began, random.Random(5)
    for resume in ([], ["--resume"]):
        process = start(*train_arguments(corpus, killed, *CHANCES, *resume))
        begun(process, killed)
        time.sleep(chance.uniform(0, 0.6) * duration)
        process.kill()
        finish(process)
    assert finish(start(*train_arguments(corpus, killed, *CHANCES, "--resume"))) == 0
    assert all(map(same, weights_of(whole), weights_of(killed)))


def test_every_step_is_a_place_to_go_on_from(corpus, tmp_path, monkeypatch, capsys):
    """Stop after each number of steps, and during dev, in one process: quicker than killing, and complete."""
    from asr.training.loop import Training

    def stop_at(monkeypatch, method, calls):
        original, count = getattr(Training, method), iter(range(calls))

        def counted(self, *arguments):
            if next(count, None) is None:
                self.received = signal.SIGTERM
            return original(self, *arguments)

        monkeypatch.setattr(Training, method, counted)

    whole = tmp_path / "whole"
    assert main(train_arguments(corpus, whole, *CHANCES)) == 0
    steps = last_checkpoint(whole)["step"]
    assert steps >= 9
    for method, calls in [
        ("_step", 0),
        ("_step", 1),
        ("_step", steps // 2),
        ("_step", steps - 1),
        ("measure", 1),
    ]:
        run = tmp_path / f"{method}{calls}"
        with monkeypatch.context() as patch:
            stop_at(patch, method, calls)
            assert main(train_arguments(corpus, run, *CHANCES)) == 143
        assert main(train_arguments(corpus, run, *CHANCES, "--resume")) == 0
        assert all(map(same, weights_of(whole), weights_of(run))), (method, calls)


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(corpus, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(train_arguments(corpus, run, "--run.epochs=2")) == 0
    last = run / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    capsys.readouterr()
    assert main(train_arguments(corpus, run, "--run.epochs=2", "--resume")) == 0
    printed = capsys.readouterr()
    assert "last.ckpt is damaged: the checksum of" in printed.err
    assert "resuming from previous.ckpt" in printed.err
    assert "epoch 2/2" in printed.out
    for name in ("last.ckpt", "previous.ckpt"):
        (run / "checkpoints" / name).write_bytes(b"half")
    assert main(train_arguments(corpus, run, "--run.epochs=2", "--resume")) == 1
    error = capsys.readouterr().err
    assert "last.ckpt is damaged" in error
    assert "previous.ckpt is damaged" in error
    torch.save({"weights": torch.zeros(3)}, last)
    assert main(train_arguments(corpus, run, "--run.epochs=2", "--resume")) == 1
    assert "last.ckpt is not a checkpoint that asr" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot read the configuration"), ("data: [", "not valid YAML"), ("", "no configuration")],
)
def test_a_run_goes_on_with_its_configuration_only(corpus, tmp_path, capsys, content, message):
    config = tmp_path / "config.yaml"
    write_checkpoint(tmp_path / "checkpoints", {"weights": torch.zeros(3)})
    if content is not None:
        config.write_text(content)
    assert main(train_arguments(corpus, tmp_path, "--resume", "--data.batch_seconds=auto")) == 1
    error = capsys.readouterr().err
    assert message in error
    assert str(config) in error


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path, caplog):
    assert write_checkpoint(tmp_path, {"weights": torch.zeros(10)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # the next file cannot be written whole
    try:
        assert not write_checkpoint(tmp_path, {"weights": torch.ones(1_000_000)})
        assert not write_whole(tmp_path / "epoch-0001.pt", {"weights": torch.ones(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    errors = caplog.text
    assert "last.ckpt: File too large; the one before is kept" in errors
    assert "epoch-0001.pt: File too large; the run continues without it" in errors
    assert read_checkpoint(tmp_path)["weights"].tolist() == [0.0] * 10
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_resuming_keeps_the_best(corpus, tmp_path, capsys):
    """Epochs that are worse leave the bundle alone: a learning rate as high as this one spoils the model."""
    run = tmp_path / "run"
    assert main(train_arguments(corpus, run, "--run.epochs=8")) == 0
    best = re.search(r"best dev WER ([\d.]+) %", capsys.readouterr().out)[1]
    stamp = (run / "bundle" / "config.json").stat().st_mtime_ns
    spoiled = ("--run.epochs=9", "--optimizer.learning_rate=30", "--optimizer.warmup_epochs=0", "--resume")
    assert main(train_arguments(corpus, run, *spoiled)) == 0
    history = last_checkpoint(run)["history"]
    assert rank(history[-1]) > min(map(rank, history[:-1]))
    assert re.search(r"best dev WER ([\d.]+) %", capsys.readouterr().out)[1] == best
    assert (run / "bundle" / "config.json").stat().st_mtime_ns == stamp


def test_another_model_is_not_resumed(corpus, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(train_arguments(corpus, run, "--run.epochs=1")) == 0
    config = run / "config.yaml"  # which would tell as well
    config.write_text(config.read_text().replace("hidden_size: 24", "hidden_size: 8"))
    assert main(train_arguments(corpus, run, "--run.epochs=2", "--resume", "--model.hidden_size=8")) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "checkpoints does not fit this configuration" in error


@pytest.mark.parametrize(
    "option",
    [
        "--features.f_min=200",
        "--run.seed=7",
        "--optimizer.ema=0.5",
        "--text.normalizer=none",
        "--run.precision=bfloat16",
        "--data.dev=other.jsonl.gz",
    ],
)
def test_what_a_run_rests_on_stays(corpus, tmp_path, capsys, option):
    run = tmp_path / "run"
    assert main(train_arguments(corpus, run, "--run.epochs=1")) == 0
    assert main(train_arguments(corpus, run, "--run.epochs=2", "--resume", option)) == 1
    key, value = option[2:].split("=")
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(rf"{key} \S+, not {value}", error)
    assert "Leave that as it was" in error


def test_other_batches_begin_the_interrupted_epoch_anew(corpus, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(train_arguments(corpus, run, "--run.epochs=1")) == 0
    state = last_checkpoint(run) | {"batch": 1}  # as if it had been interrupted in the second
    torch.save(state, run / "checkpoints" / "last.ckpt")
    assert main(train_arguments(corpus, run, "--run.epochs=2", "--resume", "--data.batch_seconds=3")) == 0
    assert "data.batch_seconds changed: the interrupted epoch starts again" in capsys.readouterr().err
    assert "batch_seconds: 3.0" in (run / "config.yaml").read_text()
    steps = last_checkpoint(run)["step"] - state["step"]
    again = tmp_path / "again"
    assert main(train_arguments(corpus, again, "--run.epochs=1", "--data.batch_seconds=3")) == 0
    assert steps == last_checkpoint(again)["step"]


def test_steps_of_more_batches_begin_the_interrupted_epoch_anew(corpus, tmp_path, capsys):
    """Which batches make a step decides their order, too."""
    run = tmp_path / "run"
    assert main(train_arguments(corpus, run, "--run.epochs=1")) == 0
    torch.save(last_checkpoint(run) | {"batch": 1}, run / "checkpoints" / "last.ckpt")
    more = ("--run.epochs=2", "--resume", "--optimizer.accumulate_batches=2")
    assert main(train_arguments(corpus, run, *more)) == 0
    assert (
        "optimizer.accumulate_batches changed: the interrupted epoch starts again" in capsys.readouterr().err
    )


def test_a_precision_found_is_no_other_than_the_one_named(corpus, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    assert main(train_arguments(corpus, run, "--run.epochs=1", "--run.precision=float32")) == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # "auto" would be bfloat16 there
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    config = read_config(train_arguments(corpus, run, "--run.accelerator=auto")[1:])
    with pytest.raises(ConfigError, match=r"run\.precision float32, not auto"):
        changed_keys(config, flat(read_yaml(run / "config.yaml")), run / "config.yaml")


def test_an_interrupted_epoch_is_ended_though_the_time_is_over(corpus, tmp_path, capsys):
    run = tmp_path / "run"
    limit = ("--run.epochs=5", "--run.max_minutes=0.001")
    assert main(train_arguments(corpus, run, *limit)) == 0
    state = last_checkpoint(run)
    assert state["epoch"] == 1
    begun = {
        "epoch": 0,
        "batch": 1,
        "history": [],
        "best": float("inf"),
    }  # as if it had been interrupted there
    torch.save(state | begun, run / "checkpoints" / "last.ckpt")
    capsys.readouterr()
    assert main(train_arguments(corpus, run, *limit, "--resume")) == 0
    printed = capsys.readouterr().out
    assert printed.count("\nepoch ") == 1
    assert "best dev WER inf" not in printed


@pytest.mark.parametrize("option", ["--data.train=typo.jsonl.gz", "--loss.intermediate_layers=[9]"])
def test_a_run_is_kept_when_its_successor_cannot_begin(corpus, tmp_path, option):
    run = tmp_path / "run"
    assert main(train_arguments(corpus, run, "--run.epochs=1")) == 0
    before = (run / "config.yaml").read_text()
    assert main(train_arguments(corpus, run, "--overwrite", option)) == 1
    assert (run / "bundle" / "config.json").is_file()
    assert main(train_arguments(corpus, run, "--resume", "--run.epochs=2", option)) == 1
    assert (run / "config.yaml").read_text() == before


def test_overwriting_replaces_a_run_and_nothing_else(corpus, tmp_path):
    run, link = tmp_path / "run", tmp_path / "link"
    assert main(train_arguments(corpus, run, "--run.epochs=2")) == 0
    (run / "notes.txt").write_text("mine")
    link.symlink_to(run)
    assert main(train_arguments(corpus, link, "--run.epochs=1", "--overwrite")) == 0
    assert (run / "notes.txt").read_text() == "mine"
    assert len((run / "logs" / "metrics.csv").read_text().splitlines()) == 2


def test_global_normalization_and_moving_average(corpus, tmp_path):
    run = tmp_path / "run"
    settings = ("--run.epochs=2", "--features.normalize=global", "--optimizer.ema=0.9")
    assert main(train_arguments(corpus, run, *settings)) == 0
    bundle = TorchBundle.load(run / "bundle")
    assert torch.isfinite(bundle.log_mel.mean).all()
    assert (bundle.log_mel.std > 0).all()
    state = last_checkpoint(run)
    assert not torch.equal(state["model"]["output.weight"], state["average"]["module.output.weight"])
