"""Streams by WebSocket, with the project's own client and with a plain one."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
from serving import RATE, load, serving

from asr.audio import load_audio
from asr.errors import AsrError

websockets = pytest.importorskip("websockets.sync.client", reason="the extra serve is not installed")

from asr.serve.client import stream, to_pcm16  # noqa: E402


def blocks_of(samples, size=1600):
    return [samples[i : i + size] for i in range(0, len(samples), size)]


def own_words(samples, **options):
    """The words of a stream in this process; samples as 16-bit integers hold them."""
    local = load("an4").stream(**options)
    rounded = np.frombuffer(to_pcm16(samples), "<i2") / np.float32(32768)
    return [(word.word, word.start, word.end) for word in local.feed(rounded) + local.finish()]


def words_of(blocks, service, **options):
    return [(word.word, word.start, word.end) for word in stream(blocks, service.url, **options)]


def test_words_are_those_of_a_stream_and_of_the_file(service, spoken):
    samples = load_audio(spoken[0])
    words = words_of(blocks_of(samples), service)
    assert words == own_words(samples)
    assert " ".join(word for word, _, _ in words) == load("an4").transcribe(spoken[0]).text


def test_words_come_while_the_audio_does(service, spoken):
    samples = np.concatenate([load_audio(spoken[0]), np.zeros(5 * RATE, np.float32)])
    sent, came = [0], []

    def slowly():
        for block in blocks_of(samples, 8000):
            yield block
            sent[0] += len(block)
            if sent[0] == 8000 * (len(samples) // 8000):  # before the last block: the words are there
                import time

                until = time.monotonic() + 20
                while not came and time.monotonic() < until:
                    time.sleep(0.01)

    for _ in stream(slowly(), service.url):
        came.append(sent[0])
    assert came[0] < len(samples)


def test_other_rates_are_resampled(service, spoken):
    import soxr

    samples = load_audio(spoken[0])
    high = soxr.resample(samples, RATE, 48000)
    text = [word for word, _, _ in words_of(blocks_of(high, 4800), service, rate=48000)]
    assert text == [word for word, _, _ in own_words(samples)]


@pytest.mark.parametrize("cut", [100, 4001])
def test_opus_in_ogg_cut_anywhere(service, spoken, tmp_path, cut):
    samples = load_audio(spoken[0])
    soundfile.write(tmp_path / "speech.ogg", samples, RATE, format="OGG", subtype="OPUS")
    content = (tmp_path / "speech.ogg").read_bytes()
    pieces = [content[i : i + cut] for i in range(0, len(content), cut)]
    decoded = own_words(load_audio(tmp_path / "speech.ogg"))
    assert words_of(pieces, service, form="ogg") == decoded
    assert len(decoded) > 2


def packets_of(content):
    """Return the packets of an Ogg Opus file, without its two heads."""
    packets, at, open_packet = [], 0, b""
    while at < len(content):
        count = content[at + 26]
        sizes = content[at + 27 : at + 27 + count]
        at += 27 + count
        for size in sizes:
            open_packet += content[at : at + size]
            at += size
            if size < 255:
                packets.append(open_packet)
                open_packet = b""
    return packets[2:]


def test_opus_packets(service, spoken, tmp_path):
    samples = load_audio(spoken[0])
    soundfile.write(tmp_path / "speech.ogg", samples, RATE, format="OGG", subtype="OPUS")
    packets = packets_of((tmp_path / "speech.ogg").read_bytes())
    assert len(packets) == pytest.approx(len(samples) / 320, abs=3)  # of 20 ms
    words = words_of(packets, service, form="opus")
    assert [word for word, _, _ in words] == [
        word for word, _, _ in own_words(load_audio(tmp_path / "speech.ogg"))
    ]


def test_streams_at_once_share_the_engine(service, spoken):
    audio = [load_audio(path) for path in spoken[:6]]
    with ThreadPoolExecutor(6) as callers:
        found = list(callers.map(lambda samples: words_of(blocks_of(samples), service), audio))
    assert found == [own_words(samples) for samples in audio]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"form": "mp3"}, "format is 'mp3'; expected pcm16, f32, opus, ogg"),
        ({"rate": 10}, "rate is '10'; expected a number from 4000"),
        ({"chunk": "x"}, "chunk is 'x'; expected a number"),
        ({"model": "an5"}, "no model 'an5' .did you mean 'an4'"),
    ],
)
def test_refused_before_it_begins(service, options, reason):
    with pytest.raises(AsrError, match=reason):
        list(stream([], service.url, **options))


@pytest.mark.parametrize(
    ("form", "message", "reason"),
    [
        ("opus", b"\x03", "no Opus packet"),
        ("ogg", b"no ogg at all" * 1000, "expected Opus"),
        ("f32", np.full(10, 1e9, "<f4").tobytes(), "far outside"),
        ("pcm16", b"\0", "in the middle of a sample"),
        ("pcm16", "no json", "no JSON object"),
        ("pcm16", "[" * 100000, "no JSON object"),
        ("pcm16", '{"type": "pause"}', "not known"),
    ],
)
def test_what_is_no_audio_ends_the_stream(service, form, message, reason):
    address = f"ws://127.0.0.1:{service.port}/v1/stream?format={form}"
    with websockets.connect(address) as caller:
        assert json.loads(caller.recv())["type"] == "ready"
        caller.send(message)
        caller.send('{"type": "finish"}')
        answer = json.loads(caller.recv())
        assert answer["type"] == "error"
        assert reason in answer["message"]


def test_bounds_of_streams(spoken):
    samples = np.zeros(RATE, np.float32)
    with serving(token="sesame", max_streams=1, max_seconds=3, idle_seconds=1.0) as running:
        address = f"ws://127.0.0.1:{running.port}/v1/stream"
        with pytest.raises(AsrError, match="token is missing"):
            list(stream([samples], running.url, token="sesam"))
        with websockets.connect(address) as first:
            first.send('{"token": "sesame"}')  # as a browser does, which cannot set headers
            assert json.loads(first.recv())["type"] == "ready"
            with pytest.raises(AsrError, match="1 streams are open"):
                list(stream([samples], running.url, token="sesame"))
            assert "nothing arrived within 1 s" in json.loads(first.recv())["message"]
        with pytest.raises(AsrError, match="longer than 3 s"):
            list(stream([samples] * 4, running.url, token="sesame"))
        evil = {"Origin": "https://evil.example"}
        with pytest.raises(Exception, match="403"), websockets.connect(address, additional_headers=evil):
            pass
