"""From audio to transcripts: one recognizer for arrays, files and folders, batched by length.

Long audio is read block by block and recognized in windows (`asr.windows`), so that memory does not grow with it.
"""

import itertools
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.audio import load_audio, read_header, stream_audio
from asr.batching import automatic_batch_seconds, in_halves
from asr.bundle import SHIPPED, Bundle
from asr.decoding import (
    HOP_SECONDS,
    Character,
    Decoder,
    Hypothesis,
    ParallelBeamSearch,
    Search,
    Word,
    align,
    choose_decoder,
    concatenate,
    greedy,
    loud_hops,
    share_out,
    word_edges,
)
from asr.errors import AsrError, AudioError, DecodingError
from asr.recurrent import pack_for_inference
from asr.streaming import CHUNK_SECONDS, Stream
from asr.text import BLANK, normalize
from asr.windows import WINDOW_SECONDS, Window, joint, windows

Audio = str | Path | bytes | BinaryIO | np.ndarray
BLOCK_SECONDS = 120.0  # audio read at a time
SOURCES_AHEAD = 16  # of the model, a block of each; 8 MB at 16 kHz, where they are full
PAUSE_SECONDS = 0.8  # between two words that part segments
SEGMENT_SECONDS = 30.0  # longest segment, where its words allow it
COMPUTE_TYPES = ("float32", "bfloat16", "int8")
READERS = 2  # threads that decode audio ahead of the model; soundfile and soxr leave the interpreter free


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
    """What was recognized in one piece of audio of `duration` seconds, and the next best `alternatives` asked for.

    Where there are some, `score` is the text's own log score, to compare theirs with.
    """

    text: str
    words: tuple[Word, ...]
    duration: float
    alternatives: tuple[Alternative, ...] = ()
    score: float | None = None

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
        """Give the transcript as plain values for JSON; words without letters' times leave them out."""
        values = asdict(self)
        if self.score is None:
            del values["score"]
        for word in values["words"]:
            if not word["characters"]:
                del word["characters"]
        return values


@dataclass(frozen=True)
class Source:
    """A piece of audio still to be read.

    Attributes:
        name: for messages.
        blocks: gives its samples, (time,) float32 each, in consecutive blocks.
        seconds: its length where the header tells, else 0.
    """

    name: str
    blocks: Callable[[], Iterator[np.ndarray]]
    seconds: float = 0.0


def file_source(path: str | Path, sample_rate: int) -> Source:
    """Give the source of an audio file, which is opened once it is read."""
    return Source(str(path), lambda: stream_audio(path, sample_rate, BLOCK_SECONDS), header_seconds(path))


def header_seconds(path: str | Path) -> float:
    """Length in seconds by the file's header; 0 where it does not tell."""
    import soundfile

    try:
        if not Path(path).is_file():  # a pipe can be read once only
            return 0.0
        _, sample_rate, frames = read_header(path)
    except (soundfile.SoundFileError, OSError):
        return 0.0
    return (frames or 0) / sample_rate


@dataclass
class _Room:
    """Samples that a batch may hold, padding included; fewer once memory ran out."""

    samples: float


@dataclass
class _Recording:
    """What was heard of a recording so far.

    Attributes:
        parts: its decoded stretches, each with the number of its first frame.
        loud: what `loud_hops` said of them.
        held: logits (frame, token) that wait for the next window to say where the two are joined.
        first: number of the first of those frames.
    """

    parts: list[tuple[int, Hypothesis]] = field(default_factory=list)
    loud: list[np.ndarray] = field(default_factory=list)
    held: Tensor | None = None
    first: int = 0

    def add(self, window: Window, logits: Tensor, begin: int) -> tuple[int, Tensor]:
        """Take the logits (frame, token) of a window that begins at frame `begin`.

        Gives the number of the first frame that is settled by it, and the logits from there on that are.
        """
        held = logits[:0] if self.held is None else self.held
        before = held[begin - self.first :]  # frames that both heard
        common = min(len(before), len(logits))
        said_blank = [(each[:common].argmax(-1) == BLANK).cpu().numpy() for each in (before, logits)]
        leave = joint(*said_blank)
        first, settled = self.first, held[: begin - self.first + leave]
        self.first, self.held = begin + leave, logits[leave:]
        return first, torch.cat([settled, self.held]) if window.last else settled


