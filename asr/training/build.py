"""From a configuration to what trains: data, the untrained bundle, and the run that a checkpoint continues."""

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from asr.bundle import find_bundle
from asr.data.cuts import Cut, text_of
from asr.data.reading import read_samples
from asr.data.shards import Shards
from asr.errors import AudioError, ConfigError
from asr.features.log_mel import LogMel
from asr.model import AcousticModel
from asr.text import NORMALIZERS, BpeTokenizer, CharacterTokenizer, Tokenizer, load_tokenizer, normalize
from asr.text.lexicon import Lexicon
from asr.torch_bundle import TorchBundle
from asr.training.batch_size import with_batch_seconds
from asr.training.checks import quick_report, target_of
from asr.training.config import TrainConfig
from asr.training.data import SpeechData, all_cuts, load_corpora
from asr.training.read_config import flat, read_yaml
from asr.training.run_folder import CONFIG, TOKENIZER, changed_keys
from asr.training.warm_start import can_spell, warm_start

# Utterances whose features give the global mean and variance: hours of frames.
STATISTICS_UTTERANCES = 1000
# Keys whose change does not make the order of the data another.
KEEPS_ORDER = ("data.workers",)

log = logging.getLogger(__name__)


@dataclass
class Built:
    """What a run is made of: the configuration in force, the untrained bundle, the data, and the changed keys."""

    config: TrainConfig
    bundle: TorchBundle
    data: SpeechData
    changed: list[str]


def build(config: TrainConfig, fabric: Fabric, folder: Path, state: dict[str, Any] | None) -> Built:
    """Read the data and make the model, from the start or, with a checkpoint's state, to be continued.

    Of an epoch that cannot be continued the place in `state` is reset. Raises AsrError for what does not fit.
    """
    before = flat(read_yaml(folder / CONFIG)) if state is not None else {}
    changed = changed_keys(config, before, folder / CONFIG)
    torch.use_deterministic_algorithms(config.run.deterministic)
    torch.manual_seed(config.run.seed)
    train, dev = load_corpora(config.data.train, "train"), load_corpora(config.data.dev, "dev")
    tokenizer = load_tokenizer(folder / TOKENIZER) if state is not None else None
    bundle = new_bundle(config, all_cuts(train), tokenizer, state)
    seconds = sum(corpus.seconds for corpus in train)
    config = with_batch_seconds(config, bundle, seconds, before.get("data.batch_seconds"), fabric)
    if state is not None:
        _begin_epoch_anew(state, changed, fabric.is_global_zero)
    return Built(config, bundle, SpeechData(config, bundle, train, dev), changed)


def _begin_epoch_anew(state: dict[str, Any], changed: Sequence[str], report: bool) -> None:
    """Reset the place in an interrupted epoch whose data would come in another order."""
    reordered = [
        key
        for key in changed
        if key == "optimizer.accumulate_batches" or (key.startswith("data.") and key not in KEEPS_ORDER)
    ]
    if state["batch"] and reordered:
        state |= {"batch": 0, "epoch_loss": 0.0, "epoch_steps": 0}
        if report:
            log.warning("%s changed: the interrupted epoch starts again", ", ".join(reordered))


def new_bundle(
    config: TrainConfig,
    cuts: Sequence[Cut],
    tokenizer: Tokenizer | None = None,
    state: dict[str, Any] | None = None,
) -> TorchBundle:
    """Make the untrained bundle: tokenizer from the training text unless given, features, initial weights.

    `state` is the checkpoint of a run that continues, whose statistics of the features are kept.
    """
    text = config.text
    if text.normalizer not in NORMALIZERS:
        raise ConfigError(
            f"text.normalizer is {text.normalizer!r}; expected {', '.join(sorted(NORMALIZERS))}"
        )
    folder = config.run.warm_start if state is None else ""
    trained = TorchBundle.load(find_bundle(folder)) if folder else None
    if tokenizer is None:
        tokenizer = _tokenizer(config, cuts, trained)
    log_mel = LogMel(config.features)
    if state is not None and config.features.normalize == "global":
        log_mel.load_state_dict(state["log_mel"])
    elif config.features.normalize == "global" and trained is None:
        try:
            log_mel.fit_statistics(_some_samples(cuts, config.features.sample_rate, config.run.seed))
        except ValueError as error:
            raise ConfigError(f"none of the training audio that was tried can be read ({error})") from error
    phones = Lexicon.read(config.loss.lexicon).phones if config.loss.lexicon else []
    if state is not None and config.loss.lexicon:
        phones = state.get("phones", phones)  # another lexicon gives them no other places
    sizes = replace(config.model, phones=tuple(phones))
    model = AcousticModel(sizes, config.features.n_mels, tokenizer.vocab_size)
    bundle = TorchBundle(model, log_mel, tokenizer, text.normalizer)
    if trained is not None:
        log.info("%s", warm_start(bundle, trained))
    return bundle


def _tokenizer(config: TrainConfig, cuts: Sequence[Cut], trained: TorchBundle | None) -> Tokenizer:
    """Return the bundle's tokenizer if the run is to keep it and it spells the training text, else a new one."""
    texts = [normalize(text_of(cut) or "", config.text.normalizer) for cut in cuts]
    if config.data.join_utterances > 1:
        texts.append(" ")  # between the joined, though no transcript may have one
    if config.text.tokenizer == "bundle":
        if trained is None:
            raise ConfigError(
                'text.tokenizer is "bundle", but run.warm_start names no bundle to take it from'
            )
        if can_spell(trained.tokenizer, texts):
            return trained.tokenizer
        log.info("the bundle's tokenizer cannot spell the training text: a new one is made")
        kind = "bpe" if isinstance(trained.tokenizer, BpeTokenizer) else "characters"
    else:
        kind = config.text.tokenizer
    return (
        BpeTokenizer.train(texts, config.text.vocab_size)
        if kind == "bpe"
        else CharacterTokenizer.from_texts(texts)
    )


def _some_samples(cuts: Sequence[Cut], sample_rate: int, seed: int) -> Iterator[Tensor]:
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


def fault_report(built: Built) -> str:
    """Return in a few lines what `asr check` would find without reading audio; reading shards would take too long."""
    config, data = built.config, built.data
    splits = {"train": all_cuts(data.train), "dev": all_cuts(data.dev)}
    if any(isinstance(cuts, Shards) for cuts in splits.values()):
        return ""
    front_end, speeds = config.model.front_end, config.data.speed_perturb
    bundle = built.bundle
    target = target_of(config.features, front_end, bundle.normalizer, bundle.tokenizer, speeds)
    return quick_report(splits, target)
