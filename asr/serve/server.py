"""The server: HTTP within bounds of time, and an end that lets requests finish."""

import asyncio
import socket
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from asr.errors import AsrError
from asr.serve.settings import Settings

MOST_HEADER_BYTES = 1 << 15
MOST_MESSAGE_BYTES = 1 << 20
# For which what is left of a refused body is read, so that its sender gets to read the answer.
LINGER_SECONDS = 5.0
TOO_SLOW = b"the headers did not arrive in time; send them faster"


def protocol(header_seconds: float) -> type[H11Protocol]:
    """Return uvicorn's protocol with a bound on the time in which headers arrive, and on what follows a refusal."""

    class Bounded(H11Protocol):
        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._received()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._received()
            elif self._waiting is None and self.conn.their_state is h11.IDLE:
                self._wait()

        def handle_websocket_upgrade(self, event: h11.Request) -> None:
            self._received()
            super().handle_websocket_upgrade(event)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.conn.their_state is h11.SEND_BODY:
                self.loop.call_later(LINGER_SECONDS, self.transport.close)

        def _wait(self) -> None:
            self._waiting = self.loop.call_later(header_seconds, self._too_slow)

        def _received(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

        def _too_slow(self) -> None:
            self._waiting = None
            if self.transport.is_closing():
                return
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                head = f"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain\r\ncontent-length: {len(TOO_SLOW)}"
                self.transport.write(head.encode() + b"\r\nconnection: close\r\n\r\n" + TOO_SLOW)
            self.transport.close()

    return Bounded


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 is any that is free. Raises AsrError where that cannot be."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AsrError(
            f"cannot listen at {host} port {port}: {reason}; name another --port or --host"
        ) from error


def make_server(app: Any, settings: Settings) -> uvicorn.Server:
    """Return a server of an ASGI application; its `run` ends at SIGTERM or Ctrl-C, once requests are answered."""
    config = uvicorn.Config(
        app,
        http=protocol(settings.header_seconds),
        ws="websockets-sansio",
        ws_max_size=MOST_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.max_connections,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
    )
    return uvicorn.Server(config)
