"""Opening of audio for decoding: with libsndfile, all streams of a file, or with ffmpeg where that cannot."""

import io
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from asr.audio.containers import (
    AudioFile,
    Slice,
    corrected,
    is_mp3_of_unknown_length,
    refuse_incomplete_container,
    refuse_short_data,
)
from asr.audio.files import existing
from asr.audio.joined import Joined, Stream, stream_bounds
from asr.errors import AudioError

Opened = AbstractContextManager[Stream]
OnDamage = Callable[[AudioError], object]


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Raise what the system refuses as an AudioError."""
    try:
        yield
    except FileNotFoundError:
        if os.path.islink(name):  # noqa: PTH114 - a name that no Path can hold is no link
            raise AudioError(f"{name} is a link to {os.readlink(name)}, which does not exist") from None  # noqa: PTH115
        raise AudioError(f"there is no file {name}") from None
    except IsADirectoryError:
        raise AudioError(f"{name} is a folder; expected an audio file") from None
    except PermissionError:
        raise AudioError(f"{name} cannot be read: permission denied") from None
    except OSError as error:
        raise AudioError(f"{name} cannot be read: {error.strerror or error}") from error


def name_of(source: str | Path | bytes | BinaryIO) -> str:
    """Return what messages call a source."""
    if isinstance(source, (str, Path)):
        return str(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "<bytes>"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "<stream>"


@contextmanager
def opened(source: str | Path | bytes | BinaryIO) -> Iterator[io.FileIO | io.BytesIO]:
    """Open the source for seeking; an unbuffered file, since libsndfile shares its descriptor."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        yield io.BytesIO(source)
    elif isinstance(source, (str, Path)):
        with open(existing(source), "rb", buffering=0) as file:  # noqa: PTH123 - Path.open's type hides the FileIO
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
def decoder(
    file: io.FileIO | io.BytesIO,
    name: str,
    seconds: float | None = None,
    on_damage: OnDamage | None = None,
) -> Iterator[Stream | Joined]:
    """Open the file with libsndfile or, where that cannot, what ffmpeg makes of its first `seconds` (None: of all).

    An incomplete file is refused with AudioError; `on_damage` is called with that instead.
    """
    with _reported(on_damage):
        refuse_incomplete_container(file, name)

    @contextmanager
    def open_stream(stream: AudioFile) -> Iterator[Stream]:
        # From the beginning, since ffmpeg's seeking is off by up to a tenth of a second, to safely past the end.
        until = None if seconds is None or isinstance(stream, Slice) else seconds + 1
        with _stream_or_ffmpeg(stream, name, until) as sound:
            with _reported(on_damage):
                refuse_short_data(sound.log, name)
            yield sound

    with streams(file, open_stream) as sound:
        yield sound


@contextmanager
def streams(file: AudioFile, opener: Callable[[AudioFile], Opened]) -> Iterator[Stream | Joined]:
    """Open all streams of a file as one."""
    bounds = stream_bounds(file)
    if len(bounds) > 1:
        with Joined([partial(opener, Slice(file, *stream)) for stream in bounds]) as sound:
            yield sound
    else:
        with opener(corrected(file)) as sound:
            yield sound


@contextmanager
def _stream_or_ffmpeg(file: AudioFile, name: str, seconds: float | None) -> Iterator[Stream]:
    import soundfile

    with ExitStack() as opened:
        try:
            sound = opened.enter_context(stream(file))
        except soundfile.LibsndfileError as error:
            from asr.audio.ffmpeg import through_ffmpeg

            reason = error.error_string.strip().rstrip(".") or "its format is unknown"
            wav = opened.enter_context(through_ffmpeg(file, name, reason, seconds))
            sound = Stream(opened.enter_context(soundfile.SoundFile(wav, closefd=False)))
        yield sound


@contextmanager
def stream(file: AudioFile) -> Iterator[Stream]:
    """Open a single stream of audio with libsndfile; raises LibsndfileError where it cannot."""
    import soundfile

    if is_mp3_of_unknown_length(file):
        # libsndfile estimates the length of such an mp3 from its first frame's bit rate and returns no more
        # than that, however much there is. Of a pipe it decodes all.
        opened: AbstractContextManager[Any] = _piped(file)
    else:
        file.seek(0)
        opened = nullcontext(file.fileno() if isinstance(file, io.FileIO) else file)
    with opened as descriptor, soundfile.SoundFile(descriptor, closefd=False) as sound:
        yield Stream(sound)


@contextmanager
def _piped(file: AudioFile) -> Iterator[int]:
    """Return the reading end of a pipe through which the whole file flows."""
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
