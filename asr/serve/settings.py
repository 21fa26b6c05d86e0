"""What bounds the service: sizes, times and numbers of callers."""

import os
from dataclasses import dataclass, field

MEGABYTE = 1 << 20


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Settings:
    """Bounds of the service.

    Attributes:
        token: what callers present as `Authorization: Bearer TOKEN`; None lets everyone in.
        origins: pages of other servers that may call, as https://example.com; "*" for all.
        max_bytes: of an upload.
        max_seconds: of audio in a request or a stream.
        max_requests: in progress, beyond which callers are told to come back.
        max_streams: open at a time.
        max_connections: open at a time, idle ones included.
        batch_wait: seconds that a request may wait for others to be computed with it.
        header_seconds: within which a request's headers are sent.
        idle_seconds: in which a sender sends something.
        upload_seconds: within which a request's body is sent.
        request_seconds: within which a request is answered, once it is sent.
        decode_seconds: within which an upload is decoded.
        decoder_bytes: memory of a process that decodes.
        decoders: processes that decode.
        shutdown_seconds: in which requests in progress may finish.
        languages: of the models, which Wyoming's callers choose by.

    >>> Settings().max_requests
    128
    """

    token: str | None = None
    origins: tuple[str, ...] = ()
    max_bytes: int = 256 * MEGABYTE
    max_seconds: float = 4 * 3600.0
    max_requests: int = 128
    max_streams: int = 64
    max_connections: int = 1000
    batch_wait: float = 0.01
    header_seconds: float = 10.0
    idle_seconds: float = 30.0
    upload_seconds: float = 600.0
    request_seconds: float = 1800.0
    decode_seconds: float = 120.0
    decoder_bytes: int = 1024 * MEGABYTE
    decoders: int = field(default_factory=_cores)
    shutdown_seconds: int = 30
    languages: tuple[str, ...] = ("en",)
