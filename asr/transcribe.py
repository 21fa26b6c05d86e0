"""From audio to transcripts: one recogniser for arrays, files and folders, batched by length.

Long audio is read block by block and recognised in windows (`asr.windows`), so that memory does not grow with it.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.audio import UNKNOWN_FRAMES, load_audio
from asr.bundle import Bundle
from asr.decoding import Hypothesis, align, greedy, word_edges
from asr.errors import AsrError, AudioError
from asr.recurrent import pack_for_inference
from asr.text import normalise
from asr.windows import Window, stitch, windows

Audio = str | Path | bytes | BinaryIO | np.ndarray
Decoder = Callable[[Tensor, Tensor], list[Hypothesis]]  # of logits (batch, frame, token) and lengths (batch,)
BATCH_SECONDS = 240.0  # padded audio in a batch: enough to fill two cores, some hundred MB of activations
BLOCK_SECONDS = 120.0  # audio read at a time
BLOCKS_AHEAD = 16  # of the model; 8 MB each at 16 kHz, where they are full
PAUSE_SECONDS = 0.8  # between two words that part segments
SEGMENT_SECONDS = 30.0  # longest segment, where its words allow it
COMPUTE_TYPES = ("float32", "bfloat16", "int8")
READERS = 2  # threads that decode audio ahead of the model; soundfile and soxr leave the interpreter free


@dataclass(frozen=True)
class Word:
    """A recognised word: start and end in seconds of the audio, confidence in [0, 1]."""

    word: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Segment:
    """Words between two pauses; start and end in seconds of the audio."""

    start: float
    end: float
    text: str
    words: tuple[Word, ...]


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

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The words in order, parted at pauses, and long ones at their longest pause.

        >>> words = (Word("one", 0.1, 0.4, 1.0), Word("two", 0.5, 0.9, 1.0), Word("three", 3.0, 3.5, 1.0))
        >>> [segment.text for segment in Transcript("one two three", words, 4.0).segments]
        ['one two', 'three']
        """
        return tuple(
            Segment(words[0].start, words[-1].end, " ".join(word.word for word in words), words)
            for words in _part(self.words)
        )

    def to_dict(self) -> dict:
        """Give the transcript as plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Source:
    """A piece of audio still to be read.

    Attributes:
        name: for messages.
        read: gives all its samples.
        seconds: its length where the header tells, else 0.
        read_span: gives the samples from a second on, for so many seconds or (None) to the end; where there is one,
            long audio is read through it in blocks.
    """

    name: str
    read: Callable[[], np.ndarray]
    seconds: float = 0.0
    read_span: Callable[[float, float | None], np.ndarray] | None = None


def file_source(path: str | Path, sample_rate: int) -> Source:
    """Give the source of an audio file, which is opened once it is read."""

    def span(offset: float, duration: float | None) -> np.ndarray:
        return load_audio(path, sample_rate, offset=offset, duration=duration)

    return Source(str(path), lambda: load_audio(path, sample_rate), header_seconds(path), span)


def header_seconds(path: str | Path) -> float:
    """Length in seconds by the file's header; 0 where it does not tell."""
    import soundfile

    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, OSError):
        return 0.0
    return info.duration if info.frames < UNKNOWN_FRAMES else 0.0


