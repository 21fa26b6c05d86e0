"""Two processes, faults, warm starts: what a run promises beyond its weights."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import FakeWandb, train_arguments

from asr.cli import main
from asr.ctc import ctc_loss
from asr.data.cuts import load_cuts, write_cuts
from asr.errors import AlignmentError
from asr.torch_bundle import TorchBundle


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


def test_an_epoch_without_a_step_has_no_loss(corpus, tmp_path, capsys):
    arguments = (
        "--run.epochs=2 --data.batch_seconds=60 --optimizer.learning_rate=1e30 --optimizer.warmup_epochs=0"
    )
    main(train_arguments(corpus, tmp_path / "run", *arguments.split()))
    printed = capsys.readouterr()
    assert "skipped: " in printed.err
    assert "epoch 2/2  loss nan" in printed.out  # the first step's weights give nothing finite


def test_a_warm_start_keeps_the_tokens_that_both_know(corpus, bundle, tmp_path, capsys):
    run = tmp_path / "run"
    settings = ("--run.epochs=1", "--optimizer.learning_rate=0", f"--run.warm_start={bundle}")
    assert main(train_arguments(corpus, run, *settings)) == 0
    assert "starts from a trained model, which knows 5 of 5 tokens" in capsys.readouterr().out
    old, new = (TorchBundle.load(folder).model.state_dict() for folder in (bundle, run / "bundle"))
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
    assert "starts from a trained model, which knows 4 of 5 tokens" in capsys.readouterr().out
    other = TorchBundle.load(run / "bundle")
    known, unknown = other.tokenizer.tokens.index("c"), other.tokenizer.tokens.index("x")
    place = TorchBundle.load(bundle).tokenizer.tokens.index("c")
    weight = other.model.state_dict()["output.weight"]
    assert torch.equal(weight[known], old["output.weight"][place])
    assert not any(torch.equal(weight[unknown], row) for row in old["output.weight"])
    wide = ("--run.epochs=1", f"--run.warm_start={bundle}", "--model.hidden_size=12")
    assert main(train_arguments(corpus, tmp_path / "wide", *wide)) == 1
    assert "model.hidden_size is 12, the model's is 24" in capsys.readouterr().err


def test_averaging_keeps_the_better_model(corpus, tmp_path):
    run = tmp_path / "run"
    settings = ("--run.epochs=6", "--optimizer.average_checkpoints=2", "--optimizer.layer_decay=0.9")
    assert main(train_arguments(corpus, run, *settings)) == 0
    assert len(list((run / "checkpoints").glob("epoch-*.pt"))) == 2
    recorded = json.loads((run / "bundle" / "config.json").read_text())["training"]["dev_wer"]
    assert json.loads((run / "summary.json").read_text())["dev_wer"] == pytest.approx(recorded, abs=1e-4)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_as_float32_does(corpus, tmp_path, precision):
    settings = ("--run.epochs=3", "--run.log_every=1", "--run.accelerator=cpu")
    full, half = tmp_path / "full", tmp_path / "half"
    assert main(train_arguments(corpus, full, *settings)) == 0
    assert main(train_arguments(corpus, half, *settings, f"--run.precision={precision}")) == 0
    assert losses(half) != losses(full)
    assert losses(half)[-1] < losses(half)[0] / 2
    if precision == "bfloat16":  # float16 skips its first steps, until the scale fits
        assert losses(half) == pytest.approx(losses(full), rel=0.1)
    scale = torch.load(half / "checkpoints" / "last.ckpt", weights_only=True)["scaler"].get("scale")
    assert (scale is not None) == (precision == "float16")


def test_a_fault_in_float16_costs_its_step_only(corpus, tmp_path, monkeypatch, capsys):
    calls = iter(range(10**6))

    def fails_once(*arguments):
        if next(calls) == 2:
            raise AlignmentError("the CTC loss is not finite: a: its loss is nan")
        return ctc_loss(*arguments)

    monkeypatch.setattr("asr.training.step.ctc_loss", fails_once)
    settings = ("--run.epochs=1", "--run.precision=float16", "--run.accelerator=cpu")
    assert main(train_arguments(corpus, tmp_path / "run", *settings)) == 0
    assert capsys.readouterr().err.count("step 3 skipped: the CTC loss is not finite") == 1


def test_weights_and_biases_is_told_what_the_csv_is(corpus, tmp_path, monkeypatch):
    fake, run = FakeWandb(), tmp_path / "run"
    monkeypatch.setitem(sys.modules, "wandb", fake)
    arguments = train_arguments(corpus, run, "--run.wandb=tones", "--run.log_every=1")
    assert main([*arguments, "--run.epochs=1"]) == 0
    assert main([*arguments, "--run.epochs=2", "--resume"]) == 0
    assert [call["id"] for call in fake.calls] == [None, "abc"]  # a resumed run goes on there too
    assert fake.calls[0]["project"] == "tones"
    assert fake.calls[0]["name"] == "run"
    assert fake.calls[0]["config"]["model"]["hidden_size"] == 24
    assert [values["loss"] for values in fake.logged if "dev_wer" not in values] == pytest.approx(
        losses(run), rel=1e-5
    )
    assert sum("dev_wer" in values for values in fake.logged) == 2
    assert fake.ends == [0, 0]
    assert main([*arguments, "--run.epochs=9", "--resume", "--optimizer.learning_rate=1.0e30"]) == 1
    assert fake.ends == [0, 0, 1]  # failed


def test_without_weights_and_biases_it_says_what_to_install(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main(train_arguments(corpus, tmp_path / "run", "--run.wandb=tones", "--run.epochs=1")) == 1
    assert "pip install 'recurrent-asr[wandb]'" in capsys.readouterr().err


@pytest.mark.slow
def test_weights_and_biases_itself_takes_a_run_offline(corpus, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    command = train_arguments(corpus, tmp_path / "run", "--run.wandb=tones", "--run.epochs=1")
    done = subprocess.run(
        [sys.executable, "-m", "asr", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "run" / "logs" / "wandb").glob("offline-run-*/*.wandb"))


def test_a_dead_process_is_told_in_plain_words(corpus, tmp_path):
    settings = ("--run.epochs=400", "--run.accelerator=cpu", "--run.devices=2", "--run.threads=1")
    command = [sys.executable, "-m", "asr", *train_arguments(corpus, tmp_path / "run", *settings)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            break
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    other = [int(n) for n in children if b"asr" in Path(f"/proc/{n}/cmdline").read_bytes()]
    os.kill(other[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "process 0 of 2 lost the connection to another one, which has ended" in errors
    assert "gloo" not in errors
    assert "Traceback" not in errors


def test_dev_counts_words_that_the_alphabet_cannot_spell(corpus, tmp_path, capsys):
    cuts = load_cuts(corpus / "cuts" / "cuts_dev.jsonl.gz")[:2]
    cuts[0].supervisions[0].text = "žluťoučký kůň"
    dev = write_cuts(cuts, tmp_path, "dev")
    assert main(train_arguments(corpus, tmp_path / "run", "--run.epochs=1", f"--data.dev={dev}")) == 0
    assert "left out" not in capsys.readouterr().err
    lines = (tmp_path / "run" / "logs" / "samples.jsonl").read_text().splitlines()
    assert {json.loads(line)["id"] for line in lines} == {cut.id for cut in cuts}


def test_dev_loss_is_of_all_that_can_be_aligned(corpus, tmp_path):
    """One empty transcript does not take the loss of the others in its batch."""
    cuts = load_cuts(corpus / "cuts" / "cuts_dev.jsonl.gz")
    cuts[0].supervisions[0].text = ""
    dev = write_cuts(cuts, tmp_path, "dev")
    assert main(train_arguments(corpus, tmp_path / "run", "--run.epochs=1", f"--data.dev={dev}")) in (0, 1)
    with (tmp_path / "run" / "logs" / "metrics.csv").open() as file:
        (loss,) = [float(row["dev_loss"]) for row in csv.DictReader(file) if row.get("dev_loss")]
    assert 0 < loss < 100


def test_single_words_are_joined_with_a_space_that_none_has(corpus, tmp_path):
    splits = {}
    for name in ("train", "dev"):
        cuts = load_cuts(corpus / "cuts" / f"cuts_{name}.jsonl.gz")
        for cut in cuts:
            cut.supervisions[0].text = (cut.supervisions[0].text or "").split()[0]
        splits[name] = write_cuts(cuts, tmp_path, name)
    data = [f"--data.{name}={path}" for name, path in splits.items()]
    arguments = train_arguments(corpus, tmp_path / "run", *data, "--run.epochs=1", "--data.join_utterances=3")
    assert main(arguments) == 0
    assert " " in TorchBundle.load(tmp_path / "run" / "bundle").tokenizer.tokens


def test_a_float16_step_without_a_loss_is_skipped(corpus, tmp_path, capsys, monkeypatch):
    from asr.training import step

    real, calls = step.ctc_loss, []

    def first_fails(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise AlignmentError("the CTC loss is not finite: u: its loss is nan")
        return real(*arguments)

    monkeypatch.setattr(step, "ctc_loss", first_fails)
    assert main(train_arguments(corpus, tmp_path / "run", "--run.epochs=1", "--run.precision=float16")) == 0
    assert "step 1 skipped: the CTC loss is not finite" in capsys.readouterr().err
