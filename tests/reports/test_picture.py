import base64
import io
import struct
import xml.etree.ElementTree as ElementTree
import zlib

import numpy as np
import pytest
import soundfile

from asr.reports.picture import audio_uri, picture

RATE = 16000
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def tone():
    time = np.arange(2 * RATE) / RATE
    return (0.3 * np.sin(2 * np.pi * 440 * time) * (time % 1 < 0.5)).astype(np.float32)


@pytest.mark.parametrize("rate", [16000, 11025])
def test_audio_is_ogg_opus_of_the_same_length(tone, rate):
    head, packed = audio_uri(tone, rate).split(",")
    assert head == "data:audio/ogg;base64"
    data = base64.b64decode(packed)
    info = soundfile.info(io.BytesIO(data))
    assert (info.format, info.subtype) == ("OGG", "OPUS")
    assert info.duration == pytest.approx(len(tone) / rate, abs=0.01)
    assert len(data) < 8000 * info.duration


def drawn(features, posteriors, tokens, words, seconds):
    text = picture(features, posteriors, tokens, words, seconds)
    return ElementTree.fromstring(text.replace("<svg ", f'<svg xmlns="{SVG[1:-1]}" ', 1))


def test_picture_holds_words_peaks_and_spectrogram():
    features = np.zeros((100, 20), np.float32)
    features[40:60, :5] = 8.0  # loud and low
    posteriors = np.full((25, 3), 0.01)
    posteriors[:, 0] = 0.98
    posteriors[10] = (0.1, 0.6, 0.3)
    svg = drawn(features, posteriors, ["<blank>", "<b>", "c"], [("<b>", 0.4, 0.5)], 1.0)
    texts = {element.get("class"): element.text for element in svg.iter(f"{SVG}text")}
    assert texts == {"word": "<b>", "sure": "<b>", "rival": "c", "time": "1 s"}
    assert svg.find(f"{SVG}title").text == "Words recognized: <b> 0.40 to 0.50 s"
    image = base64.b64decode(svg.find(f"{SVG}image").get("href").split(",")[1])
    assert image.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", image[16:24])
    assert (width, height) == (50, 20)
    size = struct.unpack(">I", image[33:37])[0]
    rows = zlib.decompress(image[41 : 41 + size])
    pixels = np.frombuffer(rows, np.uint8).reshape(height, width + 1)[:, 1:]
    assert pixels[-1, 25] == 0  # low frequencies below, loud is dark
    assert pixels[0, 25] == pixels[-1, 0] > 200


@pytest.mark.parametrize("frames", [0, 1])
def test_picture_of_hardly_anything(frames):
    svg = drawn(np.zeros((frames, 20)), np.ones((frames, 3)), ["<blank>", "a", "b"], [], 0.01)
    assert svg.find(f"{SVG}title").text == "Words recognized: none"
