"""Bodies of requests: read within bounds of size and time, and kept on the disk until they are answered."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from asr.serve.decoders import Decoders
from asr.serve.request_error import RequestError
from asr.serve.settings import MEGABYTE, Settings

MOST_FIELDS = 64
MOST_FIELD_BYTES = 1 << 16
# Bytes a second, in the mean, of a sender who is waited for.
LEAST_PACE = 2000.0
# Beside the file, what a form may hold.
FORM_BYTES = MEGABYTE


@dataclass(frozen=True)
class Recording:
    """An upload's samples, mono float32, in a file; and how long they are in seconds."""

    path: Path
    seconds: float


class Uploads:
    """Where uploads and their samples lie: a folder that is removed with the service."""

    def __init__(self, settings: Settings, decoders: Decoders):
        self.settings, self.decoders = settings, decoders
        self._folder = tempfile.TemporaryDirectory(prefix="asr-serve-", ignore_cleanup_errors=True)

    @asynccontextmanager
    async def recording(self, file: UploadFile, sample_rate: int) -> AsyncIterator[Recording]:
        """Decode an upload; its samples are there until the block ends. Raises RequestError for what is no audio."""
        with tempfile.TemporaryDirectory(dir=self._folder.name) as folder:
            upload, samples = Path(folder, "upload"), Path(folder, "samples")
            with upload.open("wb") as copy:
                await asyncio.to_thread(shutil.copyfileobj, file.file, copy, MEGABYTE)
            await file.close()
            count = await self.decoders.decode(upload, samples, sample_rate)
            upload.unlink()
            yield Recording(samples, count / sample_rate)

    def close(self) -> None:
        """Remove all of it."""
        self._folder.cleanup()


async def read_form(request: Request, settings: Settings) -> FormData:
    """Read a form with a file. Raises RequestError for one that is too large, too slow, or none."""
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data":
        raise RequestError(
            415,
            f"the body has the type {kind[:60]!r}; expected multipart/form-data with the audio as its field `file`",
        )
    length = request.headers.get("content-length", "")
    most = settings.max_bytes + FORM_BYTES
    if length.isdecimal() and int(length) > most:
        raise _too_large(settings)
    parser = _Parser(
        request.headers,
        _bounded(request, settings, most),  # type: ignore[arg-type]
        max_files=1,
        max_fields=MOST_FIELDS,
        max_part_size=MOST_FIELD_BYTES,
    )
    try:
        async with asyncio.timeout(settings.upload_seconds):
            form = await parser.parse()
    except MultiPartException as error:
        raise RequestError(
            400, f"the form cannot be read: {error.message.rstrip('.')}; expected one file"
        ) from error
    except (UnicodeDecodeError, ValueError) as error:
        raise RequestError(400, f"the form cannot be read: {error}") from error
    except ClientDisconnect:
        raise RequestError(400, "the connection ended before the body did") from None
    except TimeoutError:
        raise RequestError(
            408, f"the body did not arrive within {settings.upload_seconds:g} s; send it faster"
        ) from None

    if not parser.is_whole:
        parser.close()
        raise RequestError(400, "the form is cut short: its last boundary is missing")
    return form


class _Parser(MultiPartParser):
    """Starlette's parser, which takes what is cut short for whole.

    Attributes:
        is_whole: whether the form's last boundary came.
    """

    is_whole = False

    def on_end(self) -> None:
        super().on_end()
        self.is_whole = True

    def close(self) -> None:
        """Close the files of a form that is not used."""
        for file in self._files_to_close_on_error:
            file.close()


async def _bounded(request: Request, settings: Settings, most: int) -> AsyncIterator[bytes]:
    """Yield the pieces of a body. Raises RequestError where there are too many bytes, or none for too long."""
    count, began = 0, time.monotonic()
    pieces = request.stream()
    while True:
        # Whoever trickles keeps others out for as long as what came is worth.
        left = began + settings.idle_seconds + count / LEAST_PACE - time.monotonic()
        try:
            async with asyncio.timeout(min(settings.idle_seconds, left)):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise RequestError(
                408, f"too little of the body arrived within {settings.idle_seconds:g} s; send it faster"
            ) from None
        if piece is None:
            return
        count += len(piece)
        if count > most:
            raise _too_large(settings)
        yield piece


def _too_large(settings: Settings) -> RequestError:
    return RequestError(
        413,
        f"the upload is larger than {settings.max_bytes / MEGABYTE:g} MB, the most that is taken; divide it",
        "file",
    )
