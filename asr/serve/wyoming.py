"""The Wyoming protocol, by which Home Assistant speaks to recognizers: lines of JSON, and samples behind them.

An event is a line {"type", "data", "data_length", "payload_length"}, then so many bytes of more data in JSON, then so
many of payload. A caller sends `describe`, or `transcribe`, `audio-start`, `audio-chunk`s and `audio-stop`.
"""

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np

from asr.errors import AsrError
from asr.serve.metrics import Metrics
from asr.serve.models import Model, Models
from asr.serve.request_error import RequestError
from asr.serve.settings import Settings
from asr.serve.sound import RATES, Resampler
from asr.version import __version__

MOST_LINE_BYTES = 1 << 16
MOST_PAYLOAD_BYTES = 1 << 20
# A caller's audio is held in memory: ten minutes at 16 kHz. What is longer is for the other interfaces.
MOST_AUDIO_BYTES = 20 << 20
MOST_CALLERS = 32
FULL_SCALES = {1: ("u1", 128.0), 2: ("<i2", 32768.0), 4: ("<i4", 2.0**31)}
NOTHING = np.zeros(0, np.float32)

Event = tuple[str, dict[str, Any], bytes]


class WyomingServer:
    """Answers Wyoming's callers; the transcripts are those of files."""

    def __init__(self, models: Models, settings: Settings, metrics: Metrics):
        self.models, self.settings, self.metrics = models, settings, metrics
        self.open = 0
        self._server: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        """Answer the callers of a socket that listens."""
        self._server = await asyncio.start_server(self._serve, limit=MOST_LINE_BYTES, sock=listener)

    async def close(self) -> None:
        """End it."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.open >= MOST_CALLERS:
                await _write(writer, "error", {"text": "too many callers; come back later", "code": "busy"})
                return
            self.open += 1
            try:
                await self._session(reader, writer)
            finally:
                self.open -= 1
        except AsrError as error:
            await _write(writer, "error", {"text": str(error), "code": type(error).__name__})
        except (ConnectionError, asyncio.IncompleteReadError):  # the caller is gone
            pass
        finally:
            writer.close()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name, sound = "", None
        while (event := await self._read(reader)) is not None:
            kind, data, payload = event
            if kind == "describe":
                await _write(writer, "info", self._info())
            elif kind == "ping":
                await _write(writer, "pong", data)
            elif kind == "transcribe":
                name = str(data.get("name") or "")
            elif kind == "audio-start":
                sound = _Sound(data)
            elif kind == "audio-chunk":
                sound = sound or _Sound(data)
                sound.add(payload)
            elif kind == "audio-stop" and sound is not None:
                await _write(writer, "transcript", {"text": await self._transcribe(name, sound)})
                sound = None

    async def _transcribe(self, name: str, sound: "_Sound") -> str:
        model: Model = await self.models.get(name)
        rate = model.recognizer.sample_rate
        blocks = list(sound.blocks(rate))
        seconds = sum(map(len, blocks)) / rate
        if not seconds:
            return ""
        transcript = await model.batcher.transcribe(iter(blocks), seconds)
        self.metrics.audio(model.name, seconds)
        return transcript.text

    async def _read(self, reader: asyncio.StreamReader) -> Event | None:
        """Return the next event; None where the caller ends. Raises RequestError for what is none, or too large."""
        try:
            async with asyncio.timeout(self.settings.idle_seconds * 10):
                line = await reader.readline()
            if not line:
                return None
            head = json.loads(line)
            kind, data = head["type"], head.get("data") or {}
            lengths = [int(head.get(name) or 0) for name in ("data_length", "payload_length")]
        except TimeoutError:
            return None
        except (ValueError, KeyError, TypeError, RecursionError):  # readline raises the first for a long line
            raise RequestError(
                400, "what was sent is no event; expected a line of JSON with a type"
            ) from None
        if not all(0 <= length <= MOST_PAYLOAD_BYTES for length in lengths) or not isinstance(data, dict):
            raise RequestError(400, f"an event has {lengths} bytes; expected at most {MOST_PAYLOAD_BYTES}")
        try:
            async with asyncio.timeout(self.settings.idle_seconds):
                more, payload = [await reader.readexactly(length) for length in lengths]
            return str(kind), data | (json.loads(more) if more else {}), payload
        except TimeoutError:
            raise RequestError(408, "the rest of an event does not come; send it faster") from None
        except (ValueError, TypeError, RecursionError):
            raise RequestError(400, "the data of an event is no JSON object") from None

    def _info(self) -> dict[str, Any]:
        attribution = {"name": "asr", "url": ""}
        common = {"attribution": attribution, "installed": True, "version": __version__}
        models = [
            {"name": name, "description": f"{name}, by asr", "languages": list(self.settings.languages)}
            | common
            for name in self.models.folders
        ]
        return {"asr": [{"name": "asr", "description": "CTC speech recognizers", "models": models} | common]}


class _Sound:
    """The samples of a caller."""

    def __init__(self, data: dict[str, Any]):
        try:
            self.rate, self.width, self.channels = (int(data[name]) for name in ("rate", "width", "channels"))
        except (KeyError, TypeError, ValueError):
            raise RequestError(400, "audio begins without its rate, width and channels") from None
        if not (RATES[0] <= self.rate <= RATES[1] and self.width in FULL_SCALES and 1 <= self.channels <= 8):
            raise RequestError(
                400,
                f"audio has rate {self.rate}, width {self.width} and {self.channels} channels; expected such as "
                "16000, 2 and 1",
            )
        self._chunks: list[bytes] = []
        self._bytes = 0

    def add(self, payload: bytes) -> None:
        """Take more samples. Raises RequestError for too many."""
        self._bytes += len(payload)
        if self._bytes > MOST_AUDIO_BYTES:
            raise RequestError(413, f"the audio has more than {MOST_AUDIO_BYTES >> 20} MB; divide it")
        self._chunks.append(payload)

    def blocks(self, target: int) -> Iterator[np.ndarray]:
        """Yield mono samples (time,) float32 at the target rate."""
        kind, scale = FULL_SCALES[self.width]
        frame = self.width * self.channels
        content = b"".join(self._chunks)
        values = np.frombuffer(content[: len(content) - len(content) % frame], kind).astype(np.float32)
        samples = (values - (scale if self.width == 1 else 0.0)) / np.float32(scale)
        resampler = Resampler(self.rate, target)
        samples = samples.reshape(-1, self.channels).mean(axis=1)
        yield np.concatenate([resampler(samples), resampler(NOTHING, last=True)]).clip(-1, 1)


async def _write(writer: asyncio.StreamWriter, kind: str, data: dict[str, Any]) -> None:
    content = json.dumps(data).encode()
    head = {"type": kind, "version": __version__, "data_length": len(content)}
    writer.write(json.dumps(head).encode() + b"\n" + content)
    await writer.drain()
