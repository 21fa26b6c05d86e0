"""Streams: samples come by WebSocket, words go back as they are settled.

A caller connects to `/v1/stream?rate=16000&format=pcm16&model=NAME` and sends binary messages of audio: `pcm16` or
`f32`, raw samples, little-endian, mono; `opus`, a packet each; `ogg`, Opus in Ogg, cut anywhere. Text messages are
JSON: {"type": "finish"} ends the audio; {"token": "..."} comes first where a token is asked for and no header has it.
The answers are JSON: `ready`, `words` (each with word, start, end, confidence), `done` with the text, `error`.
"""

import asyncio
import json
import logging
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from starlette.datastructures import QueryParams
from starlette.websockets import WebSocket, WebSocketDisconnect

from asr.errors import AsrError
from asr.serve.guard import bearer, is_allowed
from asr.serve.metrics import Metrics
from asr.serve.models import Model, Models
from asr.serve.openai_api import words_of
from asr.serve.request_error import FAILED, RequestError
from asr.serve.settings import Settings
from asr.serve.sound import FORMATS, RATES, OpusSound, RawSound
from asr.streaming import CHUNK_SECONDS, Stream
from asr.transcript import Word

CHUNKS = (0.1, 10.0)  # the shortest and the longest, in seconds
LOOK_AHEADS = (0.0, 10.0)
# Messages of a stream whose times are remembered, to tell how late its words are.
REMEMBERED = 4096
POLICY_VIOLATION = 1008

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Streams:
    """The streams that are open."""

    def __init__(self, models: Models, settings: Settings, metrics: Metrics):
        self.models, self.settings, self.metrics = models, settings, metrics
        self.open = 0
        self._pool = ThreadPoolExecutor(settings.decoders, "asr-streams")
        metrics.gauge("asr_streams_open", "streams that are open", lambda: self.open)

    async def serve(self, websocket: WebSocket) -> None:
        """Recognize a stream from its first message to its last."""
        try:
            query = _Query.of(websocket.query_params)
            if self.open >= self.settings.max_streams:
                raise RequestError(
                    429,
                    f"{self.open} streams are open, the most that there may be; come back later",
                    retry_after=5,
                )
            model = await self.models.get(query.model)
            stream = _stream(model, query)
        except AsrError as error:
            refused = error if isinstance(error, RequestError) else RequestError(400, str(error))
            await websocket.send_denial_response(refused.response())
            return
        self.open += 1
        try:
            await websocket.accept()
            await self._session(websocket, model, stream, query)
        except WebSocketDisconnect:
            pass
        except AsrError as error:
            await _fail(websocket, str(error))
        except Exception:
            logger.exception("a stream failed")
            await _fail(websocket, FAILED)
        finally:
            self.open -= 1

    def close(self) -> None:
        """End what computes."""
        self._pool.shutdown()

    async def _session(self, websocket: WebSocket, model: Model, stream: Stream, query: "_Query") -> None:
        await self._admit(websocket)
        rate = model.recognizer.sample_rate
        await websocket.send_json({"type": "ready", "model": model.name, "format": query.form})
        sound = await query.sound(self.settings, rate)
        clock = _Clock(rate)
        try:
            while (content := await self._receive(websocket)) is not None:
                clock.add(samples := await sound.feed(content))
                if clock.seconds > self.settings.max_seconds:
                    raise RequestError(
                        413, f"the stream is longer than {self.settings.max_seconds:g} s; begin another"
                    )
                await self._send(websocket, await self._compute(stream.feed, samples), clock)
            clock.add(samples := await sound.finish())
            words = await self._compute(stream.feed, samples) + await self._compute(stream.finish)
        finally:
            await sound.close()
        await self._send(websocket, words, clock)
        self.metrics.audio(model.name, clock.seconds)
        await websocket.send_json({"type": "done", "text": stream.text, "duration": round(clock.seconds, 3)})
        await websocket.close()

    async def _compute(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def _admit(self, websocket: WebSocket) -> None:
        """Ask for the token where it is needed and the header has none."""
        token = self.settings.token
        if token is None or is_allowed(bearer(websocket.headers), token):
            return
        first = await self._message(websocket)
        if not isinstance(first, dict) or not is_allowed(str(first.get("token", "")), token):
            raise RequestError(
                401, 'the token is missing or wrong; expected {"token": "..."} as the first message'
            )

    async def _receive(self, websocket: WebSocket) -> bytes | None:
        """Return the next piece of audio; None at its end."""
        while True:
            message = await self._message(websocket)
            if isinstance(message, bytes):
                return message
            if message.get("type") == "finish":
                return None
            if "token" not in message:
                raise RequestError(
                    400, 'a text message is not known; expected {"type": "finish"}, or bytes of audio'
                )

    async def _message(self, websocket: WebSocket) -> Any:
        """Return a message: bytes, or the object of JSON text."""
        try:
            async with asyncio.timeout(self.settings.idle_seconds):
                message = await websocket.receive()
        except TimeoutError:
            raise RequestError(408, f"nothing arrived within {self.settings.idle_seconds:g} s") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        if message.get("bytes") is not None:
            return message["bytes"]
        try:
            values = json.loads(message["text"])
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise RequestError(
                400, 'a text message is no JSON object; expected {"type": "finish"}, or bytes of audio'
            )
        return values

    async def _send(self, websocket: WebSocket, words: list[Word], clock: "_Clock") -> None:
        if words:
            for word in words:
                self.metrics.latency("word", clock.since(word.end))
            await websocket.send_json({"type": "words", "words": words_of(words)})


class _Query:
    """What the address of a stream asks for."""

    def __init__(self, model: str, form: str, rate: int, chunk: float, look_ahead: float | None):
        self.model, self.form, self.rate, self.chunk, self.look_ahead = model, form, rate, chunk, look_ahead

    @classmethod
    def of(cls, given: QueryParams) -> "_Query":
        form = given.get("format", "pcm16")
        if form not in FORMATS:
            raise RequestError(400, f"format is {form[:30]!r}; expected {', '.join(FORMATS)}", "format")
        look_ahead = _number(given, "look_ahead", 0.0, LOOK_AHEADS) if "look_ahead" in given else None
        return cls(
            given.get("model", ""),
            form,
            round(_number(given, "rate", 16000, RATES)),
            _number(given, "chunk", CHUNK_SECONDS, CHUNKS),
            look_ahead,
        )

    async def sound(self, settings: Settings, target: int) -> RawSound | OpusSound:
        """Return what turns messages into samples."""
        if self.form in ("opus", "ogg"):
            return await OpusSound.start(settings, target, self.form == "opus")
        return RawSound(self.form, self.rate, target)


def _number(given: QueryParams, name: str, usual: float, bounds: tuple[float, float]) -> float:
    try:
        value = float(given.get(name, usual))
    except ValueError:
        value = float("nan")
    if not bounds[0] <= value <= bounds[1]:
        raise RequestError(
            400,
            f"{name} is {given[name][:30]!r}; expected a number from {bounds[0]:g} to {bounds[1]:g}",
            name,
        )
    return value


def _stream(model: Model, query: _Query) -> Stream:
    """Begin a stream; it is decoded greedily, whatever decodes files."""
    recognizer = model.recognizer
    return Stream(recognizer.bundle, recognizer.engine.stages(), query.chunk, query.look_ahead)


async def _fail(websocket: WebSocket, message: str) -> None:
    try:
        await websocket.send_json({"type": "error", "message": message})
        await websocket.close(POLICY_VIOLATION)
    except (WebSocketDisconnect, RuntimeError):
        pass


class _Clock:
    """Remembers when the audio up to which second arrived."""

    def __init__(self, rate: int):
        self._rate, self._samples = rate, 0
        self._ends: deque[float] = deque(maxlen=REMEMBERED)
        self._times: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def seconds(self) -> float:
        return self._samples / self._rate

    def add(self, samples: np.ndarray) -> None:
        self._samples += len(samples)
        self._ends.append(self.seconds)
        self._times.append(time.monotonic())

    def since(self, second: float) -> float:
        """Return the seconds that have passed since the audio up to a second arrived."""
        i = min(bisect_left(self._ends, second), len(self._times) - 1)
        return time.monotonic() - self._times[i]
