"""Loaders: an epoch's batches, made in worker processes while the model computes."""

import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler, get_worker_info

from asr.data.batches import Batch, BatchMaker, Encoding, Variation
from asr.data.cuts import LANES, Cut
from asr.data.sampling import BatchLimits, BatchOrder, BatchSampler, ShardSampler
from asr.data.shards import Shards
from asr.errors import ManifestError

PREFETCHED_BATCHES = 4  # of each worker


class _FromBatch(Sampler):
    """What another sampler yields, from a batch on: a resumed epoch continues without making those before it."""

    def __init__(self, batches: BatchSampler | ShardSampler):
        self.batches, self.first = batches, 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator:
        return islice(self.batches, self.first, None)


class Loader(DataLoader):
    """Iterates over the batches of an epoch; `make_loader` builds it.

    Attributes:
        left_out: {id: reason} for the cuts that were not trained on; it fills while the epochs run.
        utterances, seconds: how much there is in all, and in an epoch, before speed perturbation, over all processes.
    """

    def __init__(self, sampler: BatchSampler | ShardSampler, dataset: BatchMaker, **options: Any):
        self.place = _FromBatch(sampler)
        super().__init__(dataset, sampler=self.place, batch_size=None, **options)
        self.batches = sampler
        self.left_out = sampler.left_out
        self.utterances, self.seconds = sampler.utterances, sampler.seconds

    def set_epoch(self, epoch: int, first: int = 0) -> None:
        """Choose the order and the augmentation of the next iteration, and the batch that it begins with."""
        self.batches.set_epoch(epoch)
        self.place.first = first

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches; of training also those of which nothing could be read, which are counted too."""
        for batch in super().__iter__():
            self.left_out.update(batch.left_out)
            if batch.ids or self.batches.order.shuffle:
                yield batch


def make_loader(
    cuts: Iterable[Cut],
    encoding: Encoding,
    *,
    limits: BatchLimits | None = None,
    order: BatchOrder | None = None,
    variation: Variation | None = None,
    weights: Sequence[float] | None = None,
    workers: int = 0,
) -> Loader:
    """Return the iterable over batches of cuts, each cut once an epoch unless there are weights.

    Arguments:
        cuts: as `load_cuts` returns them, or `Shards`.
        encoding: the model's features and tokens.
        limits: how large batches are, and which utterances are left out.
        order: in which order batches come, and at which speeds utterances are played.
        variation: what training changes in utterances.
        weights: how often each cut comes in an epoch (see `BatchSampler`); once if None. Not for shards.
        workers: processes that make batches; 0 makes them in this one.

    Cuts that cannot be used (unreadable audio, no transcript, letters that the tokenizer lacks) are
    left out and named in the loader's `left_out`. Raises ManifestError if the limits leave nothing.
    """
    limits, order = limits or BatchLimits(), order or BatchOrder()
    if isinstance(cuts, Shards):
        sampler = ShardSampler(cuts.durations, limits, order)
    else:
        sampler = BatchSampler(cuts, limits, order, weights)
    if not sampler.utterances:
        raise ManifestError(
            f"none of the {len(sampler.left_out)} utterances is between {limits.min_seconds} s and "
            f"{limits.max_seconds} s long"
            if sampler.left_out
            else "there are no utterances to load"
        )
    open_cut = cuts.cut if isinstance(cuts, Shards) else None
    return Loader(
        sampler,
        BatchMaker(encoding, variation or Variation(), order.seed, open_cut),
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCHED_BATCHES if workers > 0 else None,
        worker_init_fn=_begin_worker,
        pin_memory=torch.cuda.is_available(),
    )


def _begin_worker(worker: int) -> None:
    """Leave signals to the parent, and keep as many shards in memory as this worker's batches go round."""
    _leave_signals_to_the_parent()
    info: Any = get_worker_info()
    shards = getattr(info.dataset.open_cut, "__self__", None)
    if isinstance(shards, Shards):
        shards.kept = math.ceil(LANES / info.num_workers)


def _leave_signals_to_the_parent() -> None:
    """Outlive what a terminal, `timeout` or SLURM sends to every process: the parent saves its state, then ends us."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # macOS has no way to tell who sent a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_the_parent_says, daemon=True).start()


def _end_when_the_parent_says() -> None:
    parent = multiprocessing.parent_process()
    while parent and signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)
