"""Any audio file, bytes or stream becomes mono float32 samples at the model's rate.

soundfile (libsndfile) decodes wav, flac, mp3, ogg, opus, NIST sphere and more; ffmpeg, where it is installed,
the rest; soxr resamples. Whatever cannot be read whole raises one AudioError: a recognizer that quietly
transcribes half of a truncated file does more harm than one that refuses it.
"""

import io
import math
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from asr.audio.containers import is_mp3_of_unknown_length, refuse_incomplete_container, refuse_short_data
from asr.audio.ffmpeg import through_ffmpeg
from asr.errors import AudioError

if TYPE_CHECKING:
    import soundfile

OnDamage = Callable[[AudioError], object]
SALVAGED_SECONDS = 0.5  # decoded at a time of audio that may be damaged
BLOCK = 1 << 18  # frames decoded at a time, so that of many channels only the mono mix is ever held whole
RESAMPLER_REACH = 0.05  # seconds to either side of a window that its resampled edges depend on
# Lossy decoders and the resampler overshoot full scale a little, hot recordings somewhat more; both are
# clipped. Past this the numbers are no audio in [-1, 1] at all but integers stored as floats.
HIGHEST_PEAK = 4.0
UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's SF_COUNT_MAX: the header does not say


def load_audio(
    source: str | Path | bytes | BinaryIO,
    sample_rate: int = 16000,
    *,
    offset: float = 0.0,
    duration: float | None = None,
    channels: Sequence[int] | None = None,
) -> np.ndarray:
    """Read audio as mono samples at `sample_rate`.

    Channels are averaged, all or the given ones; other rates are resampled, band-limited (soxr, HQ). A window holds
    the same samples as that part of the whole, and no more than it is read (all up to its end, where the format takes
    ffmpeg).

    Arguments:
        source: path, the bytes of an audio file, or a binary stream (a pipe will do; it is read to its end).
        sample_rate: rate of the result in Hz.
        offset: where to start, in seconds.
        duration: how much to read, in seconds; less comes back where the audio ends before.
        channels: those to read, counted from 0; None for all.

    Returns (time,) float32 in [-1, 1].

    Raises AudioError, naming the source, for what is missing, unreadable, no audio, empty, truncated or
    damaged, holds NaN or infinite samples, or has no audio at `offset` or no such channel.

    >>> silence = io.BytesIO()
    >>> import soundfile
    >>> soundfile.write(silence, np.zeros((44100, 2)), 44100, format="WAV")
    >>> load_audio(silence.getvalue(), 16000, offset=0.25).shape
    (12000,)
    """
    if sample_rate <= 0 or offset < 0 or (duration is not None and duration <= 0):
        raise ValueError(f"cannot read {duration} s from {offset} s at {sample_rate} Hz")
    name = _name(source)
    with _told(name), _opened(source) as file:
        seconds = None if duration is None else offset + duration
        with _decoder(file, name, seconds) as sound:
            return _read(sound, name, sample_rate, offset, duration, channels)


def stream_audio(
    source: str | Path | bytes | BinaryIO,
    sample_rate: int = 16000,
    seconds: float = 120.0,
    channels: Sequence[int] | None = None,
    on_damage: OnDamage | None = None,
) -> Iterator[np.ndarray]:
    """Read audio as `load_audio` does, but in consecutive blocks, of which only one is held.

    Arguments: source, sample_rate and channels as there; seconds of a block, the last one's are what is left;
    on_damage, called with the AudioError where damaged audio cannot be read on, at which it then ends. Yields (time,)
    float32. Raises AudioError as `load_audio`, some of it only when the reading gets there.

    >>> [len(block) for block in stream_audio(_silence(40000), 16000, seconds=1.0)]
    [16000, 16000, 8000]
    """
    import soxr

    name, size = _name(source), max(1, round(seconds * sample_rate))
    with _told(name), _opened(source) as file, _decoder(file, name, on_damage=on_damage) as sound:
        resampler = None
        if sound.samplerate != sample_rate:
            resampler = soxr.ResampleStream(sound.samplerate, sample_rate, 1, dtype="float32", quality="HQ")

        def resampled() -> Iterator[np.ndarray]:
            # What is decoded at once is lost at once.
            at_once = seconds if on_damage is None else min(seconds, SALVAGED_SECONDS)
            size = max(1, round(at_once * sound.samplerate))
            blocks = _mono_blocks(sound, name, 0, sound.frames, channels, size)
            for block in blocks if on_damage is None else _until_damage(blocks, on_damage):
                yield block if resampler is None else resampler.resample_chunk(block)
            if resampler is not None:
                yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)

        held, read = np.zeros(0, np.float32), 0
        for piece in resampled():
            held = np.concatenate([held, piece])
            read += len(piece)
            while len(held) >= size:
                yield held[:size].clip(-1.0, 1.0)
                held = held[size:]
        if not read:
            raise AudioError(f"{name} holds no audio")
        if len(held):
            yield held.clip(-1.0, 1.0)


