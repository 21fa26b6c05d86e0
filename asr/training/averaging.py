"""Which epochs are the best, and the average of their weights, often better than any (Polyak & Juditsky 1992)."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from asr.training.checkpoint import write_whole
from asr.training.loop import Training


def rank(epoch: Mapping[str, float]) -> tuple[float, float]:
    """Order an epoch's numbers, the best first: by dev WER, then by dev loss.

    On a small dev set many epochs have the same WER; the first of them is rarely the one that generalizes best. A
    loss that is not a number, of a model that diverged, is the worst.
    """
    loss = epoch["dev_loss"]
    return epoch["dev_wer"], math.inf if math.isnan(loss) else loss


class BestEpochs:
    """Keeps the weights of the `count` best epochs in `folder`, and averages them at the end."""

    def __init__(self, folder: Path, count: int):
        self.folder, self.count = folder, count

    def keep(self, training: Training) -> None:
        """Keep the weights of the epoch that has just been measured if they are among the best."""
        if self.count:
            best = self._best(training)
            if training.epoch in best:
                write_whole(self._path(training.epoch), training.evaluated_model.state_dict())
            for path in self.folder.glob("epoch-*.pt"):
                if path not in map(self._path, best):
                    path.unlink()

    def measure_average(self, training: Training) -> float:
        """Give the evaluated model the average weights; returns its dev WER, infinity where none could be kept.

        The first process has kept them, perhaps on a disk that others do not see: they get the average from it.
        """
        fabric, model = training.fabric, training.evaluated_model
        weights = fabric.broadcast(self._average(training) if fabric.is_global_zero else None)
        if weights is None:
            return float("inf")
        model.load_state_dict(weights)
        model.eval()
        return training.measure(model)["dev_wer"]

    def _average(self, training: Training) -> dict[str, torch.Tensor] | None:
        paths = [path for path in map(self._path, self._best(training)) if path.exists()]
        kept = [torch.load(path, map_location="cpu", weights_only=True) for path in paths]
        return {name: _mean([each[name] for each in kept]) for name in kept[0]} if kept else None

    def _best(self, training: Training) -> list[int]:
        ranked = sorted(training.history, key=rank)
        return [int(numbers["epoch"]) for numbers in ranked[: self.count]]

    def _path(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:04}.pt"


def _mean(tensors: list[Any]) -> torch.Tensor:
    joined = torch.stack(tensors)
    return joined.mean(0) if joined.is_floating_point() else joined[-1]
