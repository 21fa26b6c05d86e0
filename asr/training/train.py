"""`asr train` from configuration to bundle: launch the processes, build what trains, run it."""

import logging
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

from asr.errors import AsrError, BundleError, ConfigError
from asr.training.build import Built, build, fault_report
from asr.training.checkpoint import has_checkpoint, read_checkpoint
from asr.training.config import CONFIG, TrainConfig
from asr.training.interrupts import Interrupted
from asr.training.loop import Training
from asr.training.progress import Progress, start_wandb
from asr.training.read_config import config_text
from asr.training.report import write_report, write_run_file
from asr.training.run_folder import CHECKPOINTS, alone_in, check_folder, new_folder, write_summary
from asr.training.watch import RunAborted
from asr.version import __version__

LISTED = 20  # left-out utterances

log = logging.getLogger(__name__)


def train(config: TrainConfig, resume: bool = False, overwrite: bool = False) -> int:
    """Train, leaving in `run.folder` the bundle of the best dev WER, checkpoints, logs, report and configuration.

    Returns the exit status: 0; 1 when utterances could not be used; 130 after Ctrl-C and 143 after SIGTERM.
    """
    _quieten_lightning()
    folder = Path(config.run.folder)
    check_folder(folder, resume, overwrite)
    if resume and not has_checkpoint(folder / CHECKPOINTS):
        log.warning("there is no checkpoint in %s to resume: the run starts from the beginning", folder)
        resume = False
    state = read_checkpoint(folder / CHECKPOINTS) if resume else None
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    with launch(config) as fabric, alone_in(folder) if fabric.is_global_zero else nullcontext():
        built = build(config, fabric, folder, state)
        training, progress = prepare(built, fabric, folder, state)
        return run(training, folder, progress)


@contextmanager
def launch(config: TrainConfig) -> Iterator[Fabric]:
    """Start the other processes; when this one ends in an error, end those, which would wait for it for long."""
    run = config.run
    try:
        fabric = Fabric(accelerator=run.accelerator, devices=run.devices, num_nodes=run.nodes)
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        devices = f"run.accelerator {run.accelerator}, devices {run.devices}, nodes {run.nodes}"
        raise ConfigError(f"this machine does not offer {devices}: {' '.join(str(error).split())}") from error
    try:
        fabric.launch()
        yield fabric
    except BaseException:  # Ctrl-C too
        for process in getattr(fabric.strategy.launcher, "procs", []):
            process.kill()
        raise


def prepare(
    built: Built, fabric: Fabric, folder: Path, state: dict[str, Any] | None
) -> tuple[Training, Progress | None]:
    """Make the run and its folder, and in the first process what reports on it.

    An earlier run in the folder is deleted when nothing was found wrong with the new one.
    """
    first, config = fabric.is_global_zero, built.config
    progress = Progress(folder / "logs", config.run.epochs, config.run.log_every) if first else None
    observers: dict[str, Any] = {}
    if progress is not None:
        observers = {
            "on_step": progress.step,
            "on_epoch": lambda training: progress.epoch(training.history[-1], training.dev_pairs),
            "on_best": lambda training: save_bundle(training, folder),
            "on_warning": progress.warn,
        }
    training = Training(fabric, config, built.bundle, built.data, folder / CHECKPOINTS, **observers)
    if state is not None:
        _restore(training, state, folder)
    fabric.barrier()  # all have read the configuration that is written now, and nothing was wrong with it
    if progress is not None:
        with nullcontext() if state is not None else new_folder(folder, config, built.bundle.tokenizer):
            _begin(progress, training, folder)
        if built.changed:
            (folder / CONFIG).write_text(config_text(config), "utf-8")
        _introduce(built)
    fabric.barrier()
    return training, progress