def _until_damage(blocks: Iterator[np.ndarray], on_damage: OnDamage) -> Iterator[np.ndarray]:
    """Yield blocks until one cannot be read, which is an error only if it is the first."""
    is_first = True
    try:
        for block in blocks:
            yield block
            is_first = False
    except AudioError as error:
        if is_first:
            raise
        on_damage(error)


def channel_count(source: str | Path | bytes | BinaryIO) -> int:
    """Return how many channels an audio file has. Raises AudioError.

    >>> channel_count(_silence(100))
    1
    """
    name = _name(source)
    with _told(name), _opened(source) as file, _decoder(file, name, 1.0, lambda error: None) as sound:
        return sound.channels


def _silence(samples: int) -> bytes:
    """Give a wav file for the examples."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.zeros(samples), 16000, format="WAV")
    return file.getvalue()


def read_header(path: str | Path) -> tuple[int, int, int | None]:
    """Give a file's channels, sample rate in Hz and frames by its header, which libsndfile reads.

    Frames are None where the header does not say: of a FLAC that was written into a pipe, or an mp3 whose length could
    only be guessed from its first frame. Raises soundfile.LibsndfileError for what libsndfile cannot read, and OSError.
    """
    import soundfile

    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - names need not be UTF-8, as libsndfile's do
        is_unknown = is_mp3_of_unknown_length(file)
        file.seek(0)
        header = soundfile.info(file)
    is_unknown |= header.frames == UNKNOWN_FRAMES
    return header.channels, header.samplerate, None if is_unknown else header.frames


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Say what the system refuses as an AudioError."""
    try:
        yield
    except FileNotFoundError:
        raise AudioError(f"there is no file {name}") from None
    except IsADirectoryError:
        raise AudioError(f"{name} is a folder; expected an audio file") from None
    except PermissionError:
        raise AudioError(f"{name} cannot be read: permission denied") from None
    except OSError as error:
        raise AudioError(f"{name} cannot be read: {error.strerror or error}") from error