class Recogniser:
    """A loaded bundle that transcribes; make one with `asr.load(folder)`.

    Attributes: bundle, device, sample_rate in Hz, decoder (`greedy`, or a `BeamSearch`), compute_type.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str | torch.device = "cpu",
        decoder: Decoder = greedy,
        compute_type: str = "float32",
    ):
        self.bundle = bundle
        self.decoder = decoder
        self.device = torch.device(device)
        self.compute_type = compute_type
        self.sample_rate = bundle.log_mel.config.sample_rate

    def transcribe(self, audio: Audio | list[Audio]) -> Transcript | list[Transcript]:
        """Transcribe a file, bytes, an open binary stream or samples; a list gives a list.

        Samples are (time,) float at the model's sample rate, in [-1, 1]. Raises AudioError for what cannot be read.
        """
        if not isinstance(audio, list):
            return self.transcribe([audio])[0]  # type: ignore[index]
        sources = [
            file_source(item, self.sample_rate)
            if isinstance(item, (str, Path))
            else Source(f"audio {i}", lambda item=item: self._samples(item))
            for i, item in enumerate(audio)
        ]
        outcomes = list(self.transcribe_sources(sources))
        for _, outcome in outcomes:
            if isinstance(outcome, AsrError):
                raise outcome
        return [transcript for _, transcript in sorted(outcomes, key=lambda pair: pair[0])]  # type: ignore[misc]

    @torch.inference_mode()
    def align(self, audio: Audio, text: str) -> Transcript:
        """Say when each word of a known text was said in the audio, which is heard as one piece.

        The text is normalised as the model's transcripts were. Raises AudioError for audio that cannot be read,
        TextError for letters that the model lacks, AlignmentError for a text that is empty or too long.
        """
        samples = self._samples(audio)
        tokens = self.bundle.tokenizer.encode(normalise(text, self.bundle.normaliser))
        logits, frames = self._logits([samples])
        return self._transcript(align(logits[0, : int(frames[0])].log_softmax(-1), tokens), samples)

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
        self,
        sources: Sequence[Source],
        batch_seconds: float = BATCH_SECONDS,
        progress: Callable[[float], object] = lambda seconds: None,
    ) -> Iterator[tuple[int, Transcript | AsrError]]:
        """Transcribe many pieces of audio of any length, similar ones together, reading ahead of the model.

        Yields (position in `sources`, its Transcript, or the error that kept it from being read), in the order in
        which they are done. One bad file costs nothing but itself. `progress` is told the seconds of audio that
        each batch has added.
        """
        order = sorted(range(len(sources)), key=lambda i: sources[i].seconds)
        unfinished: dict[int, list[Word]] = {}  # of long audio, what its windows gave so far
        with ThreadPoolExecutor(READERS) as readers:
            pieces = _pieces(_read_ahead(readers, sources, order), self.sample_rate)
            for batch in _batches(pieces, batch_seconds * self.sample_rate):
                heard = [window for _, window in batch if isinstance(window, Window)]
                whole = [window.last and not window.offset for window in heard]
                transcripts = iter(
                    self.transcribe_samples([window.samples for window in heard], whole) if heard else ()
                )
                for index, window in batch:
                    if isinstance(window, AsrError):
                        unfinished.pop(index, None)
                        yield index, window
                        continue
                    transcript = next(transcripts)
                    progress(window.seconds)
                    if window.offset or not window.last:  # one of several
                        words = _in_order(
                            stitch(
                                unfinished.pop(index, []),
                                _moved(transcript.words, window.offset),
                                window.seam,
                            )
                        )
                        unfinished[index] = words
                        text = " ".join(word.word for word in words)
                        transcript = Transcript(text, tuple(words), window.offset + transcript.duration)
                    if window.last:
                        unfinished.pop(index, None)
                        yield index, transcript

    @torch.inference_mode()
    def transcribe_samples(
        self, samples: Sequence[np.ndarray], whole: Sequence[bool] | None = None
    ) -> list[Transcript]:
        """Transcribe one batch of samples, (time,) float32 at the model's rate each.

        Where `whole` is False, for windows of longer audio, words keep the times of the model's frames: two windows
        agree on those around their seam, by which they are stitched, but not on where the sound starts and ends.
        """
        if not any(len(one) for one in samples):
            return [Transcript("", (), 0.0) for _ in samples]
        logits, frames = self._logits(samples)
        return [
            self._transcript(hypothesis, one, by_sound)
            for hypothesis, one, by_sound in zip(
                self.decoder(logits, frames), samples, whole or [True] * len(samples), strict=True
            )
        ]

    def _logits(self, samples: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Run the model on one batch: logits (batch, frame, token) in float32, and lengths (batch,)."""
        lengths = torch.tensor([len(one) for one in samples], device=self.device)
        padded = pad_sequence([torch.from_numpy(one) for one in samples], batch_first=True).to(self.device)
        features, frames = self.bundle.log_mel(padded, lengths)
        on_gpu = self.device.type != "cpu"
        with torch.autocast(self.device.type, torch.bfloat16, on_gpu and self.compute_type == "bfloat16"):
            logits, frames = self.bundle.model(features, frames)
        return logits.float(), frames

    def _transcript(self, hypothesis: Hypothesis, samples: np.ndarray, by_sound: bool = True) -> Transcript:
        """Spell a hypothesis: text, and words from where their sound (or else their tokens) starts to where it ends."""
        tokenizer, step = self.bundle.tokenizer, self.bundle.seconds_per_frame
        duration = len(samples) / self.sample_rate
        spans = tokenizer.word_spans(hypothesis.tokens)
        cores = [
            (hypothesis.frames[span[0]][0] * step, (hypothesis.frames[span[-1]][1] + 1) * step)
            for span in spans
        ]
        edges = word_edges(samples, self.sample_rate, cores) if by_sound else cores
        words = []
        for positions, (start, end) in zip(spans, edges, strict=True):
            text = tokenizer.decode([hypothesis.tokens[i] for i in positions])
            confidence = min(hypothesis.confidences[i] for i in positions)
            words.append(Word(text, round(start, 3), round(min(end, duration), 3), confidence))
        others = tuple(
            Alternative(" ".join(tokenizer.decode(other.tokens).split()), other.score)
            for other in hypothesis.alternatives
        )
        return Transcript(" ".join(word.word for word in words), tuple(words), duration, others)


