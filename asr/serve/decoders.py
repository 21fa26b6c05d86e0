"""Uploads become samples, in processes of their own: a file that breaks its decoder breaks nothing else."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import asr
from asr.serve.request_error import RequestError
from asr.serve.settings import Settings

# Of samples that are read back at a time, for windows to be cut from.
BLOCK_SECONDS = 20.0
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


async def start_child(settings: Settings, *arguments: str) -> Process:
    """Start the program that decodes; it knows nothing of this process's secrets."""
    root = str(Path(asr.__file__).parents[1])
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = kept | dict.fromkeys(ONE_THREAD, "1") | {"PYTHONPATH": path}
    program = [sys.executable, "-P", "-m", "asr.serve.decode_child", str(settings.decoder_bytes)]
    # A group of its own, which ends as a whole: ffmpeg is a child of it.
    return await asyncio.create_subprocess_exec(
        *program, *arguments, stdin=PIPE, stdout=PIPE, env=environment, start_new_session=True
    )


async def end_child(child: Process) -> None:
    """Kill a child and what it started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    await child.wait()


class Decoders:
    """A few processes that decode files, each one file at a time."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self._free: asyncio.Queue[Process | None] = asyncio.Queue()
        for _ in range(settings.decoders):
            self._free.put_nowait(None)
        self._children: set[Process] = set()

    async def decode(self, upload: Path, output: Path, sample_rate: int) -> int:
        """Write the samples of an upload into `output` as mono float32; return how many.

        Raises RequestError for what is no audio, is longer than it may be, or takes too long to decode.
        """
        child = await self._free.get()
        try:
            if child is None or child.returncode is not None:
                child = await self._start()
            answer = await self._ask(child, upload, output, sample_rate)
        except BaseException:
            # Cancelled, or too slow: what it does now belongs to nobody.
            if child is not None:
                self._children.discard(child)
                await end_child(child)
            child = None
            raise
        finally:
            self._free.put_nowait(child)
        if "error" in answer:
            raise RequestError(400, answer["error"], "file")
        return answer["samples"]

    async def warm_up(self) -> None:
        """Start one process before it is needed."""
        self._free.put_nowait(await self._start() if await self._free.get() is None else None)

    async def close(self) -> None:
        """End all processes."""
        for child in list(self._children):
            await end_child(child)
        self._children.clear()

    async def _start(self) -> Process:
        child = await start_child(self.settings)
        self._children.add(child)
        return child

    async def _ask(self, child: Process, upload: Path, output: Path, sample_rate: int) -> dict[str, Any]:
        assert child.stdin is not None
        assert child.stdout is not None
        seconds = self.settings.decode_seconds
        job = {
            "path": str(upload),
            "output": str(output),
            "rate": sample_rate,
            "max_seconds": self.settings.max_seconds,
            "seconds": seconds,
        }
        try:
            async with asyncio.timeout(seconds):
                child.stdin.write(json.dumps(job).encode() + b"\n")
                await child.stdin.drain()
                line = await child.stdout.readline()
        except TimeoutError:
            raise RequestError(
                400,
                f"the uploaded file takes longer than {seconds:g} s to decode; expected ordinary audio",
                "file",
            ) from None
        except (BrokenPipeError, ConnectionResetError):
            line = b""
        if not line:
            raise RequestError(400, "the uploaded file breaks its decoder; expected ordinary audio", "file")
        return json.loads(line)


def blocks_of(path: Path, sample_rate: int) -> Iterator[np.ndarray]:
    """Read samples (time,) float32 of a decoded file, block by block."""
    with path.open("rb") as file:
        while len(content := file.read(round(BLOCK_SECONDS * sample_rate) * 4)):
            yield np.frombuffer(content, np.float32)
