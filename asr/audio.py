"""Any audio file, bytes or stream becomes mono float32 samples at the model's rate.

soundfile (libsndfile) decodes wav, flac, mp3, ogg, opus, NIST sphere and more; ffmpeg, where it is installed,
the rest; soxr resamples. Whatever cannot be read whole raises one AudioError: a recognizer that quietly
transcribes half of a truncated file does more harm than one that refuses it.
"""

import io
import math
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from asr.errors import AudioError

if TYPE_CHECKING:
    import soundfile

# fmt: off
AUDIO_SUFFIXES = frozenset({
    # what libsndfile reads
    ".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".snd",
    ".sph", ".w64", ".wav",
    # what takes ffmpeg
    ".3gp", ".aac", ".ac3", ".amr", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp4", ".webm", ".wma",
})
# fmt: on

BLOCK = 1 << 18  # frames decoded at a time, so that of many channels only the mono mix is ever held whole
RESAMPLER_REACH = 0.05  # seconds to either side of a window that its resampled edges depend on
# Lossy decoders and the resampler overshoot full scale a little, hot recordings somewhat more; both are
# clipped. Past this the numbers are no audio in [-1, 1] at all but integers stored as floats.
HIGHEST_PEAK = 4.0
UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's SF_COUNT_MAX: the header does not say
UNKNOWN_BYTES = 0x7FFFF000  # sizes from here on are what sox and ffmpeg write into headers of streams


