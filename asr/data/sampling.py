"""Which utterances come together in a batch, and in which order the batches come: all from their durations."""

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any

import torch
from torch.utils.data import Sampler

from asr.data.cuts import LANES, ShardedCut
from asr.errors import ManifestError

# Batches are cut from the utterances sorted by length. To mix them anew in each epoch, their lengths are
# taken for up to this much longer or shorter than they are.
JITTER = 0.05

Drawn = list[tuple[Any, float]]  # a batch: cuts, each with the speed at which it is played


@dataclass(frozen=True)
class BatchLimits:
    """How large batches are.

    Attributes:
        batch_seconds: most seconds of audio in a batch, padding included, one view counted.
        max_batch_size: most utterances in a batch.
        min_seconds, max_seconds: shorter and longer utterances are left out.
        accumulate: consecutive batches that training makes one step of; they are of similar lengths.
    """

    batch_seconds: float = 120.0
    max_batch_size: int = 64
    min_seconds: float = 0.0
    max_seconds: float = math.inf
    accumulate: int = 1

    def refusal(self, seconds: float) -> str | None:
        """Return why an utterance of this duration is left out; None where it is not."""
        if self.min_seconds <= seconds <= self.max_seconds:
            return None
        return f"its {seconds:.2f} s are not between {self.min_seconds} s and {self.max_seconds} s"


@dataclass(frozen=True)
class BatchOrder:
    """In which order batches come.

    Attributes:
        shuffle: another order in every epoch, drawn from `seed` and the epoch.
        sortagrad: in epoch 0 the batches come from the shortest to the longest (Amodei et al. 2016); of shards, those
            of each shard.
        speeds: factors, such as (0.9, 1.0, 1.1), of which one is drawn for each utterance and epoch.
        curriculum_epochs: first epochs that leave out long utterances; 0 for none.
        curriculum_seconds: longest utterance of the first of them; from one to the next the bound rises evenly until
            nothing is left out.
    """

    shuffle: bool = False
    sortagrad: bool = False
    speeds: tuple[float, ...] = ()
    seed: int = 0
    curriculum_epochs: int = 0
    curriculum_seconds: float = math.inf

    def longest(self, epoch: int, most: float) -> float:
        """Return the duration up to which utterances belong to an epoch, where the longest of all lasts `most`.

        >>> order = BatchOrder(curriculum_epochs=2, curriculum_seconds=4.0)
        >>> [order.longest(epoch, 10.0) for epoch in range(3)]
        [4.0, 7.0, inf]
        """
        if epoch >= self.curriculum_epochs:
            return math.inf
        return self.curriculum_seconds + (most - self.curriculum_seconds) * epoch / self.curriculum_epochs

    def chance(self, epoch: int) -> random.Random:
        """Return the source of all that is drawn for an epoch."""
        return random.Random(f"{self.seed} {epoch}")

    def arrange(self, batches: list, epoch: int, chance: random.Random) -> None:
        """Shuffle batches of decreasing length, or reverse them in the first epoch of SortaGrad."""
        if self.sortagrad and epoch == 0:
            batches.reverse()
        elif self.shuffle:
            chance.shuffle(batches)


def processes() -> tuple[int, int]:
    """Return this process's rank in distributed training and the number of processes."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def plan_batches(durations: Sequence[float], limits: BatchLimits, order: BatchOrder) -> list[int]:
    """Return how many utterances each batch has, of those in order of decreasing duration.

    A batch holds at most `batch_seconds`, with its padding and after speed perturbation, and at most
    `max_batch_size` utterances; an utterance longer than that comes alone.

    >>> plan_batches([6.0, 3.0, 3.0, 2.0, 2.0], BatchLimits(batch_seconds=6.0), BatchOrder())
    [1, 2, 2]
    """
    # The most by which an epoch's draw can make a batch longer than it is planned here.
    margin = (1 + JITTER) / (1 - JITTER) if order.shuffle else 1.0
    room = limits.batch_seconds / margin * min(order.speeds or (1.0,))
    sizes: list[int] = []
    start = 0
    while start < len(durations):
        fitting = int(room / durations[start])
        sizes.append(max(1, min(fitting, limits.max_batch_size, len(durations) - start)))
        start += sizes[-1]
    if len(sizes) > 1 and sizes[-1] < sizes[-2]:  # share out, rather than a tiny last batch
        rest = sizes.pop() + sizes.pop()
        sizes += [rest - rest // 2, rest // 2]
    return sizes


def draw_batches(
    cuts: Sequence[Any], sizes: Sequence[int], order: BatchOrder, chance: random.Random
) -> list[Drawn]:
    """Cut an epoch's batches of the planned sizes, of decreasing length after jitter and speed."""
    spread = JITTER if order.shuffle else 0.0
    drawn = []
    for cut in cuts:
        speed = chance.choice(order.speeds or (1.0,))
        drawn.append((cut.duration / speed * chance.uniform(1 - spread, 1 + spread), cut, speed))
    drawn.sort(key=lambda item: -item[0])
    pairs = iter([(cut, speed) for _, cut, speed in drawn])
    return [list(islice(pairs, size)) for size in sizes]


