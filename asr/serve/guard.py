"""Who may call: a token compared in constant time, and pages of no other server."""

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from asr.serve.request_error import RequestError
from asr.serve.settings import Settings

# The page asks for the token itself; a load balancer has none.
OPEN_PATHS = ("/", "/health")
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "authorization, content-type",
    "Access-Control-Max-Age": "600",
}
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def is_allowed(presented: str, token: str) -> bool:
    """Return whether a token is the right one, in a time that does not depend on where they differ.

    >>> is_allowed("sesame", "sesame"), is_allowed("", "sesame")
    (True, False)
    """
    return hmac.compare_digest(presented.encode("utf-8", "replace"), token.encode())


def bearer(headers: Headers) -> str:
    """Return the token of the Authorization header; "" where there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


class Guard:
    """Lets requests through to `app`, or refuses them. A stream may also send its token, see `asr.serve.streaming`."""

    def __init__(self, app: ASGIApp, settings: Settings):
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc != headers.get("host")
        added = dict(ALWAYS)
        if foreign and (origin in self.settings.origins or "*" in self.settings.origins):
            added |= {"Access-Control-Allow-Origin": str(origin), "Vary": "Origin"}
            added["Cross-Origin-Resource-Policy"] = "cross-origin"
            foreign = False
        if scope["type"] == "http":
            send = _adding(send, added)
        try:
            if foreign:
                raise RequestError(
                    403, "pages of other servers may not call; `asr serve --cors ORIGIN` lets them"
                )
            if (
                scope["type"] == "http"
                and scope["method"] == "OPTIONS"
                and "Access-Control-Allow-Origin" in added
            ):
                await _preflight(send)
                return
            token = self.settings.token
            is_closed = scope["type"] == "http" and scope["path"] not in OPEN_PATHS
            if is_closed and token and not is_allowed(bearer(headers), token):
                raise RequestError(
                    401, "the token is missing or wrong; expected the header Authorization: Bearer TOKEN"
                )
        except RequestError as refusal:
            if scope["type"] == "websocket":
                await WebSocket(scope, receive, send).send_denial_response(refusal.response())
            else:
                await refusal.response()(scope, receive, send)
            return
        await self.app(scope, receive, send)


async def _preflight(send: Send) -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in PREFLIGHT.items()]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _adding(send: Send, headers: dict[str, str]) -> Send:
    """Return what sends with these headers besides."""
    pairs = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]

    async def sending(message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *pairs]
        await send(message)

    return sending
