"""A client of streams; files are for OpenAI's client or curl."""

import json
import threading
from collections.abc import Iterable, Iterator
from urllib.parse import urlencode, urlsplit

import numpy as np

from asr.errors import AsrError
from asr.transcript import Word

MOST_MESSAGE_BYTES = 1 << 19


def stream(
    blocks: Iterable[np.ndarray | bytes],
    url: str = "http://127.0.0.1:8000",
    *,
    rate: int = 16000,
    form: str = "pcm16",
    token: str | None = None,
    **options: str | float,
) -> Iterator[Word]:
    """Send audio to a service as it comes, and yield the words as they are settled.

    Arguments:
        blocks: samples (time,) float in [-1, 1] at `rate` in Hz, as a microphone gives them; or bytes in the format
            `form`: pcm16, f32, opus (a packet each) or ogg.
        url: of the service.
        token: that it asks for.
        options: model, chunk and look_ahead, as `Recognizer.stream` has them.

    Raises AsrError for what the service refuses, OSError where it cannot be reached.
    """
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    parts = urlsplit(url)
    scheme = {"https": "wss", "wss": "wss"}.get(parts.scheme, "ws")
    query = urlencode({"rate": rate, "format": form} | options)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        connection = connect(f"{scheme}://{parts.netloc}/v1/stream?{query}", additional_headers=headers)
    except InvalidStatus as error:
        raise AsrError(f"the service at {url} refuses the stream: {_reason(error.response.body)}") from error
    with connection:
        sender = threading.Thread(target=_send, args=(connection, blocks), daemon=True)
        sender.start()
        for message in connection:
            values = json.loads(message)
            if values["type"] == "error":
                raise AsrError(f"the service at {url} ended the stream: {values['message']}")
            for word in values.get("words", ()):
                yield Word(**word)
        sender.join()


def _send(connection, blocks: Iterable[np.ndarray | bytes]) -> None:
    from websockets.exceptions import ConnectionClosed

    try:
        for block in blocks:
            content = block if isinstance(block, bytes) else to_pcm16(block)
            for begin in range(0, len(content), MOST_MESSAGE_BYTES):
                connection.send(content[begin : begin + MOST_MESSAGE_BYTES])
        connection.send('{"type": "finish"}')
    except ConnectionClosed:  # the reason is what the other thread receives
        pass


def to_pcm16(samples: np.ndarray) -> bytes:
    """Return samples (time,) in [-1, 1] as signed 16-bit integers, little-endian.

    >>> to_pcm16(np.array([0.5, -1.0])).hex()
    '00400080'
    """
    return (samples * 32768.0).round().clip(-32768, 32767).astype("<i2").tobytes()


def _reason(body: bytes | bytearray | None) -> str:
    try:
        return json.loads(body or b"")["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return "it gives no reason"