class Recognizer:
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

    def transcribe(
        self, audio: Audio | list[Audio], *, character_times: bool = False
    ) -> Transcript | list[Transcript]:
        """Transcribe a file, bytes, an open binary stream or samples; a list gives a list.

        Samples are (time,) float at the model's sample rate, in [-1, 1]. `character_times` says when each letter of a
        word was said, too: those of a token of several letters share its time. Raises AudioError for what cannot be
        read.
        """
        if not isinstance(audio, list):
            return self.transcribe([audio], character_times=character_times)[0]  # type: ignore[index]
        sources = [
            file_source(item, self.sample_rate)
            if isinstance(item, (str, Path))
            else Source(f"audio {i}", lambda item=item: self._blocks(item), self._known_seconds(item))
            for i, item in enumerate(audio)
        ]
        outcomes = list(self.transcribe_sources(sources, character_times=character_times))
        for _, outcome in outcomes:
            if isinstance(outcome, AsrError):
                raise outcome
        return [transcript for _, transcript in sorted(outcomes, key=lambda pair: pair[0])]  # type: ignore[misc]

    @torch.inference_mode()
    def align(self, audio: Audio, text: str, *, character_times: bool = False) -> Transcript:
        """Say when each word of a known text, and each letter, was said in the audio, which is heard as one piece.

        The text is normalized as the model's transcripts were. Raises AudioError for audio that cannot be read,
        TextError for letters that the model lacks, AlignmentError for a text that is empty or too long.
        """
        samples = self._samples(audio)
        tokens = self.bundle.tokenizer.encode(normalize(text, self.bundle.normalizer))
        (logits,) = self._logits([samples])
        hypothesis = align(logits.log_softmax(-1), tokens)
        loud = loud_hops(samples, self.sample_rate)
        return self._transcript(hypothesis, loud, self._seconds(samples), character_times)

    def stream(self, chunk: float = CHUNK_SECONDS, look_ahead: float | None = None) -> Stream:
        """Begin to recognize speech as it comes: `feed` it samples, then `finish`.

        Arguments: chunk, seconds decoded at a time; look_ahead, seconds heard beyond each chunk before it is decoded,
        None for what suits the model. A word is said when it is settled, up to chunk and look-ahead late. See
        `asr.streaming` for what is as exact as `transcribe` and what is not. Raises AsrError for a chunk or look-ahead
        that does not fit, DecodingError where the decoder is a beam search, which needs the whole.

        >>> from asr.model import AcousticModel, ModelConfig
        >>> from asr.features import FeatureConfig, LogMel
        >>> from asr.text import CharacterTokenizer
        >>> model = AcousticModel(ModelConfig(hidden_size=16), n_mels=80, vocab_size=4).eval()
        >>> bundle = Bundle(model, LogMel(FeatureConfig()), CharacterTokenizer(" ab"), "basic")  # or asr.load(...)
        >>> stream = Recognizer(bundle).stream(chunk=0.5, look_ahead=1.0)
        >>> said = []
        >>> for block in np.split(np.zeros(32000, np.float32), 20):  # as a microphone gives it
        ...     said += stream.feed(block)
        >>> said += stream.finish()
        >>> said == stream.words
        True
        """
        if self.decoder is not greedy:
            raise DecodingError(
                "a stream is decoded greedily; leave the beam search and its language model out"
            )
        return Stream(self.bundle, self.device, chunk, look_ahead)

    def _blocks(self, audio: Audio) -> Iterator[np.ndarray]:
        if isinstance(audio, np.ndarray):
            yield self._samples(audio)
        else:
            _refuse_no_audio(audio)
            yield from stream_audio(audio, self.sample_rate, BLOCK_SECONDS)

    def _samples(self, audio: Audio) -> np.ndarray:
        if not isinstance(audio, np.ndarray):
            _refuse_no_audio(audio)
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
        batch_seconds: float | None = None,
        progress: Callable[[float], object] = lambda seconds: None,
        character_times: bool = False,
    ) -> Iterator[tuple[int, Transcript | AsrError]]:
        """Transcribe many pieces of audio of any length, similar ones together, reading ahead of the model.

        Yields (position in `sources`, its Transcript, or the error that kept it from being read), in the order in
        which they are done. One bad file costs nothing but itself. `batch_seconds` of audio, padding included, are
        computed together: None for what is fast and fits the free memory, and less where memory runs out all the
        same. `progress` is told the seconds of audio that each batch has added.
        """
        if batch_seconds is None:
            batch_seconds = automatic_batch_seconds(self.bundle, self.device)
        room = _Room(batch_seconds * self.sample_rate)
        if isinstance(self.decoder, ParallelBeamSearch):
            self.decoder.prepare(sum(map(_windows_expected, sources)))
        order = sorted(range(len(sources)), key=lambda i: sources[i].seconds)
        recordings: dict[int, _Recording] = {}  # those that are not yet heard to their end
        with ThreadPoolExecutor(READERS) as readers:
            pieces = self._pieces(_read_ahead(readers, sources, order))
            for batch in _batches(pieces, room):
                heard = [(i, window) for i, window in batch if isinstance(window, Window)]
                room.samples /= self._hear(heard, recordings)
                for index, window in batch:
                    if isinstance(window, AsrError):
                        recordings.pop(index, None)
                        yield index, window
                        continue
                    progress(window.seconds)
                    if window.last:
                        recording = recordings.pop(index)
                        hypothesis, loud = concatenate(recording.parts), np.concatenate(recording.loud)
                        duration = window.offset + self._seconds(window.samples)
                        yield index, self._transcript(hypothesis, loud, duration, character_times)

    def _pieces(
        self, blocks: Iterable[tuple[int, np.ndarray | AsrError]]
    ) -> Iterator[tuple[int, Window | AsrError]]:
        """Cut each source's blocks into windows that begin with a frame of the model; an error ends its source."""
        step = round(self.bundle.seconds_per_frame * self.sample_rate)
        for index, own in itertools.groupby(blocks, key=itemgetter(0)):
            try:
                for window in windows((_readable(block) for _, block in own), self.sample_rate, step):
                    yield index, window
            except AsrError as error:
                yield index, error

    @torch.inference_mode()
    def _hear(self, heard: Sequence[tuple[int, Window]], recordings: dict[int, "_Recording"]) -> int:
        """Recognize a batch of windows, (index of its recording, window) each; gives how many parts it took."""
        if not heard:
            return 1
        parts = in_halves(self._logits, [window.samples for _, window in heard])
        settled = []
        for (index, window), logits in zip(heard, itertools.chain(*parts), strict=True):
            recording = recordings.setdefault(index, _Recording())
            settled.append(
                recording.add(window, logits, round(window.offset / self.bundle.seconds_per_frame))
            )
            recording.loud.append(_between_seams(loud_hops(window.samples, self.sample_rate), window))
        decoded = in_halves(self._decoded, [logits for _, logits in settled])
        for (index, _), (first, _), hypothesis in zip(heard, settled, itertools.chain(*decoded), strict=True):
            recordings[index].parts.append((first, hypothesis))
        return max(len(parts), len(decoded))

    def _decoded(self, logits: Sequence[Tensor]) -> list[Hypothesis]:
        """Decode logits, (frame, token) each."""
        lengths = torch.tensor([len(one) for one in logits], device=self.device)
        return self.decoder(pad_sequence(list(logits), batch_first=True), lengths)

    @torch.inference_mode()
    def _logits(self, samples: Sequence[np.ndarray]) -> list[Tensor]:
        """Run the model on one batch of samples, (time,) float32 each: logits (frame, token) in float32 of each."""
        if not any(len(one) for one in samples):
            return [torch.zeros(0, self.bundle.tokenizer.vocab_size, device=self.device) for _ in samples]
        lengths = torch.tensor([len(one) for one in samples], device=self.device)
        padded = pad_sequence([torch.from_numpy(one) for one in samples], batch_first=True).to(self.device)
        features, frames = self.bundle.log_mel(padded, lengths, leveled=True)
        on_gpu = self.device.type != "cpu"
        with torch.autocast(self.device.type, torch.bfloat16, on_gpu and self.compute_type == "bfloat16"):
            logits, frames = self.bundle.model(features, frames)
        return [one[:count] for one, count in zip(logits.float(), frames.tolist(), strict=True)]

    def _known_seconds(self, audio: Audio) -> float:
        return audio.size / self.sample_rate if isinstance(audio, np.ndarray) else 0.0

    def _seconds(self, samples: np.ndarray) -> float:
        return len(samples) / self.sample_rate

    def _transcript(
        self, hypothesis: Hypothesis, loud: np.ndarray, duration: float, character_times: bool
    ) -> Transcript:
        """Spell a hypothesis: text, and words from where their sound, by `loud_hops`, starts to where it ends.

        The border between two tokens is looked for alike, so that a word's first letter starts as the word does.
        """
        tokenizer, step = self.bundle.tokenizer, self.bundle.seconds_per_frame
        spans = tokenizer.word_spans(hypothesis.tokens)
        parts = [part for span in spans for part in ([span] if not character_times else [[i] for i in span])]
        cores = [
            (hypothesis.frames[part[0]][0] * step, (hypothesis.frames[part[-1]][1] + 1) * step)
            for part in parts
        ]
        edges = iter(
            [(round(start, 3), round(min(end, duration), 3)) for start, end in word_edges(loud, cores)]
        )
        words = []
        for span in spans:
            text = tokenizer.decode([hypothesis.tokens[i] for i in span])
            confidence = min(hypothesis.confidences[i] for i in span)
            characters: tuple[Character, ...] = ()
            if character_times:
                timed = [(tokenizer.decode([hypothesis.tokens[i]]).strip(), *next(edges)) for i in span]
                start, end = timed[0][1], timed[-1][2]
                characters = tuple(letter for token in timed for letter in share_out(*token))
            else:
                start, end = next(edges)
            words.append(Word(text, start, end, confidence, characters))
        others = tuple(
            Alternative(" ".join(tokenizer.decode(other.tokens).split()), other.score)
            for other in hypothesis.alternatives
        )
        score = hypothesis.score if others else None
        return Transcript(" ".join(word.word for word in words), tuple(words), duration, others, score)


