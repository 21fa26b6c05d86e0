"""What a stream sends, raw samples or Opus, becomes samples at the model's rate."""

import asyncio
from asyncio.subprocess import Process

import numpy as np

from asr.serve.decoders import end_child, start_child
from asr.serve.ogg import OggWriter
from asr.serve.request_error import RequestError
from asr.serve.settings import Settings

RATES = (4000, 384000)  # the lowest and the highest, in Hz
TYPES = {"pcm16": ("<i2", 32768.0), "f32": ("<f4", 1.0)}
FORMATS = (*TYPES, "opus", "ogg")
# In which a decoder takes what it is sent, or ends.
DECODER_SECONDS = 20.0
NOTHING = np.zeros(0, np.float32)


class Resampler:
    """Brings samples (time,) in pieces from one rate to another."""

    def __init__(self, rate: int, target: int):
        self._stream = None
        if rate != target:
            import soxr

            self._stream = soxr.ResampleStream(rate, target, 1, dtype="float32")

    def __call__(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        """Return what follows; all that is left with the `last` piece."""
        return samples if self._stream is None else self._stream.resample_chunk(samples, last=last)


class RawSound:
    """Raw samples, mono, little-endian: signed 16-bit integers or floats."""

    def __init__(self, form: str, rate: int, target: int):
        self._type, self._scale = TYPES[form]
        self._resampler, self._rest = Resampler(rate, target), b""

    async def feed(self, content: bytes) -> np.ndarray:
        """Return the samples of more bytes. Raises RequestError for numbers that are no samples."""
        content = self._rest + content
        whole = len(content) - len(content) % np.dtype(self._type).itemsize
        self._rest = content[whole:]
        samples = np.frombuffer(content[:whole], self._type).astype(np.float32) / np.float32(self._scale)
        if not np.isfinite(samples).all() or (len(samples) and np.abs(samples).max() > 4):
            raise RequestError(400, "the stream has samples far outside [-1, 1], or NaN; expected audio")
        return self._resampler(samples).clip(-1, 1)

    async def finish(self) -> np.ndarray:
        """Return what is left. Raises RequestError where the stream ends inside of a sample."""
        if self._rest:
            raise RequestError(400, "the stream ends in the middle of a sample")
        return self._resampler(NOTHING, last=True)

    async def close(self) -> None:
        """Do nothing: there is nothing to end."""


class OpusSound:
    """Opus in Ogg, cut anywhere, or a packet a message; decoded in a process of its own, within bounds."""

    def __init__(self, child: Process, target: int, packets: bool):
        self._child, self._target = child, target
        self._writer = OggWriter(channels=1) if packets else None
        self._resampler: Resampler | None = None
        self._decoded: list[bytes] = []
        self._begun = False
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, settings: Settings, target: int, packets: bool) -> "OpusSound":
        """Start the decoder."""
        return cls(await start_child(settings, "--stream"), target, packets)

    async def feed(self, content: bytes) -> np.ndarray:
        """Return the samples that are decoded by now. Raises RequestError for what is no Opus."""
        if self._writer is not None:
            try:
                page = self._writer.packet(content)
            except (ValueError, IndexError):
                raise RequestError(400, "a message is no Opus packet; expected one packet in each") from None
            content = page if self._begun else self._writer.head() + page
        self._begun = True
        assert self._child.stdin is not None
        try:
            async with asyncio.timeout(DECODER_SECONDS):
                self._child.stdin.write(content)
                await self._child.stdin.drain()
        except (TimeoutError, ConnectionError):
            raise RequestError(400, "the stream cannot be decoded; expected Opus") from None
        return self._taken()

    async def finish(self) -> np.ndarray:
        """Return what is left. Raises RequestError for what is no Opus."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            async with asyncio.timeout(DECODER_SECONDS):
                await self._reading
                await self._child.wait()
        except TimeoutError:
            raise RequestError(400, "the stream takes too long to decode; expected Opus") from None
        if self._begun and (self._child.returncode or self._resampler is None):
            raise RequestError(400, "the stream cannot be decoded; expected Opus")
        return self._taken(last=True)

    async def close(self) -> None:
        """End the decoder."""
        self._reading.cancel()
        await end_child(self._child)

    async def _read(self) -> None:
        assert self._child.stdout is not None
        if rate := await self._child.stdout.readline():
            self._resampler = Resampler(int(rate), self._target)
            while content := await self._child.stdout.read(1 << 16):
                self._decoded.append(content)

    def _taken(self, last: bool = False) -> np.ndarray:
        if self._resampler is None:
            return NOTHING
        content = b"".join(self._decoded)
        whole = len(content) - len(content) % 4
        self._decoded[:] = [content[whole:]]
        return self._resampler(np.frombuffer(content[:whole], np.float32), last).clip(-1, 1)