def load(
    folder: str | Path, device: str = "auto", decoder: Decoder = greedy, compute_type: str = "float32"
) -> Recogniser:
    """Load a saved model: `asr.load("runs/an4/bundle").transcribe("speech.wav").text`.

    `device` is "cpu", "cuda", "cuda:1", ... or "auto", the GPU where there is one. `compute_type` "bfloat16" or
    "int8" makes the recurrent layers' weights smaller on a CPU, which reads them faster where utterances come few at
    a time; on a GPU "bfloat16" computes the model in it. Raises BundleError; AsrError for what a device cannot do.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if compute_type not in COMPUTE_TYPES:
        raise AsrError(f"compute type {compute_type!r} is unknown; there are {', '.join(COMPUTE_TYPES)}")
    bundle = Bundle.load(folder, device)
    if device == "cpu" and compute_type != "float32":
        pack_for_inference(bundle.model, compute_type)
    elif compute_type == "int8":
        raise AsrError("compute type int8 is for CPUs; a GPU takes float32 or bfloat16")
    return Recogniser(bundle, device, decoder, compute_type)


def _moved(words: Iterable[Word], offset: float) -> list[Word]:
    return [
        replace(word, start=round(word.start + offset, 3), end=round(word.end + offset, 3)) for word in words
    ]


def _in_order(words: Iterable[Word]) -> list[Word]:
    """Let no word begin before the one said before it, where two windows disagree on times around a seam."""
    ordered: list[Word] = []
    for word in words:
        start = max(word.start, ordered[-1].start) if ordered else word.start
        ordered.append(replace(word, start=start, end=max(word.end, start)))
    return ordered


def _part(words: Sequence[Word]) -> Iterator[tuple[Word, ...]]:
    first = 0
    for i in range(1, len(words) + 1):
        if i == len(words) or words[i].start - words[i - 1].end >= PAUSE_SECONDS:
            yield from _shortened(tuple(words[first:i]))
            first = i


def _shortened(words: tuple[Word, ...]) -> Iterator[tuple[Word, ...]]:
    if len(words) == 1 or words[-1].end - words[0].start <= SEGMENT_SECONDS:
        yield words
        return
    longest = max(range(1, len(words)), key=lambda i: words[i].start - words[i - 1].end)
    yield from _shortened(words[:longest])
    yield from _shortened(words[longest:])


def _read_ahead(
    readers: ThreadPoolExecutor, sources: Sequence[Source], order: Iterable[int]
) -> Iterator[tuple[int, np.ndarray | AsrError]]:
    """Read the sources' blocks in order, some of them while the model works."""
    pending: deque = deque()
    for index in order:
        for read in _blocks(sources[index]):
            pending.append((index, readers.submit(_read, read)))
            if len(pending) > BLOCKS_AHEAD:
                done, future = pending.popleft()
                yield done, future.result()
    for done, future in pending:
        yield done, future.result()


def _blocks(source: Source) -> Iterator[Callable[[], np.ndarray]]:
    count = int(source.seconds // BLOCK_SECONDS)
    if source.read_span is None or count < 2:
        yield source.read
        return
    for i in range(count):  # the last to the end, whatever the header says
        yield partial(source.read_span, i * BLOCK_SECONDS, BLOCK_SECONDS if i + 1 < count else None)


def _read(read: Callable[[], np.ndarray]) -> np.ndarray | AsrError:
    try:
        return read()
    except AsrError as error:
        return error


def _pieces(
    blocks: Iterable[tuple[int, np.ndarray | AsrError]], sample_rate: int
) -> Iterator[tuple[int, Window | AsrError]]:
    """Cut each source's blocks into windows; an error ends its source."""
    for index, own in itertools.groupby(blocks, key=itemgetter(0)):
        try:
            for window in windows((_readable(block) for _, block in own), sample_rate):
                yield index, window
        except AsrError as error:
            yield index, error


def _readable(block: np.ndarray | AsrError) -> np.ndarray:
    if isinstance(block, AsrError):
        raise block
    return block


def _batches(
    pieces: Iterable[tuple[int, Window | AsrError]], most: float
) -> Iterator[list[tuple[int, Window | AsrError]]]:
    """Group windows into batches of at most `most` samples, padding included; at least one in each."""
    batch: list[tuple[int, Window | AsrError]] = []
    longest = 0
    for index, piece in pieces:
        longest = max(longest, len(piece.samples) if isinstance(piece, Window) else 0)
        if batch and longest * (len(batch) + 1) > most:
            yield batch
            batch = []
            longest = len(piece.samples) if isinstance(piece, Window) else 0
        batch.append((index, piece))
    if batch:
        yield batch