def _begin(progress: Progress, training: Training, folder: Path) -> None:
    """Open the logs, here and at Weights & Biases. Raises ConfigError."""
    config = training.config
    steps = -(-len(training.data.train_loader) // config.optimizer.accumulate_batches)
    wandb = start_wandb(config.run.wandb, folder, asdict(config))
    progress.begin(training.step, steps, wandb)


def _introduce(built: Built) -> None:
    """Report what is trained, on what, and what is wrong with that."""
    parameters = sum(p.numel() for p in built.bundle.model.parameters())
    log.info("%s", built.data.summary_text())
    log.info("model: %.2f M parameters, %d tokens", parameters / 1e6, built.bundle.tokenizer.vocab_size)
    if report := fault_report(built):
        log.warning("%s", report)


def run(training: Training, folder: Path, progress: Progress | None) -> int:
    """Train, with the report of the run in the first process however it ends; returns the exit status."""
    if progress is None:
        # The first process reports how the run ends; a status of ours would have it killed in the middle of that.
        with suppress(RunAborted, Interrupted):
            _fit(training)
        return 0
    ended = "ended by an error of the program"
    try:
        _fit(training)
        ended = "finished"
    except Interrupted as interruption:
        ended = "interrupted; --resume continues it"
        where = folder / CHECKPOINTS
        state = (
            f"the state is saved in {where}" if interruption.saved else f"{where} holds the last state saved"
        )
        log.warning("\ninterrupted; %s: the same command with --resume continues", state)
        return 128 + interruption.signum
    except AsrError as error:
        ended = f"ended: {error}"
        raise
    except KeyboardInterrupt:
        ended = "interrupted; --resume continues it"
        raise
    finally:
        progress.close(finished=ended == "finished")
        if ended == "finished":
            _summarize(training, folder)
        _report_run(folder, ended, training.left_out)
    return _report_left_out(training.left_out)


def _fit(training: Training) -> None:
    """Train; errors of the processes that take part get messages for people. Raises AsrError."""
    fabric = training.fabric
    try:
        training.fit()
    except RuntimeError as error:
        if "DataLoader worker" in str(error):
            # torch would raise again as the other workers end.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            raise AsrError(
                "a process that makes batches was killed, usually for lack of memory; lower data.workers or "
                f"data.batch_seconds, and continue with --resume ({str(error).splitlines()[0]})"
            ) from error
        if fabric.world_size > 1 and _is_of_connection(error):
            raise AsrError(
                f"process {fabric.global_rank} of {fabric.world_size} lost the connection to another one, which has "
                "ended: its own message, above or in the log of its machine, gives the reason. The state of the last "
                "checkpoint is kept; continue with --resume (--debug shows what the connection reported)"
            ) from error
        raise


def _is_of_connection(error: RuntimeError) -> bool:
    """Whether an error comes from the exchange between processes, over gloo or NCCL."""
    text = str(error)
    signs = ("gloo", "Connection closed", "Connection reset", "NCCL", "timed out", "Timed out")
    return isinstance(error, torch.distributed.DistError) or any(sign in text for sign in signs)


def save_bundle(training: Training, folder: Path) -> None:
    """Write the evaluated model as the run's bundle. Raises BundleError."""
    summary = {
        **training.data.summary(),
        "dev_wer": round(training.best, 5),
        "epoch": training.epoch,
        "steps": training.step,
        "minutes": round(training.minutes, 2),
        "asr_version": __version__,
    }
    stored_as = training.config.run.bundle_weights
    bundle = replace(training.bundle, model=training.evaluated_model, training=summary, stored_as=stored_as)
    try:
        bundle.save(folder / "bundle")
    except BundleError as error:
        raise BundleError(
            f"{error}; the last checkpoint is kept: once that is mended, --resume continues"
        ) from error


def _restore(training: Training, state: dict[str, Any], folder: Path) -> None:
    try:
        training.load(state)
    except AsrError as error:
        raise AsrError(
            f"the checkpoint in {folder / CHECKPOINTS} does not fit this configuration; resume with the one the run "
            f"began with, {folder / CONFIG} ({error})"
        ) from error


def _summarize(training: Training, folder: Path) -> None:
    log.info(
        "best dev WER %.2f %% after %.1f minutes; the model is %s",
        *(100 * training.best, training.minutes, folder / "bundle"),
    )
    summary = {
        "dev_wer": training.best,
        "minutes": round(training.minutes, 2),
        "epochs": training.config.run.epochs,
        "left_out": len(training.left_out),
    }
    write_summary(folder, summary)


def _report_run(folder: Path, ended: str, left_out: dict[str, str]) -> None:
    """Draw the report; what keeps it from being written may not hide how the run ended."""
    try:
        write_run_file(folder, ended, left_out)
        log.info("the report is %s", write_report(folder))
    except (AsrError, OSError) as error:
        log.warning("the report cannot be written: %s", error)


def _report_left_out(left_out: dict[str, str]) -> int:
    for name, reason in sorted(left_out.items())[:LISTED]:
        log.warning("left out %s: %s", name, reason)
    if len(left_out) > LISTED:
        log.warning("... and %d more", len(left_out) - LISTED)
    if left_out:
        log.warning("%d utterances were left out; all others were used", len(left_out))
    return 1 if left_out else 0


def _quieten_lightning() -> None:
    """Keep Lightning's advice to developers from users, for whom asr has messages of its own."""
    os.environ.setdefault("POSSIBLE_USER_WARNINGS", "off")
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning_fabric\..*")
