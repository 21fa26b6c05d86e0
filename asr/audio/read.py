"""Any audio file, bytes or stream becomes mono float32 samples at the model's rate.

soundfile (libsndfile) decodes wav, flac, mp3, ogg, opus, NIST sphere and more; ffmpeg, where it is installed,
the rest; soxr resamples. Whatever cannot be read whole raises one AudioError: a recognizer that quietly
transcribes half of a truncated file does more harm than one that refuses it.
"""

import io
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from asr.audio.containers import UNKNOWN_FRAMES
from asr.audio.decoder import OnDamage, decoder, name_of, opened, reading, stream, streams
from asr.audio.files import existing
from asr.audio.joined import Joined, Stream
from asr.errors import AudioError

SALVAGED_SECONDS = 0.5  # decoded at a time of audio that may be damaged
BLOCK = 1 << 18  # frames decoded at a time, so that of many channels only the mono mix is ever held whole
RESAMPLER_REACH = 0.05  # seconds to either side of a window that its resampled edges depend on
# Lossy decoders and the resampler overshoot full scale a little, hot recordings somewhat more; both are
# clipped. Past this the numbers are no audio in [-1, 1] at all but integers stored as floats.
HIGHEST_PEAK = 4.0
# Channels cancel where their mean is this much quieter than they are, as of a miswired cable; of 100 channels that have
# nothing in common it is as much.
CANCELLED = 0.1
# Seconds before a window that are decoded too: an mp3 frame may hold its bits in those before it, twenty of them at the
# lowest rates, and Opus takes a while to converge.
PREROLL = {"MPEG_LAYER_III": 1.0, "OPUS": 0.5}
LOG = logging.getLogger(__name__)
_cancelling: set[str] = set()  # names that have been warned of


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
    name = name_of(source)
    with reading(name), opened(source) as file:
        seconds = None if duration is None else offset + duration
        with decoder(file, name, seconds) as sound:
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
    name, size = name_of(source), max(1, round(seconds * sample_rate))
    with reading(name), opened(source) as file, decoder(file, name, on_damage=on_damage) as sound:
        resampler = None
        if sound.samplerate != sample_rate:
            import soxr

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
    name = name_of(source)
    with reading(name), opened(source) as file, decoder(file, name, 1.0, lambda error: None) as sound:
        return sound.channels


def _silence(samples: int) -> bytes:
    """Return a wav file for the examples."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.zeros(samples), 16000, format="WAV")
    return file.getvalue()


def read_header(path: str | Path) -> tuple[int, int, int | None]:
    """Return a file's channels, sample rate in Hz and frames by its header, which libsndfile reads.

    Frames are None where the header does not say: of a FLAC that was written into a pipe, or an mp3 whose length could
    only be guessed from its first frame. Raises soundfile.LibsndfileError for what libsndfile cannot read, and OSError.
    """
    # Path.open's type hides the FileIO; names need not be UTF-8, as libsndfile's do.
    with open(existing(path), "rb", buffering=0) as file, streams(file, stream) as sound:  # noqa: PTH123
        frames = None if sound.frames == UNKNOWN_FRAMES else sound.frames
        return sound.channels, sound.samplerate, frames


def measure(path: str | Path) -> tuple[int, int, int]:
    """Return a file's channels, sample rate in Hz and frames, by its header or, where that does not say, by decoding.

    Raises AudioError.
    """
    name = str(path)
    with reading(name), opened(path) as file, decoder(file, name) as sound:
        frames = sound.frames
        if frames == UNKNOWN_FRAMES:
            frames = sum(map(len, _mono_blocks(sound, name, 0, frames, None)))
        return sound.channels, sound.samplerate, frames


def _read(
    sound: Stream | Joined,
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
    sound: Stream | Joined, name: str, first: int, frames: int | None, channels: Sequence[int] | None
) -> np.ndarray:
    """Read `frames` frames (None: all) from frame `first` on, their channels averaged: (time,) float32."""
    first = min(first, sound.frames)
    last = sound.frames if frames is None else min(first + frames, sound.frames)
    begin = 0
    if sound.can_seek:
        begin = max(0, first - round(PREROLL.get(sound.subtype, 0.0) * sound.samplerate))
        sound.seek(begin)
    blocks = [np.zeros(0, np.float32), *_mono_blocks(sound, name, begin, last - begin, channels)]
    return np.concatenate(blocks)[first - begin :]


def _mixed(block: np.ndarray, name: str) -> np.ndarray:
    """Average channels (time, channel) to (time,); where they cancel, return the first one that is not quieter."""
    samples = block.mean(axis=1)
    if block.shape[1] == 1:
        return samples
    powers = np.square(block).mean(axis=0)
    if not np.square(samples).mean() < CANCELLED**2 * powers.mean():
        return samples
    first = int((powers > 0.5 * powers.max()).argmax())
    if name not in _cancelling:
        _cancelling.add(name)
        LOG.warning(
            "the channels of %s cancel each other, as of a miswired cable; channel %d is read alone",
            name,
            first,
        )
    return block[:, first].copy()


def _mono_blocks(
    sound: Stream | Joined,
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
        has = "one channel" if sound.channels == 1 else f"{sound.channels} channels"
        raise AudioError(
            f"{name} has {has}; expected at least {lacking[0] + 1}, to read number {lacking[0] + 1}"
        )
    missing = wanted
    try:
        while missing and len(block := sound.read(min(BLOCK, size, missing))):
            samples = _mixed(block if channels is None else block[:, channels], name)
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
