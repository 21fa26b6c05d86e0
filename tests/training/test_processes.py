"""Processes that train together and are told to stop, lose one, or find faults of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import RATE, train_arguments

from asr.cli import main
from asr.data.cuts import load_cuts, write_cuts
from asr.training.checkpoint import read_checkpoint

TOGETHER = (
    "--run.devices=2 --run.accelerator=cpu --run.threads=1 --run.deterministic=true "
    "--data.batch_seconds=5 --run.epochs=4"
).split()
CHANCES = "--model.dropout=0.2 --spec_augment.time_masks=1 --optimizer.ema=0.9".split()


def start(*arguments: str) -> subprocess.Popen:
    """Begin `asr ARGUMENTS...` in a group of processes of its own."""
    command = [sys.executable, "-m", "asr", *arguments]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests run in the background of a shell it has Ctrl-C ignored, by their children too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def end(process: subprocess.Popen) -> str:
    """Wait, for the other processes too, which hold the same streams; gives what came on stderr."""
    return process.communicate(timeout=300)[1]


def wait_for_epoch(process: subprocess.Popen, epoch: int) -> None:
    for line in process.stdout or ():
        if line.startswith(f"epoch {epoch}/"):
            return
    pytest.fail(f"epoch {epoch} did not come: {end(process)}")


def wait_until(condition) -> None:
    for _ in range(2400):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not come to that")


def children_of(process: subprocess.Popen) -> list[int]:
    return [int(n) for n in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def other_rank(process: subprocess.Popen) -> int:
    """Give the number of the second training process."""
    return next(n for n in children_of(process) if b"asr" in Path(f"/proc/{n}/cmdline").read_bytes())


@pytest.mark.parametrize(
    ("number", "moment"), [(signal.SIGTERM, "imports"), (signal.SIGINT, "before the first step")]
)
def test_a_signal_during_start_up(corpus, tmp_path, number, moment):
    run = tmp_path / "run"
    process = start(*train_arguments(corpus, run, "--run.epochs=1"))
    if moment == "imports":
        wait_until(lambda: b"libtorch" in Path(f"/proc/{process.pid}/maps").read_bytes())
    else:
        wait_until((run / "config.yaml").exists)
    process.send_signal(number)
    errors = end(process)
    assert process.returncode == 128 + number
    assert errors.strip().splitlines()[-1].endswith("the same command with --resume continues")
    assert "Traceback" not in errors
    assert main(train_arguments(corpus, run, "--run.epochs=1", "--resume")) == 0
    assert (run / "bundle").is_dir()


def test_a_run_without_a_checkpoint_begins_when_it_is_resumed(corpus, tmp_path, capsys):
    assert main(train_arguments(corpus, tmp_path / "run", "--run.epochs=1", "--resume")) == 0
    printed = capsys.readouterr()
    assert "there is no checkpoint in" in printed.err
    assert "epoch 1/1" in printed.out


def test_a_signal_to_one_of_two_processes_that_begin_ends_both(corpus, tmp_path):
    process = start(*train_arguments(corpus, tmp_path / "run", *TOGETHER, "--run.epochs=1"))
    wait_until(lambda: len(children_of(process)) > 0)
    process.terminate()
    errors = end(process)  # returns only when both have closed their streams
    assert process.returncode == 143
    assert "Traceback" not in errors


def checksum(run: Path) -> str:
    return json.loads((run / "bundle" / "config.json").read_text())["weights_sha256"]


@pytest.fixture(scope="module")
def left_alone(corpus, tmp_path_factory):
    """Weights that two processes come to which nobody interrupts."""
    run = tmp_path_factory.mktemp("whole") / "run"
    process = start(*train_arguments(corpus, run, *TOGETHER, *CHANCES))
    errors = end(process)
    assert process.returncode == 0, errors
    return checksum(run)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "receiver"), [(signal.SIGINT, "both"), (signal.SIGTERM, "second")])
def test_two_processes_save_leave_and_go_on_to_the_same_weights(
    corpus, tmp_path, left_alone, number, receiver
):
    run = tmp_path / "run"
    arguments = train_arguments(corpus, run, *TOGETHER, *CHANCES)
    process = start(*arguments)
    wait_for_epoch(process, 1)
    if receiver == "both":
        os.killpg(process.pid, number)
    else:
        os.kill(other_rank(process), number)
    errors = end(process)
    assert process.returncode == 128 + number
    assert errors.count("the same command with --resume continues") == 1
    assert "Traceback" not in errors
    assert 1 <= read_checkpoint(run / "checkpoints")["epoch"] < 4
    assert (run / "report.html").is_file()
    process = start(*arguments, "--resume")
    errors = end(process)
    assert process.returncode == 0, errors
    assert checksum(run) == left_alone


def test_faults_of_all_processes_reach_summary_and_report(corpus, tmp_path):
    faults = plant_faults(corpus, tmp_path)
    process = start(
        *train_arguments(tmp_path, tmp_path / "run", *TOGETHER, "--run.epochs=2", "--data.max_seconds=8")
    )
    errors = end(process)
    assert process.returncode == 1
    for name in faults:
        assert errors.count(f"left out {name}: ") == 1, errors
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert all(f"<li>{name}: " in page for name in faults)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["left_out"] == len(faults)


def plant_faults(corpus: Path, folder: Path) -> list[str]:
    """Copy the manifests with faults, several of a kind for both processes to meet some; gives the names."""
    (folder / "cuts").mkdir()
    cuts = {split: list(load_cuts(corpus / "cuts" / f"cuts_{split}.jsonl.gz")) for split in ("train", "dev")}
    names = [f"{kind}{number}" for kind in ("nan", "gone", "rushed") for number in range(4)]
    # Of dev one batch cannot be read at all: the longest, which come together.
    cuts["dev"].sort(key=lambda cut: -cut.duration)
    unreadable = [f"dev_gone{number}" for number in range(2)]
    for cut, name in [
        *zip(cuts["train"], names, strict=False),
        *zip(cuts["dev"], unreadable, strict=False),
    ]:
        samples, _ = soundfile.read(cut.recording.sources[0].source)
        cut.recording.sources[0].source = str(folder / f"{name}.wav")
        cut.id = name
        if name.startswith("nan"):
            samples[500] = np.nan
        if name.startswith("rushed"):
            cut.supervisions[0].text = "abcabc " * 60
        if "gone" not in name:
            soundfile.write(folder / f"{name}.wav", samples, RATE, subtype="FLOAT")
    for split, kept in cuts.items():
        write_cuts(kept, folder / "cuts", split)
    return [*names, *unreadable]


@pytest.mark.slow
def test_the_first_clock_ends_the_run_for_both(corpus, tmp_path):
    """The other process's clock runs ahead: by its own it would stop after the first epoch, and the first wait."""
    program = (
        "import os, sys, time\n"
        "if os.environ.get('LOCAL_RANK') == '1':\n"
        "    ahead, clock = iter(range(0, 10**9, 600)), time.monotonic\n"
        "    import asr.training.loop as loop\n"
        "    loop.time = type('Ahead', (), {'monotonic': staticmethod(lambda: clock() + next(ahead))})\n"
        "from asr.cli import main\n"
        "sys.exit(main())\n"
    )
    (tmp_path / "asr_train.py").write_text(program)
    arguments = train_arguments(corpus, tmp_path / "run", *TOGETHER, "--run.epochs=2", "--run.max_minutes=5")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "asr_train.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "epoch 2/2" in done.stdout


def test_a_dead_loader_worker_is_told_in_plain_words(corpus, tmp_path):
    run = tmp_path / "run"
    process = start(*train_arguments(corpus, run, "--run.epochs=4000", "--data.workers=1"))
    wait_for_epoch(process, 1)
    os.kill(children_of(process)[0], signal.SIGKILL)
    errors = end(process)
    assert process.returncode == 1
    assert "a process that makes batches was killed, usually for lack of memory" in errors
    assert "Traceback" not in errors
    assert "ended: a process that makes batches was killed" in (run / "report.html").read_text("utf-8")