def _longest_first(cuts: Iterable[Any]) -> list[Any]:
    return sorted(cuts, key=lambda cut: (-cut.duration, cut.id))


class BatchSampler(Sampler):
    """Batches of similar lengths, in an order that (seed, epoch) decides. Yields (epoch, [(cut, speed), ...]).

    Each cut comes exactly once an epoch, in the same number of batches in every epoch, unless there are weights or a
    curriculum, with which each epoch has cuts and batches of its own.

    In distributed training each process gets every world_size-th batch: as many as the others, of similar
    lengths, and none twice. `accumulate` batches of each process make a step; two processes take the same steps as
    one that accumulates twice as many batches.

    Arguments: cuts; limits; order; weights, how often each of the cuts comes in an epoch: 2.5 twice or three times, as
    is drawn anew for each epoch, 0.1 in every tenth.

    Attributes:
        left_out: {id: reason} for the cuts that are too short or too long.
        utterances: how many others there are.
        seconds: of an epoch without curriculum, before speed perturbation.
    """

    def __init__(
        self,
        cuts: Iterable[Any],
        limits: BatchLimits,
        order: BatchOrder,
        weights: Sequence[float] | None = None,
    ):
        self.limits, self.accumulate, self.order, self.epoch = limits, limits.accumulate, order, 0
        self.left_out: dict[str, str] = {}
        kept, kept_weights = [], []
        for cut, weight in zip(cuts, repeat(1.0) if weights is None else weights, strict=weights is not None):
            if reason := limits.refusal(cut.duration):
                self.left_out[cut.id] = reason
            else:
                kept.append(cut)
                kept_weights.append(weight)
        ranked = _longest_first(kept)
        weight_of = dict(zip(map(id, kept), kept_weights, strict=True))
        self.all_cuts, self.weights = ranked, [weight_of[id(cut)] for cut in ranked]
        self.utterances = len(kept)
        # In the order of the cuts: another would round differently.
        self.seconds = sum(cut.duration * weight for cut, weight in zip(kept, kept_weights, strict=True))
        self.varies = bool(order.curriculum_epochs) or any(weight != 1 for weight in self.weights)
        self._plan()

    def _plan(self) -> None:
        self.cuts = self._selected() if self.varies and self.all_cuts else self.all_cuts
        self.sizes = plan_batches([cut.duration for cut in self.cuts], self.limits, self.order)

    def _selected(self) -> list[Any]:
        """Return the epoch's cuts, the longest first."""
        chance = random.Random(f"cuts {self.order.seed} {self.epoch}")
        longest = self.order.longest(self.epoch, self.all_cuts[0].duration)
        selected = []
        for cut, weight in zip(self.all_cuts, self.weights, strict=True):
            times = int(weight) + (chance.random() < weight % 1)
            selected += [cut] * (times if cut.duration <= longest else 0)
        if not selected:
            raise ManifestError(
                f"epoch {self.epoch + 1} has no utterance to train on; raise data.curriculum_seconds above "
                f"{self.all_cuts[-1].duration:.2f} s, the shortest utterance, or data.train_weights"
            )
        return selected

    def seconds_of(self, epoch: int) -> float:
        """Return the seconds of an epoch, on average over what is drawn for it."""
        longest = self.order.longest(epoch, self.all_cuts[0].duration)
        if longest == math.inf:
            return self.seconds
        pairs = zip(self.all_cuts, self.weights, strict=True)
        return sum(cut.duration * weight for cut, weight in pairs if cut.duration <= longest)

    def set_epoch(self, epoch: int) -> None:
        """Choose the utterances and the order of the next iteration."""
        self.epoch = epoch
        if self.varies:
            self._plan()

    def __len__(self) -> int:
        world_size = processes()[1]
        group = world_size * self.accumulate
        return min(-(-len(self.sizes) // group) * group, len(self.cuts)) // world_size

    def __iter__(self) -> Iterator[tuple[int, Drawn]]:
        chance = self.order.chance(self.epoch)
        batches = draw_batches(self.cuts, self.sizes, self.order, chance)
        rank, world_size = processes()
        group = world_size * self.accumulate
        while len(batches) % group and len(batches) < len(self.cuts):
            _halve_largest(batches)
        if len(batches) % world_size:
            raise ManifestError(
                f"{len(self.cuts)} utterances, each a batch of its own, cannot be shared evenly by {world_size} "
                "processes; raise data.batch_seconds or data.max_batch_size, or train with fewer processes"
            )
        steps = [batches[start : start + group] for start in range(0, len(batches), group)]
        self.order.arrange(steps, self.epoch, chance)
        for step in steps:
            for batch in step[rank::world_size]:
                yield self.epoch, batch


def _halve_largest(batches: list) -> None:
    largest = max(range(len(batches)), key=lambda index: len(batches[index]))
    batch = batches[largest]
    batches[largest : largest + 1] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]


class ShardSampler(Sampler):
    """Batches of ShardedCuts, each batch of one shard; LANES shards are gone through side by side.

    A process of distributed training reads shards that no other reads, the same in each epoch. One with fewer batches
    than others halves some, so that all have equally many.

    Arguments: durations of each shard's utterances, in seconds. Attributes as BatchSampler's.
    """

    def __init__(self, durations: Sequence[Any], limits: BatchLimits, order: BatchOrder):
        self.durations, self.limits, self.order, self.epoch = durations, limits, order, 0
        self.left_out: dict[str, str] = {}
        self.utterances, self.seconds = 0, 0.0
        self.counts = []  # of batches in each shard; of the utterances only the durations are kept, which are many
        for shard in range(len(durations)):
            cuts = self._cuts(shard, self.left_out)
            self.utterances += len(cuts)
            self.seconds += sum(cut.duration for cut in cuts)
            self.counts.append(len(self._sizes(cuts)))

    def seconds_of(self, epoch: int) -> float:
        """Return the seconds of an epoch."""
        return self.seconds

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration."""
        self.epoch = epoch

    def _cuts(self, shard: int, left_out: dict[str, str]) -> list[ShardedCut]:
        """Return a shard's ShardedCuts, the longest first, and note those that are too short or too long."""
        kept = []
        for place, seconds in enumerate(self.durations[shard].tolist()):
            cut = ShardedCut(shard, place, seconds)
            if reason := self.limits.refusal(seconds):
                left_out[cut.id] = reason
            else:
                kept.append(cut)
        return _longest_first(kept)

    def _sizes(self, cuts: Sequence[ShardedCut]) -> list[int]:
        return plan_batches([cut.duration for cut in cuts], self.limits, self.order)

    def _shards_of_rank(self, rank: int, world_size: int) -> list[int]:
        return [shard for shard in range(rank, len(self.counts), world_size) if self.counts[shard]]

    def __len__(self) -> int:
        _, world_size = processes()
        return max(
            sum(self.counts[shard] for shard in self._shards_of_rank(rank, world_size))
            for rank in range(world_size)
        )

    def __iter__(self) -> Iterator[tuple[int, Drawn]]:
        rank, world_size = processes()
        shards = self._shards_of_rank(rank, world_size)
        missing = len(self) - sum(self.counts[shard] for shard in shards)
        if self.order.shuffle:
            self.order.chance(self.epoch).shuffle(shards)
        lanes = [self._lane(shards[lane::LANES]) for lane in range(min(LANES, len(shards)))]
        while lanes:
            for lane in list(lanes):
                batch = next(lane, None)
                if batch is None:
                    lanes.remove(lane)
                    continue
                if missing and len(batch) > 1:
                    missing -= 1
                    yield self.epoch, batch[: len(batch) // 2]
                    batch = batch[len(batch) // 2 :]
                yield self.epoch, batch
        if missing:
            raise ManifestError(f"{len(self.counts)} shards are too few for the {world_size} processes")

    def _lane(self, shards: list[int]) -> Iterator[Drawn]:
        for shard in shards:
            cuts = self._cuts(shard, {})
            chance = random.Random(f"{hash((self.order.seed, shard))} {self.epoch}")
            batches = draw_batches(cuts, self._sizes(cuts), self.order, chance)
            self.order.arrange(batches, self.epoch, chance)
            yield from batches
