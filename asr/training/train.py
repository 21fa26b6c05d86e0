"""`asr train` from configuration to bundle."""

import logging
import os
import random
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor

from asr.bundle import Bundle
from asr.data import load_cuts
from asr.data.loading import read_samples
from asr.data.manifests import text_of
from asr.data.shards import Shards, is_sharded
from asr.errors import AsrError, AudioError, ConfigError
from asr.features import LogMel
from asr.model import AcousticModel
from asr.text import NORMALISERS, BpeTokenizer, CharacterTokenizer, Tokenizer, load_tokenizer, normalise
from asr.training.batch_size import with_batch_seconds
from asr.training.callbacks import BundleWriter, EpochLines, ProgressBar, TimeLimit
from asr.training.checks import quick_report, target_of
from asr.training.config import TrainConfig, config_text
from asr.training.data import SpeechData
from asr.training.module import RecogniserTraining

if TYPE_CHECKING:
    from lhotse.cut import Cut

LAST = "last.ckpt"
TOKENIZER = "tokenizer"  # folder of the run's tokenizer, so that resuming cannot make another
STATISTICS_UTTERANCES = 1000  # whose features give the global mean and variance: hours of frames


def train(config: TrainConfig, resume: bool = False, overwrite: bool = False) -> int:
    """Train, leaving in `run.folder` the bundle of the best dev WER, checkpoints, logs and the configuration.

    Returns the exit status: 0, or 1 when the run was interrupted or utterances could not be read.
    """
    _quieten_lightning()
    folder = Path(config.run.folder)
    _check_folder(folder, resume, overwrite)
    L.seed_everything(config.run.seed, workers=True, verbose=False)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    train_cuts, dev_cuts = (
        _load(paths, key) for paths, key in ((config.data.train, "train"), (config.data.dev, "dev"))
    )
    bundle = new_bundle(config, train_cuts, load_tokenizer(folder / TOKENIZER) if resume else None)
    train_seconds = (
        train_cuts.seconds if isinstance(train_cuts, Shards) else sum(cut.duration for cut in train_cuts)
    )
    config = with_batch_seconds(config, bundle, train_seconds, folder / "config.yaml" if resume else None)
    data = SpeechData(config, bundle, train_cuts, dev_cuts)
    if not resume:
        _make_folder(folder, config, bundle.tokenizer)
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
        _warn_of_faults(config, bundle, train_cuts, dev_cuts)
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


def _warn_of_faults(
    config: TrainConfig, bundle: Bundle, train_cuts: Sequence["Cut"], dev_cuts: Sequence["Cut"]
) -> None:
    """Say on stderr what `asr check` would find without listening; reading all shards for it would take too long."""
    splits = {"train": train_cuts, "dev": dev_cuts}
    if any(isinstance(cuts, Shards) for cuts in splits.values()):
        return
    front_end, speeds = config.model.front_end, config.data.speed_perturb
    target = target_of(config.features, front_end, bundle.normaliser, bundle.tokenizer, speeds)
    if report := quick_report(splits, target):
        print(report, file=sys.stderr)


def new_bundle(config: TrainConfig, cuts: Sequence["Cut"], tokenizer: Tokenizer | None = None) -> Bundle:
    """Make the untrained bundle: tokenizer from the training text unless given, features, initial weights."""
    if config.text.normaliser not in NORMALISERS:
        raise ConfigError(
            f"text.normaliser is {config.text.normaliser!r}; there are {', '.join(sorted(NORMALISERS))}"
        )
    if tokenizer is None:
        texts = [normalise(text_of(cut) or "", config.text.normaliser) for cut in cuts]
        tokenizer = (
            BpeTokenizer.train(texts, config.text.vocab_size)
            if config.text.tokenizer == "bpe"
            else CharacterTokenizer.from_texts(texts)
        )
    log_mel = LogMel(config.features)
    if config.features.normalise == "global":
        log_mel.fit_statistics(_some_samples(cuts, config.features.sample_rate, config.run.seed))
    try:
        model = AcousticModel(config.model, config.features.n_mels, tokenizer.vocab_size)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error
    return Bundle(model, log_mel, tokenizer, config.text.normaliser)


def _some_samples(cuts: Sequence["Cut"], sample_rate: int, seed: int) -> Iterator[Tensor]:
    """Read enough utterances, drawn at random, to know the features' mean and variance."""
    if isinstance(cuts, Shards):
        drawn = cuts.some(STATISTICS_UTTERANCES, seed)
    else:
        drawn = random.Random(seed).sample(cuts, min(len(cuts), STATISTICS_UTTERANCES))
    for cut in drawn:
        try:
            yield torch.from_numpy(read_samples(cut, sample_rate))
        except AudioError:
            continue  # the loader reports it


def _load(manifests: str | tuple[str, ...], key: str) -> "Sequence[Cut]":
    if not manifests:
        raise ConfigError(f"data.{key} names no manifest; `asr prepare` writes cuts_{key}.jsonl.gz")
    paths = [manifests] if isinstance(manifests, str) else manifests
    sharded = [path for path in paths if is_sharded(path)]
    if sharded and len(paths) > 1:
        raise ConfigError(f"data.{key} names shards, {sharded[0]}, among others; expected them alone")
    if sharded:
        return Shards(sharded[0])
    return [cut for path in paths for cut in load_cuts(path)]


def _check_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    last = folder / "checkpoints" / LAST
    if resume and not last.is_file():
        raise AsrError(f"nothing to resume: there is no {last}; run without --resume to begin")
    if last.exists() and not resume and not overwrite:
        raise AsrError(
            f"{folder} already holds a run; --resume goes on with it, --overwrite replaces it, "
            "--run.folder names another"
        )


def _make_folder(folder: Path, config: TrainConfig, tokenizer: Tokenizer) -> None:
    """Begin a run's folder; an earlier run in it goes only now that the new one's data has been found good."""
    try:
        if (folder / "checkpoints" / LAST).exists():
            shutil.rmtree(folder)
        (folder / TOKENIZER).mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(config_text(config), "utf-8")
        tokenizer.save(folder / TOKENIZER)
    except OSError as error:
        raise AsrError(f"cannot write to the run folder {folder}: {error.strerror}") from error


def _fit(trainer: L.Trainer, module: RecogniserTraining, data: SpeechData, checkpoint: Path | None) -> bool:
    """Run the loop; True if it was interrupted."""
    try:
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=False)  # a checkpoint of our own making
    except SystemExit:  # how Lightning ends after Ctrl-C
        return True
    except RuntimeError as error:
        if checkpoint is None or "state_dict" not in str(error):
            raise
        raise AsrError(
            f"{checkpoint} does not fit this configuration; resume with the one the run began with, "
            f"{checkpoint.parents[1] / 'config.yaml'}"
        ) from error
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