def load(
    folder: str | Path = SHIPPED,
    device: str = "auto",
    decoder: Decoder | None = None,
    compute_type: str = "float32",
    **search: Unpack[Search],
) -> Recognizer:
    """Load a saved model: `asr.load("runs/an4/bundle").transcribe("speech.wav").text`, or the one that comes with asr.

    `device` is "cpu", "cuda", "cuda:1", ... or "auto", the GPU where there is one. `compute_type` "bfloat16" or
    "int8" makes the recurrent layers' weights smaller on a CPU, which reads them faster where utterances come few at
    a time; on a GPU "bfloat16" computes the model in it. `search` are the options of `asr transcribe`: beam_size, lm,
    lexicon, lm_weight, word_bonus, nbest, hotwords (a file, or a bonus for each word) and processes; without any of
    them, and without a `decoder`, the decoder is greedy. Raises BundleError; DecodingError for files that cannot be
    used; AsrError for what a device cannot do.
    """
    if decoder is not None and search:
        raise AsrError(
            f"a decoder was given and options for another: {', '.join(search)}; leave out one of both"
        )
    device = chosen_device(device)
    if compute_type not in COMPUTE_TYPES:
        raise AsrError(f"compute type {compute_type!r} is unknown; there are {', '.join(COMPUTE_TYPES)}")
    bundle = Bundle.load(folder, device)
    if device == "cpu" and compute_type != "float32":
        pack_for_inference(bundle.model, compute_type)
    elif compute_type == "int8":
        raise AsrError("compute type int8 is for CPUs; a GPU takes float32 or bfloat16")
    if decoder is None:
        decoder = choose_decoder(bundle.tokenizer, bundle.normalizer, bundle.decoding, **search)
    if isinstance(decoder, ParallelBeamSearch) and decoder.search.left_out:
        logging.getLogger("asr.decoding").warning(decoder.search.what_is_left_out())
    return Recognizer(bundle, device, decoder, compute_type)


