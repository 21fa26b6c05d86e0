"""`asr lm train` from configuration to language model: read the text, make the network, run the loop."""

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from asr.errors import AsrError
from asr.lm_bundle import LmBundle
from asr.training.checkpoint import has_checkpoint, read_checkpoint
from asr.training.config import CONFIG
from asr.training.interrupts import Interrupted
from asr.training.lm.config import LmConfig
from asr.training.lm.loop import LmTraining
from asr.training.lm.network import RecurrentLm
from asr.training.lm.report import LmProgress, write_lm_report
from asr.training.lm.text import LmText
from asr.training.read_config import config_text, different_keys, flat, plain, read_yaml
from asr.training.report import write_run_file
from asr.training.run_folder import (
    CHECKPOINTS,
    TOKENIZER,
    alone_in,
    check_folder,
    new_folder,
    refuse_fixed,
    write_summary,
)
from asr.version import __version__

# What the weights, the optimizer's state and the order of the text rest on.
FIXED = ("text.", "data.", "network.", "run.seed", "optimizer.weight_decay", "optimizer.betas")

log = logging.getLogger(__name__)


def train_lm(config: LmConfig, resume: bool = False, overwrite: bool = False) -> int:
    """Train, leaving in `run.folder` the bundle of the best dev perplexity, checkpoints, logs, report, configuration.

    Returns the exit status: 0, 130 after Ctrl-C and 143 after SIGTERM. Raises AsrError.
    """
    folder = Path(config.run.folder)
    check_folder(folder, resume, overwrite)
    with alone_in(folder):
        return _train_in(folder, config, resume)


def _train_in(folder: Path, config: LmConfig, resume: bool) -> int:
    if resume and not has_checkpoint(folder / CHECKPOINTS):
        log.warning("there is no checkpoint in %s to resume: the run starts from the beginning", folder)
        resume = False
    state = read_checkpoint(folder / CHECKPOINTS) if resume else None
    if state is not None:
        before, now = flat(read_yaml(folder / CONFIG, LmConfig)), flat(plain(config))
        refuse_fixed(different_keys(before, now), before, now, folder / CONFIG, FIXED)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    text = LmText(config, folder / TOKENIZER if state is not None else None)
    torch.manual_seed(config.run.seed)
    model = RecurrentLm(config.network, text.units.size)
    progress = LmProgress(folder / "logs", config.run.epochs, config.run.log_every)
    training = LmTraining(
        config,
        model,
        text,
        folder / CHECKPOINTS,
        on_step=progress.step,
        on_dev=lambda training: progress.epoch(training.history[-1]),
        on_best=lambda training: save_lm(training, folder),
        on_warning=progress.warn,
    )
    if state is not None:
        _restore(training, state, folder)
    with nullcontext() if state is not None else new_folder(folder, config, text.units):
        progress.begin(training.step, training.steps_per_epoch)
    (folder / CONFIG).write_text(config_text(config), "utf-8")
    _introduce(training)
    return _run(training, folder, progress)


def _introduce(training: LmTraining) -> None:
    """Report what is trained, on what."""
    train, dev = training.text.train, training.text.dev
    parameters = sum(p.numel() for p in training.model.parameters())
    log.info(
        "train: %d sentences, %d words, %.2f %% of them unknown; dev: %d sentences, %d words, %.2f %% unknown",
        *(train.sentences, train.words, 100 * train.unknown / max(train.words, 1)),
        *(dev.sentences, dev.words, 100 * dev.unknown / max(dev.words, 1)),
    )
    log.info(
        "model: %.2f M parameters, %d %s; %d steps an epoch",
        *(parameters / 1e6, training.text.units.size, training.text.units.kind, training.steps_per_epoch),
    )


def _restore(training: LmTraining, state: dict[str, Any], folder: Path) -> None:
    try:
        training.load(state)
    except AsrError as error:
        raise AsrError(
            f"the checkpoint in {folder / CHECKPOINTS} does not fit this configuration; resume with the one the run "
            f"began with, {folder / CONFIG} ({error})"
        ) from error


def _run(training: LmTraining, folder: Path, progress: LmProgress) -> int:
    """Train, with the report of the run however it ends; return the exit status."""
    ended = "ended by an error of the program"
    try:
        training.fit()
        ended = "finished"
        log.info(
            "best dev perplexity %.2f a word after %.1f minutes; the language model is %s",
            *(training.best, training.minutes, folder / "bundle"),
        )
        write_summary(folder, lm_summary(training))
    except Interrupted as interruption:
        ended = "interrupted; --resume continues it"
        log.warning(
            "\ninterrupted; %s holds the last state saved: the same command with --resume continues",
            folder / CHECKPOINTS,
        )
        return 128 + interruption.signum
    except AsrError as error:
        ended = f"ended: {error}"
        raise
    finally:
        progress.close(finished=ended == "finished")
        write_run_file(folder, ended, {})
        log.info("the report is %s", write_lm_report(folder))
    return 0


def save_lm(training: LmTraining, folder: Path) -> None:
    """Write the model as the run's bundle. Raises BundleError."""
    weights = {name: value.detach().cpu().numpy() for name, value in training.model.state_dict().items()}
    bundle = LmBundle(training.config.network, training.text.units, weights, lm_summary(training))
    bundle.save(folder / "bundle")


def lm_summary(training: LmTraining) -> dict[str, Any]:
    """Return what is worth knowing of a run, for people and programs."""
    config, finished = training.config, training.step == training.total_steps
    return {
        "train_texts": list(config.data.train),
        "train_words": training.text.train.words,
        "dev_perplexity": round(training.best, 3),
        "epochs": config.run.epochs if finished else round(training.step / training.steps_per_epoch, 3),
        "steps": training.step,
        "minutes": round(training.minutes, 2),
        "asr_version": __version__,
    }
