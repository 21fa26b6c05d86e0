"""The text of a training: its units, its sentences as one array of tokens, and the chunks that a step reads."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr.bundle import Bundle, find_bundle
from asr.data.texts import read_texts
from asr.errors import ConfigError, TextError
from asr.lm.units import END, TokenUnits, Units, WordUnits, load_units, split_words
from asr.text import NORMALIZERS, BpeTokenizer, CharacterTokenizer
from asr.training.lm.config import LmConfig, UnitsConfig


class Corpus:
    """Sentences as tokens, each with its end.

    Attributes:
        ids: (token,) int32 of all sentences.
        starts: (sentence + 1,) where each begins, and where the last ends.
        words, unknown: numbers of words, and of those that are not in the vocabulary.
    """

    def __init__(self, units: Units, sentences: Iterable[Sequence[str]]):
        chunks, lengths = [], []
        self.words = self.unknown = 0
        for words in sentences:
            encoded = units.encode(words)
            self.words += len(words)
            self.unknown += len(encoded.unknown)
            if encoded.ids:
                chunks.append(np.array([*encoded.ids, END], np.int32))
                lengths.append(len(encoded.ids) + 1)
        self.ids = np.concatenate(chunks) if chunks else np.zeros(0, np.int32)
        self.starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])

    @property
    def sentences(self) -> int:
        """Return the number of sentences."""
        return len(self.starts) - 1

    def sentence(self, number: int) -> np.ndarray:
        """Return a sentence's tokens with its end."""
        return self.ids[self.starts[number] : self.starts[number + 1]]

    def stream(self, order: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the tokens of the sentences in an order, with an end before the first."""
        return np.concatenate([np.array([END], np.int32), *(self.sentence(number) for number in order)])

    def batches(self, tokens: int) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
        """Yield sentences of like lengths together, as many as make so many tokens with their padding.

        Each batch is inputs and targets (batch, token) int64, and the lengths.
        """
        batch: list[Tensor] = []
        for number in np.argsort(np.diff(self.starts), kind="stable"):
            sentence = torch.from_numpy(self.sentence(number).astype(np.int64))
            if batch and len(sentence) * (len(batch) + 1) > tokens:
                yield _padded(batch)
                batch = []
            batch.append(sentence)
        if batch:
            yield _padded(batch)


def _padded(sentences: list[Tensor]) -> tuple[Tensor, Tensor, list[int]]:
    targets = torch.nn.utils.rnn.pad_sequence(sentences, batch_first=True)
    inputs = torch.cat([torch.full_like(targets[:, :1], END), targets[:, :-1]], 1)
    return inputs, targets, list(map(len, sentences))


class LmText:
    """Units and corpora of a run.

    Arguments: config; folder of the units of a run that continues, None to make them of the text. Raises AsrError for
    text that cannot be read, or is too short for the batches.
    """

    def __init__(self, config: LmConfig, folder: Path | None = None):
        bundle = Bundle.load(find_bundle(config.text.model)) if config.text.model else None
        normalizer = bundle.normalizer if bundle else config.text.normalizer
        if normalizer not in NORMALIZERS:
            raise ConfigError(f"text.normalizer is {normalizer!r}; expected {', '.join(sorted(NORMALIZERS))}")
        sentences = _sentences(config.data.train, normalizer)
        if config.data.dev:
            held = np.zeros(len(sentences), bool)
        else:
            held = np.random.default_rng(config.run.seed).random(len(sentences)) < config.data.hold_out
            held[0] |= not held.any()
        if folder is not None:
            self.units = load_units(folder, "words" if config.text.units == "words" else "tokens", normalizer)
        else:
            self.units = _units(config.text, sentences, normalizer, bundle)
        self.train = Corpus(
            self.units, (s.split() for s, out in zip(sentences, held, strict=True) if not out)
        )
        self._check_length(config)
        if config.data.dev:
            dev = _sentences(config.data.dev, normalizer)
        else:
            dev = [s for s, out in zip(sentences, held, strict=True) if out]
        self.dev = Corpus(self.units, map(str.split, dev))
        if not self.dev.sentences:
            raise TextError(
                f"the dev text ({', '.join(config.data.dev)}) holds no sentence of the model's units; expected text in "
                "the language of the training text"
            )

    def _check_length(self, config: LmConfig) -> None:
        tokens, batch_size = len(self.train.ids), config.data.batch_size
        if not tokens and not config.data.dev:
            raise ConfigError(
                "the training text has one sentence, which is held out as dev; expected more text, or "
                "another one in data.dev"
            )
        if tokens < 2 * batch_size:
            raise ConfigError(
                f"the training text has {self.train.words} words, {tokens} tokens with the ends of sentences; expected "
                f"at least two for each of data.batch_size {batch_size} places: give more text, or lower it"
            )


def _sentences(paths: Sequence[str], normalizer: str) -> list[str]:
    """Return the sentences of texts, normalized, those without a word left out."""
    sentences = [" ".join(split_words(text, normalizer)) for text in read_texts(paths)]
    sentences = [sentence for sentence in sentences if sentence]
    if not sentences:
        raise TextError(f"the text {', '.join(paths)} holds no word; expected a sentence a line")
    return sentences


def _units(config: UnitsConfig, sentences: Sequence[str], normalizer: str, bundle: Bundle | None) -> Units:
    """Make the units of normalized sentences, or take the bundle's."""
    if config.units == "words":
        words = (sentence.split() for sentence in sentences)
        return WordUnits.from_texts(words, config.most_words, config.min_count, normalizer)
    if config.units == "pieces" and bundle is not None:
        return TokenUnits(bundle.tokenizer, normalizer)
    if config.units == "pieces":
        return TokenUnits(BpeTokenizer.train(sentences, config.vocab_size), normalizer)
    return TokenUnits(CharacterTokenizer.from_texts([*sentences, " "]), normalizer)


class Chunks:
    """An epoch of the training text, cut into `batch_size` places that are read side by side, `chunk` tokens a step.

    Arguments: corpus; config; epoch, which together with the seed decides the order.
    """

    def __init__(self, corpus: Corpus, config: LmConfig, epoch: int):
        order = np.arange(corpus.sentences)
        if config.data.order == "shuffled":
            order = np.random.default_rng((config.run.seed, epoch)).permutation(order)
        stream = torch.from_numpy(corpus.stream(order).astype(np.int64))
        columns = (len(stream) - 1) // config.data.batch_size
        used = columns * config.data.batch_size
        self.inputs = stream[:used].view(config.data.batch_size, columns)
        self.targets = stream[1 : used + 1].view(config.data.batch_size, columns)
        self.chunk = config.data.chunk

    @staticmethod
    def count(corpus: Corpus, config: LmConfig) -> int:
        """Return the number of an epoch's steps."""
        return -(-(len(corpus.ids) // config.data.batch_size) // config.data.chunk)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Return a step's inputs and targets (batch, token) int64."""
        places = slice(number * self.chunk, (number + 1) * self.chunk)
        return self.inputs[:, places], self.targets[:, places]
