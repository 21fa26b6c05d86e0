"""From audio to transcripts: one recognizer for arrays, files and folders, batched by length.

Long audio is read block by block and recognized in windows (`asr.long_audio`), so that memory does not grow with it.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, TypeVar, Unpack, get_type_hints, overload

import numpy as np

from asr.bundle import SHIPPED, Bundle, find_bundle
from asr.decoding import (
    Decoder,
    Hypothesis,
    RecognitionOptions,
    align,
    decoder_of,
    greedy,
    loud_hops,
    reads_phones,
    words_of,
)
from asr.engines import Engine, make_engine
from asr.errors import AsrError, DecodingError
from asr.long_audio import WINDOW_SECONDS, Joiner, Window, windows
from asr.memory import BatchBudget, in_halves
from asr.sources import Audio, AudioSource, read_ahead, samples_of, source_of
from asr.streaming import CHUNK_SECONDS, Stream
from asr.text import normalize
from asr.transcript import Alternative, Transcript
from asr.wording import nearest

# Threads that decode audio ahead of the model; soundfile and soxr leave the interpreter free.
READERS = 2

Item = TypeVar("Item")


class Recognizer:
    """A model that transcribes; make one with `asr.load`.

    Attributes:
        bundle: the saved model.
        engine: what computes it.
        decoder: `greedy`, or a beam search.
        streams: whether `stream` may decode greedily: the decoder is greedy, or nobody asked for the beam search.
        sample_rate: of samples, in Hz.

    >>> model = load("an4", device="cpu")
    >>> model.transcribe(np.zeros(16000, np.float32)).text
    ''
    """

    def __init__(
        self, bundle: Bundle, engine: Engine, decoder: Decoder = greedy, *, streams: bool | None = None
    ):
        self.bundle, self.engine, self.decoder = bundle, engine, decoder
        self.streams = decoder is greedy if streams is None else streams
        self.sample_rate = engine.sample_rate

    @overload
    def transcribe(self, audio: list, *, character_times: bool = False) -> list[Transcript]: ...

    @overload
    def transcribe(self, audio: Audio, *, character_times: bool = False) -> Transcript: ...

    def transcribe(self, audio, *, character_times=False):
        """Transcribe a file, bytes, an open binary stream or samples; a list gives a list.

        Samples are (time,) float at the model's sample rate, in [-1, 1]. With `character_times` each letter of a word
        has its time, too: those of a token of several letters share its time. Raises AudioError for what cannot be
        read.
        """
        several = audio if isinstance(audio, list) else [audio]
        transcripts = list(self.transcribe_many(several, character_times=character_times))
        return transcripts if isinstance(audio, list) else transcripts[0]

    @overload
    def transcribe_many(
        self,
        audio: Iterable[Audio | AudioSource],
        *,
        errors: Literal["raise"] = "raise",
        batch_seconds: float | None = None,
        progress: Callable[[float], object] | None = None,
        character_times: bool = False,
    ) -> Iterator[Transcript]: ...

    @overload
    def transcribe_many(
        self,
        audio: Iterable[Audio | AudioSource],
        *,
        errors: Literal["return"],
        batch_seconds: float | None = None,
        progress: Callable[[float], object] | None = None,
        character_times: bool = False,
    ) -> Iterator[Transcript | AsrError]: ...

    def transcribe_many(self, audio, *, errors="raise", **options) -> Iterator[Any]:
        """Transcribe many pieces of audio of any length, similar ones together; yield the transcripts in their order.

        Arguments: errors, whether the first piece that cannot be read is raised as AsrError, or each is yielded as one
        in its place ("return"); the others as in `transcribe_as_completed`. Where that ends early, by Ctrl-C or a lack
        of memory, the transcripts behind a gap are yielded before the error is raised.
        """
        if errors not in ("raise", "return"):
            raise ValueError(f"errors is {errors!r}; expected 'raise' or 'return'")
        for _, outcome in in_order(self.transcribe_as_completed(audio, **options)):
            if errors == "raise" and isinstance(outcome, AsrError):
                raise outcome
            yield outcome

    def transcribe_as_completed(
        self,
        audio: Iterable[Audio | AudioSource],
        *,
        batch_seconds: float | None = None,
        progress: Callable[[float], object] | None = None,
        character_times: bool = False,
    ) -> Iterator[tuple[int, Transcript | AsrError]]:
        """Transcribe many pieces of audio of any length, similar ones together, reading ahead of the model.

        Yields (position in `audio`, its Transcript, or the error that kept it from being read), in the order in which
        they are done. One bad file costs nothing but itself. `batch_seconds` of audio, padding included, are computed
        together: None for what is fast and fits the free memory, and less where memory runs out all the same.
        `progress` is called with the seconds of audio that each batch has added.
        """
        sources = [source_of(item, self.sample_rate, f"audio {i}") for i, item in enumerate(audio)]
        if self.decoder is not greedy:
            self._prepare_search(sources)
        budget = BatchBudget(batch_seconds or self.engine.batch_seconds(), self.sample_rate)
        order = sorted(range(len(sources)), key=lambda i: sources[i].seconds)
        joiners: dict[int, Joiner] = {}  # of the recordings that are not yet done
        with ThreadPoolExecutor(READERS) as readers:
            pieces = self._pieces(read_ahead(readers, sources, order))
            for batch in _batches(pieces, budget):
                budget.shrink(self._recognize_batch(batch, joiners))
                for index, window in batch:
                    if isinstance(window, AsrError):
                        joiners.pop(index, None)
                        yield index, window
                        continue
                    if progress is not None:
                        progress(window.seconds)
                    if window.last:
                        joiner = joiners.pop(index)
                        duration = window.offset + len(window.samples) / self.sample_rate
                        seams = tuple(joiner.seams)
                        yield (
                            index,
                            self.transcript_of(
                                joiner.hypothesis(), joiner.loud(), duration, character_times, seams
                            ),
                        )

    def align(self, audio: Audio, text: str, *, character_times: bool = False) -> Transcript:
        """Find when each word of a known text, and each letter, is spoken in the audio, which is read as one piece.

        The text is normalized as the model's transcripts were. Raises AudioError for audio that cannot be read,
        TextError for letters that the model lacks, AlignmentError for a text that is empty or too long.
        """
        samples = samples_of(audio, self.sample_rate)
        tokens = self.bundle.tokenizer.encode(normalize(text, self.bundle.normalizer))
        hypothesis = align(self.log_probs(samples), tokens)
        loud = loud_hops(samples, self.sample_rate)
        return self.transcript_of(hypothesis, loud, len(samples) / self.sample_rate, character_times)

    def stream(self, chunk: float = CHUNK_SECONDS, look_ahead: float | None = None) -> Stream:
        """Begin to recognize speech as it comes: `feed` it samples, then `finish`.

        Arguments: chunk, seconds decoded at a time; look_ahead, seconds read beyond each chunk before it is decoded,
        None for what suits the model. A word comes when it is settled, up to chunk and look-ahead late. See
        `asr.streaming` for what is as exact as `transcribe` and what is not. Raises AsrError for a chunk or look-ahead
        that does not fit, DecodingError where a beam search was asked for, which needs the whole; the model's own
        language model is left out.

        >>> stream = load("an4", device="cpu").stream(chunk=0.5, look_ahead=1.0)
        >>> words = []
        >>> for block in np.split(np.zeros(32000, np.float32), 20):  # as a microphone gives it
        ...     words += stream.feed(block)
        >>> words += stream.finish()
        >>> words == stream.words
        True
        """
        if not self.streams:
            raise DecodingError(
                "a stream is decoded greedily; leave the beam search and its language model out"
            )
        return Stream(self.bundle, self.engine.stages(), chunk, look_ahead)

    @overload
    def log_probs(self, audio: list, *, phones: bool = False) -> list[np.ndarray]: ...

    @overload
    def log_probs(self, audio: Audio, *, phones: bool = False) -> np.ndarray: ...

    def log_probs(self, audio, *, phones=False):
        """Return the log-probabilities (frame, token) float32 of a piece of audio, read as one; a list gives a list.

        The blank is token 0. A list is computed together, in parts where the memory does not hold it. Arguments:
        phones, whether those of the model's phones follow, (frame, token + 1 + phone), again with a blank in front.
        Raises AudioError for what cannot be read, AsrError where a single piece is too long for the memory.

        >>> load("an4", device="cpu").log_probs(np.zeros(16000, np.float32)).shape
        (26, 130)
        """
        several = audio if isinstance(audio, list) else [audio]
        samples = [samples_of(item, self.sample_rate) for item in several]
        results = list(itertools.chain(*in_halves(partial(self.engine.log_probs, phones=phones), samples)))
        return results if isinstance(audio, list) else results[0]

    def joiner(self) -> Joiner:
        """Return what joins the windows of a recording."""
        return Joiner(self.sample_rate, self.engine.seconds_per_frame, self.engine.vocab_size)

    def _prepare_search(self, sources: Sequence[AudioSource]) -> None:
        """Start the processes of a beam search, before the threads that read audio."""
        if (prepare := getattr(self.decoder, "prepare", None)) is not None:
            prepare(sum(map(_windows_expected, sources)))

    def _pieces(
        self, blocks: Iterable[tuple[int, np.ndarray | AsrError]]
    ) -> Iterator[tuple[int, Window | AsrError]]:
        """Cut each source's blocks into windows that begin with a frame of the model; an error ends its source."""
        step = round(self.engine.seconds_per_frame * self.sample_rate)
        for index, group in itertools.groupby(blocks, key=itemgetter(0)):
            try:
                for window in windows((_readable(block) for _, block in group), self.sample_rate, step):
                    yield index, window
            except AsrError as error:
                yield index, error

    def _recognize_batch(
        self, batch: Sequence[tuple[int, Window | AsrError]], joiners: dict[int, Joiner]
    ) -> int:
        """Recognize windows, (index of its recording, window) each; return in how many parts the memory held them."""
        readable = [(index, window) for index, window in batch if isinstance(window, Window)]
        if not readable:
            return 1
        compute = partial(self.engine.log_probs, phones=reads_phones(self.decoder))
        parts = in_halves(compute, [window.samples for _, window in readable])
        settled = []
        for (index, window), log_probs in zip(readable, itertools.chain(*parts), strict=True):
            joiner = joiners.setdefault(index, self.joiner())
            settled.append(joiner.add(window, log_probs))
        decoded = in_halves(self.decoder, [log_probs for _, log_probs in settled])
        hypotheses = itertools.chain(*decoded)
        for (index, _), (first, _), hypothesis in zip(readable, settled, hypotheses, strict=True):
            joiners[index].parts.append((first, hypothesis))
        return max(len(parts), len(decoded))

    def transcript_of(
        self,
        hypothesis: Hypothesis,
        loud: np.ndarray,
        duration: float,
        character_times: bool = False,
        seams: tuple[float, ...] = (),
    ) -> Transcript:
        """Return the transcript of a decoded recording.

        Arguments: loud (hop,) bool, as `loud_hops` gives it; duration and seams in seconds; character_times, whether
        the words have their letters.
        """
        tokenizer = self.bundle.tokenizer
        words = words_of(
            hypothesis, tokenizer, self.engine.seconds_per_frame, loud, duration, character_times
        )
        alternatives = tuple(
            Alternative(
                " ".join(tokenizer.decode(alternative.tokens).split()),
                alternative.score,
                alternative.lm_score,
            )
            for alternative in hypothesis.alternatives
        )
        score = hypothesis.score if alternatives else None
        text = " ".join(word.word for word in words)
        return Transcript(text, words, duration, alternatives, score, seams, lm_score=hypothesis.lm_score)


