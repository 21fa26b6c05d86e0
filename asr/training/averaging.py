"""Which epochs are the best, and the average of their weights, often better than any (Polyak & Juditsky 1992)."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from asr.training.checkpoint import write_whole


def rank(epoch: Mapping[str, float]) -> tuple[float, float]:
    """Return the key that orders epochs' numbers, the best first: by dev WER, then by dev loss.

    On a small dev set many epochs have the same WER; the first of them is rarely the one that generalizes best. A
    loss that is not a number, of a model that diverged, is the worst.
    """
    loss = epoch["dev_loss"]
    return epoch["dev_wer"], math.inf if math.isnan(loss) else loss


class BestEpochs:
    """Keeps the weights of the `count` best epochs in `folder`, and averages them at the end.

    Their numbers, the run's history, have `epoch` counted from 1.
    """

    def __init__(self, folder: Path | None, count: int):
        self.folder, self.count = folder, count if folder is not None else 0

    def keep(self, history: Sequence[Mapping[str, float]], model: nn.Module) -> None:
        """Keep the weights of the history's last epoch if it is among the best."""
        if not self.count or self.folder is None:
            return
        best = self._best(history)
        epoch = int(history[-1]["epoch"])
        if epoch in best:
            write_whole(self._path(epoch), model.state_dict())
        paths = set(map(self._path, best))
        for path in self.folder.glob("epoch-*.pt"):
            if path not in paths:
                path.unlink()

    def average(self, fabric: Fabric, history: Sequence[Mapping[str, float]]) -> dict[str, Tensor] | None:
        """Return the average weights, None where none could be kept; all processes call this together.

        The first process has kept them, perhaps on a disk that others do not see: they receive the average from it.
        """
        return fabric.broadcast(self._average(history) if fabric.is_global_zero else None)

    def _average(self, history: Sequence[Mapping[str, float]]) -> dict[str, Tensor] | None:
        paths = [path for path in map(self._path, self._best(history)) if path.exists()]
        kept = [torch.load(path, map_location="cpu", weights_only=True) for path in paths]
        return {name: _mean([weights[name] for weights in kept]) for name in kept[0]} if kept else None

    def _best(self, history: Sequence[Mapping[str, float]]) -> list[int]:
        return [int(numbers["epoch"]) for numbers in sorted(history, key=rank)[: self.count]]

    def _path(self, epoch: int) -> Path:
        return (self.folder or Path()) / f"epoch-{epoch:04}.pt"


def _mean(tensors: list[Tensor]) -> Tensor:
    joined = torch.stack(tensors)
    return joined.mean(0) if joined.is_floating_point() else joined[-1]
