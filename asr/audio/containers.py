"""What libsndfile overlooks in a container: lengths that are not in the header, and files that are cut short."""

import io
import math
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from asr.errors import AudioError

if TYPE_CHECKING:
    import soundfile

UNKNOWN_BYTES = 0x7FFFF000  # sizes from here on are what sox and ffmpeg write into headers of streams


def is_mp3_of_unknown_length(file: io.FileIO | io.BytesIO) -> bool:
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


def refuse_incomplete_container(file: io.FileIO | io.BytesIO, name: str) -> None:
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


def refuse_short_data(sound: "soundfile.SoundFile", name: str) -> None:
    """Refuse uncompressed audio of which the header promises more than there is.

    libsndfile reads what is there and mentions the difference only in its log.
    """
    size = r"^\s*(?:data|Data Size|SSND|riff|Riff size)\s*: (\d+) \(should be (\d+)\)"
    found = re.search(size, sound.extra_info, re.MULTILINE)
    if found and int(found[2]) < int(found[1]) < UNKNOWN_BYTES:
        raise AudioError(f"{name} is truncated: its header promises {found[1]} bytes, {found[2]} are there")
