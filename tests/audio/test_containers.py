"""Headers that do not know how long the audio is, codecs that cannot be sought in, channels that cancel."""

import io
import logging
import struct

import numpy as np
import pytest
import soundfile

from asr.audio import load_audio, read_header, stream_audio
from asr.errors import AudioError

RATE = 16000


def tone(seconds=1.0, rate=RATE, hertz=440.0):
    time = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * hertz * time) * np.hanning(len(time))).astype(np.float32)


def encoded(samples, rate=RATE, **how) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **how)
    return file.getvalue()


# Where each format's header says how long the samples are: (the mark before, bytes behind it, form, the highest).
LENGTHS = {
    "WAV": (b"data", 4, "<I", 2**32 - 1),
    "WAVEX": (b"data", 4, "<I", 2**32 - 1),
    "RF64": (b"ds64", 16, "<Q", 2**64 - 1),
    "W64": (b"data\xf3\xac", 16, "<Q", 2**63 - 1),
    "AIFF": (b"SSND", 4, ">I", 2**32 - 1),
    "AU": (b".snd", 8, ">I", 2**31 - 1),
    "CAF": (b"data", 4, ">q", -1),
}


@pytest.mark.parametrize("form", LENGTHS)
@pytest.mark.parametrize("which", ["nothing", "highest"])
def test_a_length_that_was_never_written_reaches_to_the_end(form, which, tmp_path):
    mark, behind, number, highest = LENGTHS[form]
    content = bytearray(encoded(tone(), format=form, subtype="PCM_16"))
    place = content.index(mark) + behind
    extra = {"AIFF": 8, "W64": 24}.get(form, 0)
    struct.pack_into(number, content, place, extra if which == "nothing" else highest)
    if form == "RF64":
        struct.pack_into(
            "<QQ", content, content.index(b"ds64") + 8, *2 * [0 if which == "nothing" else highest]
        )
    path = tmp_path / "stream"
    path.write_bytes(content)
    for source in (path, bytes(content)):
        np.testing.assert_allclose(load_audio(source), tone(), atol=1e-4)
        np.testing.assert_allclose(
            load_audio(source, offset=0.5, duration=0.25), tone()[8000:12000], atol=1e-4
        )
        assert sum(map(len, stream_audio(source, seconds=0.4))) == RATE
    assert read_header(path) == (1, RATE, RATE)


@pytest.mark.parametrize("riff", [0, 36, 2**32 - 1])
def test_wav_with_chunks_in_front(riff):
    samples = (32767 * tone()).astype("<i2").tobytes()
    head = (
        b"RIFF"
        + struct.pack("<I", riff)
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    )
    note = b"LIST" + struct.pack("<I", 70001) + bytes(70002)
    assert len(load_audio(head + note + b"data" + bytes(4) + samples)) == RATE


def test_audio_of_no_length_is_still_empty():
    empty = encoded(np.zeros(0), format="WAV")
    more = b"LIST" + struct.pack("<I", 6) + b"INFOab" + b"id3 " + struct.pack("<I", 4) + bytes(4)
    for content in (empty, empty + more):
        with pytest.raises(AudioError, match="holds no audio"):
            load_audio(content)


def test_truncated_files_stay_refused():
    for form in ("WAV", "AIFF"):
        content = encoded(tone(), format=form)
        with pytest.raises(AudioError, match="truncated"):
            load_audio(content[:-8000])


UNSEEKABLE = [
    ("WAV", "GSM610"),
    ("AIFF", "GSM610"),
    ("W64", "GSM610"),
    ("WAV", "G721_32"),
    ("AU", "G721_32"),
    ("AU", "G723_24"),
    ("AU", "G723_40"),
    ("WAV", "NMS_ADPCM_16"),
    ("WAV", "NMS_ADPCM_24"),
    ("WAV", "NMS_ADPCM_32"),
    ("AIFF", "DWVW_16"),
    ("AIFF", "DWVW_24"),
    ("WAV", "IMA_ADPCM"),
    ("WAV", "MS_ADPCM"),
    ("AIFF", "IMA_ADPCM"),
    ("CAF", "ALAC_16"),
]


@pytest.mark.parametrize(("form", "codec"), UNSEEKABLE)
@pytest.mark.parametrize("rate", [8000, 16000])
def test_windows_of_codecs_that_cannot_be_sought_in(form, codec, rate):
    content = encoded(tone(2.0), 16000, format=form, subtype=codec)
    whole = load_audio(content, rate)
    assert len(whole) >= 2 * rate
    assert np.abs(whole[: 2 * rate] - tone(2.0, rate)).max() < 0.1
    window = load_audio(content, rate, offset=1.3, duration=0.5)
    np.testing.assert_allclose(window, whole[round(1.3 * rate) : round(1.8 * rate)], atol=2e-4)


@pytest.fixture
def warnings(caplog) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, "asr")
    return caplog


def test_channels_that_cancel_are_not_silence(tmp_path, warnings):
    path = tmp_path / "antiphase.wav"
    soundfile.write(path, np.stack([tone(), -tone()], 1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(path), tone(), atol=1e-6)
    np.testing.assert_allclose(load_audio(path, offset=0.25, duration=0.5), tone()[4000:12000], atol=1e-6)
    np.testing.assert_allclose(np.concatenate(list(stream_audio(path, seconds=0.3))), tone(), atol=1e-6)
    assert [record.getMessage() for record in warnings.records] == [
        f"the channels of {path} cancel each other, as of a miswired cable; channel 0 is read alone"
    ]
    np.testing.assert_allclose(load_audio(path, channels=[1]), -tone(), atol=1e-6)


@pytest.mark.parametrize(
    "channels",
    [
        lambda a, b: [a, -0.95 * a],
        lambda a, b: [0.001 * b, a, -a],
        lambda a, b: [a + 0.01 * b, -a + 0.01 * b],
    ],
)
def test_channels_that_nearly_cancel(channels):
    content = encoded(np.stack(channels(tone(), tone(hertz=700)), 1), format="WAV", subtype="FLOAT")
    assert np.abs(load_audio(content) - tone()).max() < 0.01


@pytest.mark.parametrize(
    "channels",
    [
        lambda a, b: [a, b],
        lambda a, b: [a, 0 * a],
        lambda a, b: [a, -0.5 * a],
        lambda a, b: [0 * a] * 7 + [a],
    ],
)
def test_other_channels_are_averaged(channels, warnings):
    stacked = np.stack(channels(tone(), tone(hertz=700)), 1)
    content = encoded(stacked, format="WAV", subtype="FLOAT")
    np.testing.assert_allclose(load_audio(content), stacked.mean(1), atol=1e-6)
    assert not warnings.records


def test_one_channel_or_some_of_them():
    stacked = np.stack([tone(hertz=hertz) for hertz in (300, 500, 900)], 1)
    content = encoded(stacked, format="WAV", subtype="FLOAT")
    np.testing.assert_allclose(load_audio(content, channels=[1]), stacked[:, 1], atol=1e-6)
    np.testing.assert_allclose(load_audio(content, channels=[0, 2]), stacked[:, [0, 2]].mean(1), atol=1e-6)
    blocks = stream_audio(content, seconds=0.3, channels=[2])
    np.testing.assert_allclose(np.concatenate(list(blocks)), stacked[:, 2], atol=1e-6)
    with pytest.raises(AudioError, match="has 3 channels; expected at least 4, to read number 4"):
        load_audio(content, channels=[3])
