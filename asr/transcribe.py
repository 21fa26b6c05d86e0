"""From audio to transcripts: one recogniser for arrays, files and folders, batched by length."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.audio import load_audio
from asr.bundle import Bundle
from asr.decoding import Hypothesis, greedy
from asr.errors import AsrError, AudioError

Audio = str | Path | bytes | BinaryIO | np.ndarray
Decoder = Callable[[Tensor, Tensor], list[Hypothesis]]  # of logits (batch, frame, token) and lengths (batch,)
BATCH_SECONDS = 240.0  # padded audio in a batch: enough to fill two cores, some hundred MB of activations
READERS = 2  # threads that decode audio ahead of the model; soundfile and soxr leave the interpreter free


@dataclass(frozen=True)
class Word:
    """A recognised word: start and end in seconds of the audio, confidence in [0, 1]."""

    word: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Alternative:
    """What might have been said as well, with the log score that a beam search gave it."""

    text: str
    score: float


@dataclass(frozen=True)
class Transcript:
    """What was recognised in one piece of audio of `duration` seconds, and the next best `alternatives` asked for."""

    text: str
    words: tuple[Word, ...]
    duration: float
    alternatives: tuple[Alternative, ...] = ()

    def to_dict(self) -> dict:
        """Give the transcript as plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Source:
    """A piece of audio still to be read: `read()` gives samples, `seconds` its length where the header tells."""

    name: str
    read: Callable[[], np.ndarray]
    seconds: float = 0.0


class Recogniser:
    """A loaded bundle that transcribes; make one with `asr.load(folder)`.

    Attributes: bundle, device, sample_rate in Hz, decoder (`greedy`, or a `BeamSearch`).
    """

    def __init__(self, bundle: Bundle, device: str | torch.device = "cpu", decoder: Decoder = greedy):
        self.bundle = bundle
        self.decoder = decoder
        self.device = torch.device(device)
        self.sample_rate = bundle.log_mel.config.sample_rate

    def transcribe(self, audio: Audio | list[Audio]) -> Transcript | list[Transcript]:
        """Transcribe a file, bytes, an open binary stream or samples; a list gives a list.

        Samples are (time,) float at the model's sample rate, in [-1, 1]. Raises AudioError for what cannot be read.
        """
        if not isinstance(audio, list):
            return self.transcribe([audio])[0]  # type: ignore[index]
        sources = [
            Source(f"audio {i}", lambda item=item: self._samples(item)) for i, item in enumerate(audio)
        ]
        outcomes = list(self.transcribe_sources(sources))
        for _, outcome in outcomes:
            if isinstance(outcome, AsrError):
                raise outcome
        return [transcript for _, transcript in sorted(outcomes, key=lambda pair: pair[0])]  # type: ignore[misc]

    def _samples(self, audio: Audio) -> np.ndarray:
        if not isinstance(audio, np.ndarray):
            return load_audio(audio, self.sample_rate)
        if audio.ndim != 1 or not np.issubdtype(audio.dtype, np.floating):
            raise AudioError(
                f"an array of shape {audio.shape} and type {audio.dtype} was given; expected (time,) float samples "
                f"in [-1, 1] at {self.sample_rate} Hz"
            )
        if not np.isfinite(audio).all():
            raise AudioError("the array of samples carries NaN or infinity")
        return audio.astype(np.float32, copy=False)

    def transcribe_sources(
        self, sources: Sequence[Source], batch_seconds: float = BATCH_SECONDS
    ) -> Iterator[tuple[int, Transcript | AsrError]]:
        """Transcribe many pieces of audio, those of similar length together, reading ahead of the model.

        Yields (position in `sources`, its Transcript, or the error that kept it from being read), in the order in
        which they are done. One bad file costs nothing but itself.
        """
        order = sorted(range(len(sources)), key=lambda i: sources[i].seconds)
        with ThreadPoolExecutor(READERS) as readers:
            for indices, audio in _read_ahead(readers, sources, _batches(order, sources, batch_seconds)):
                readable = []
                for index, samples in zip(indices, audio, strict=True):
                    if isinstance(samples, AsrError):
                        yield index, samples
                    else:
                        readable.append((index, samples))
                if readable:
                    transcripts = self.transcribe_samples([samples for _, samples in readable])
                    yield from ((index, t) for (index, _), t in zip(readable, transcripts, strict=True))

    @torch.inference_mode()
    def transcribe_samples(self, samples: Sequence[np.ndarray]) -> list[Transcript]:
        """Transcribe one batch of samples, (time,) float32 at the model's rate each."""
        lengths = torch.tensor([len(s) for s in samples])
        if not lengths.max():
            return [Transcript("", (), 0.0) for _ in samples]
        padded = pad_sequence([torch.from_numpy(s) for s in samples], batch_first=True).to(self.device)
        features, frames = self.bundle.log_mel(padded, lengths.to(self.device))
        logits, frames = self.bundle.model(features, frames)
        return [
            self._transcript(hypothesis, count / self.sample_rate)
            for hypothesis, count in zip(self.decoder(logits, frames), lengths.tolist(), strict=True)
        ]

    def _transcript(self, hypothesis: Hypothesis, duration: float) -> Transcript:
        """Spell a hypothesis: text, and words with the times of their first and last token."""
        tokenizer, step = self.bundle.tokenizer, self.bundle.seconds_per_frame
        words = []
        for positions in tokenizer.word_spans(hypothesis.tokens):
            text = tokenizer.decode([hypothesis.tokens[i] for i in positions])
            start, end = hypothesis.frames[positions[0]][0], hypothesis.frames[positions[-1]][1] + 1
            confidence = min(hypothesis.confidences[i] for i in positions)
            words.append(Word(text, round(start * step, 3), round(min(end * step, duration), 3), confidence))
        others = tuple(
            Alternative(" ".join(tokenizer.decode(other.tokens).split()), other.score)
            for other in hypothesis.alternatives
        )
        return Transcript(" ".join(word.word for word in words), tuple(words), duration, others)


def load(folder: str | Path, device: str = "auto", decoder: Decoder = greedy) -> Recogniser:
    """Load a saved model: `asr.load("runs/an4/bundle").transcribe("speech.wav").text`.

    `device` is "cpu", "cuda", "cuda:1", ... or "auto", the GPU where there is one. Raises BundleError.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Recogniser(Bundle.load(folder, device), device, decoder)


def _batches(order: Iterable[int], sources: Sequence[Source], batch_seconds: float) -> Iterator[list[int]]:
    """Cut the order into batches of at most `batch_seconds`, padding included; at least one source in each."""
    batch: list[int] = []
    for index in order:  # ascending, so the newest is the longest
        if batch and sources[index].seconds * (len(batch) + 1) > batch_seconds:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _read_ahead(
    readers: ThreadPoolExecutor, sources: Sequence[Source], batches: Iterator[list[int]]
) -> Iterator[tuple[list[int], list[np.ndarray | AsrError]]]:
    """Read the next batch while the model works on this one."""

    def submit(batch: list[int]) -> tuple:
        return batch, [readers.submit(_read, sources[index]) for index in batch]

    pending = [submit(batch) for batch in itertools.islice(batches, 2)]
    while pending:
        batch, futures = pending.pop(0)
        yield batch, [future.result() for future in futures]
        pending += [submit(following) for following in itertools.islice(batches, 1)]


def _read(source: Source) -> np.ndarray | AsrError:
    try:
        return source.read()
    except AsrError as error:
        return error