def chosen_device(name: str) -> str:
    """Give the device of a name; "auto" is the GPU where there is one. Raises AsrError for what is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise AsrError(f"the device {name} was asked for but torch finds no GPU; take cpu")
    try:
        torch.empty(0, device=name)
    except RuntimeError as error:
        raise AsrError(f"there is no device {name!r} ({str(error).splitlines()[0]})") from error
    return name


def _refuse_no_audio(audio: object) -> None:
    if not isinstance(audio, str | Path | bytes | bytearray | memoryview) and not hasattr(audio, "read"):
        raise AudioError(
            f"a {type(audio).__name__} was given; expected a path, the bytes of a file, a binary stream, or a numpy "
            "array (time,) of samples"
        )


def _between_seams(hops: np.ndarray, window: Window) -> np.ndarray:
    """Give those of a window's hops (hop,) that are not its neighbors'."""
    begin, seam, end = (
        round(second / HOP_SECONDS) for second in (window.offset, window.seam, window.seam + window.seconds)
    )
    return hops[seam - begin :] if window.last else hops[seam - begin : end - begin]


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


def _windows_expected(source: Source) -> float:
    """Say in about how many windows a source is heard; infinitely many where its length is not known."""
    return max(1.0, source.seconds / WINDOW_SECONDS) if source.seconds else math.inf


def _read_ahead(
    readers: ThreadPoolExecutor, sources: Sequence[Source], order: Iterable[int]
) -> Iterator[tuple[int, np.ndarray | AsrError]]:
    """Read the sources' blocks in order: the next one of each of several sources while the model works."""

    def begun(index: int) -> tuple[int, Iterator[np.ndarray], Future]:
        blocks = sources[index].blocks()
        return index, blocks, readers.submit(_next, blocks)

    left = iter(order)
    pending = deque(map(begun, itertools.islice(left, SOURCES_AHEAD)))
    while pending:
        index, blocks, future = pending.popleft()
        block = future.result()
        if isinstance(block, np.ndarray):
            pending.appendleft((index, blocks, readers.submit(_next, blocks)))
        else:
            pending.extend(map(begun, itertools.islice(left, 1)))
        if block is not None:
            yield index, block


def _next(blocks: Iterator[np.ndarray]) -> np.ndarray | AsrError | None:
    """Read a block; None at the end."""
    try:
        return next(blocks, None)
    except AsrError as error:
        return error


def _readable(block: np.ndarray | AsrError) -> np.ndarray:
    if isinstance(block, AsrError):
        raise block
    return block


def _batches(
    pieces: Iterable[tuple[int, Window | AsrError]], room: _Room
) -> Iterator[list[tuple[int, Window | AsrError]]]:
    """Group windows into batches that fill the room, padding included; at least one in each."""
    batch: list[tuple[int, Window | AsrError]] = []
    longest = 0
    for index, piece in pieces:
        longest = max(longest, len(piece.samples) if isinstance(piece, Window) else 0)
        if batch and longest * (len(batch) + 1) > room.samples:
            yield batch
            batch = []
            longest = len(piece.samples) if isinstance(piece, Window) else 0
        batch.append((index, piece))
    if batch:
        yield batch
