"""The training and dev data of a run: corpora, and the loaders over them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from asr.data import BatchLimits, BatchOrder, Encoding, Loader, Variation, make_loader
from asr.data.augmentation import Augmentation
from asr.data.cuts import Cut, load_cuts
from asr.data.shards import Shards, is_sharded
from asr.errors import ConfigError
from asr.features.spec_augment import SpecAugment
from asr.torch_bundle import TorchBundle
from asr.training.config import TrainConfig


class Corpus(NamedTuple):
    """Utterances of one manifest, under a name that tells it from the others."""

    name: str
    cuts: Sequence[Cut]

    @property
    def seconds(self) -> float:
        """Seconds of audio."""
        if isinstance(self.cuts, Shards):
            return self.cuts.seconds
        return sum(cut.duration for cut in self.cuts)


def load_corpora(manifests: str | tuple[str, ...], key: str) -> list[Corpus]:
    """Read the manifests, or the shards, that `data.KEY` names. Raises ConfigError, ManifestError."""
    if not manifests:
        raise ConfigError(f"data.{key} names no manifest; `asr prepare` writes cuts_{key}.jsonl.gz")
    paths = [manifests] if isinstance(manifests, str) else list(manifests)
    sharded = [path for path in paths if is_sharded(path)]
    if sharded and len(paths) > 1:
        raise ConfigError(f"data.{key} names shards, {sharded[0]}, among others; expected them alone")
    if sharded:
        return [Corpus(key, Shards(sharded[0]))]
    return list(map(Corpus, corpus_names(paths), map(load_cuts, paths)))


def all_cuts(corpora: Sequence[Corpus]) -> Sequence[Cut]:
    """Return the utterances of all corpora, in their order."""
    if len(corpora) == 1:
        return corpora[0].cuts
    return [cut for corpus in corpora for cut in corpus.cuts]


def corpus_names(paths: Sequence[str]) -> list[str]:
    """Name manifests by that part of their paths in which they differ.

    >>> corpus_names(["data/an4/cuts_dev.jsonl.gz", "data/yesno/cuts_dev.jsonl.gz"])
    ['an4', 'yesno']
    >>> corpus_names(["cuts_clean.jsonl.gz", "cuts_other.jsonl.gz"]), corpus_names(["a", "a"])
    (['clean', 'other'], ['1', '2'])
    """
    parts = [(*Path(path).parts[:-1], Path(path).name.split(".")[0].removeprefix("cuts_")) for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = [path[max(0, len(path) - depth)] for path in parts]
        if len(set(names)) == len(names):
            return names
    return [str(number) for number in range(1, len(paths) + 1)]


def with_different_ids(corpora: Sequence[Corpus]) -> list[Corpus]:
    """Put a corpus's name before those of its ids that an earlier corpus has, so that each tells its corpus."""
    if len(corpora) == 1:
        return list(corpora)
    known: set[str] = set()
    for corpus in corpora:
        for cut in corpus.cuts:
            if cut.id in known:
                cut.id = f"{corpus.name}/{cut.id}"
        known.update(cut.id for cut in corpus.cuts)
    return list(corpora)


class SpeechData:
    """Loaders over cuts in memory, or over shards.

    Attributes:
        train_loader, dev_loader: over the batches of an epoch, and of dev.
        dev_corpora: {id: corpus} of dev, empty where there is one corpus.
        total_seconds: of speech in all epochs.
    """

    def __init__(
        self, config: TrainConfig, bundle: TorchBundle, train: Sequence[Corpus], dev: Sequence[Corpus]
    ):
        self.config, self.bundle = config, bundle
        self.train, self.dev = train, with_different_ids(dev)
        self.train_loader = self._train_loader()
        self.dev_loader = make_loader(
            all_cuts(self.dev),
            # As transcribing computes them, so that dev's WER is that of `asr evaluate`.
            Encoding(
                bundle.log_mel, bundle.tokenizer, bundle.normalizer, keep_unspellable=True, leveled=True
            ),
            limits=self._limits(),
            workers=config.data.workers,
        )
        several = self.dev if len(self.dev) > 1 else []
        self.dev_corpora = {cut.id: corpus.name for corpus in several for cut in corpus.cuts}

    @property
    def total_seconds(self) -> float:
        """Seconds of speech in all epochs of the run, on average over what is drawn."""
        epochs, short = self.config.run.epochs, self.config.data.curriculum_epochs
        batches = self.train_loader.batches
        first = sum(batches.seconds_of(epoch) for epoch in range(min(short, epochs)))
        return self.train_loader.seconds * max(epochs - short, 0) + first

    def _train_loader(self) -> Loader:
        config, data, bundle = self.config, self.config.data, self.bundle
        return make_loader(
            all_cuts(self.train),
            Encoding(bundle.log_mel, bundle.tokenizer, bundle.normalizer),
            limits=self._limits(
                min_seconds=data.min_seconds,
                max_seconds=data.max_seconds,
                accumulate=config.optimizer.accumulate_batches,
            ),
            order=BatchOrder(
                shuffle=True,
                sortagrad=data.sortagrad,
                speeds=tuple(data.speed_perturb),
                seed=config.run.seed,
                curriculum_epochs=data.curriculum_epochs,
                curriculum_seconds=data.curriculum_seconds,
            ),
            variation=Variation(
                augmentation=Augmentation(config.augmentation, config.features.sample_rate),
                spec_augment=SpecAugment(config.spec_augment, config.features.mel_centers()),
                join_utterances=data.join_utterances,
                views=config.loss.views,
            ),
            weights=self._weights(),
            workers=data.workers,
        )

    def _limits(self, **more: Any) -> BatchLimits:
        # "auto" has been replaced by now.
        return BatchLimits(float(self.config.data.batch_seconds), self.config.data.max_batch_size, **more)

    def _weights(self) -> list[float] | None:
        """Return the weight of each utterance, None where all have the same. Raises ConfigError."""
        data, weights = self.config.data, self.config.data.train_weights
        sharded = any(isinstance(corpus.cuts, Shards) for corpus in self.train)
        if sharded and (weights or data.curriculum_epochs):
            key = "train_weights" if weights else "curriculum_epochs"
            raise ConfigError(
                f"data.{key} is {getattr(data, key)}, but data.train names shards, which are read in the order in "
                f"which they are stored; expected manifests, or no data.{key}"
            )
        if not weights:
            return None
        if len(weights) != len(self.train):
            raise ConfigError(
                f"data.train_weights has {len(weights)} weights, data.train {len(self.train)} manifests; expected one "
                "for each"
            )
        return [weight for corpus, weight in zip(self.train, weights, strict=True) for _ in corpus.cuts]

    def summary(self) -> dict[str, Any]:
        """Return what is trained on, for the bundle."""
        return {
            "train_manifests": self.config.data.train,
            "train_hours": round(self.train_loader.seconds / 3600, 3),
            "train_utterances": self.train_loader.utterances,
        }

    def summary_text(self) -> str:
        """Return what is trained on, for people."""
        lines = [
            f"{name}: {loader.utterances} utterances, {loader.seconds / 3600:.2f} h"
            for name, loader in (("train", self.train_loader), ("dev", self.dev_loader))
        ]
        text = "; ".join(lines)
        if weights := self.config.data.train_weights:
            parts = [
                f"{corpus.name} {corpus.seconds / 3600:.2f} h x {weight:g}"
                for corpus, weight in zip(self.train, weights, strict=True)
            ]
            text += f"\nan epoch of train: {', '.join(parts)}"
        return text