def _name(source: str | Path | bytes | BinaryIO) -> str:
    if isinstance(source, (str, Path)):
        return str(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "<bytes>"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "<stream>"


@contextmanager
def _opened(source: str | Path | bytes | BinaryIO) -> Iterator[io.FileIO | io.BytesIO]:
    """Open the source for seeking; an unbuffered file, since libsndfile shares its descriptor."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        yield io.BytesIO(source)
    elif isinstance(source, (str, Path)):
        with open(source, "rb", buffering=0) as file:  # noqa: PTH123 - Path.open's type hides the FileIO
            yield file if file.seekable() else io.BytesIO(file.read())
    else:
        content = source.read()
        if isinstance(content, str):
            raise TypeError("a stream of audio must be opened in binary mode")
        yield io.BytesIO(content)


@contextmanager
def _reported(on_damage: OnDamage | None) -> Iterator[None]:
    """Call `on_damage`, if it is given, with an AudioError of the block instead of raising it."""
    try:
        yield
    except AudioError as error:
        if on_damage is None:
            raise
        on_damage(error)


@contextmanager
def _decoder(
    file: io.FileIO | io.BytesIO,
    name: str,
    seconds: float | None = None,
    on_damage: OnDamage | None = None,
) -> Iterator["soundfile.SoundFile"]:
    """Open the file with libsndfile or, where that cannot, what ffmpeg makes of its first `seconds` (None: of all).

    An incomplete file is refused with AudioError; `on_damage` is called with that instead.
    """
    import soundfile

    with _reported(on_damage):
        refuse_incomplete_container(file, name)
    with ExitStack() as opened:
        try:
            sound = opened.enter_context(_libsndfile(file))
        except soundfile.LibsndfileError as error:
            reason = error.error_string.strip().rstrip(".") or "its format is unknown"
            # From the beginning, since ffmpeg's seeking is off by up to a tenth of a second, to safely past the end.
            until = None if seconds is None else seconds + 1
            wav = opened.enter_context(through_ffmpeg(file, name, reason, until))
            sound = opened.enter_context(soundfile.SoundFile(wav, closefd=False))
        with _reported(on_damage):
            refuse_short_data(sound, name)
        if sound.frames == UNKNOWN_FRAMES:  # written as a stream, whose length only its end tells
            sound.seekable = lambda: False  # else soundfile seeks after each read, which fails at the end
        yield sound


@contextmanager
def _libsndfile(file: io.FileIO | io.BytesIO) -> Iterator["soundfile.SoundFile"]:
    """Open the file with libsndfile; raises LibsndfileError where it cannot."""
    import soundfile

    if is_mp3_of_unknown_length(file):
        # libsndfile estimates the length of such an mp3 from its first frame's bit rate and returns no more
        # than that, however much there is. Of a pipe it decodes all.
        opened = _piped(file)
    else:
        file.seek(0)
        opened = nullcontext(file.fileno() if isinstance(file, io.FileIO) else file)
    with opened as descriptor, soundfile.SoundFile(descriptor, closefd=False) as sound:
        yield sound


@contextmanager
def _piped(file: io.FileIO | io.BytesIO) -> Iterator[int]:
    """Give the reading end of a pipe through which the whole file flows."""
    reader, writer = os.pipe()

    def feed() -> None:
        with suppress(BrokenPipeError), open(writer, "wb") as sink:  # noqa: PTH123 - a descriptor, no path
            file.seek(0)
            shutil.copyfileobj(file, sink)

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        yield reader
    finally:
        os.close(reader)  # a feeder that still writes gets BrokenPipeError
        feeder.join()


def _read(
    sound: "soundfile.SoundFile",
    name: str,
    sample_rate: int,
    offset: float,
    duration: float | None,
    channels: Sequence[int] | None,
) -> np.ndarray:
    """Decode and resample a window, so that its samples are those of the whole."""
    # The instants at which an input frame and an output sample coincide: frame i * down and sample i * up.
    # Reading begins at one of them, far enough ahead that the resampler's edge lies outside the window.
    common = math.gcd(sound.samplerate, sample_rate)
    up, down = sample_rate // common, sound.samplerate // common
    reach = 0 if up == down else math.ceil(RESAMPLER_REACH * sample_rate / up)
    start = round(offset * sample_rate)
    first = max(0, start // up - reach)
    count = frames = None
    if duration is not None:
        count = max(1, round(duration * sample_rate))
        frames = (math.ceil((start + count) / up) + reach - first) * down
    samples = _decode(sound, name, first * down, frames, channels)
    if up != down and samples.size:
        import soxr

        samples = soxr.resample(samples, sound.samplerate, sample_rate, quality="HQ")
    samples = samples[start - first * up :][:count]
    if not samples.size:
        where = f" from {offset} s on" if offset else ""
        raise AudioError(f"{name} holds no audio{where}")
    return np.clip(samples, -1.0, 1.0, out=samples)


def _decode(
    sound: "soundfile.SoundFile", name: str, first: int, frames: int | None, channels: Sequence[int] | None
) -> np.ndarray:
    """Read `frames` frames (None: all) from frame `first` on, their channels averaged: (time,) float32."""
    wanted = UNKNOWN_FRAMES if frames is None else frames
    unwanted = 0
    if sound.frames != UNKNOWN_FRAMES:
        first = min(first, sound.frames)
        wanted = min(wanted, sound.frames - first)
        sound.seek(first)
    else:  # decode it from its beginning
        unwanted, first, wanted = first, 0, min(first + wanted, UNKNOWN_FRAMES)
    blocks = [np.zeros(0, np.float32), *_mono_blocks(sound, name, first, wanted, channels)]
    return np.concatenate(blocks)[unwanted:]


def _mono_blocks(
    sound: "soundfile.SoundFile",
    name: str,
    first: int,
    wanted: int,
    channels: Sequence[int] | None,
    size: int = BLOCK,
) -> Iterator[np.ndarray]:
    """Decode `wanted` frames from `first`, where the file stands, on, their channels averaged, `size` at a time.

    Fewer come of a file whose length is not known. Raises AudioError for what is cut short or holds no audio's numbers.
    """
    import soundfile

    if channels is not None and (lacking := [place for place in channels if not 0 <= place < sound.channels]):
        raise AudioError(f"{name} has no channel {lacking[0]}: it has {sound.channels}, counted from 0")
    missing = wanted
    try:
        while missing and len(block := sound.read(min(BLOCK, size, missing), "float32", always_2d=True)):
            samples = (block if channels is None else block[:, channels]).mean(axis=1)
            if not np.isfinite(samples).all():
                raise AudioError(f"{name} carries NaN or infinite samples; write it again from its source")
            if (peak := np.abs(samples).max()) > HIGHEST_PEAK:
                raise AudioError(
                    f"{name} has samples up to {peak:.0f}; expected floats in [-1, 1]: "
                    "divide them by the full scale of the integers they were"
                )
            missing -= len(block)
            yield samples
    except soundfile.LibsndfileError as error:
        seconds = (first + wanted - missing) / sound.samplerate
        raise AudioError(f"{name} is truncated or damaged: decoding fails after {seconds:.1f} s") from error
    if missing and sound.frames != UNKNOWN_FRAMES:
        promised, there = sound.frames / sound.samplerate, (first + wanted - missing) / sound.samplerate
        raise AudioError(
            f"{name} is truncated: its header promises {promised:.1f} s of audio, {there:.1f} s are there"
        )
