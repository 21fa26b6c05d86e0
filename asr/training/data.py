"""The training and dev data of a run as a Lightning data module."""

from typing import Any

import lightning as L
from torch.utils.data import DataLoader

from asr.bundle import Bundle
from asr.data import make_loader
from asr.features import SpecAugment
from asr.training.config import TrainConfig


class SpeechData(L.LightningDataModule):
    """Loaders over cuts that are already in memory as a list."""

    def __init__(self, config: TrainConfig, bundle: Bundle, train_cuts: list, dev_cuts: list):
        super().__init__()
        self.config = config
        self.bundle = bundle
        data = config.data
        self.train_cuts = [cut for cut in train_cuts if data.min_seconds <= cut.duration <= data.max_seconds]
        self.too_short_or_long = len(train_cuts) - len(self.train_cuts)
        self.dev_cuts = dev_cuts

    @property
    def train_seconds(self) -> float:
        """Seconds of speech in an epoch."""
        return sum(cut.duration for cut in self.train_cuts)

    def train_dataloader(self) -> DataLoader:
        """Batches of similar length in a new order each epoch, augmented."""
        config = self.config
        return self._loader(
            self.train_cuts,
            spec_augment=SpecAugment(config.spec_augment),
            speed_perturb=config.data.speed_perturb,
            shuffle=True,
        )

    def val_dataloader(self) -> DataLoader:
        """Dev, as it is."""
        return self._loader(self.dev_cuts, shuffle=False)

    def _loader(self, cuts: list, **choices: Any) -> DataLoader:
        config = self.config
        return make_loader(
            cuts,
            log_mel=self.bundle.log_mel,
            tokenizer=self.bundle.tokenizer,
            normaliser=self.bundle.normaliser,
            batch_seconds=config.data.batch_seconds,
            max_batch_size=config.data.max_batch_size,
            seed=config.run.seed,
            workers=config.data.workers,
            **choices,
        )

    def unreadable(self) -> dict[str, str]:
        """Utterances that could not be read, {id: reason}."""
        return {}

    def summary(self) -> dict[str, Any]:
        """Say what is trained on, for the bundle."""
        return {
            "train_manifests": list(self.config.data.train),
            "train_hours": round(self.train_seconds / 3600, 3),
            "train_utterances": len(self.train_cuts),
        }

    def summary_text(self) -> str:
        """Say what is trained on, for people."""
        dev_hours = sum(cut.duration for cut in self.dev_cuts) / 3600
        text = (
            f"train: {len(self.train_cuts)} utterances, {self.train_seconds / 3600:.2f} h; "
            f"dev: {len(self.dev_cuts)} utterances, {dev_hours:.2f} h"
        )
        if self.too_short_or_long:
            data = self.config.data
            text += (
                f"\n{self.too_short_or_long} utterances outside data.min_seconds {data.min_seconds} to "
                f"data.max_seconds {data.max_seconds} are not trained on"
            )
        return text
