"""What callers may not do, and what the service does about it."""

import asyncio
import copy
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from serving import RATE, load, serving

from asr.serve.decoders import Decoders
from asr.serve.request_error import RequestError
from asr.serve.settings import Settings


def post(url, path, headers=None, **data):
    with Path(path).open("rb") as file:
        return httpx.post(
            f"{url}/v1/audio/transcriptions", files={"file": file}, data=data, headers=headers, timeout=60
        )


def test_a_token_is_asked_for(noise):
    with serving(token="sesame") as running:
        refused = post(running.url, noise)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert "Authorization: Bearer TOKEN" in refused.json()["error"]["message"]
        assert post(running.url, noise, {"Authorization": "Bearer sesam"}).status_code == 401
        assert post(running.url, noise, {"Authorization": "Bearer sesame"}).status_code == 200
        assert httpx.get(f"{running.url}/metrics").status_code == 401
        assert httpx.get(f"{running.url}/health").status_code == 200


def test_pages_of_other_servers_may_not_call(noise):
    with serving(origins=("https://example.com",)) as running:
        assert post(running.url, noise, {"Origin": "https://evil.example"}).status_code == 403
        own = post(running.url, noise, {"Origin": running.url})
        assert own.status_code == 200
        assert "access-control-allow-origin" not in own.headers
        friend = {"Origin": "https://example.com"}
        assert post(running.url, noise, friend).headers["access-control-allow-origin"] == friend["Origin"]
        asked = httpx.options(f"{running.url}/v1/audio/transcriptions", headers=friend)
        assert asked.status_code == 204
        assert "authorization" in asked.headers["access-control-allow-headers"]


def test_sizes_and_lengths_are_bounded(tmp_path):
    path = tmp_path / "noise.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(3 * RATE), RATE)
    quiet = tmp_path / "silence.flac"
    soundfile.write(quiet, np.zeros(600 * RATE), RATE)
    assert quiet.stat().st_size < path.stat().st_size  # a bomb: ten minutes in few bytes
    with serving(max_bytes=90_000, max_seconds=5) as running:
        large = post(running.url, path)
        assert large.status_code == 200  # a little larger than the bound of files is within that of forms
        long = post(running.url, quiet)
        assert long.status_code == 400
        assert "longer than 5 s" in long.json()["error"]["message"]
    with serving(max_bytes=1000) as running:
        # The whole form may be a megabyte larger than the file.
        path.write_bytes(b"RIFF" + bytes(2 << 20))
        refused = post(running.url, path)
        assert refused.status_code == 413
        assert "divide it" in refused.json()["error"]["message"]


def test_a_body_without_a_length_is_bounded_too():
    def pieces():
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        for _ in range(64):
            yield bytes(1 << 16)

    with serving(max_bytes=1000) as running:
        answer = httpx.post(
            f"{running.url}/v1/audio/transcriptions",
            content=pieces(),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )
        assert answer.status_code == 413


def test_a_full_queue_says_when_to_come_back(noise):
    ready, release = threading.Event(), threading.Event()

    def loader(folder):
        recognizer = load(folder)

        class Slow(type(recognizer.engine)):
            def log_probs(self, samples, phones=False):
                ready.set()
                release.wait(20)
                return super().log_probs(samples)

        slow = copy.copy(recognizer)
        slow.engine = copy.copy(recognizer.engine)
        slow.engine.__class__ = Slow
        return slow

    with serving(["an4"], loader, max_requests=2) as running, ThreadPoolExecutor(2) as callers:
        first = [callers.submit(post, running.url, noise) for _ in range(2)]
        assert ready.wait(20)
        until = time.monotonic() + 10
        while running.service.requests < 2 and time.monotonic() < until:
            time.sleep(0.01)
        refused = post(running.url, noise)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        release.set()
        assert [caller.result().status_code for caller in first] == [200, 200]


def test_slow_senders_are_let_go():
    with serving(header_seconds=0.5, idle_seconds=0.5) as running:

        def answer(*parts):
            with socket.create_connection(("127.0.0.1", running.port), timeout=10) as caller:
                for part in parts:
                    caller.sendall(part)
                content = b""
                while piece := caller.recv(4096):
                    content += piece
                return content

        assert answer(b"POST /v1/audio/transc").startswith(b"HTTP/1.1 408")
        head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        slow = answer(head + b"Content-Length: 1000\r\nConnection: close\r\n\r\n", b"--b\r\n")
        assert slow.startswith(b"HTTP/1.1 408")
        assert b"send it faster" in slow


def decoded(tmp_path, content: bytes, size: int = 0, **bounds):
    """Decode a file of this content, and of so many zeros that take no space."""
    upload = tmp_path / "upload"
    upload.write_bytes(content)
    os.truncate(upload, len(content) + size)

    async def decode():
        decoders = Decoders(Settings(decoders=1, **bounds))
        try:
            return await decoders.decode(upload, tmp_path / "samples", RATE)
        finally:
            await decoders.close()

    return asyncio.run(decode())


