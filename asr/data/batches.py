"""Batches: from drawn cuts to padded features and tokens."""

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import soxr
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from asr.data.augmentation import Augmentation
from asr.data.cuts import Cut, text_of
from asr.data.reading import read_samples
from asr.errors import AudioError, ConfigError, TextError
from asr.features.log_mel import LogMel
from asr.features.spec_augment import SpecAugment
from asr.text import Tokenizer, normalize


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
        """Return the batch with its tensors on a device."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory, from which it is copied to a GPU while that computes."""
        return self._with_tensors(Tensor.pin_memory)

    def select(self, indices: Sequence[int]) -> "Batch":
        """Return the batch with only these of its utterances, cropped to the longest of them.

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


@dataclass(frozen=True)
class Encoding:
    """How utterances become what the model takes and is trained towards.

    Attributes:
        log_mel, tokenizer, normalizer: those of the model.
        keep_unspellable: transcripts with letters that the tokenizer lacks get no tokens, so that they can be measured
            on; else their utterances are left out.
        leveled: the features are those of transcribing, where recordings far louder or quieter than the training data
            are brought to its level.
    """

    log_mel: LogMel
    tokenizer: Tokenizer
    normalizer: str
    keep_unspellable: bool = False
    leveled: bool = False

    def text(self, cut: Cut) -> str:
        """Return a cut's normalized transcript; raises TextError where it has none."""
        text = text_of(cut)
        if text is None:
            raise TextError("it has no transcript")
        return normalize(text, self.normalizer)

    def tokens(self, text: str) -> list[int]:
        """Encode a normalized transcript; raises TextError."""
        try:
            return self.tokenizer.encode(text)
        except TextError:
            if self.keep_unspellable:
                return []
            raise


@dataclass(frozen=True)
class Variation:
    """What training changes in utterances from epoch to epoch, beside their speed; nothing by default.

    Attributes:
        augmentation: of the samples.
        spec_augment: masks the features.
        join_utterances: in each batch, neighbors become one utterance, in pairs, threes, ... up to this many, or none.
        views: how often each utterance is in its batch, each time masked in another way.
    """

    augmentation: Augmentation | None = None
    spec_augment: SpecAugment | None = None
    join_utterances: int = 1
    views: int = 1


class BatchMaker(Dataset):
    """Turns what a sampler yields into a Batch: decodes, perturbs, transforms.

    Arguments: encoding; variation, drawn from `seed`; open_cut turns what the sampler yields into cuts. Raises
    ConfigError where utterances are to be joined and the tokenizer has no space.
    """

    def __init__(
        self,
        encoding: Encoding,
        variation: Variation,
        seed: int,
        open_cut: Callable[[Any], Cut] | None = None,
    ):
        # The model may be moved to a GPU, the workers stay on the CPU.
        self.encoding = replace(encoding, log_mel=copy.deepcopy(encoding.log_mel).cpu())
        self.sample_rate = encoding.log_mel.config.sample_rate
        self.variation = variation
        self.seed = seed
        self.open_cut = open_cut
        if variation.join_utterances > 1:
            try:
                encoding.tokenizer.encode(" ")
            except TextError as error:
                raise ConfigError(
                    f"data.join_utterances is {variation.join_utterances}, but this model's tokenizer has no space to "
                    "part utterances with; begin another run, whose tokenizer will have one"
                ) from error

    @torch.no_grad()
    def __getitem__(self, item: tuple[int, Sequence[tuple[Cut, float]]]) -> Batch:
        epoch, drawn = item
        read, left_out = self._read(drawn, epoch)
        if not read:
            return _empty(left_out)
        # The same whichever worker makes this batch.
        chance = random.Random(" ".join(map(str, (self.seed, epoch, *(name for name, _, _ in read)))))
        masks = torch.Generator().manual_seed(chance.getrandbits(63))
        groups = list(_neighbors(read, chance.randint(1, self.variation.join_utterances)))
        ids = ["+".join(name for name, _, _ in group) for group in groups]
        texts = [" ".join(text for _, text, _ in group) for group in groups]
        samples = [torch.from_numpy(np.concatenate([part for _, _, part in group])) for group in groups]
        tokens = [torch.tensor(self.encoding.tokens(text), dtype=torch.int64) for text in texts]
        sample_lengths = torch.tensor([len(part) for part in samples])
        token_lengths = torch.tensor([len(encoded) for encoded in tokens])
        features, lengths = self.encoding.log_mel(
            pad_sequence(samples, batch_first=True), sample_lengths, leveled=self.encoding.leveled
        )
        views = [index for index in range(len(ids)) for _ in range(self.variation.views)]
        features, lengths, token_lengths = (values[views] for values in (features, lengths, token_lengths))
        if self.variation.spec_augment is not None:
            features = self.variation.spec_augment(features, lengths, masks)
        return Batch(
            features=features,
            feature_lengths=lengths,
            tokens=pad_sequence(tokens, batch_first=True)[views],
            token_lengths=token_lengths,
            ids=[ids[index] for index in views],
            texts=[texts[index] for index in views],
            views=self.variation.views,
            seconds=sample_lengths.sum().item() / self.sample_rate,
            left_out=left_out,
        )

    def _read(
        self, drawn: Sequence[tuple[Cut, float]], epoch: int
    ) -> tuple[list[tuple[str, str, np.ndarray]], dict[str, str]]:
        """Return (id, text, samples) of the usable cuts, and {id: reason} of the others."""
        usable, left_out = [], {}
        for cut, speed in drawn:
            try:
                if self.open_cut is not None:
                    cut = self.open_cut(cut)
                text = self.encoding.text(cut)
                self.encoding.tokens(text)
                usable.append((cut.id, text, self._samples(cut, speed, epoch)))
            except (AudioError, TextError) as error:
                left_out[cut.id] = str(error)
        return usable, left_out

    def _samples(self, cut: Cut, speed: float, epoch: int) -> np.ndarray:
        samples = read_samples(cut, self.sample_rate)
        if speed != 1.0:
            # Played faster: as if it had been recorded at a higher rate, pitch and all (Ko et al. 2015).
            samples = soxr.resample(samples, speed * self.sample_rate, self.sample_rate)
        if self.variation.augmentation is not None:
            samples = self.variation.augmentation(samples, random.Random(f"{self.seed} {epoch} {cut.id}"))
        return samples


def _neighbors(values: list, count: int) -> Iterator[list]:
    """Part a list into runs of `count`; the last may be shorter."""
    return (values[start : start + count] for start in range(0, len(values), count))


def _empty(left_out: dict[str, str]) -> Batch:
    none = torch.zeros(0, dtype=torch.int64)
    return Batch(
        torch.zeros(0, 0, 0), none, torch.zeros(0, 0, dtype=torch.int64), none, [], [], 0.0, left_out
    )