def load(
    name: str | Path = SHIPPED,
    device: str = "auto",
    *,
    engine: str = "auto",
    compute_type: str = "float32",
    threads: int | None = None,
    decoder: Decoder | None = None,
    **options: Unpack[RecognitionOptions],
) -> Recognizer:
    """Load a saved model: the folder of one, or the name of one that comes with asr (`asr.available_models()`).

    Arguments:
        device: "cpu", "cuda", "cuda:1", ... or "auto", the GPU where there is one.
        engine: "torch", "onnx" or "auto", what is installed.
        compute_type: "bfloat16" or "int8" makes the recurrent layers' weights smaller on a CPU, which reads them
            faster where utterances come few at a time; on a GPU "bfloat16" computes the model in it.
        threads: of the CPU, for the whole process; None for the engine's choice.
        decoder: a decoder made before, in place of options.
        options: those of `asr transcribe`: beam_size, lm, lexicon, lm_weight, word_bonus, blank_penalty, nbest,
            hotwords (a file, or a bonus for each word), processes, and rescore_lm, rescore_weight and rescore_bonus, or
            fuse_lm, fuse_weight and fuse_bonus, and source_lm and source_weight with either. Without any of them the
            decoder is a beam search with the bundle's own language model, where it has one and flashlight-text is
            installed, greedy otherwise; lm="none" leaves that language model out. A model with phones is also searched
            by pronunciation where its lexicon, or the one named, is a pronouncing dictionary.

    Raises BundleError; DecodingError for files that cannot be used; AsrError for what a device cannot do.

    >>> load("an4", device="cpu", beam_size=8).bundle.normalizer
    'basic'
    """
    known = get_type_hints(RecognitionOptions)
    if unknown := options.keys() - known.keys():
        name_of_first = min(unknown)
        suggestion = nearest(name_of_first, known)
        raise TypeError(f"load() has no option {name_of_first!r}{suggestion}")
    if decoder is not None and options:
        raise AsrError(
            f"a decoder was given and options for another: {', '.join(options)}; leave out one of both"
        )
    bundle = Bundle.load(find_bundle(name))
    computing = make_engine(bundle, device, engine=engine, compute_type=compute_type, threads=threads)
    streams = decoder is None and not any(
        value is not None and name != "processes" for name, value in options.items()
    )
    if decoder is None:
        decoder = computing.accelerated(_chosen(bundle, options))
    return Recognizer(bundle, computing, decoder, streams=streams or decoder is greedy)


