"""Several streams of audio behind each other in one file, of which libsndfile reads the first alone.

Ogg defines them (a chained stream, RFC 3533, as internet radio and recorders write it); mp3 and flac files are put
behind each other with `cat`.
"""

import io
import mmap
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.audio.containers import UNKNOWN_FRAMES, AudioFile, read_at, size_of

if TYPE_CHECKING:
    import soundfile

UNSEEKABLE = frozenset({"DWVW_12", "DWVW_16", "DWVW_24"})  # of which libsndfile says that it can seek in them
BLOCK = 1 << 16  # frames
LARGE = 1 << 23  # bytes from which on a file is not searched again
_known: OrderedDict[tuple, list[int]] = OrderedDict()


def stream_bounds(file: AudioFile) -> list[tuple[int, int]]:
    """Return the first byte and the end of each stream of audio, of which most files have one."""
    head, size = read_at(file, 0, 10), size_of(file)
    if head.startswith((b"OggS", b"fLaC")):
        search = _ogg_streams if head.startswith(b"OggS") else _flac_streams
        starts = _search(file, size, search)
    elif begins_mp3(file, 0):
        starts = list(_mp3_streams(file, size))
    else:
        starts = [0]
    starts[0] = 0
    return list(zip(starts, [*starts[1:], size], strict=True))


def _search(file: AudioFile, size: int, search: Callable[[Any], list[int]]) -> list[int]:
    """Search a file's content, a large one once."""
    if not isinstance(file, io.FileIO):
        return search(file.getvalue() if isinstance(file, io.BytesIO) else read_at(file, 0, size)) or [0]
    status = os.fstat(file.fileno())
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if key in _known:
        return list(_known[key])
    try:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            starts = search(content) or [0]
    except (OSError, ValueError):  # of files that cannot be mapped
        return [0]
    if size >= LARGE:
        _known[key] = starts
        while len(_known) > 1000:
            _known.popitem(last=False)
    return list(starts)


def _ogg_streams(content: Any) -> list[int]:
    """Find where chained streams begin; first pages that follow each other are of streams side by side."""
    starts, end = [], -1
    # A first page is flagged as that, with 2, or 6 where it is the last too; its number is 0.
    pages = sorted([*_places(content, b"OggS\x00\x02"), *_places(content, b"OggS\x00\x06")])
    for at in pages:
        if content[at + 18 : at + 22] != bytes(4):
            continue
        if at != end:
            starts.append(at)
        segments = content[at + 27 : at + 27 + content[at + 26]] if at + 27 <= len(content) else b""
        end = at + 27 + len(segments) + sum(segments)
    return starts


def _flac_streams(content: Any) -> list[int]:
    """Find FLAC's mark with the head of the block that has to follow, the stream's last or not."""
    heads = (b"\x00\x00\x00\x22", b"\x80\x00\x00\x22")
    return [at for at in _places(content, b"fLaC") if content[at + 4 : at + 8] in heads]


def _places(content: Any, mark: bytes) -> Iterator[int]:
    at = content.find(mark)
    while at >= 0:
        yield at
        at = content.find(mark, at + 1)


# Bit rates in kbit/s (ISO 11172-3, 13818-3) of MPEG 1's layers I to III, then of MPEG 2's and 2.5's I, and II and III.
_RATES = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HERTZ = (44100, 48000, 32000)
MP3_RATE_HEADERS = (b"Xing", b"Info")
FRAMES_IN_A_ROW = 3  # of frames that follow each other, what no other content looks like
SEARCHED = 1 << 16  # bytes behind a stream's promised end in which the next one is looked for


