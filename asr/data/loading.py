"""Batches: from cuts to padded features and tokens, made in worker processes while the model computes."""

import copy
import functools
import multiprocessing
import os
import random
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from typing import Any, cast

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
from asr.data.augmentation import Augmentation
from asr.data.manifests import file_of, text_of
from asr.errors import AudioError, ConfigError, ManifestError, TextError
from asr.features.log_mel import LogMel
from asr.features.spec_augment import SpecAugment
from asr.text import Tokenizer, normalize

# Batches are cut from the utterances sorted by length. To mix them anew in each epoch, their lengths are
# taken for up to this much longer or shorter than they are.
JITTER = 0.05
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
        texts: the normalized transcripts.
        seconds: of audio in all, padding not counted.
        left_out: {id: reason} for the cuts of this batch that could not be used.
        views: how often each utterance is there, its versions next to each other.
    """

    features: Tensor
    feature_lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor
    ids: list[str]
    texts: list[str]
    seconds: float
    left_out: dict[str, str] = field(default_factory=dict)
    views: int = 1

    def to(self, device: torch.device | str) -> "Batch":
        """Give the batch with its tensors on a device."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Give the batch in page-locked memory, from which it is copied to a GPU while that computes."""
        return self._with_tensors(Tensor.pin_memory)

    def select(self, indices: Sequence[int]) -> "Batch":
        """Give the batch with only these of its utterances, cropped to the longest of them.

        >>> batch = Batch(
        ...     torch.zeros(2, 50, 80), torch.tensor([50, 30]), torch.zeros(2, 9), torch.tensor([4, 9]),
        ...     ids=["long", "short"], texts=["four", "nine char"], seconds=0.8,
        ... )
        >>> short = batch.select([1])
        >>> short.features.shape, short.tokens.shape, round(short.seconds, 3)
        (torch.Size([1, 30, 80]), torch.Size([1, 9]), 0.3)
        """
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
            views=self.views,
        )

    def _with_tensors(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return replace(self, **{k: function(v) for k, v in values.items() if isinstance(v, Tensor)})


class BatchSampler(Sampler):
    """Batches of similar lengths, each cut exactly once an epoch, in an order that (seed, epoch) decides.

    A batch holds at most `batch_seconds`, with its padding and after speed perturbation, and at most
    `max_batch_size` cuts; an utterance longer than that comes alone. The number of batches is the same in
    every epoch. Yields (epoch, [(cut, speed), ...]).

    In distributed training each process gets every world_size-th batch: as many as the others, of similar
    lengths, and none twice. `accumulate` batches of each process make a step; two processes take the same steps as
    one that accumulates twice as many batches.
    """

    def __init__(
        self,
        cuts: Iterable[Cut],
        *,
        batch_seconds: float,
        max_batch_size: int,
        speeds: Sequence[float],
        shuffle: bool,
        seed: int,
        sortagrad: bool = False,
        accumulate: int = 1,
    ):
        self.sortagrad = sortagrad
        self.accumulate = accumulate
        self.cuts = sorted(cuts, key=lambda cut: (-cut.duration, cut.id))
        self.speeds = tuple(speeds) or (1.0,)
        self.shuffle, self.seed, self.epoch = shuffle, seed, 0
        # The most by which an epoch's draw can make a batch longer than it is planned here.
        margin = (1 + JITTER) / (1 - JITTER) if shuffle else 1.0
        room = batch_seconds / margin * min(self.speeds)
        self.sizes: list[int] = []
        start = 0
        while start < len(self.cuts):
            fitting = int(room / self.cuts[start].duration)
            self.sizes.append(max(1, min(fitting, max_batch_size, len(self.cuts) - start)))
            start += self.sizes[-1]
        if (
            len(self.sizes) > 1 and self.sizes[-1] < self.sizes[-2]
        ):  # share out, rather than a tiny last batch
            rest = self.sizes.pop() + self.sizes.pop()
            self.sizes += [rest - rest // 2, rest // 2]

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        world_size = processes()[1]
        group = world_size * self.accumulate
        return min(-(-len(self.sizes) // group) * group, len(self.cuts)) // world_size

    def epoch_batches(self) -> tuple[list[list[tuple[Cut, float]]], random.Random]:
        """Cut the epoch's batches, of decreasing length; also gives the source of what else is drawn for it."""
        chance = random.Random(f"{self.seed} {self.epoch}")
        spread = JITTER if self.shuffle else 0.0
        drawn = []
        for cut in self.cuts:
            speed = chance.choice(self.speeds)
            drawn.append((cut.duration / speed * chance.uniform(1 - spread, 1 + spread), cut, speed))
        drawn.sort(key=lambda item: -item[0])
        pairs = iter([(cut, speed) for _, cut, speed in drawn])
        return [list(islice(pairs, size)) for size in self.sizes], chance

    def __iter__(self) -> Iterator[tuple[int, list[tuple[Cut, float]]]]:
        batches, chance = self.epoch_batches()
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
        self.put_in_order(steps, chance)
        for step in steps:
            for batch in step[rank::world_size]:
                yield self.epoch, batch

    def put_in_order(self, batches: list, chance: random.Random) -> None:
        """Shuffle batches of decreasing length, or turn them round in the first epoch of SortaGrad."""
        if self.sortagrad and self.epoch == 0:
            batches.reverse()
        elif self.shuffle:
            chance.shuffle(batches)


def _halve_largest(batches: list) -> None:
    largest = max(range(len(batches)), key=lambda index: len(batches[index]))
    batch = batches[largest]
    batches[largest : largest + 1] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]


def processes() -> tuple[int, int]:
    """Give this process's rank in distributed training and the number of processes."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


class BatchMaker(Dataset):
    """Turns what BatchSampler yields into a Batch: decodes, perturbs, transforms."""

    def __init__(
        self,
        *,
        log_mel: LogMel,
        tokenizer: Tokenizer,
        normalizer: str,
        augmentation: Augmentation | None,
        spec_augment: SpecAugment | None,
        seed: int,
        join_utterances: int = 1,
        views: int = 1,
        keep_unspellable: bool = False,
        open_cut: Callable[[Any], Cut] | None = None,
    ):
        self.log_mel = log_mel
        self.sample_rate = log_mel.config.sample_rate
        self.tokenizer = tokenizer
        self.normalizer = normalizer
        self.augmentation = augmentation
        self.spec_augment = spec_augment
        self.seed = seed
        self.join_utterances = join_utterances
        self.views = views
        self.keep_unspellable = keep_unspellable
        self.open_cut = open_cut
        if join_utterances > 1:
            try:
                tokenizer.encode(" ")
            except TextError as error:
                raise ConfigError(
                    f"data.join_utterances is {join_utterances}, but this model's tokenizer has no space to part "
                    "utterances with; begin another run, whose tokenizer will have one"
                ) from error

    @torch.no_grad()
    def __getitem__(self, item: tuple[int, Sequence[tuple[Cut, float]]]) -> Batch:
        epoch, cuts = item
        left_out, ids, texts, samples = {}, [], [], []
        for cut, speed in cuts:
            try:
                if self.open_cut is not None:
                    cut = self.open_cut(cut)
                text = self._text(cut)
                self._tokens(text)
                heard = self._samples(cut, speed, epoch)
            except (AudioError, TextError) as error:
                left_out[cut.id] = str(error)
            else:
                ids.append(cut.id)
                texts.append(text)
                samples.append(heard)
        if not ids:
            return _empty(left_out)
        # The same whichever worker makes this batch.
        chance = random.Random(" ".join(map(str, (self.seed, epoch, *ids))))
        masks = torch.Generator().manual_seed(chance.getrandbits(63))
        together = chance.randint(1, self.join_utterances)
        ids = ["+".join(some) for some in _neighbors(ids, together)]
        texts = [" ".join(some) for some in _neighbors(texts, together)]
        samples = [torch.from_numpy(np.concatenate(some)) for some in _neighbors(samples, together)]
        tokens = [torch.tensor(self._tokens(text), dtype=torch.int64) for text in texts]
        sample_lengths = torch.tensor([len(heard) for heard in samples])
        token_lengths = torch.tensor([len(encoded) for encoded in tokens])
        features, lengths = self.log_mel(pad_sequence(samples, batch_first=True), sample_lengths)
        views = [index for index in range(len(ids)) for _ in range(self.views)]
        features, lengths, token_lengths = (each[views] for each in (features, lengths, token_lengths))
        if self.spec_augment is not None:
            features = self.spec_augment(features, lengths, masks)
        return Batch(
            features=features,
            feature_lengths=lengths,
            tokens=pad_sequence(tokens, batch_first=True)[views],
            token_lengths=token_lengths,
            ids=[ids[index] for index in views],
            texts=[texts[index] for index in views],
            views=self.views,
            seconds=sample_lengths.sum().item() / self.sample_rate,
            left_out=left_out,
        )

    def _text(self, cut: Cut) -> str:
        text = text_of(cut)
        if text is None:
            raise TextError("it has no transcript")
        return normalize(text, self.normalizer)

    def _tokens(self, text: str) -> list[int]:
        try:
            return self.tokenizer.encode(text)
        except TextError:
            if self.keep_unspellable:
                return []
            raise

    def _samples(self, cut: Cut, speed: float, epoch: int) -> np.ndarray:
        samples = read_samples(cut, self.sample_rate)
        if speed != 1.0:
            # Played faster: as if it had been recorded at a higher rate, pitch and all (Ko et al. 2015).
            samples = soxr.resample(samples, speed * self.sample_rate, self.sample_rate)
        if self.augmentation is not None:
            samples = self.augmentation(samples, random.Random(f"{self.seed} {epoch} {cut.id}"))
        return samples


def _neighbors(values: list, count: int) -> Iterator[list]:
    """Part a list into runs of `count`; the last may be shorter."""
    return (values[start : start + count] for start in range(0, len(values), count))


def _empty(left_out: dict[str, str]) -> Batch:
    none = torch.zeros(0, dtype=torch.int64)
    return Batch(
        torch.zeros(0, 0, 0), none, torch.zeros(0, 0, dtype=torch.int64), none, [], [], 0.0, left_out
    )


def read_samples(cut: Cut, sample_rate: int) -> np.ndarray:
    """Read a cut's audio as (time,) float32, mono, at `sample_rate`; the channels of a MultiCut are averaged.

    Raises AudioError that names the file.
    """
    if cut.duration <= 0:
        raise AudioError(f"{cut.id} lasts {cut.duration} s")
    file = file_of(cut)
    if isinstance(cut, MonoCut) and cut.recording and cut.recording.sources[0].type == "memory":
        return load_audio(cut.recording.sources[0].source, sample_rate)  # type: ignore[arg-type]
    if isinstance(cut, MonoCut | MultiCut) and file and (recording := cut.recording):
        channels = [cut.channel] if isinstance(cut, MonoCut) else cut.channel
        if channels == recording.channel_ids and not recording.transforms:  # read as transcribing reads
            is_part = cut.start > 0 or cut.end < recording.duration
            return load_audio(file, sample_rate, offset=cut.start, duration=cut.duration if is_part else None)
    _read_sphere_without_sph2pipe()
    try:
        samples = cut.resample(sample_rate).load_audio()
    except (AudioLoadingError, DurationMismatchError, OSError) as error:
        reason = str(error).splitlines()[0]  # what follows are the calls and their arguments
        raise AudioError(f"cannot read the audio of {cut.id}: {reason}") from error
    if samples is None:
        raise AudioError(f"{cut.id} has no audio")
    return samples.mean(0)


@functools.cache
def _read_sphere_without_sph2pipe() -> None:
    """Let libsndfile read NIST sphere files, for which lhotse wants a program that is seldom installed."""
    from lhotse.audio import backend

    if shutil.which("sph2pipe") is None:
        every = cast(backend.CompositeAudioBackend, backend.get_default_audio_backend())
        others = [one for one in every.backends if not isinstance(one, backend.Sph2pipeSubprocessBackend)]
        backend.set_current_audio_backend(backend.CompositeAudioBackend(others))


class _FromBatch(Sampler):
    """What another sampler gives, from a batch on: a resumed epoch goes on without making those before it."""

    def __init__(self, batches: BatchSampler):
        self.batches, self.first = batches, 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator:
        return islice(self.batches, self.first, None)


class Loader(DataLoader):
    """Iterates over the batches of an epoch; `make_loader` builds it.

    Attributes:
        left_out: {id: reason} for the cuts that were not trained on; it fills while the epochs run.
        utterances, seconds: how much an epoch holds in all, before speed perturbation, over all processes.
    """

    def __init__(
        self,
        sampler: BatchSampler,
        *,
        left_out: dict[str, str],
        utterances: int,
        seconds: float,
        **options,
    ):
        self.place = _FromBatch(sampler)
        super().__init__(sampler=self.place, batch_size=None, **options)
        self.batches = sampler
        self.left_out = left_out
        self.utterances = utterances
        self.seconds = seconds

    def set_epoch(self, epoch: int, first: int = 0) -> None:
        """Choose the order and the augmentation of the next iteration, and the batch that it begins with."""
        self.batches.set_epoch(epoch)
        self.place.first = first

    def __iter__(self) -> Iterator[Batch]:
        """Give the batches; a training batch of which nothing could be read is given too, for it has its place."""
        for batch in super().__iter__():
            self.left_out.update(batch.left_out)
            if batch.ids or self.batches.shuffle:
                yield batch


def make_loader(
    cuts: Iterable[Cut],
    *,
    log_mel: LogMel,
    tokenizer: Tokenizer,
    normalizer: str,
    augmentation: Augmentation | None = None,
    spec_augment: SpecAugment | None = None,
    speed_perturb: Sequence[float] = (),
    join_utterances: int = 1,
    views: int = 1,
    keep_unspellable: bool = False,
    batch_seconds: float = 120.0,
    max_batch_size: int = 64,
    min_seconds: float = 0.0,
    max_seconds: float = float("inf"),
    shuffle: bool = False,
    sortagrad: bool = False,
    seed: int = 0,
    workers: int = 0,
    accumulate: int = 1,
) -> Loader:
    """Make the iterable over batches of cuts, each cut once an epoch.

    Arguments:
        cuts: as `load_cuts` gives them, or `Shards`.
        log_mel, tokenizer, normalizer: those of the model.
        augmentation: of the samples of a training batch.
        spec_augment: masks the features of a training batch.
        speed_perturb: factors, such as (0.9, 1.0, 1.1), of which one is drawn for each cut and epoch.
        join_utterances: in each batch, neighbors become one utterance, in pairs, threes, ... up to this many, or none.
        views: how often each utterance is in its batch, each time masked in another way.
        keep_unspellable: transcripts with letters that the tokenizer lacks get no tokens: they can be measured on.
        batch_seconds: most seconds of audio in a batch, padding included, one view counted.
        max_batch_size: most utterances in a batch.
        min_seconds, max_seconds: shorter and longer cuts are left out.
        shuffle: another order in every epoch, drawn from `seed` and the epoch.
        sortagrad: in epoch 0 the batches come from the shortest to the longest (Amodei et al. 2016); of shards, those
            of each shard.
        workers: processes that make batches; 0 makes them in this one.
        accumulate: consecutive batches that training makes one step of; they are of similar lengths.

    Cuts that cannot be used (unreadable audio, no transcript, letters that the tokenizer lacks) are
    left out and named in the loader's `left_out`. Raises ManifestError if the limits leave nothing.
    """
    from asr.data.shards import Shards, ShardSampler  # which are made of what is here

    limits: dict[str, Any] = {
        "batch_seconds": batch_seconds,
        "max_batch_size": max_batch_size,
        "speeds": speed_perturb,
        "shuffle": shuffle,
        "seed": seed,
        "sortagrad": sortagrad,
        "accumulate": accumulate,
    }
    if isinstance(cuts, Shards):
        sampler = ShardSampler(cuts, min_seconds=min_seconds, max_seconds=max_seconds, **limits)
        left_out, utterances, seconds = sampler.left_out, sampler.utterances, sampler.seconds
    else:
        left_out, kept = {}, []
        for cut in cuts:
            if min_seconds <= cut.duration <= max_seconds:
                kept.append(cut)
            else:
                left_out[cut.id] = (
                    f"its {cut.duration:.2f} s are not between {min_seconds} s and {max_seconds} s"
                )
        sampler = BatchSampler(kept, **limits)
        utterances, seconds = len(kept), sum(cut.duration for cut in kept)
    if not utterances:
        raise ManifestError(
            f"none of the {len(left_out)} utterances is between {min_seconds} s and {max_seconds} s long"
            if left_out
            else "there are no utterances to load"
        )
    return Loader(
        sampler,
        left_out=left_out,
        utterances=utterances,
        seconds=seconds,
        dataset=BatchMaker(
            log_mel=copy.deepcopy(log_mel).cpu(),  # the model may be moved to a GPU, the workers stay here
            tokenizer=tokenizer,
            normalizer=normalizer,
            augmentation=augmentation,
            spec_augment=spec_augment,
            seed=seed,
            join_utterances=join_utterances,
            views=views,
            keep_unspellable=keep_unspellable,
            open_cut=cuts.cut if isinstance(cuts, Shards) else None,
        ),
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCHED_BATCHES if workers > 0 else None,
        worker_init_fn=_leave_signals_to_the_parent,
        pin_memory=torch.cuda.is_available(),
    )


def _leave_signals_to_the_parent(worker: int) -> None:
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