def files_in(
    folder: str | Path, recursive: bool = True, unread: Callable[[OSError], object] | None = None
) -> list[Path]:
    """List a folder's files, at any depth where `recursive`, in order; links that lead nowhere, too.

    Links to folders are followed, each folder once, so that one that leads back up ends. `unread` is told of folders
    that cannot be read.
    """
    found: list[Path] = []
    seen = set()
    for inside, folders, names in os.walk(folder, onerror=unread, followlinks=True):
        if (real := os.path.realpath(inside)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(folders) if recursive else []
        found += [Path(inside, name) for name in names]
    return sorted(found)


def audio_files(folder: str | Path) -> list[Path]:
    """List the files at any depth of a folder that are named as audio is, as `files_in` lists them."""
    return [path for path in files_in(folder) if path.suffix.lower() in AUDIO_SUFFIXES]


def load_audio(
    source: str | Path | bytes | BinaryIO,
    sample_rate: int = 16000,
    *,
    offset: float = 0.0,
    duration: float | None = None,
) -> np.ndarray:
    """Read audio as mono samples at `sample_rate`.

    Channels are averaged; other rates are resampled, band-limited (soxr, HQ). A window holds the same samples
    as that part of the whole, and no more than it is read (all up to its end, where the format takes ffmpeg).

    Arguments:
        source: path, the bytes of an audio file, or a binary stream (a pipe will do; it is read to its end).
        sample_rate: rate of the result in Hz.
        offset: where to start, in seconds.
        duration: how much to read, in seconds; less comes back where the audio ends before.

    Returns (time,) float32 in [-1, 1].

    Raises AudioError, naming the source, for what is missing, unreadable, no audio, empty, truncated or
    damaged, holds NaN or infinite samples, or has no audio at `offset`.

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
            return _read(sound, name, sample_rate, offset, duration)


def stream_audio(
    source: str | Path | bytes | BinaryIO, sample_rate: int = 16000, seconds: float = 120.0
) -> Iterator[np.ndarray]:
    """Read audio as `load_audio` does, but in consecutive blocks, of which only one is held.

    Arguments: source and sample_rate as there; seconds of a block, the last one's are what is left. Yields (time,)
    float32. Raises AudioError as `load_audio`, some of it only when the reading gets there.

    >>> [len(block) for block in stream_audio(_silence(40000), 16000, seconds=1.0)]
    [16000, 16000, 8000]
    """
    import soxr

    name, size = _name(source), max(1, round(seconds * sample_rate))
    with _told(name), _opened(source) as file, _decoder(file, name) as sound:
        resampler = None
        if sound.samplerate != sample_rate:
            resampler = soxr.ResampleStream(sound.samplerate, sample_rate, 1, dtype="float32", quality="HQ")

        def resampled() -> Iterator[np.ndarray]:
            at_once = max(1, round(seconds * sound.samplerate))
            for block in _mono_blocks(sound, name, 0, sound.frames, at_once):
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
        is_unknown = _is_mp3_of_unknown_length(file)
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
def _decoder(
    file: io.FileIO | io.BytesIO, name: str, seconds: float | None = None
) -> Iterator["soundfile.SoundFile"]:
    """Open the file with libsndfile or, where that cannot, what ffmpeg makes of its first `seconds` (None: of all)."""
    import soundfile

    _refuse_incomplete_container(file, name)
    with ExitStack() as opened:
        try:
            sound = opened.enter_context(_libsndfile(file))
        except soundfile.LibsndfileError as error:
            reason = error.error_string.strip().rstrip(".") or "its format is unknown"
            # From the beginning, since ffmpeg's seeking is off by up to a tenth of a second, to safely past the end.
            until = None if seconds is None else seconds + 1
            wav = opened.enter_context(_through_ffmpeg(file, name, reason, until))
            sound = opened.enter_context(soundfile.SoundFile(wav, closefd=False))
        _refuse_short_data(sound, name)
        if sound.frames == UNKNOWN_FRAMES:  # written as a stream, whose length only its end tells
            sound.seekable = lambda: False  # else soundfile seeks after each read, which fails at the end
        yield sound


@contextmanager
def _libsndfile(file: io.FileIO | io.BytesIO) -> Iterator["soundfile.SoundFile"]:
    """Open the file with libsndfile; raises LibsndfileError where it cannot."""
    import soundfile

    if _is_mp3_of_unknown_length(file):
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


def _is_mp3_of_unknown_length(file: io.FileIO | io.BytesIO) -> bool:
    """Whether the file is an mp3 (behind an ID3 tag or not) whose first frame carries no Xing/Info header."""
    file.seek(0)
    head = file.read(10)
    if head.startswith(b"ID3") and len(head) == 10:  # bytes 6 to 9: the tag's size, seven bits each
        file.seek(10 + sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)))
    else:
        file.seek(0)
    frame = file.read(2048)
    begins_a_frame = len(frame) > 1 and frame[0] == 0xFF and frame[1] & 0xE0 == 0xE0 and frame[1] & 0x06 != 0
    return begins_a_frame and b"Xing" not in frame and b"Info" not in frame


def _refuse_incomplete_container(file: io.FileIO | io.BytesIO, name: str) -> None:
    """Refuse what libsndfile would read as far as it goes: an Ogg page or a NIST sphere file cut short."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise AudioError(f"{name} is empty (0 bytes)")
    file.seek(0)
    head = file.read(1024)
    promised = 0
    if head.startswith(b"OggS"):
        file.seek(max(0, size - 65307))  # no page is longer
        tail = file.read(65307)
        at = tail.rfind(b"OggS")
        page = tail[at:]
        # A page is 27 bytes, the last the number of segments, then the segments' sizes, then the segments.
        segments = page[27 : 27 + page[26]] if len(page) >= 27 else b""
        promised = size - len(page) + 27 + len(segments) + sum(segments)
    elif head.startswith(b"NIST_1A"):
        fields = dict(re.findall(rb"^(\w+) -\w+ (.+?)\s*$", head, re.MULTILINE))
        if fields.get(b"sample_coding", b"pcm") in (b"pcm", b"ulaw", b"alaw"):
            counts = (b"sample_count", b"sample_n_bytes", b"channel_count")
            with suppress(KeyError, ValueError):  # libsndfile says what is wrong with such a header
                promised = int(head.split()[1]) + math.prod(int(fields[count]) for count in counts)
    if promised > size:
        raise AudioError(f"{name} is truncated: it promises {promised} bytes, {size} are there")


def _refuse_short_data(sound: "soundfile.SoundFile", name: str) -> None:
    """Refuse uncompressed audio of which the header promises more than there is.

    libsndfile reads what is there and mentions the difference only in its log.
    """
    size = r"^\s*(?:data|Data Size|SSND|riff|Riff size)\s*: (\d+) \(should be (\d+)\)"
    found = re.search(size, sound.extra_info, re.MULTILINE)
    if found and int(found[2]) < int(found[1]) < UNKNOWN_BYTES:
        raise AudioError(f"{name} is truncated: its header promises {found[1]} bytes, {found[2]} are there")


def _read(
    sound: "soundfile.SoundFile", name: str, sample_rate: int, offset: float, duration: float | None
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
    samples = _decode(sound, name, first * down, frames)
    if up != down and samples.size:
        import soxr

        samples = soxr.resample(samples, sound.samplerate, sample_rate, quality="HQ")
    samples = samples[start - first * up :][:count]
    if not samples.size:
        where = f" from {offset} s on" if offset else ""
        raise AudioError(f"{name} holds no audio{where}")
    return np.clip(samples, -1.0, 1.0, out=samples)


def _decode(sound: "soundfile.SoundFile", name: str, first: int, frames: int | None) -> np.ndarray:
    """Read `frames` frames (None: all) from frame `first` on, their channels averaged: (time,) float32."""
    wanted = UNKNOWN_FRAMES if frames is None else frames
    unwanted = 0
    if sound.frames != UNKNOWN_FRAMES:
        first = min(first, sound.frames)
        wanted = min(wanted, sound.frames - first)
        sound.seek(first)
    else:  # decode it from its beginning
        unwanted, first, wanted = first, 0, min(first + wanted, UNKNOWN_FRAMES)
    blocks = [np.zeros(0, np.float32), *_mono_blocks(sound, name, first, wanted)]
    return np.concatenate(blocks)[unwanted:]


def _mono_blocks(
    sound: "soundfile.SoundFile", name: str, first: int, wanted: int, size: int = BLOCK
) -> Iterator[np.ndarray]:
    """Decode `wanted` frames from `first`, where the file stands, on, their channels averaged, `size` at a time.

    Fewer come of a file whose length is not known. Raises AudioError for what is cut short or holds no audio's numbers.
    """
    import soundfile

    missing = wanted
    try:
        while missing and len(block := sound.read(min(BLOCK, size, missing), "float32", always_2d=True)):
            samples = block.mean(axis=1)
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


@contextmanager
def _through_ffmpeg(
    file: io.FileIO | io.BytesIO, name: str, reason: str, seconds: float | None
) -> Iterator[int]:
    """Decode the first `seconds` (None: all) with ffmpeg: the descriptor of a temporary wav file of floats."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        file.seek(0)
        raise AudioError(
            f"{name} is no audio that soundfile can read ({reason}; it begins with {file.read(16)!r}); "
            "if it is m4a, mp4, webm or the like, install ffmpeg"
        )
    span = [] if seconds is None else ["-t", str(seconds)]
    with tempfile.NamedTemporaryFile() as copy, tempfile.TemporaryFile() as wav:
        if isinstance(file, io.FileIO):
            path = file.name
        else:  # mp4 may keep its index at the end, out of a pipe's reach
            path = copy.name
            copy.write(file.getbuffer())
            copy.flush()
        options = ["-nostdin", "-v", "error", "-xerror", "-protocol_whitelist", "file,pipe", *span]
        output = ["-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "wav", "pipe:1"]
        command = [ffmpeg, *options, "-i", f"file:{path}", *output]
        done = subprocess.run(command, stdout=wav, stderr=subprocess.PIPE)
        log = done.stderr.decode(errors="replace").strip()
        if done.returncode != 0 or "ended prematurely" in log:
            last = log.splitlines()[-1] if log else f"exit status {done.returncode}"
            raise AudioError(f"{name} is no audio, or damaged: soundfile says {reason!r}, ffmpeg {last!r}")
        wav.seek(0)
        yield wav.fileno()
