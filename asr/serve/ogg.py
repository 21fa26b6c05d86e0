"""Opus packets in Ogg pages (RFC 3533 and RFC 7845), as libsndfile reads them."""

import struct

RATE = 48000  # of Opus, whatever was recorded
SERIAL = 1
IS_FIRST = 2
# Of an Ogg page: 255 segments of at most 255 bytes.
MOST_PACKET_BYTES = 255 * 255 - 1
POLYNOMIAL = 0x04C11DB7
# Milliseconds of a frame by the packet's first byte (RFC 6716, 3.1).
FRAME_MS = [*(10, 20, 40, 60) * 3, *(10, 20) * 2, *(2.5, 5, 10, 20) * 4]


def _table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1) ^ (POLYNOMIAL if value & 0x80000000 else 0)
        table.append(value & 0xFFFFFFFF)
    return table


TABLE = _table()


def checksum(page: bytes) -> int:
    """Return a page's checksum; where it stands in the page, there are zeros."""
    value = 0
    for byte in page:
        value = ((value << 8) & 0xFFFFFFFF) ^ TABLE[(value >> 24) ^ byte]
    return value


class OggWriter:
    """Writes packets as an Ogg stream, a page each.

    >>> OggWriter(channels=1).head()[:4]
    b'OggS'
    """

    def __init__(self, channels: int):
        self.channels, self._pages, self._samples = channels, 0, 0

    def head(self) -> bytes:
        """Return the pages that begin the stream."""
        identification = b"OpusHead" + struct.pack("<BBHIHB", 1, self.channels, 0, RATE, 0, 0)
        comments = b"OpusTags" + struct.pack("<I", 3) + b"asr" + struct.pack("<I", 0)
        return self._page(identification, IS_FIRST) + self._page(comments)

    def packet(self, packet: bytes) -> bytes:
        """Return the page of a packet. Raises ValueError for what is none."""
        if not 0 < len(packet) <= MOST_PACKET_BYTES:
            raise ValueError(f"a packet of {len(packet)} bytes")
        self._samples += duration(packet)
        return self._page(packet)

    def _page(self, content: bytes, flags: int = 0) -> bytes:
        full, rest = divmod(len(content), 255)
        segments = bytes([255] * full + [rest])
        head = struct.pack(
            "<4sBBqIIIB", b"OggS", 0, flags, self._samples, SERIAL, self._pages, 0, len(segments)
        )
        page = head + segments + content
        self._pages += 1
        return page[:22] + struct.pack("<I", checksum(page)) + page[26:]


def duration(packet: bytes) -> int:
    """Return how many samples at 48 kHz a packet holds (RFC 6716, 3.2). Raises ValueError for what is none."""
    code = packet[0] & 3
    if code == 3 and len(packet) < 2:
        raise ValueError("a packet without its number of frames")
    frames = 1 if code == 0 else 2 if code < 3 else packet[1] & 63
    return round(frames * FRAME_MS[packet[0] >> 3] * RATE / 1000)
