"""The training and dev data of a run."""

from collections.abc import Sequence
from typing import Any

from asr.data import BatchLimits, BatchOrder, Encoding, Loader, Variation, make_loader
from asr.data.augmentation import Augmentation
from asr.features.spec_augment import SpecAugment
from asr.torch_bundle import TorchBundle
from asr.training.config import TrainConfig


class SpeechData:
    """Loaders over cuts in memory, or over shards."""

    def __init__(self, config: TrainConfig, bundle: TorchBundle, train_cuts: Sequence, dev_cuts: Sequence):
        self.config = config
        self.bundle = bundle
        speeds = tuple(config.data.speed_perturb)
        self.train_loader = self._loader(
            train_cuts,
            min_seconds=config.data.min_seconds,
            max_seconds=config.data.max_seconds,
            accumulate=config.optimizer.accumulate_batches,
            order=BatchOrder(
                shuffle=True, sortagrad=config.data.sortagrad, speeds=speeds, seed=config.run.seed
            ),
            variation=Variation(
                augmentation=Augmentation(config.augmentation, config.features.sample_rate),
                spec_augment=SpecAugment(config.spec_augment, config.features.mel_centers()),
                join_utterances=config.data.join_utterances,
                views=config.loss.views,
            ),
        )
        self.dev_loader = self._loader(dev_cuts, keep_unspellable=True)

    def _loader(
        self,
        cuts: Sequence,
        keep_unspellable: bool = False,
        order: BatchOrder | None = None,
        variation: Variation | None = None,
        **limits: Any,
    ) -> Loader:
        bundle, data = self.bundle, self.config.data
        return make_loader(
            cuts,
            Encoding(bundle.log_mel, bundle.tokenizer, bundle.normalizer, keep_unspellable),
            # "auto" has been replaced by now
            limits=BatchLimits(float(data.batch_seconds), data.max_batch_size, **limits),
            order=order,
            variation=variation,
            workers=data.workers,
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
