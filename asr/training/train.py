"""`asr train` from configuration to bundle."""

import logging
import os
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from asr.bundle import Bundle
from asr.data import load_cuts
from asr.errors import AsrError, ConfigError
from asr.features import LogMel
from asr.model import AcousticModel
from asr.text import NORMALISERS, BpeTokenizer, CharacterTokenizer, Tokenizer, normalise
from asr.training.callbacks import BundleWriter, EpochLines, ProgressBar, TimeLimit
from asr.training.config import TrainConfig, config_text
from asr.training.data import SpeechData
from asr.training.module import RecogniserTraining

LAST = "last.ckpt"


def train(config: TrainConfig, resume: bool = False, overwrite: bool = False) -> int:
    """Train, leaving in `run.folder` the bundle of the best dev WER, checkpoints, logs and the configuration.

    Returns the exit status: 0, or 1 when the run was interrupted or utterances could not be read.
    """
    _quieten_lightning()
    folder = Path(config.run.folder)
    _prepare_folder(folder, config, resume, overwrite)
    L.seed_everything(config.run.seed, workers=True, verbose=False)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    train_cuts, dev_cuts = (
        _load(paths, key) for paths, key in ((config.data.train, "train"), (config.data.dev, "dev"))
    )
    bundle = new_bundle(config, train_cuts)
    data = SpeechData(config, bundle, train_cuts, dev_cuts)
    module = RecogniserTraining(bundle, config.optimizer, data.train_loader.seconds, config.run.epochs)
    bundle_writer = BundleWriter(folder / "bundle", data.summary())
    checkpoints = ModelCheckpoint(
        folder / "checkpoints",
        filename="best",
        monitor="dev_wer",
        save_last=True,
        enable_version_counter=False,
        save_on_exception=False,
    )
    trainer = L.Trainer(
        accelerator=config.run.accelerator,
        devices=config.run.devices,
        num_nodes=config.run.nodes,
        precision=_precision(config),
        max_epochs=config.run.epochs,
        gradient_clip_val=config.optimizer.gradient_clip or None,
        accumulate_grad_batches=config.optimizer.accumulate_batches,
        deterministic=config.run.deterministic,
        logger=[
            TensorBoardLogger(folder, name="", version="logs"),
            CSVLogger(folder, name="", version="logs"),
        ],
        log_every_n_steps=config.run.log_every,
        callbacks=[
            ProgressBar() if sys.stderr.isatty() else EpochLines(),
            bundle_writer,
            checkpoints,
            TimeLimit(config.run.max_minutes),
        ],
        use_distributed_sampler=False,  # the sampler shards itself
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    parameters = sum(p.numel() for p in module.model.parameters())
    if trainer.is_global_zero:
        print(
            f"{data.summary_text()}\nmodel: {parameters / 1e6:.2f} M parameters, {bundle.tokenizer.vocab_size} tokens"
        )
    began = time.monotonic()
    interrupted = _fit(trainer, module, data, folder / "checkpoints" / LAST if resume else None)
    if not trainer.is_global_zero:
        return 0
    if interrupted:
        return _say_how_to_go_on(trainer, folder)
    minutes = (time.monotonic() - began) / 60
    print(
        f"best dev WER {100 * bundle_writer.best:.2f} % after {minutes:.1f} minutes; the model is {folder / 'bundle'}"
    )
    return _report_left_out(data.left_out() | module.left_out)


def new_bundle(config: TrainConfig, cuts) -> Bundle:
    """Make the untrained bundle: tokenizer from the training text, features, initial weights."""
    if config.text.normaliser not in NORMALISERS:
        raise ConfigError(
            f"text.normaliser is {config.text.normaliser!r}; there are {', '.join(sorted(NORMALISERS))}"
        )
    texts = [normalise(cut.supervisions[0].text, config.text.normaliser) for cut in cuts]
    tokenizer: Tokenizer = (
        BpeTokenizer.train(texts, config.text.vocab_size)
        if config.text.tokenizer == "bpe"
        else CharacterTokenizer.from_texts(texts)
    )
    log_mel = LogMel(config.features)
    model = AcousticModel(config.model, config.features.n_mels, tokenizer.vocab_size)
    return Bundle(model, log_mel, tokenizer, config.text.normaliser)


def _load(manifests: str | tuple[str, ...], key: str) -> list:
    if not manifests:
        raise ConfigError(f"data.{key} names no manifest; `asr prepare` writes cuts_{key}.jsonl.gz")
    paths = [manifests] if isinstance(manifests, str) else manifests
    return [cut for path in paths for cut in load_cuts(path)]


def _prepare_folder(folder: Path, config: TrainConfig, resume: bool, overwrite: bool) -> None:
    last = folder / "checkpoints" / LAST
    if resume and not last.is_file():
        raise AsrError(f"nothing to resume: there is no {last}; run without --resume to begin")
    if not resume and last.exists():
        if not overwrite:
            raise AsrError(
                f"{folder} already holds a run; --resume goes on with it, --overwrite replaces it, "
                "--run.folder names another"
            )
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(config_text(config), "utf-8")
    except OSError as error:
        raise AsrError(f"cannot write to the run folder {folder}: {error.strerror}") from error


def _fit(trainer: L.Trainer, module: RecogniserTraining, data: SpeechData, checkpoint: Path | None) -> bool:
    """Run the loop; True if it was interrupted."""
    try:
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=False)  # a checkpoint of our own making
    except SystemExit:  # how Lightning ends after Ctrl-C
        return True
    return trainer.interrupted


def _say_how_to_go_on(trainer: L.Trainer, folder: Path) -> int:
    last = folder / "checkpoints" / LAST
    trainer.save_checkpoint(last)
    print(
        f"\ninterrupted; the state is saved in {last}: the same command with --resume goes on",
        file=sys.stderr,
    )
    return 130


def _report_left_out(left_out: dict[str, str]) -> int:
    for name, reason in sorted(left_out.items())[:20]:
        print(f"left out {name}: {reason}", file=sys.stderr)
    if len(left_out) > 20:
        print(f"... and {len(left_out) - 20} more", file=sys.stderr)
    if left_out:
        print(f"{len(left_out)} utterances were left out of training; all others were used", file=sys.stderr)
    return 1 if left_out else 0


def _precision(config: TrainConfig) -> Any:
    chosen = config.run.precision
    if chosen == "auto":
        on_gpu = config.run.accelerator != "cpu" and torch.cuda.is_available()
        chosen = "bfloat16" if on_gpu and torch.cuda.is_bf16_supported() else "float32"
    return {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}[chosen]


def _quieten_lightning() -> None:
    """Keep Lightning's advice to developers from users: what they need, our own messages say."""
    os.environ.setdefault("POSSIBLE_USER_WARNINGS", "off")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
