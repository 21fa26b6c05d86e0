"""Speech to words while it is spoken: chunk by chunk, with the forward state carried and a look at what follows.

A model that reads in one direction carries its state from chunk to chunk and says exactly what it would say of the
whole. One that reads in both has to know what follows: its reverse state begins anew at the end of each chunk's
look-ahead (latency-controlled BLSTM, Zhang et al. 2016). Each layer reads chunk and look-ahead together, and the chunk
a second time for the state to carry on; the next chunk reads what was looked ahead at again.

Features normalized over the utterance need its end. In a stream their mean and variance are those of what was heard in
the last STATISTICS_SECONDS; features normalized with the training data's are as in the whole. What is too loud or too
quiet stays so, for the level of what will follow is not known.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from asr.bundle import Bundle
from asr.decoding import Word
from asr.decoding.greedy import collapse
from asr.errors import AsrError, AudioError
from asr.features import STD_FLOOR, LogMel, frame_count
from asr.text import BLANK

CHUNK_SECONDS = 0.5
LOOK_AHEAD_SECONDS = 1.0
STATISTICS_SECONDS = 20.0  # as the longest window of a recording that is not a stream
SETTLED_SECONDS = 0.8  # of blank, after which a word is over: as long as the pause that parts segments


class Stream:
    """Recognizes one stream of samples, greedily; `Recognizer.stream` makes it.

    The words depend on the samples alone, not on how they were parted into blocks. `words` are those settled so far.

    Arguments:
        bundle: the model.
        device: where it is.
        chunk: seconds that are decoded at a time.
        look_ahead: seconds beyond the chunk that are heard before it is decoded; None for LOOK_AHEAD_SECONDS where
            the model reads in both directions and 0 where it does not.

    Raises AsrError for a chunk that is not positive, and for a look-ahead that is negative or of no use to the model.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str | torch.device = "cpu",
        chunk: float = CHUNK_SECONDS,
        look_ahead: float | None = None,
    ):
        bidirectional = bundle.model.config.bidirectional
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
        self._bundle, self._device = bundle, torch.device(device)
        self._chunk, self._look_ahead = max(1, self._in_frames(chunk)), self._in_frames(look_ahead)
        self._front = _FrontEnd(bundle, self._device)
        self._decoder = _Decoder(bundle)
        self._states: list = [None] * len(bundle.model.recurrent)
        self._decoded = 0  # frames of logits
        self._finished = False

    def _in_frames(self, seconds: float) -> int:
        return round(seconds / self._bundle.seconds_per_frame)

    @property
    def text(self) -> str:
        """The words settled so far."""
        return " ".join(word.word for word in self.words)

    def feed(self, samples: np.ndarray) -> list[Word]:
        """Hear more samples, (time,) float in [-1, 1] at the model's rate, of any number; give the words they settle.

        A word is settled when the next one begins, or after SETTLED_SECONDS in which nothing is said; it does not
        change any more. Its start and end are those of its tokens' frames, which lie within its sound. Raises
        AudioError for what are no samples.
        """
        if self._finished:
            raise ValueError("the stream is finished; make another for more samples")
        self._front.append(_checked(samples, self._bundle.log_mel.config.sample_rate))
        before = len(self.words)
        while self._front.can_reach(end := self._decoded + self._chunk + self._look_ahead):
            self.words += self._advance(self._front.read(end), self._chunk)
        return self.words[before:]

    def finish(self) -> list[Word]:
        """Say that nothing follows; give the words that were not settled yet."""
        before = len(self.words)
        if not self._finished and self._front.frames_in_all > self._decoded:
            hidden = self._front.read(self._front.frames_in_all)
            self.words += self._advance(hidden, hidden.shape[1])
        self.words += self._decoder.finish()
        self._finished = True
        # The last frame reaches beyond the end.
        end = round(self._front.heard / self._bundle.log_mel.config.sample_rate, 3)
        self.words[before:] = [
            replace(word, start=min(word.start, end), end=min(word.end, end)) for word in self.words[before:]
        ]
        return self.words[before:]

    @torch.inference_mode()
    def _advance(self, x: Tensor, chunk: int) -> list[Word]:
        """Recognize the front end's next frames (1, frame, feature), of which all but `chunk` are look-ahead."""
        model, states = self._bundle.model, []
        lengths = torch.tensor([x.shape[1]], device=x.device)
        for norm, layer, state in zip(model.norms, model.recurrent, self._states, strict=False):
            x = norm(x)
            y, final = layer(x, lengths, state)
            if x.shape[1] > chunk:
                _, final = layer(x[:, :chunk], lengths.clamp(max=chunk), state)
            states.append(_carried(final))
            x = y
        logits = model.score(x[:, :chunk])[0].float()
        self._states, self._decoded = states, self._decoded + chunk
        self._front.forget(self._decoded)
        return self._decoder.feed(logits)


