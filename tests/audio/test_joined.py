"""Streams of audio behind each other in one file: all of them are read, wherever reading begins."""

import io
import shutil
import struct

import numpy as np
import pytest
import soundfile

from asr.audio import load_audio, read_header, stream_audio
from asr.audio.joined import stream_bounds
from asr.errors import AudioError

RATE = 16000


def tone(seconds=1.0, rate=RATE, hertz=440.0):
    time = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * hertz * time) * np.hanning(len(time))).astype(np.float32)


def encoded(samples, rate=RATE, **how) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **how)
    return file.getvalue()


def id3(size: int) -> bytes:
    """An ID3v2 tag of so many bytes."""
    return b"ID3\x04\x00\x00" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(size)


def checksum(page: bytes) -> int:
    """Ogg's CRC-32 of a page whose own is 0."""
    total = 0
    for byte in page:
        total ^= byte << 24
        for _ in range(8):
            total = (total << 1 ^ (0x04C11DB7 if total & 0x80000000 else 0)) & 0xFFFFFFFF
    return total


def ogg_flac(samples) -> bytes:
    """FLAC in Ogg, of less than a block: its three packets on a page each (https://xiph.org/flac/ogg_mapping.html)."""
    native = encoded(samples, format="FLAC")
    assert len(samples) < 4096
    blocks, at, last = [], 4, False
    while not last:
        last = bool(native[at] & 0x80)
        length = 4 + int.from_bytes(native[at + 1 : at + 4])
        blocks.append(native[at : at + length])
        at += length
    (info, comment), frame = (
        (blocks[0], b"\x84\x00\x00\x28" + struct.pack("<I", 32) + bytes(32) + bytes(4)),
        native[at:],
    )
    first = b"\x7fFLAC\x01\x00" + struct.pack(">H", 1) + b"fLaC" + bytes([info[0] & 0x7F]) + info[1:]
    pages = b""
    for number, (flags, granule, packet) in enumerate(
        [(2, 0, first), (0, 0, comment), (4, len(samples), frame)]
    ):
        sizes = bytes([255] * (len(packet) // 255) + [len(packet) % 255])
        head = b"OggS\x00" + bytes([flags]) + struct.pack("<qII", granule, 77, number)
        page = bytearray(head + bytes(4) + bytes([len(sizes)]) + sizes + packet)
        page[22:26] = struct.pack("<I", checksum(bytes(page)))
        pages += page
    return pages


KINDS = {
    "vorbis": ({"format": "OGG", "subtype": "VORBIS"}, 0.02),
    "opus": ({"format": "OGG", "subtype": "OPUS"}, 0.02),
    "flac": ({"format": "FLAC"}, 1e-4),
    "mp3": ({"format": "MP3"}, 0.02),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 3])
def test_all_streams_are_read(kind, count, tmp_path):
    how, tolerance = KINDS[kind]
    parts = [tone(1.0 + 0.2 * number, hertz=300 * (number + 1)) for number in range(count)]
    content = [encoded(part, **how) for part in parts]
    path = tmp_path / f"joined.{kind}"
    path.write_bytes(b"".join(content))
    expected = np.concatenate([load_audio(part) for part in content])
    assert len(expected) == sum(map(len, parts))
    for source in (path, path.read_bytes()):
        np.testing.assert_allclose(load_audio(source), expected, atol=1e-6)
        window = load_audio(source, offset=0.7, duration=0.6)  # over the seam
        assert np.abs(window - expected[11200:20800]).max() < tolerance
        np.testing.assert_allclose(
            np.concatenate(list(stream_audio(source, seconds=0.7))), expected, atol=1e-6
        )
    assert read_header(path) == (1, RATE, len(expected))


def test_where_chained_streams_begin():
    single, vorbis = ogg_flac(tone(0.2)), encoded(tone(), **KINDS["vorbis"][0])
    half, end = len(vorbis), len(vorbis) + len(single)
    assert stream_bounds(io.BytesIO(vorbis + single)) == [(0, half), (half, end)]
    assert stream_bounds(io.BytesIO(vorbis + vorbis)) == [(0, half), (half, 2 * half)]  # of one serial number


@pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="soundfile's libFLAC reads no FLAC in Ogg; ffmpeg does"
)
def test_flac_in_ogg():
    single, vorbis = ogg_flac(tone(0.2)), encoded(tone(), **KINDS["vorbis"][0])
    assert len(load_audio(single)) == 3200
    assert len(load_audio(single + single)) == 6400
    assert len(load_audio(vorbis + single)) == 19200


@pytest.mark.parametrize("kind", ["vorbis", "flac", "mp3"])
def test_another_rate_and_other_channels(kind):
    how, tolerance = KINDS[kind]
    stereo = np.stack([tone(hertz=500), 0.5 * tone(hertz=500)], 1)
    joined = (
        encoded(stereo, **how)
        + encoded(tone(rate=8000), 8000, **how)
        + encoded(tone(rate=44100), 44100, **how)
    )
    samples = load_audio(joined)
    assert len(samples) == 48000
    np.testing.assert_allclose(
        samples[16000:32000], load_audio(encoded(tone(rate=8000), 8000, **how)), atol=tolerance
    )
    np.testing.assert_allclose(
        samples[32000:], load_audio(encoded(tone(rate=44100), 44100, **how)), atol=tolerance
    )
    np.testing.assert_allclose(
        load_audio(joined, channels=[0])[2000:14000], tone(hertz=500)[2000:14000], atol=0.02
    )


@pytest.mark.parametrize("tags", [b"", id3(100), id3(100) + id3(5000), b"TAG" + bytes(125) + id3(300)])
def test_mp3_behind_tags(tags):
    first, second = encoded(tone(), format="MP3"), encoded(tone(1.5), format="MP3")
    assert len(load_audio(id3(40) + first + tags + second)) == 40000


def test_mp3_of_which_the_second_has_no_xing_header():
    first, second = encoded(tone(), format="MP3"), encoded(tone(1.5), format="MP3")
    at = second.index(b"Xing") if b"Xing" in second else second.index(b"Info")
    bare = second[:at] + b"\0\0\0\0" + second[at + 4 :]
    assert len(load_audio(first + bare)) == pytest.approx(40000, abs=2500)


def test_tags_and_rubbish_behind_an_mp3_are_no_stream():
    content = encoded(tone(), format="MP3")
    for rubbish in (b"TAG" + bytes(125), b"APETAGEX" + bytes(500), bytes(3000), b"\xff\xfb\x90\x64" * 400):
        assert len(load_audio(content + rubbish)) == 16000


def test_what_only_looks_like_a_second_stream():
    flac = encoded(tone(), format="FLAC")
    assert len(load_audio(flac + b"fLaC")) == 16000


@pytest.mark.parametrize("kind", ["vorbis", "opus"])
def test_a_second_stream_cut_short_is_refused(kind):
    how, _ = KINDS[kind]
    content = encoded(tone(), **how)
    with pytest.raises(AudioError, match="truncated"):
        load_audio(content + content[:-100])