def _mp3_frame(file: AudioFile, at: int) -> int:
    """Return the length in bytes of the mp3 frame at a place, 0 where there is none."""
    head = read_at(file, at, 4)
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version = {3: 1, 2: 2, 0: 4}.get(head[1] >> 3 & 3)  # 4 stands for 2.5, whose rates are a quarter of 1's
    layer = 4 - (head[1] >> 1 & 3)
    rate, hertz, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version is None or layer == 4 or rate in (0, 15) or hertz == 3:
        return 0
    bits = 1000 * _RATES[min(version, 2), layer if version == 1 else min(layer, 2)][rate - 1]
    hertz = _HERTZ[hertz] // version
    if layer == 1:
        return (12 * bits // hertz + padding) * 4
    return (72 if layer == 3 and version > 1 else 144) * bits // hertz + padding


def _after_tags(file: AudioFile, at: int) -> int:
    """Return the place behind the ID3v2 tags at a place."""
    while (head := read_at(file, at, 10)).startswith(b"ID3") and len(head) == 10:
        at += 10 + sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    return at


def begins_mp3(file: AudioFile, at: int) -> bool:
    """Whether an mp3 stream begins at a place, perhaps with ID3 tags: a few frames follow each other."""
    at = frame = _after_tags(file, at)
    for _ in range(FRAMES_IN_A_ROW):
        length = _mp3_frame(file, frame)
        if not length:
            return False
        frame += length
        if frame >= size_of(file):
            break
    return True


def _mp3_streams(file: AudioFile, size: int) -> Iterator[int]:
    """Find where mp3 streams begin. One without a Xing header is decoded to the file's end, whatever it holds."""
    at: int | None = 0
    while at is not None:
        yield at
        end = _promised_end(file, at)
        at = None if end is None else _next_mp3(file, end, size)


def _promised_end(file: AudioFile, at: int) -> int | None:
    """Return where an mp3 stream ends by its Xing header, whose length counts from the frame that holds it."""
    frame = _after_tags(file, at)
    content = read_at(file, frame, 256)
    place = next((place for mark in MP3_RATE_HEADERS if (place := content.find(mark)) >= 0), None)
    if place is None:
        return None
    flags = int.from_bytes(content[place + 4 : place + 8])
    number = place + 8
    frames = int.from_bytes(content[number : number + 4]) if flags & 1 else None
    number += 4 if flags & 1 else 0
    if flags & 2:
        return frame + int.from_bytes(content[number : number + 4])
    if frames is None:
        return None
    for _ in range(frames + 1):
        length = _mp3_frame(file, frame)
        if not length:
            break
        frame += length
    return frame


def _next_mp3(file: AudioFile, end: int, size: int) -> int | None:
    """Find an mp3 stream at or closely behind a place; None for tags, other content or nothing."""
    content = read_at(file, end, SEARCHED)
    for found in re.finditer(rb"ID3|\xff[\xe0-\xff]", content):
        at = end + found.start()
        if size - at > 1024 and begins_mp3(file, at):
            return at
    return None


class Stream:
    """A soundfile.SoundFile that is only sought in on purpose.

    soundfile seeks after each read, which fails in some codecs, at the end of others, and after which an mp3's first
    frames lack what those before them hold.

    Attributes:
        samplerate: in Hz.
        channels: how many there are.
        frames: how many there are by the header, or UNKNOWN_FRAMES.
        subtype: the codec, as libsndfile calls it.
        can_seek: whether `seek` works; else frames are read in order.
    """

    def __init__(self, sound: "soundfile.SoundFile"):
        self._sound = sound
        self.samplerate, self.channels, self.frames = sound.samplerate, sound.channels, sound.frames
        self.subtype, self.log = sound.subtype, sound.extra_info
        self.can_seek = (
            sound.seekable() and sound.frames != UNKNOWN_FRAMES and sound.subtype not in UNSEEKABLE
        )
        sound.seekable = lambda: False

    def seek(self, frame: int) -> None:
        """Set the position, in frames."""
        self._sound.seek(frame)

    def read(self, frames: int) -> np.ndarray:
        """Return up to `frames` frames (frame, channel) float32, none at the end."""
        return self._sound.read(frames, "float32", always_2d=True)


class Joined:
    """Streams behind each other, read as one; attributes as Stream's.

    Rate and channels are those of the first; another stream with others is resampled, and its channels are averaged.
    Raises soundfile.LibsndfileError where one cannot be read.
    """

    def __init__(self, streams: Sequence[Callable[[], AbstractContextManager[Stream]]]):
        self._streams, self.can_seek = streams, True
        self._lengths: list[int] = []
        for number in range(len(streams)):
            with streams[number]() as sound:
                if number == 0:
                    self.samplerate, self.channels, self.subtype = (
                        sound.samplerate,
                        sound.channels,
                        sound.subtype,
                    )
                known = self._fits(sound) and sound.frames != UNKNOWN_FRAMES
                self._lengths.append(sound.frames if known else len(self._whole(sound)))
        self.frames = sum(self._lengths)
        self._number, self._opened = -1, ExitStack()
        self._sound: Stream | None = None  # the stream that is being read, where it fits,
        self._rest = np.zeros((0, self.channels), np.float32)  # and what is left of it, where it does not
        self.seek(0)

    def __enter__(self) -> "Joined":
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def seek(self, frame: int) -> None:
        """Set the position, in frames."""
        number = 0
        while number < len(self._lengths) - 1 and frame >= self._lengths[number]:
            frame -= self._lengths[number]
            number += 1
        self._begin(number)
        if self._sound is None:
            self._rest = self._rest[frame:]
        elif frame and self._sound.can_seek:
            self._sound.seek(frame)
        else:
            while frame and len(dropped := self._sound.read(min(frame, BLOCK))):
                frame -= len(dropped)

    def read(self, frames: int) -> np.ndarray:
        """Return up to `frames` frames (frame, channel) float32, none at the end."""
        while self._number < len(self._streams):
            if self._sound is not None:
                block = self._sound.read(frames)
            else:
                block, self._rest = self._rest[:frames], self._rest[frames:]
            if len(block):
                return block
            self._begin(self._number + 1)
        return self._rest

    def _begin(self, number: int) -> None:
        self._opened.close()
        self._number, self._sound, self._rest = number, None, self._rest[:0]
        if number < len(self._streams):
            sound = self._opened.enter_context(self._streams[number]())
            if self._fits(sound):
                self._sound = sound
            else:
                self._rest = self._whole(sound)

    def _fits(self, sound: Stream) -> bool:
        return (sound.samplerate, sound.channels) == (self.samplerate, self.channels)

    def _whole(self, sound: Stream) -> np.ndarray:
        """Read a stream to its end, as the first one's rate and channels have it."""
        blocks = [np.zeros((0, sound.channels), np.float32)]
        while len(block := sound.read(BLOCK)):
            blocks.append(block)
        samples = np.concatenate(blocks)
        if sound.channels != self.channels:
            samples = samples.mean(axis=1, keepdims=True).repeat(self.channels, axis=1)
        if sound.samplerate != self.samplerate and len(samples):
            import soxr

            samples = soxr.resample(samples, sound.samplerate, self.samplerate, quality="HQ")
        return samples
