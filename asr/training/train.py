"""`asr train` from configuration to bundle."""

import json
import logging
import os
import random
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from asr.data import load_cuts
from asr.data.cuts import text_of
from asr.data.reading import read_samples
from asr.data.shards import Shards, is_sharded
from asr.errors import AsrError, AudioError, BundleError, ConfigError
from asr.features.log_mel import LogMel
from asr.model import AcousticModel
from asr.text import NORMALIZERS, BpeTokenizer, CharacterTokenizer, Tokenizer, load_tokenizer, normalize
from asr.torch_bundle import TorchBundle
from asr.training.averaging import BestEpochs, rank
from asr.training.batch_size import with_batch_seconds
from asr.training.checkpoint import has_checkpoint, read_checkpoint
from asr.training.checks import quick_report, target_of
from asr.training.config import CONFIG, TrainConfig, config_text, different_keys, flat, plain, read_yaml
from asr.training.data import SpeechData
from asr.training.lexicon import Lexicon
from asr.training.loop import CommonError, StoppedError, Training, autocast_type
from asr.training.progress import Progress, start_wandb
from asr.training.report import write_report, write_run_file
from asr.training.warm_start import warm_start
from asr.version import __version__

if TYPE_CHECKING:
    from asr.data.cuts import Cut

CHECKPOINTS = "checkpoints"
TOKENIZER = "tokenizer"  # folder of the run's tokenizer, so that resuming cannot make another
RUN_FILES = (CHECKPOINTS, TOKENIZER, CONFIG, "bundle", "logs", "summary.json", "report.html")
FIXED = (  # what the weights, the optimizer's state, the order of the data and the choice of the epoch rest on
    *("text.", "features.", "model.", "run.seed", "run.precision", "data.dev"),
    *("optimizer.weight_decay", "optimizer.betas", "optimizer.layer_decay", "optimizer.ema"),
)
STATISTICS_UTTERANCES = 1000  # whose features give the global mean and variance: hours of frames


def train(config: TrainConfig, resume: bool = False, overwrite: bool = False) -> int:
    """Train, leaving in `run.folder` the bundle of the best dev WER, checkpoints, logs, report and configuration.

    Returns the exit status: 0; 1 when utterances could not be used; 130 after Ctrl-C and 143 after SIGTERM.
    """
    _quieten_lightning()
    folder = Path(config.run.folder)
    _check_folder(folder, resume, overwrite)
    if resume and not has_checkpoint(folder / CHECKPOINTS):
        print(f"there is no checkpoint in {folder} to go on from: the run begins", file=sys.stderr)
        resume = False
    state = read_checkpoint(folder / CHECKPOINTS) if resume else None
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    run = config.run
    try:
        fabric = Fabric(accelerator=run.accelerator, devices=run.devices, num_nodes=run.nodes)
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        asked = f"run.accelerator {run.accelerator}, devices {run.devices}, nodes {run.nodes}"
        raise ConfigError(f"this machine does not offer {asked}: {' '.join(str(error).split())}") from error
    with _launched(fabric):
        return _train(config, fabric, folder, state)


@contextmanager
def _launched(fabric: Fabric) -> Iterator[None]:
    """Start the other processes; when this one ends in an error, end those, which would wait for it for long."""
    try:
        fabric.launch()
        yield
    except BaseException:  # Ctrl-C too
        for process in getattr(fabric.strategy.launcher, "procs", []):
            process.kill()
        raise


def _train(config: TrainConfig, fabric: Fabric, folder: Path, state: dict[str, Any] | None) -> int:
    """Train in this process, from a checkpoint's state or from the start."""
    resume = state is not None
    before = flat(read_yaml(folder / CONFIG)) if resume else {}
    changed = _changed(config, before, folder / CONFIG)
    torch.use_deterministic_algorithms(config.run.deterministic)
    torch.manual_seed(config.run.seed)
    train_cuts, dev_cuts = (
        _load(paths, key) for paths, key in ((config.data.train, "train"), (config.data.dev, "dev"))
    )
    bundle = new_bundle(config, train_cuts, load_tokenizer(folder / TOKENIZER) if resume else None, state)
    train_seconds = (
        train_cuts.seconds if isinstance(train_cuts, Shards) else sum(cut.duration for cut in train_cuts)
    )
    config = with_batch_seconds(config, bundle, train_seconds, before.get("data.batch_seconds"), fabric)
    reordered = [
        key
        for key in changed
        if key == "optimizer.accumulate_batches" or (key.startswith("data.") and key != "data.workers")
    ]
    if state is not None and state["batch"] and reordered:
        state |= {"batch": 0, "epoch_loss": 0.0, "epoch_steps": 0}
        if fabric.is_global_zero:
            print(f"{', '.join(reordered)} changed: the interrupted epoch begins anew", file=sys.stderr)
    data = SpeechData(config, bundle, train_cuts, dev_cuts)
    training = Training(fabric, config, bundle, data.train_loader, data.dev_loader, folder / CHECKPOINTS)
    if state is not None:
        _go_on(training, state, folder)
    fabric.barrier()  # all have read the configuration that is written now, and nothing was wrong with it
    if fabric.is_global_zero:
        if not resume:
            _make_folder(folder, config, bundle.tokenizer)
        elif changed:
            (folder / CONFIG).write_text(config_text(config), "utf-8")
    fabric.barrier()
    if fabric.is_global_zero:
        parameters = sum(p.numel() for p in bundle.model.parameters())
        print(
            f"{data.summary_text()}\nmodel: {parameters / 1e6:.2f} M parameters, {bundle.tokenizer.vocab_size} tokens",
            flush=True,
        )
        _warn_of_faults(config, bundle, train_cuts, dev_cuts)
    return _run(training, data, folder)


