"""What libsndfile overlooks in a container: wrong or missing lengths in the header, and files that are cut short."""

import io
import math
import os
import re
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from asr.errors import AudioError

UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's SF_COUNT_MAX: the header does not say
UNKNOWN_BYTES = 0x7FFFF000  # sizes from here on are what sox and ffmpeg write into headers of streams


class Slice(io.RawIOBase):
    """A stretch of a file, read as a file; `patch` takes the place of its bytes from `place` on."""

    def __init__(self, file: "AudioFile", start: int, end: int, place: int = 0, patch: bytes = b""):
        super().__init__()
        self._file, self._start, self._length = file, start, end - start
        self._place, self._patch = place, patch
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set and return the position, from the start of the stretch."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        return self._at

    def tell(self) -> int:
        """Return the position, from the start of the stretch."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as there are bytes, and return how many there were."""
        count = max(0, min(len(buffer), self._length - self._at))
        content = bytearray(read_at(self._file, self._start + self._at, count))
        for place, byte in enumerate(self._patch, self._place - self._at):
            if 0 <= place < len(content):
                content[place] = byte
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


AudioFile = io.FileIO | io.BytesIO | Slice


def read_at(file: AudioFile, position: int, count: int) -> bytes:
    """Return `count` bytes from a position, fewer at the end. The position of a file is left alone, so that threads
    can share it.
    """
    if isinstance(file, io.FileIO):
        return os.pread(file.fileno(), count, position)
    if isinstance(file, io.BytesIO):
        return bytes(file.getbuffer()[position : position + count])
    at = file.tell()
    file.seek(position)
    content = file.read(count) or b""
    file.seek(at)
    return content


def size_of(file: AudioFile) -> int:
    """Return the number of bytes."""
    return file.seek(0, os.SEEK_END)


def is_mp3_of_unknown_length(file: AudioFile) -> bool:
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


def refuse_incomplete_container(file: AudioFile, name: str) -> None:
    """Refuse what libsndfile would read as far as it goes: an Ogg page or a NIST sphere file cut short."""
    size = size_of(file)
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


def refuse_short_data(log: str, name: str) -> None:
    """Refuse uncompressed audio of which the header promises more than there is.

    libsndfile reads what is there and mentions the difference only in its `log`.
    """
    size = r"^\s*(?:data|Data Size|SSND|riff|Riff size)\s*: (\d+) \(should be (\d+)\)"
    found = re.search(size, log, re.MULTILINE)
    if found and int(found[2]) < int(found[1]) < UNKNOWN_BYTES:
        raise AudioError(f"{name} is truncated: its header promises {found[1]} bytes, {found[2]} are there")


@dataclass(frozen=True)
class _Length:
    """Where a header says how long the samples are.

    Attributes:
        place: byte at which the number stands.
        form: the number's form, for struct.
        begin: byte of the first sample.
        extra: bytes that the number counts beside the samples.
    """

    place: int
    form: str
    begin: int
    extra: int = 0


def corrected(file: AudioFile) -> AudioFile:
    """Return the file with the length of its samples put right where its header does not know it.

    A recorder that was cut off, or wrote into a pipe, leaves 0 or the highest number there. libsndfile then reads
    nothing of most formats.
    """
    magic = read_at(file, 0, 4)
    found = _FINDERS[magic](file) if magic in _FINDERS else None
    if found is None:
        return file
    size = size_of(file)
    number = read_at(file, found.place, struct.calcsize(found.form))
    (promised,) = struct.unpack(found.form, number)
    behind = size - found.begin
    is_empty = promised <= found.extra
    highest = UNKNOWN_BYTES if len(number) == 4 else 2**62
    if behind <= 0 or not (is_empty or (promised >= highest and promised - found.extra > behind)):
        return file
    if is_empty and _is_chunks(file, found.begin, size, found.form[0]):
        return file
    length = min(behind + found.extra, 256 ** len(number) // (2 if found.form[1].islower() else 1) - 1)
    return Slice(file, 0, size, found.place, struct.pack(found.form, length))


def _in_chunks(name: bytes, first: int, form: str, extra: int = 0, align: int = 2) -> Callable:
    """Make what finds the data chunk among chunks of a name, a length and what it counts.

    Arguments: name of the data chunk; first chunk's place; form of lengths; extra bytes before the samples that the
    length counts; align, a multiple of which each chunk is long.
    """
    width, long = len(name), struct.calcsize(form)
    head = width + long
    of_all = width == 16  # W64's lengths count name and length too

    def find(file: AudioFile) -> _Length | None:
        at = first
        while len(chunk := read_at(file, at, head)) == head:
            (length,) = struct.unpack(form, chunk[width:])
            if chunk[:width] == name:
                return _Length(at + width, form, at + (extra if of_all else head + extra), extra)
            length -= head if of_all else 0
            if length < 0:
                return None
            at += head + -(-length // align) * align
        return None

    return find


_find_in_riff = _in_chunks(b"data", 12, "<I")


def _find_in_rf64(file: AudioFile) -> _Length | None:
    """Find the length of RF64's samples, which stands in the chunk ds64."""
    found = _find_in_riff(file)
    return _Length(28, "<Q", found.begin) if found and read_at(file, 12, 4) == b"ds64" else None


def _find_in_au(file: AudioFile) -> _Length | None:
    head = read_at(file, 0, 24)
    return _Length(8, ">I", struct.unpack_from(">I", head, 4)[0]) if len(head) == 24 else None


W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_FINDERS: dict[bytes, Callable[[AudioFile], _Length | None]] = {
    b"RIFF": _find_in_riff,
    b"RIFX": _in_chunks(b"data", 12, ">I"),
    b"RF64": _find_in_rf64,
    b"FORM": _in_chunks(b"SSND", 12, ">I", extra=8),
    b"caff": _in_chunks(b"data", 8, ">q", extra=4, align=1),
    b"riff": _in_chunks(W64_DATA, 40, "<Q", extra=24, align=8),
    b".snd": _find_in_au,
}


def _is_chunks(file: AudioFile, at: int, end: int, order: str) -> bool:
    """Whether what follows an empty data chunk is further chunks, up to the end, and no samples."""
    while at + 8 <= end:
        chunk = read_at(file, at, 8)
        if not all(32 <= letter < 127 for letter in chunk[:4]):
            return False
        (length,) = struct.unpack(order + "I", chunk[4:])
        at += 8 + length + length % 2
    return end <= at <= end + 1