def _chosen(bundle: Bundle, options: RecognitionOptions) -> Decoder:
    """Return the decoder that options ask for."""
    given: dict[str, Any] = dict(options)
    if any(name.startswith(("rescore", "fuse", "source")) for name in given):
        from asr.rescoring import make_decoder

        return make_decoder(bundle, **given)
    return decoder_of(bundle, **given)


def in_order(outcomes: Iterable[tuple[int, Item]]) -> Iterator[tuple[int, Item]]:
    """Yield (position, outcome) by position; where the outcomes end early in an error, also those behind a gap.

    >>> list(in_order([(1, "b"), (0, "a"), (2, "c")]))
    [(0, 'a'), (1, 'b'), (2, 'c')]
    """
    waiting: dict[int, Item] = {}
    following = 0
    try:
        for index, outcome in outcomes:
            waiting[index] = outcome
            while following in waiting:
                yield following, waiting.pop(following)
                following += 1
    except (AsrError, KeyboardInterrupt):
        yield from sorted(waiting.items(), key=itemgetter(0))
        raise


def _windows_expected(source: AudioSource) -> float:
    """Return about how many windows a source has; infinitely many where its length is not known."""
    return max(1.0, source.seconds / WINDOW_SECONDS) if source.seconds else math.inf


def _readable(block: np.ndarray | AsrError) -> np.ndarray:
    if isinstance(block, AsrError):
        raise block
    return block


def _batches(
    pieces: Iterable[tuple[int, Window | AsrError]], budget: BatchBudget
) -> Iterator[list[tuple[int, Window | AsrError]]]:
    """Group windows into batches that fill the budget, padding included; at least one in each."""
    batch: list[tuple[int, Window | AsrError]] = []
    longest = 0
    for index, piece in pieces:
        length = len(piece.samples) if isinstance(piece, Window) else 0
        longest = max(longest, length)
        if batch and not budget.holds(len(batch) + 1, longest):
            yield batch
            batch, longest = [], length
        batch.append((index, piece))
    if batch:
        yield batch
