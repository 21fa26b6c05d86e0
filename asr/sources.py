"""Where audio comes from: files, bytes, streams and samples, read block by block ahead of the model."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from asr.audio import load_audio, read_header, stream_audio
from asr.errors import AsrError, AudioError

Audio = str | Path | bytes | BinaryIO | np.ndarray
# Seconds of audio read at a time, and sources of which a block is read ahead of the model: 8 MB each at 16 kHz, where
# they are full.
BLOCK_SECONDS = 120.0
SOURCES_AHEAD = 16


@dataclass(frozen=True)
class AudioSource:
    """A piece of audio still to be read.

    Attributes:
        name: for messages.
        blocks: returns its samples, (time,) float32 each, in consecutive blocks.
        seconds: its length where the header tells, else 0.
    """

    name: str
    blocks: Callable[[], Iterator[np.ndarray]]
    seconds: float = 0.0


def source_of(audio: "Audio | AudioSource", sample_rate: int, name: str = "audio") -> AudioSource:
    """Return the source of a path, bytes, an open binary stream or samples; `name` is for what has none.

    It is opened, and refused with AudioError if it is no audio, once it is read.
    """
    if isinstance(audio, AudioSource):
        return audio
    if isinstance(audio, str | Path):
        return AudioSource(
            str(audio), lambda: stream_audio(audio, sample_rate, BLOCK_SECONDS), header_seconds(audio)
        )
    seconds = audio.size / sample_rate if isinstance(audio, np.ndarray) else 0.0
    return AudioSource(name, lambda: _blocks(audio, sample_rate), seconds)


def samples_of(audio: Audio, sample_rate: int) -> np.ndarray:
    """Return all samples of a path, bytes, an open binary stream or samples: (time,) float32.

    Raises AudioError for what cannot be read or is no audio.
    """
    if isinstance(audio, np.ndarray):
        return checked_samples(audio, sample_rate)
    _check_readable(audio)
    return load_audio(audio, sample_rate)


def checked_samples(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return samples (time,) as float32. Raises AudioError for an array that is none of samples."""
    samples = np.asarray(samples)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(
            f"an array of shape {samples.shape} and type {samples.dtype} was given; expected (time,) float samples "
            f"in [-1, 1] at {sample_rate} Hz"
        )
    if not np.isfinite(samples).all():
        raise AudioError("the array of samples carries NaN or infinity; expected finite floats in [-1, 1]")
    return samples.astype(np.float32, copy=False)


def header_seconds(path: str | Path) -> float:
    """Return the length in seconds by the file's header; 0 where it does not tell."""
    import soundfile

    try:
        if not Path(path).is_file():  # a pipe can be read once only
            return 0.0
        _, sample_rate, frames = read_header(path)
    except (soundfile.SoundFileError, OSError):
        return 0.0
    return (frames or 0) / sample_rate


def read_ahead(
    readers: ThreadPoolExecutor, sources: Sequence[AudioSource], order: Iterable[int]
) -> Iterator[tuple[int, np.ndarray | AsrError]]:
    """Yield (index of its source, block), in order, while the next blocks of several sources are read.

    An error of the reading ends its source, in place of a block.
    """

    def begun(index: int) -> tuple[int, Iterator[np.ndarray], Future]:
        blocks = sources[index].blocks()
        return index, blocks, readers.submit(_next, blocks)

    remaining = iter(order)
    pending = deque(map(begun, itertools.islice(remaining, SOURCES_AHEAD)))
    while pending:
        index, blocks, future = pending.popleft()
        block = future.result()
        if isinstance(block, np.ndarray):
            pending.appendleft((index, blocks, readers.submit(_next, blocks)))
        else:
            pending.extend(map(begun, itertools.islice(remaining, 1)))
        if block is not None:
            yield index, block


def _next(blocks: Iterator[np.ndarray]) -> np.ndarray | AsrError | None:
    """Read a block; None at the end."""
    try:
        return next(blocks, None)
    except AsrError as error:
        return error


def _blocks(audio: bytes | BinaryIO | np.ndarray, sample_rate: int) -> Iterator[np.ndarray]:
    if isinstance(audio, np.ndarray):
        yield checked_samples(audio, sample_rate)
    else:
        _check_readable(audio)
        yield from stream_audio(audio, sample_rate, BLOCK_SECONDS)


def _check_readable(audio: object) -> None:
    if not isinstance(audio, str | Path | bytes | bytearray | memoryview) and not hasattr(audio, "read"):
        raise AudioError(
            f"an object of type {type(audio).__name__} was given; expected a path, the bytes of a file, a binary "
            "stream, or a numpy array (time,) of samples"
        )
