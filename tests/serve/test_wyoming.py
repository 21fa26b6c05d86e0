"""The wyoming package's own client against the service."""

import asyncio
import json
import socket
import warnings

import numpy as np
import pytest
import soxr
from serving import RATE, load

from asr.audio import load_audio

pytest.importorskip("wyoming", reason="the package wyoming is not installed")

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of audioop, which it imports
    from wyoming.asr import Transcribe, Transcript
    from wyoming.audio import AudioChunk, AudioStart, AudioStop
    from wyoming.client import AsyncTcpClient
    from wyoming.error import Error
    from wyoming.info import Describe, Info
    from wyoming.ping import Ping, Pong


def ask(service, *events):
    """Send events; return the answer to the last of them."""

    async def session():
        async with AsyncTcpClient("127.0.0.1", service.wyoming, read_timeout=60) as client:
            for event in events:
                await client.write_event(event.event())
            return await client.read_event()

    return asyncio.run(session())


def spoken_events(samples, rate, channels=1, name=None):
    values = (np.repeat(samples[:, None], channels, 1) * 32767).astype("<i2")
    form = {"rate": rate, "width": 2, "channels": channels}
    chunks = [AudioChunk(audio=part.tobytes(), **form) for part in np.array_split(values, 7)]
    return [Transcribe(name=name, language="en"), AudioStart(**form), *chunks, AudioStop()]


def test_models_are_described(service):
    (program,) = Info.from_event(ask(service, Describe())).asr
    assert [model.name for model in program.models] == ["an4", "other"]
    assert program.models[0].languages == ["en"]


def test_ping(service):
    assert Pong.from_event(ask(service, Ping(text="there?"))).text == "there?"


@pytest.mark.parametrize(("rate", "channels", "name"), [(RATE, 1, None), (48000, 2, "other")])
def test_a_command_is_transcribed(service, spoken, rate, channels, name):
    samples = load_audio(spoken[0])
    events = spoken_events(soxr.resample(samples, RATE, rate), rate, channels, name)
    answer = Transcript.from_event(ask(service, *events))
    assert answer.text == load("an4").transcribe(samples).text


def test_silence_and_nothing(service):
    form = {"rate": RATE, "width": 2, "channels": 1}
    assert Transcript.from_event(ask(service, AudioStart(**form), AudioStop())).text == ""


def test_errors_are_events(service):
    form = {"rate": 10, "width": 2, "channels": 1}
    assert "expected such as 16000" in Error.from_event(ask(service, AudioStart(**form))).text
    events = spoken_events(np.zeros(RATE, np.float32), RATE, name="an5")
    assert "no model 'an5'" in Error.from_event(ask(service, *events)).text


@pytest.mark.parametrize(
    "content",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"[]\n",
        b"{}\n",
        b'{"type": "ping", "data": 3}\n',
        b'{"type": "audio-chunk", "payload_length": 1000000000000}\n',
        b'{"type": "audio-chunk", "payload_length": -1}\n',
        b'{"type": "ping", "data_length": 2}\n[]',
        b"[" * 60000 + b"\n",
        b"x" * 200000,
    ],
)
def test_what_is_no_event_ends_the_connection(service, content):
    with socket.create_connection(("127.0.0.1", service.wyoming), timeout=20) as caller:
        answer = b""
        try:
            caller.sendall(content)
            caller.shutdown(socket.SHUT_WR)
            while piece := caller.recv(4096):
                answer += piece
        except OSError:  # it ended before all was sent
            assert len(content) > 65536
            return
    head, _, data = answer.partition(b"\n")
    assert json.loads(head)["type"] == "error"
    assert json.loads(data)["text"]
