"""Batches: from cuts to padded features and tokens, made in worker processes while the model computes."""

import random
import signal
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import accumulate

import numpy as np
import soxr
import torch
from lhotse import MonoCut, MultiCut
from lhotse.audio.utils import AudioLoadingError, DurationMismatchError
from lhotse.cut import Cut
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, Sampler

from asr.audio import load_audio
from asr.data.manifests import text_of
from asr.errors import AudioError, ManifestError, TextError
from asr.features import LogMel, SpecAugment
from asr.text import Tokenizer, normalise

# Utterances share a batch only with those of their bucket, which holds lengths that differ little. More
# buckets pad less, fewer mix the utterances better: a bucket should fill a few batches.
MOST_BUCKETS = 30
BATCHES_PER_BUCKET = 3
PREFETCHED_BATCHES = 4  # of each worker


@dataclass
class Batch:
    """Utterances padded to the longest of them.

    Attributes:
        features: (batch, frame, mel) float32, 0 past each utterance's end.
        feature_lengths: (batch,) int64, frames.
        tokens: (batch, token) int64, 0 past each target's end.
        token_lengths: (batch,) int64.
        ids: of the cuts.
        texts: the normalised transcripts.
        seconds: of audio in all, padding not counted.
        left_out: {id: reason} for the cuts of this batch that could not be used.
    """

    features: Tensor
    feature_lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor
    ids: list[str]
    texts: list[str]
    seconds: float
    left_out: dict[str, str] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> "Batch":
        """Give the batch with its tensors on a device."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Give the batch in page-locked memory, from which it is copied to a GPU while that computes."""
        return self._with_tensors(Tensor.pin_memory)

    def select(self, indices: Sequence[int]) -> "Batch":
        """Give the batch with only these of its utterances, cropped to the longest of them."""
        kept = list(indices)
        lengths, token_lengths = self.feature_lengths[kept], self.token_lengths[kept]
        return Batch(
            features=self.features[kept, : max(lengths, default=0)],
            feature_lengths=lengths,
            tokens=self.tokens[kept, : max(token_lengths, default=0)],
            token_lengths=token_lengths,
            ids=[self.ids[index] for index in kept],
            texts=[self.texts[index] for index in kept],
            seconds=self.seconds * float(lengths.sum() / self.feature_lengths.sum().clamp(min=1)),
            left_out=self.left_out,
        )

    def _with_tensors(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return replace(self, **{k: function(v) for k, v in values.items() if isinstance(v, Tensor)})


class BucketSampler(Sampler):
    """Batches of similar lengths, each cut exactly once an epoch, in an order that (seed, epoch) decides.

    A batch holds at most `batch_seconds` with its padding (an utterance longer than that comes alone) and at
    most `max_batch_size` cuts. The number of batches is the same in every epoch. Yields (epoch, cuts).

    In distributed training each process gets every world_size-th batch: as many as the others, of similar
    lengths, and none twice.
    """

    def __init__(
        self, cuts: Iterable[Cut], *, batch_seconds: float, max_batch_size: int, shuffle: bool, seed: int
    ):
        self.shuffle, self.seed, self.epoch = shuffle, seed, 0
        self.buckets: list[tuple[list[Cut], int]] = []
        for bucket in _buckets(cuts, batch_seconds):
            most = max(1, min(max_batch_size, int(batch_seconds / bucket[-1].duration)))
            # Batches of even size: a full one and a rest of two utterances would weigh the same in training.
            batches = -(-len(bucket) // most)
            self.buckets.append((bucket, -(-len(bucket) // batches)))

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        batches = sum(-(-len(bucket) // size) for bucket, size in self.buckets)
        return -(-batches // _processes()[1])

    def __iter__(self) -> Iterator[tuple[int, list[Cut]]]:
        chance = random.Random(f"{self.seed} {self.epoch}")
        batches = []
        for bucket, size in self.buckets:
            cuts = chance.sample(bucket, len(bucket)) if self.shuffle else bucket
            batches += [cuts[start : start + size] for start in range(0, len(cuts), size)]
        rank, world_size = _processes()
        while len(batches) % world_size:  # halve the largest until the processes get equally many
            largest = max(range(len(batches)), key=lambda index: len(batches[index]))
            cuts = batches[largest]
            if len(cuts) < 2:
                raise ManifestError(f"fewer utterances than the {world_size} processes that train on them")
            batches[largest : largest + 1] = [cuts[: len(cuts) // 2], cuts[len(cuts) // 2 :]]
        rounds = [batches[start : start + world_size] for start in range(0, len(batches), world_size)]
        if self.shuffle:
            chance.shuffle(rounds)
        for batch in rounds:
            yield self.epoch, batch[rank]


def _buckets(cuts: Iterable[Cut], batch_seconds: float) -> list[list[Cut]]:
    """Sort cuts by length into buckets of about the same number of seconds."""
    ordered = sorted(cuts, key=lambda cut: (cut.duration, cut.id))
    sums = list(accumulate(cut.duration for cut in ordered))
    count = min(MOST_BUCKETS, max(1, int(sums[-1] / (BATCHES_PER_BUCKET * batch_seconds))))
    ends = [bisect_left(sums, sums[-1] * bucket / count) for bucket in range(1, count)]
    buckets = [ordered[start:end] for start, end in zip([0, *ends], [*ends, len(ordered)], strict=True)]
    return [bucket for bucket in buckets if bucket]


def _processes() -> tuple[int, int]:
    """Give this process's rank in distributed training and the number of processes."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


class BatchMaker(Dataset):
    """Turns the (epoch, cuts) of BucketSampler into a Batch: decodes, perturbs, transforms."""

    def __init__(
        self,
        *,
        log_mel: LogMel,
        tokenizer: Tokenizer,
        normaliser: str,
        spec_augment: SpecAugment | None,
        speed_perturb: Sequence[float],
        seed: int,
    ):
        self.log_mel = log_mel
        self.sample_rate = log_mel.config.sample_rate
        self.tokenizer = tokenizer
        self.normaliser = normaliser
        self.spec_augment = spec_augment
        self.speed_perturb = tuple(speed_perturb)
        self.seed = seed

    @torch.no_grad()
    def __getitem__(self, item: tuple[int, Sequence[Cut]]) -> Batch:
        epoch, cuts = item
        left_out, ids, texts, tokens, samples = {}, [], [], [], []
        for cut in cuts:
            try:
                text = self._text(cut)
                encoded = torch.tensor(self.tokenizer.encode(text), dtype=torch.int64)
                heard = torch.from_numpy(self._samples(cut, epoch))
            except (AudioError, TextError) as error:
                left_out[cut.id] = str(error)
            else:
                ids.append(cut.id)
                texts.append(text)
                tokens.append(encoded)
                samples.append(heard)
        if not ids:
            return _empty(left_out)
        sample_lengths = torch.tensor([len(heard) for heard in samples])
        token_lengths = torch.tensor([len(encoded) for encoded in tokens])
        features, lengths = self.log_mel(pad_sequence(samples, batch_first=True), sample_lengths)
        if self.spec_augment is not None:
            generator = torch.Generator().manual_seed(self._chance(epoch, *ids).getrandbits(63))
            features = self.spec_augment(features, lengths, generator)
        return Batch(
            features=features,
            feature_lengths=lengths,
            tokens=pad_sequence(tokens, batch_first=True),
            token_lengths=token_lengths,
            ids=ids,
            texts=texts,
            seconds=sample_lengths.sum().item() / self.sample_rate,
            left_out=left_out,
        )

    def _text(self, cut: Cut) -> str:
        text = text_of(cut)
        if text is None:
            raise TextError("it has no transcript")
        return normalise(text, self.normaliser)

    def _samples(self, cut: Cut, epoch: int) -> np.ndarray:
        samples = read_samples(cut, self.sample_rate)
        factor = self._chance(epoch, cut.id).choice(self.speed_perturb) if self.speed_perturb else 1.0
        if factor != 1.0:  # played faster: as if it had been recorded at a higher rate (Ko et al. 2015)
            samples = soxr.resample(samples, factor * self.sample_rate, self.sample_rate)
        return samples

    def _chance(self, *what: object) -> random.Random:
        """Draw from the run's seed and from what is drawn for: the same with any number of workers."""
        return random.Random(" ".join(map(str, (self.seed, *what))))


def _empty(left_out: dict[str, str]) -> Batch:
    none = torch.zeros(0, dtype=torch.int64)
    return Batch(
        torch.zeros(0, 0, 0), none, torch.zeros(0, 0, dtype=torch.int64), none, [], [], 0.0, left_out
    )


def read_samples(cut: Cut, sample_rate: int) -> np.ndarray:
    """Read a cut's audio as (time,) float32, mono, at `sample_rate`; the channels of a MultiCut are averaged.

    Raises AudioError that names the file.
    """
    if (
        isinstance(cut, MonoCut | MultiCut)
        and not cut.recording.transforms
        and len(cut.recording.sources) == 1
    ):
        source, recording = cut.recording.sources[0], cut.recording
        channels = [cut.channel] if isinstance(cut, MonoCut) else list(cut.channel)
        if source.type == "file" and channels == recording.channel_ids:
            # As transcribing reads it, and in half of lhotse's time.
            is_part = cut.start > 0 or cut.end < recording.duration
            return load_audio(
                source.source, sample_rate, offset=cut.start, duration=cut.duration if is_part else None
            )
    try:
        return cut.resample(sample_rate).load_audio().mean(0)
    except (AudioLoadingError, DurationMismatchError, OSError) as error:
        raise AudioError(f"cannot read the audio of {cut.id}: {error}") from error


class Loader(DataLoader):
    """Iterates over the batches of an epoch; `make_loader` builds it.

    Attributes:
        left_out: {id: reason} for the cuts that were not trained on; it fills while the epochs run.
        utterances, seconds: how much an epoch holds in all, before speed perturbation, over all processes.
    """

    def __init__(self, cuts: Sequence[Cut], left_out: dict[str, str], sampler: BucketSampler, **options):
        super().__init__(sampler=sampler, batch_size=None, **options)
        self.left_out = left_out
        self.utterances = len(cuts)
        self.seconds = sum(cut.duration for cut in cuts)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentation of the next iteration (Lightning does it itself)."""
        self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[Batch]:
        previous = None
        for batch in super().__iter__():
            self.left_out.update(batch.left_out)
            if batch.ids:
                yield batch
                previous = batch
            elif previous is not None and self.sampler.shuffle:
                # Nothing of this batch could be read. Training counts on the announced number of batches, so
                # that it notices the epoch's end: give another in its place.
                yield previous


def make_loader(
    cuts: Iterable[Cut],
    *,
    log_mel: LogMel,
    tokenizer: Tokenizer,
    normaliser: str,
    spec_augment: SpecAugment | None = None,
    speed_perturb: Sequence[float] = (),
    batch_seconds: float = 120.0,
    max_batch_size: int = 64,
    min_seconds: float = 0.0,
    max_seconds: float = float("inf"),
    shuffle: bool = False,
    seed: int = 0,
    workers: int = 0,
) -> Loader:
    """Make the iterable over batches of cuts, each cut once an epoch.

    Arguments:
        cuts: as `load_cuts` gives them.
        log_mel, tokenizer, normaliser: those of the model.
        spec_augment: masks the features of a training batch.
        speed_perturb: factors, such as (0.9, 1.0, 1.1), of which one is drawn for each cut and epoch.
        batch_seconds: most seconds of audio in a batch, padding included, before speed perturbation.
        max_batch_size: most utterances in a batch.
        min_seconds, max_seconds: shorter and longer cuts are left out.
        shuffle: another order in every epoch, drawn from `seed` and the epoch.
        workers: processes that make batches; 0 makes them in this one.

    Cuts that cannot be used (unreadable audio, no transcript, letters that the tokenizer lacks) are
    left out and named in the loader's `left_out`. Raises ManifestError if the limits leave nothing.
    """
    left_out, kept = {}, []
    for cut in cuts:
        if min_seconds <= cut.duration <= max_seconds:
            kept.append(cut)
        else:
            left_out[cut.id] = f"its {cut.duration:.2f} s are not between {min_seconds} s and {max_seconds} s"
    if not kept:
        raise ManifestError(
            f"none of the {len(left_out)} utterances is between {min_seconds} s and {max_seconds} s long"
            if left_out
            else "there are no utterances to load"
        )
    return Loader(
        kept,
        left_out,
        BucketSampler(
            kept, batch_seconds=batch_seconds, max_batch_size=max_batch_size, shuffle=shuffle, seed=seed
        ),
        dataset=BatchMaker(
            log_mel=log_mel,
            tokenizer=tokenizer,
            normaliser=normaliser,
            spec_augment=spec_augment,
            speed_perturb=speed_perturb,
            seed=seed,
        ),
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCHED_BATCHES if workers > 0 else None,
        worker_init_fn=_leave_interrupts_to_the_parent,
        pin_memory=torch.cuda.is_available(),
    )


def _leave_interrupts_to_the_parent(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
