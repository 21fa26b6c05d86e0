"""The training and dev data of a run."""

from collections.abc import Sequence
from typing import Any

from asr.data import Loader, make_loader
from asr.data.augmentation import Augmentation
from asr.features.spec_augment import SpecAugment
from asr.torch_bundle import TorchBundle
from asr.training.config import TrainConfig


class SpeechData:
    """Loaders over cuts in memory, or over shards."""

    def __init__(self, config: TrainConfig, bundle: TorchBundle, train_cuts: Sequence, dev_cuts: Sequence):
        self.config = config
        self.bundle = bundle
        self.train_loader = self._loader(
            train_cuts,
            augmentation=Augmentation(config.augmentation, config.features.sample_rate),
            spec_augment=SpecAugment(config.spec_augment, config.features.mel_centers()),
            speed_perturb=config.data.speed_perturb,
            join_utterances=config.data.join_utterances,
            views=config.loss.views,
            min_seconds=config.data.min_seconds,
            max_seconds=config.data.max_seconds,
            shuffle=True,
            sortagrad=config.data.sortagrad,
            accumulate=config.optimizer.accumulate_batches,
        )
        self.dev_loader = self._loader(dev_cuts, keep_unspellable=True)

    def _loader(self, cuts: Sequence, **choices: Any) -> Loader:
        config = self.config
        return make_loader(
            cuts,
            log_mel=self.bundle.log_mel,
            tokenizer=self.bundle.tokenizer,
            normalizer=self.bundle.normalizer,
            batch_seconds=float(config.data.batch_seconds),  # "auto" has been replaced by now
            max_batch_size=config.data.max_batch_size,
            seed=config.run.seed,
            workers=config.data.workers,
            **choices,
        )

    def summary(self) -> dict[str, Any]:
        """Say what is trained on, for the bundle."""
        return {
            "train_manifests": self.config.data.train,
            "train_hours": round(self.train_loader.seconds / 3600, 3),
            "train_utterances": self.train_loader.utterances,
        }

    def summary_text(self) -> str:
        """Say what is trained on, for people."""
        return "; ".join(
            f"{name}: {loader.utterances} utterances, {loader.seconds / 3600:.2f} h"
            for name, loader in (("train", self.train_loader), ("dev", self.dev_loader))
        )