class _FrontEnd:
    """Samples to the convolutions' output, of which any frame can be had once the samples that it sees are there.

    What comes before is computed again as far as the kernels reach, so that every frame is that of the whole.
    """

    def __init__(self, bundle: Bundle, device: torch.device):
        self.bundle, self.device = bundle, device
        config, front = bundle.log_mel.config, bundle.model.config.front_end
        self.running = config.normalize == "utterance"
        # Normalized when they are read where the statistics are those of the stream.
        self.log_mel = (
            LogMel(replace(config, normalize="none")).to(device) if self.running else bundle.log_mel
        )
        self.hop, self.half_window = config.hop_length, config.n_fft // 2
        self.subsampling = bundle.model.subsampling
        self.reach = 0  # feature frames that a frame of the output sees to either side
        step = 1
        for (kernel, _), (stride, _) in zip(front.kernel_sizes, front.strides, strict=True):
            self.reach += kernel // 2 * step
            step *= stride
        self.samples, self.first_sample = np.zeros(0, np.float32), 0
        self.features = torch.zeros(
            0, config.n_mels, device=device
        )  # those needed again, from `first_feature` on
        self.first_feature = 0
        self.memory = round(STATISTICS_SECONDS * config.sample_rate / config.hop_length)  # frames
        self.recent = torch.zeros(0, config.n_mels, device=device)  # their features
        self.begin = 0  # first frame not yet forgotten

    @property
    def heard(self) -> int:
        """Samples so far."""
        return self.first_sample + len(self.samples)

    @property
    def frames_in_all(self) -> int:
        """Frames of the output if nothing follows."""
        return int(self.bundle.model.output_lengths(torch.tensor(frame_count(self.heard, self.hop))))

    def append(self, samples: np.ndarray) -> None:
        """Take more samples."""
        self.samples = np.concatenate([self.samples, samples])

    def can_reach(self, end: int) -> bool:
        """Whether what follows can change no frame before `end`."""
        return self.heard >= (self._features_for(end) - 1) * self.hop + self.half_window

    def _features_for(self, end: int) -> int:
        return (end - 1) * self.subsampling + self.reach + 1

    @torch.inference_mode()
    def read(self, end: int) -> Tensor:
        """Give the output (1, frame, feature) from the first frame not yet forgotten to `end`."""
        self._extend(min(self._features_for(end), frame_count(self.heard, self.hop)))
        features = self.features
        if self.running:
            std = self.recent.std(0, correction=0).clamp(min=STD_FLOOR)
            features = (features - self.recent.mean(0)) / std
        lengths = torch.tensor([len(features)], device=self.device)
        output, _ = self.bundle.model.front_end(features.unsqueeze(0), lengths)
        first = self.first_feature // self.subsampling
        return output[:, self.begin - first : end - first]

    def _extend(self, end: int) -> None:
        """Compute the features up to frame `end`."""
        known = self.first_feature + len(self.features)
        first = self.first_sample // self.hop
        stop = (end - 1) * self.hop + self.half_window
        samples = torch.from_numpy(self.samples[: stop - self.first_sample]).to(self.device)
        new = self.log_mel(samples.unsqueeze(0))[0][0, known - first : end - first]
        self.features = torch.cat([self.features, new])
        if self.running:
            self.recent = torch.cat([self.recent, new])[-self.memory :]
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


class _Decoder:
    """Greedy CTC decoding across the borders of chunks, and the words that are settled by it."""

    def __init__(self, bundle: Bundle):
        self.tokenizer, self.step = bundle.tokenizer, bundle.seconds_per_frame
        self.patience = round(SETTLED_SECONDS / self.step)  # frames
        self.frame = 0
        self.previous = BLANK  # token of the frame before
        self.tokens: list[int] = []  # of the word that is not settled, with its frames and confidences
        self.spans: list[tuple[int, int]] = []
        self.confidences: list[float] = []

    def feed(self, logits: Tensor) -> list[Word]:
        """Decode the logits (frame, token) that follow."""
        scores, path = (part.cpu().numpy() for part in logits.log_softmax(-1).max(-1))
        chunk = collapse(path, scores, np.arange(self.frame, self.frame + len(path)))
        settled = []
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
        settled += self._words(words[:-1])
        for held in (self.tokens, self.spans, self.confidences):
            del held[: words[-1].start]
        return settled

    def finish(self) -> list[Word]:
        """Take the words as they are."""
        settled = list(self._words(self.tokenizer.word_spans(self.tokens)))
        self.tokens, self.spans, self.confidences = [], [], []
        return settled

    def _is_over(self, frame: int) -> bool:
        """Whether nothing was said before `frame` for so long that the word cannot go on."""
        return bool(self.tokens) and frame - self.spans[-1][1] > self.patience

    def _words(self, words: list[range]) -> Iterator[Word]:
        for word in words:
            first, last = word[0], word[-1]
            yield Word(
                self.tokenizer.decode([self.tokens[i] for i in word]),
                round(self.spans[first][0] * self.step, 3),
                round((self.spans[last][1] + 1) * self.step, 3),
                min(self.confidences[i] for i in word),
            )


def _carried(state: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    """Keep the forward direction's state (direction, batch, size); the reverse direction's begins at zero."""
    if isinstance(state, tuple):
        return tuple(_carried(part) for part in state)  # type: ignore[return-value]
    return torch.cat([state[:1], torch.zeros_like(state[1:])])


def _checked(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    samples = np.asarray(samples)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(
            f"an array of shape {samples.shape} and type {samples.dtype} was fed; expected (time,) float samples in "
            f"[-1, 1] at {sample_rate} Hz"
        )
    if not np.isfinite(samples).all():
        raise AudioError("the samples fed carry NaN or infinity")
    return samples.astype(np.float32, copy=False)
