"""Speech to words while it is spoken: chunk by chunk, with the forward state carried and a look at what follows.

A model that reads in one direction carries its state from chunk to chunk and finds exactly what it would find in the
whole. One that reads in both has to know what follows: its reverse state begins anew at the end of each chunk's
look-ahead (latency-controlled BLSTM, Zhang et al. 2016). Each layer reads chunk and look-ahead together, and the chunk
a second time for the state to carry on; the next chunk reads what was looked ahead at again.

Features normalized over the utterance need its end. In a stream their mean and variance are those of the last
STATISTICS_SECONDS; features normalized with the training data's are as in the whole. What is too loud or too quiet
stays so, for the level of what will follow is not known.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from asr.bundle import Bundle
from asr.decoding.greedy import Hypothesis, collapse
from asr.decoding.words import words_of
from asr.engines import Stages
from asr.errors import AsrError
from asr.features.config import SAMPLE_STD_FLOOR, STD_FLOOR, frame_count
from asr.sources import checked_samples
from asr.text import BLANK
from asr.transcript import Word

CHUNK_SECONDS = 0.5
LOOK_AHEAD_SECONDS = 1.0
# As the longest window of a recording that is not a stream.
STATISTICS_SECONDS = 20.0
# Of blank, after which a word is over: as long as the pause that divides segments.
SETTLED_SECONDS = 0.8


class Stream:
    """Recognizes one stream of samples, greedily; `Recognizer.stream` makes it.

    The words depend on the samples alone, not on the blocks they come in. `words` are those settled so far.

    Arguments:
        bundle: the model.
        stages: what computes it.
        chunk: seconds that are decoded at a time.
        look_ahead: seconds beyond the chunk that are read before it is decoded; None for LOOK_AHEAD_SECONDS where
            the model reads in both directions and 0 where it does not.

    Raises AsrError for a chunk that is not positive, and for a look-ahead that is negative or of no use to the model.

    >>> import asr
    >>> stream = asr.load("an4", device="cpu").stream()
    >>> stream.feed(np.zeros(8000, np.float32)) + stream.finish()
    []
    """

    def __init__(
        self,
        bundle: Bundle,
        stages: Stages,
        chunk: float = CHUNK_SECONDS,
        look_ahead: float | None = None,
    ):
        bidirectional = bundle.model.bidirectional
        if look_ahead is None:
            look_ahead = LOOK_AHEAD_SECONDS if bidirectional else 0.0
        if not (0 < chunk < math.inf and 0 <= look_ahead < math.inf):
            raise AsrError(
                f"a chunk of {chunk} s with a look-ahead of {look_ahead} s was asked for; expected a chunk of more "
                "than 0 s and a look-ahead of 0 s or more"
            )
        if look_ahead and not bidirectional:
            raise AsrError(
                f"a look-ahead of {look_ahead} s was asked for, and this model reads in one direction: it needs none; "
                "leave the look-ahead out"
            )
        self.words: list[Word] = []
        self._bundle, self._stages = bundle, stages
        self._chunk, self._look_ahead = max(1, self._in_frames(chunk)), self._in_frames(look_ahead)
        self._front = _FrontEnd(bundle, stages)
        self._decoder = _Decoder(bundle)
        self._states: Any = None
        self._decoded = 0  # frames
        self._finished = False

    def _in_frames(self, seconds: float) -> int:
        return round(seconds / self._bundle.seconds_per_frame)

    @property
    def text(self) -> str:
        """Return the words settled so far."""
        return " ".join(word.word for word in self.words)

    def feed(self, samples: np.ndarray) -> list[Word]:
        """Take more samples, (time,) float in [-1, 1] at the model's rate, of any number; return the words they settle.

        A word is settled when the next one begins, or after SETTLED_SECONDS in which nothing is spoken; it does not
        change any more. Its start and end are those of its tokens' frames, which lie within its sound. Raises
        AudioError for what are no samples.
        """
        if self._finished:
            raise ValueError("the stream is finished; make another for more samples")
        self._front.append(checked_samples(samples, self._bundle.sample_rate))
        before = len(self.words)
        while self._front.can_reach(end := self._decoded + self._chunk + self._look_ahead):
            self.words += self._advance(self._front.read(end), self._chunk)
        return self.words[before:]

    def finish(self) -> list[Word]:
        """End the stream; return the words that were not settled yet."""
        before = len(self.words)
        if not self._finished and self._front.frames_in_all > self._decoded:
            hidden = self._front.read(self._front.frames_in_all)
            self.words += self._advance(hidden, len(hidden))
        self.words += self._decoder.finish()
        self._finished = True
        # The last frame reaches beyond the end.
        end = round(self._front.received / self._bundle.sample_rate, 3)
        self.words[before:] = [
            replace(word, start=min(word.start, end), end=min(word.end, end)) for word in self.words[before:]
        ]
        return self.words[before:]

    def _advance(self, hidden: np.ndarray, chunk: int) -> list[Word]:
        """Recognize the front end's next frames (frame, feature), of which all but `chunk` are look-ahead."""
        log_probs, self._states = self._stages.recur(hidden, self._states, chunk)
        self._decoded += chunk
        self._front.forget(self._decoded)
        return self._decoder.feed(log_probs)