def _run(training: Training, data: SpeechData, folder: Path) -> int:
    """Run the loop with all that looks on, and say what came of it; the report is drawn however it ends."""
    config = training.config
    if not training.fabric.is_global_zero:
        # How the run ends, the first process says; a status of ours would have it killed in the middle of that.
        with suppress(CommonError):
            _fit(training, data, folder, None)
        return 0
    steps = -(-len(data.train_loader) // config.optimizer.accumulate_batches)
    wandb = start_wandb(config.run.wandb, folder, asdict(config))
    progress = Progress(folder / "logs", config.run.epochs, steps, config.run.log_every, training.step, wandb)
    ended = "ended by an error of the program"
    try:
        status = _fit(training, data, folder, progress)
        ended = "interrupted; --resume goes on" if status else "finished"
    except AsrError as error:
        ended = f"ended: {error}"
        raise
    except KeyboardInterrupt:
        ended = "interrupted; --resume goes on"
        raise
    finally:
        progress.close(finished=ended == "finished")
        _report_run(folder, ended, training.left_out)
    return status or _report_left_out(training.left_out)


def _fit(training: Training, data: SpeechData, folder: Path, progress: Progress | None) -> int:
    """Train and save, `progress` looking on in the first process. Returns 0, or 128 and the number of a signal."""
    first, config = progress is not None, training.config
    best_epochs = BestEpochs(folder / CHECKPOINTS, config.optimizer.average_checkpoints)
    if progress is not None:
        training.on_step = progress.step
        training.warn = lambda message: progress.warn(message, training.step)

    def epoch_ended(training: Training) -> None:
        numbers = training.history[-1]
        if progress is not None:
            progress.epoch(numbers, training.dev_pairs)
            best_epochs.keep(training)
        if min(training.history, key=rank) is numbers:
            training.best = numbers["dev_wer"]
            if first:
                _save_bundle(training, data, folder)

    training.on_epoch = epoch_ended
    try:
        training.fit()
    except StoppedError as interruption:
        if first:
            where = folder / CHECKPOINTS
            state = (
                f"the state is saved in {where}"
                if interruption.saved
                else f"{where} holds what was saved before"
            )
            print(f"\ninterrupted; {state}: the same command with --resume goes on", file=sys.stderr)
        return 128 + interruption.signum
    except RuntimeError as error:
        if "DataLoader worker" in str(error):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would raise again as the other workers end
            raise AsrError(
                f"a process that makes batches died, as a rule for want of memory; lower data.workers or "
                f"data.batch_seconds, and go on with --resume ({str(error).splitlines()[0]})"
            ) from error
        if training.fabric.world_size > 1 and _is_of_connection(error):
            raise AsrError(
                f"process {training.fabric.global_rank} of {training.fabric.world_size} lost the connection to another "
                "one, which has ended: its own message, above or in the log of its machine, says why. The state of the "
                "last checkpoint is kept; go on with --resume (--debug shows what the connection reported)"
            ) from error
        raise
    if config.optimizer.average_checkpoints:
        wer = best_epochs.measure_average(training)
        if wer < training.best:
            training.best = wer
            if first:
                _save_bundle(training, data, folder)
    if not first:
        return 0
    print(
        f"best dev WER {100 * training.best:.2f} % after {training.minutes:.1f} minutes; "
        f"the model is {folder / 'bundle'}"
    )
    summary = {
        "dev_wer": training.best,
        "minutes": round(training.minutes, 2),
        "epochs": config.run.epochs,
        "left_out": len(training.left_out),
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", "utf-8")
    return 0


def _report_run(folder: Path, ended: str, left_out: dict[str, str]) -> None:
    """Draw the report; what keeps it from being written may not hide how the run ended."""
    try:
        write_run_file(folder, ended, left_out)
        print(f"the report is {write_report(folder)}", flush=True)
    except (AsrError, OSError) as error:
        print(f"the report cannot be written: {error}", file=sys.stderr)


def _is_of_connection(error: RuntimeError) -> bool:
    """Whether an error comes from the exchange between processes, over gloo or NCCL."""
    text = str(error)
    signs = ("gloo", "Connection closed", "Connection reset", "NCCL", "timed out", "Timed out")
    return isinstance(error, torch.distributed.DistError) or any(sign in text for sign in signs)


def _save_bundle(training: Training, data: SpeechData, folder: Path) -> None:
    summary = {
        **data.summary(),
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
            f"{error}; the last checkpoint is kept: once that is mended, --resume goes on"
        ) from error


def _changed(config: TrainConfig, before: dict[str, Any], path: Path) -> list[str]:
    """Name the keys that differ from those a run began with, of `path`. Raises ConfigError for one that has to stay."""
    now = flat(plain(config))
    changed = different_keys(before, now)
    if before and autocast_type(config) != autocast_type(config, before.get("run.precision", "auto")):
        changed.append("run.precision")  # of which "auto" was, or is, another
    if fixed := [key for key in changed if key.startswith(FIXED)]:
        values = ", ".join(f"{key} {before[key]}, not {now[key]}" for key in fixed)
        raise ConfigError(
            f"a run goes on with what it began with ({path}): {values}. Leave that as it was, or begin another run "
            "in another --run.folder, from this one's weights with --run.warm_start"
        )
    return changed


def _go_on(training: Training, state: dict[str, Any], folder: Path) -> None:
    try:
        training.load(state)
    except AsrError as error:
        raise AsrError(
            f"the checkpoint in {folder / CHECKPOINTS} does not fit this configuration; resume with the one the run "
            f"began with, {folder / CONFIG} ({error})"
        ) from error


def _warn_of_faults(
    config: TrainConfig, bundle: TorchBundle, train_cuts: Sequence["Cut"], dev_cuts: Sequence["Cut"]
) -> None:
    """Say on stderr what `asr check` would find without listening; reading all shards for it would take too long."""
    splits = {"train": train_cuts, "dev": dev_cuts}
    if any(isinstance(cuts, Shards) for cuts in splits.values()):
        return
    front_end, speeds = config.model.front_end, config.data.speed_perturb
    target = target_of(config.features, front_end, bundle.normalizer, bundle.tokenizer, speeds)
    if report := quick_report(splits, target):
        print(report, file=sys.stderr)


def new_bundle(
    config: TrainConfig,
    cuts: Sequence["Cut"],
    tokenizer: Tokenizer | None = None,
    state: dict[str, Any] | None = None,
) -> TorchBundle:
    """Make the untrained bundle: tokenizer from the training text unless given, features, initial weights.

    `state` is the checkpoint of a run that goes on, whose statistics of the features are kept.
    """
    if config.text.normalizer not in NORMALIZERS:
        raise ConfigError(
            f"text.normalizer is {config.text.normalizer!r}; there are {', '.join(sorted(NORMALIZERS))}"
        )
    if tokenizer is None:
        texts = [normalize(text_of(cut) or "", config.text.normalizer) for cut in cuts]
        if config.data.join_utterances > 1:
            texts.append(" ")  # between the joined, though no transcript may have one
        tokenizer = (
            BpeTokenizer.train(texts, config.text.vocab_size, _phones(config))
            if config.text.tokenizer == "bpe"
            else CharacterTokenizer.from_texts(texts)
        )
    log_mel = LogMel(config.features)
    if state is not None and config.features.normalize == "global":
        log_mel.load_state_dict(state["log_mel"])
    elif config.features.normalize == "global" and not config.run.warm_start:  # which brings its own
        try:
            log_mel.fit_statistics(_some_samples(cuts, config.features.sample_rate, config.run.seed))
        except ValueError as error:
            raise ConfigError(f"none of the training audio that was tried can be read ({error})") from error
    model = AcousticModel(config.model, config.features.n_mels, tokenizer.vocab_size)
    bundle = TorchBundle(model, log_mel, tokenizer, config.text.normalizer)
    if config.run.warm_start and state is None:
        print(warm_start(bundle, TorchBundle.load(config.run.warm_start)))
    return bundle


def _phones(config: TrainConfig) -> list[str]:
    return Lexicon.read(config.loss.lexicon).phones if config.loss.lexicon else []


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
    if has_checkpoint(folder / CHECKPOINTS) and not resume and not overwrite:
        raise AsrError(
            f"{folder} already holds a run; --resume goes on with it, --overwrite replaces it, "
            "--run.folder names another"
        )


def _make_folder(folder: Path, config: TrainConfig, tokenizer: Tokenizer) -> None:
    """Begin a run's folder; an earlier run in it goes only now that nothing was found wrong with the new one.

    What else is in the folder stays.
    """
    try:
        for name in RUN_FILES:
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
        (folder / TOKENIZER).mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(config_text(config), "utf-8")
        tokenizer.save(folder / TOKENIZER)
    except OSError as error:
        raise AsrError(f"cannot write to the run folder {folder}: {error.strerror or error}") from error


def _report_left_out(left_out: dict[str, str]) -> int:
    for name, reason in sorted(left_out.items())[:20]:
        print(f"left out {name}: {reason}", file=sys.stderr)
    if len(left_out) > 20:
        print(f"... and {len(left_out) - 20} more", file=sys.stderr)
    if left_out:
        print(f"{len(left_out)} utterances were left out; all others were used", file=sys.stderr)
    return 1 if left_out else 0


def _quieten_lightning() -> None:
    """Keep Lightning's advice to developers from users: what they need, our own messages say."""
    os.environ.setdefault("POSSIBLE_USER_WARNINGS", "off")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