def test_a_decoder_that_takes_too_long_is_killed(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "ffmpeg"
    fake.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 100\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(RequestError, match="longer than 3 s to decode"):
        decoded(tmp_path, b"\0\0\0\x18ftypM4A " + bytes(100), decode_seconds=3)
    pid = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()  # what it started ends with it


def test_a_decoder_has_little_memory(tmp_path):
    """A file of 1024 channels asks for 650 MB at once."""
    channels, size = 1024, 400 << 20
    form = struct.pack("<IHHIIHH", 16, 1, channels, RATE, 2 * RATE * channels, 2 * channels, 16)
    content = b"RIFF" + struct.pack("<I", size + 36) + b"WAVEfmt " + form + b"data" + struct.pack("<I", size)
    with pytest.raises(RequestError, match="more memory to decode than it may"):
        decoded(tmp_path, content, size, decoder_bytes=500 << 20)


def test_a_decoder_that_dies_is_replaced(tmp_path, noise, monkeypatch):
    upload = tmp_path / "upload"
    upload.write_bytes(noise.read_bytes())

    async def decode():
        decoders = Decoders(Settings(decoders=1))
        try:
            await decoders.warm_up()
            (child,) = decoders._children
            os.kill(child.pid, signal.SIGSTOP)
            task = asyncio.create_task(decoders.decode(upload, tmp_path / "samples", RATE))
            await asyncio.sleep(0.1)
            os.kill(child.pid, signal.SIGKILL)
            with pytest.raises(RequestError, match="breaks its decoder"):
                await task
            return await decoders.decode(upload, tmp_path / "samples", RATE)
        finally:
            await decoders.close()

    assert asyncio.run(decode()) == RATE // 2


def test_requests_in_progress_finish_at_the_end(spoken):
    """The command itself: SIGTERM while requests are computed; all are answered, and its status is 0."""
    command = [sys.executable, "-m", "asr", "serve", "--model", "an4", "--port", "0", "--threads", "1"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        line = next(line for line in server.stderr if "serving" in line)
        url = line.split(" at ")[1].split("/;")[0]
        with ThreadPoolExecutor(8) as callers:
            post(url, spoken[0])
            assert "libtorch" not in Path(f"/proc/{server.pid}/maps").read_text()
            answers = [callers.submit(post, url, path) for path in spoken[:8]]
            until = time.monotonic() + 10
            while (
                "asr_requests_in_progress 0" in httpx.get(f"{url}/metrics").text and time.monotonic() < until
            ):
                time.sleep(0.001)
            time.sleep(0.05)
            server.send_signal(signal.SIGTERM)
            texts = [answer.result().json()["text"] for answer in answers]
        assert texts == [transcript.text for transcript in load("an4").transcribe(spoken[:8])]
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.stderr.close()
        server.wait()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")


def test_a_port_that_is_taken_is_reported(capsys):
    from asr.cli import main

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--model", "an4", "--port", str(taken.getsockname()[1])]) == 1
    assert "cannot listen at 127.0.0.1" in capsys.readouterr().err


def test_a_caller_that_leaves_a_stream_of_words_leaves_nothing_behind(spoken):
    with serving() as running:
        for pause in (0.0, 0.05, 0.3):
            part = b"--b\r\nContent-Disposition: form-data; "
            content = (
                part + b'name="stream"\r\n\r\ntrue\r\n' + part + b'name="file"; filename="a.wav"\r\n\r\n'
            )
            content += spoken[0].read_bytes() + b"\r\n--b--\r\n"
            head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\n"
            head += b"Content-Type: multipart/form-data; boundary=b\r\n"
            with socket.create_connection(("127.0.0.1", running.port)) as caller:
                caller.sendall(head + b"Content-Length: %d\r\n\r\n" % len(content) + content)
                time.sleep(pause)
        until = time.monotonic() + 20
        while running.service.requests and time.monotonic() < until:
            time.sleep(0.01)
        assert running.service.requests == 0
        assert not list(running.folder.iterdir())


def test_a_caller_that_is_gone_is_not_computed_for(noise):
    with serving() as running:
        content = noise.read_bytes()
        head = (
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            b"Content-Length: 100000\r\n\r\n"
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        )
        with socket.create_connection(("127.0.0.1", running.port)) as caller:
            caller.sendall(head + content[:100])
        until = time.monotonic() + 10
        while (
            running.service.requests or not running.service.metrics._requests
        ) and time.monotonic() < until:
            time.sleep(0.01)
        assert running.service.requests == 0
        assert not list(running.folder.iterdir())
        assert post(running.url, noise).status_code == 200


def test_the_services_own_faults_are_told_in_a_sentence(noise, spoken, caplog):
    from asr.audio import load_audio
    from asr.errors import AsrError
    from asr.serve.client import stream

    def loader(folder):
        recognizer = copy.copy(load(folder))

        class Broken(type(recognizer.engine)):
            def log_probs(self, samples, phones=False):
                raise KeyError("secret")

            def stages(self):
                stages = copy.copy(super().stages())
                stages.recur = None
                return stages

        recognizer.engine = copy.copy(recognizer.engine)
        recognizer.engine.__class__ = Broken
        return recognizer

    with serving(["an4"], loader) as running:
        answer = post(running.url, noise)
        assert answer.status_code == 500
        assert answer.json()["error"]["message"] == "the service failed on this request; its log tells why"
        with pytest.raises(AsrError, match="the service failed on this request"):
            list(stream([load_audio(spoken[0])], running.url))
        assert httpx.get(f"{running.url}/health").status_code == 200
    assert "a batch of 1 requests failed" in caplog.text
    assert "a stream failed" in caplog.text