class _FrontEnd:
    """Samples to the convolutions' output, of which any frame can be had once the samples that it sees are there.

    What comes before is computed again as far as the kernels reach, so that every frame is that of the whole.
    """

    def __init__(self, bundle: Bundle, stages: Stages):
        self.stages = stages
        config, front_end = bundle.features, bundle.model.front_end
        self.front_end = front_end
        # Features are normalized when they are read where the statistics are those of the stream.
        self.running = config.normalize == "utterance"
        self.standardizes, self.statistics = config.samples == "standardized", _Statistics()
        self.hop, self.half_window = config.hop_length, config.n_fft // 2
        self.subsampling, self.reach = front_end.subsampling, front_end.reach
        self.samples, self.first_sample = np.zeros(0, np.float32), 0
        # The features needed again, from `first_feature` on, and those of the last frames for the statistics.
        self.features, self.first_feature = np.zeros((0, config.n_mels), np.float32), 0
        self.recent = self.features
        self.memory = round(STATISTICS_SECONDS * config.sample_rate / config.hop_length)  # frames
        self.begin = 0  # first frame not yet forgotten

    @property
    def received(self) -> int:
        """Return the number of samples so far."""
        return self.first_sample + len(self.samples)

    @property
    def frames_in_all(self) -> int:
        """Return the frames of the output if nothing follows."""
        return self.front_end.output_frames(frame_count(self.received, self.hop))

    def append(self, samples: np.ndarray) -> None:
        """Take more samples."""
        self.samples = np.concatenate([self.samples, samples])
        if self.standardizes:
            self.statistics.add(samples)

    def can_reach(self, end: int) -> bool:
        """Return whether what follows can change no frame before `end`."""
        return self.received >= (self._features_for(end) - 1) * self.hop + self.half_window

    def _features_for(self, end: int) -> int:
        return (end - 1) * self.subsampling + self.reach + 1

    def read(self, end: int) -> np.ndarray:
        """Return the output (frame, feature) from the first frame not yet forgotten to `end`."""
        self._extend(min(self._features_for(end), frame_count(self.received, self.hop)))
        features = self.features
        if self.running:
            std = self.recent.std(0).clip(min=STD_FLOOR)
            features = (features - self.recent.mean(0)) / std
        first = self.first_feature // self.subsampling
        return self.stages.convolve(features)[self.begin - first : end - first]

    def _extend(self, end: int) -> None:
        """Compute the features up to frame `end`."""
        known = self.first_feature + len(self.features)
        first = self.first_sample // self.hop
        stop = (end - 1) * self.hop + self.half_window
        samples = self.samples[: stop - self.first_sample]
        if self.standardizes:
            samples = (samples - self.statistics.mean) / self.statistics.deviation
        new = self.stages.features(samples)[known - first : end - first]
        self.features = np.concatenate([self.features, new])
        if self.running:
            self.recent = np.concatenate([self.recent, new])[-self.memory :]
        # The next frame's window begins before the end of this one's.
        first = max(0, end - math.ceil(self.half_window / self.hop))
        self.samples = self.samples[first * self.hop - self.first_sample :]
        self.first_sample = first * self.hop

    def forget(self, begin: int) -> None:
        """Drop what frames from `begin` on do not see."""
        self.begin = begin
        first = max(0, begin - math.ceil(self.reach / self.subsampling)) * self.subsampling
        self.features = self.features[first - self.first_feature :]
        self.first_feature = first


class _Statistics:
    """Mean and standard deviation of all samples so far."""

    def __init__(self):
        self.count, self.total, self.squares = 0, 0.0, 0.0

    def add(self, samples: np.ndarray) -> None:
        """Count more samples (time,)."""
        self.count += len(samples)
        self.total += float(samples.sum(dtype=np.float64))
        self.squares += float(np.square(samples, dtype=np.float64).sum())

    @property
    def mean(self) -> np.float32:
        """Return their mean."""
        return np.float32(self.total / max(self.count, 1))

    @property
    def deviation(self) -> np.float32:
        """Return their standard deviation, that of digital silence a little more than 0."""
        variance = self.squares / max(self.count, 1) - float(self.mean) ** 2
        return np.float32(max(math.sqrt(max(variance, 0.0)), SAMPLE_STD_FLOOR))


class _Decoder:
    """Greedy CTC decoding across the borders of chunks, and the words that are settled by it."""

    def __init__(self, bundle: Bundle):
        self.tokenizer, self.step = bundle.tokenizer, bundle.seconds_per_frame
        self.patience = round(SETTLED_SECONDS / self.step)  # frames
        self.frame = 0
        self.previous = BLANK  # token of the frame before
        # Of the word that is not settled.
        self.tokens: list[int] = []
        self.spans: list[tuple[int, int]] = []
        self.confidences: list[float] = []

    def feed(self, log_probs: np.ndarray) -> list[Word]:
        """Decode the log-probabilities (frame, token) that follow; return the words that they settle."""
        path, frames = log_probs.argmax(-1), np.arange(len(log_probs))
        chunk = collapse(path, log_probs[frames, path], self.frame + frames)
        settled: list[Word] = []
        for token, span, confidence in zip(chunk.tokens, chunk.frames, chunk.confidences, strict=True):
            if span[0] == self.frame and token == self.previous:  # it began in the chunk before
                if self.tokens:
                    self.spans[-1] = (self.spans[-1][0], span[1])
                    self.confidences[-1] = max(self.confidences[-1], confidence)
                continue
            if self._is_over(span[0]):
                settled += self.finish()
            self.tokens.append(token)
            self.spans.append(span)
            self.confidences.append(confidence)
        self.frame, self.previous = self.frame + len(path), int(path[-1])
        words = self.tokenizer.word_spans(self.tokens)
        ended = bool(words) and words[-1].stop < len(self.tokens)  # a space follows
        if self._is_over(self.frame) or ended or not words:
            return [*settled, *self.finish()]
        return settled + self._take(words[-1].start)

    def finish(self) -> list[Word]:
        """Return the words as they are."""
        return self._take(len(self.tokens))

    def _is_over(self, frame: int) -> bool:
        """Return whether nothing was spoken before `frame` for so long that the word cannot go on."""
        return bool(self.tokens) and frame - self.spans[-1][1] > self.patience

    def _take(self, count: int) -> list[Word]:
        """Return the words of the first `count` tokens, and forget these."""
        taken = Hypothesis(self.tokens[:count], self.spans[:count], self.confidences[:count], score=0.0)
        for part in (self.tokens, self.spans, self.confidences):
            del part[:count]
        return list(words_of(taken, self.tokenizer, self.step))
