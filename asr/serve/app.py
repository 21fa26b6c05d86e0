"""The routes of the service."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from asr.errors import AsrError
from asr.serve import openai_api
from asr.serve.batching import Batcher
from asr.serve.decoders import Decoders, blocks_of
from asr.serve.guard import Guard
from asr.serve.metrics import Metrics
from asr.serve.models import Model, Models
from asr.serve.openai_api import Query
from asr.serve.request_error import FAILED, RequestError
from asr.serve.settings import Settings
from asr.serve.streaming import Streams
from asr.serve.uploads import Recording, Uploads, read_form
from asr.serve.wyoming import WyomingServer
from asr.transcript import Transcript, Word

PAGE = Path(__file__).parent / "page.html"
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' blob:; worker-src blob:; "
    "connect-src 'self' blob:; media-src blob:; img-src data: blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
# Longer recordings than this have no picture.
MOST_PICTURED_SECONDS = 900.0

Result = TypeVar("Result")


class Service:
    """What the routes share: settings, models, decoders, metrics, and how many requests there are."""

    def __init__(
        self, models: Models, settings: Settings, metrics: Metrics, wyoming: socket.socket | None = None
    ):
        self.models, self.settings, self.metrics = models, settings, metrics
        self.wyoming, self._wyoming_listener = WyomingServer(models, settings, metrics), wyoming
        self.decoders = Decoders(settings)
        self.uploads = Uploads(settings, self.decoders)
        self.streams = Streams(models, settings, metrics)
        self.requests = 0
        self.began = int(time.time())
        gauges = {
            "asr_requests_in_progress": ("requests in progress", lambda: self.requests),
            "asr_queue_requests": ("requests that wait to be computed", lambda: self._sum("waiting")),
            "asr_queue_seconds": ("expected seconds until they are computed", self.seconds_to_wait),
            "asr_models_loaded": ("models in memory", lambda: len(models.loaded)),
        }
        for name, (text, value) in gauges.items():
            metrics.gauge(name, text, value)

    def _sum(self, name: str) -> float:
        return sum(getattr(model.batcher, name) for model in self.models.loaded)

    def seconds_to_wait(self) -> float:
        """Return about how long it takes until what waits now is computed."""
        return sum(model.batcher.seconds_to_wait() for model in self.models.loaded)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Load the first model, and remove everything at the end."""
        await self.models.get()
        await self.decoders.warm_up()
        if self._wyoming_listener is not None:
            await self.wyoming.start(self._wyoming_listener)
        try:
            yield
        finally:
            await self.wyoming.close()
            self.streams.close()
            await asyncio.to_thread(self.models.close)
            await self.decoders.close()
            self.uploads.close()

    async def page(self, request: Request) -> Response:
        """Answer with the page."""
        return HTMLResponse(PAGE.read_text("utf-8"), headers={"Content-Security-Policy": PAGE_POLICY})

    async def health(self, request: Request) -> Response:
        """Answer that the service is there."""
        return JSONResponse({"status": "ok", "models": list(self.models.folders)})

    async def show_metrics(self, request: Request) -> Response:
        """Answer with what is counted."""
        return PlainTextResponse(self.metrics.render(), media_type="text/plain; version=0.0.4")

    async def list_models(self, request: Request) -> Response:
        """Answer with the models' names."""
        return JSONResponse(
            {"object": "list", "data": [self._described(name) for name in self.models.folders]}
        )

    async def show_model(self, request: Request) -> Response:
        """Answer with a model's name, if it is served."""
        name = request.path_params["name"]
        if name not in self.models.folders:
            await self.models.get(name)
        return JSONResponse(self._described(name))

    def _described(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self.began, "owned_by": "asr"}

    async def transcribe(self, request: Request) -> Response:
        """Answer with the transcript of an upload."""
        if self.requests >= self.settings.max_requests:
            raise RequestError(
                429,
                f"{self.requests} requests are in progress, the most that are taken; come back later",
                retry_after=self.seconds_to_wait(),
            )
        self.requests += 1
        work = contextlib.AsyncExitStack()
        work.callback(self._leave, time.monotonic())
        try:
            form = await read_form(request, self.settings)
            work.push_async_callback(form.close)
            query = Query.of(form)
            model = await self.models.get(query.model)
            with _announced(model.batcher):
                recording = await work.enter_async_context(
                    self.uploads.recording(query.file, model.recognizer.sample_rate)
                )
            if query.stream:
                return EventStream(self._events(model, query, recording), work.pop_all())
            posteriors = _pictured(query, recording)
            transcript = await self._while_connected(
                request, self._recognize(model, query, recording, posteriors)
            )
            return openai_api.answer(transcript, query, _extra(model, posteriors))
        finally:
            await work.aclose()

    def _leave(self, began: float) -> None:
        self.requests -= 1
        self.metrics.latency("request", time.monotonic() - began)

    async def _recognize(
        self, model: Model, query: Query, recording: Recording, posteriors: list | None, report: Any = None
    ) -> Transcript:
        decoder = await asyncio.to_thread(model.decoder, query.prompt) if query.prompt else None
        blocks = blocks_of(recording.path, model.recognizer.sample_rate)
        try:
            async with asyncio.timeout(self.settings.request_seconds):
                transcript = await model.batcher.transcribe(
                    blocks, recording.seconds, decoder, report, posteriors
                )
        except TimeoutError:
            raise RequestError(
                503, f"the request took longer than {self.settings.request_seconds:g} s", retry_after=60
            ) from None
        self.metrics.audio(model.name, transcript.duration)
        return transcript

    async def _events(self, model: Model, query: Query, recording: Recording) -> AsyncGenerator[bytes, None]:
        """Yield the words as they are settled, then the whole; a failure is an event too."""
        settled: asyncio.Queue[list[Word] | None] = asyncio.Queue()
        posteriors = _pictured(query, recording)
        task = asyncio.create_task(self._recognize(model, query, recording, posteriors, settled.put_nowait))
        task.add_done_callback(lambda _: settled.put_nowait(None))
        try:
            is_first = True
            while (words := await settled.get()) is not None:
                for event in openai_api.delta(words, is_first):
                    yield event
                is_first = is_first and not words
            yield openai_api.done(task.result(), _extra(model, posteriors))
        except AsrError as error:
            yield openai_api.event({"type": "error", "error": {"message": str(error)}})
        finally:
            task.cancel()

    async def _while_connected(self, request: Request, work: Awaitable[Result]) -> Result:
        """Return the result of work, which is dropped when the caller is gone."""
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(request.receive())
        try:
            await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise RequestError(499, "the caller is gone")
            return task.result()
        finally:
            task.cancel()
            gone.cancel()


class EventStream(StreamingResponse):
    """Server-sent events, behind which what they needed is cleaned up, also where the caller is gone before them."""

    def __init__(self, events: AsyncGenerator[bytes, None], work: contextlib.AsyncExitStack):
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._events, self._work = events, work

    async def __call__(self, scope, receive, send) -> None:
        """Send the events."""
        async with self._work, contextlib.aclosing(self._events):
            await super().__call__(scope, receive, send)


@contextlib.contextmanager
def _announced(batcher: Batcher):
    """Let the batcher know that a request is on its way."""
    batcher.expected += 1
    try:
        yield
    finally:
        batcher.expected -= 1


def _pictured(query: Query, recording: Recording) -> list | None:
    return [] if query.posteriors and recording.seconds <= MOST_PICTURED_SECONDS else None


def _extra(model: Model, posteriors: list | None) -> dict[str, Any]:
    if posteriors is None:
        return {}
    step, tokens = model.recognizer.engine.seconds_per_frame, model.recognizer.bundle.tokenizer.tokens
    return {"posteriors": {"seconds_per_frame": step, "tokens": tokens, "frames": posteriors}}


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        error = RequestError(error.status_code, f"{request.method} {request.url.path[:60]}: {error.detail}")
    elif not isinstance(error, RequestError):
        error = RequestError(400, str(error))
    return error.response()


async def _failed(request: Request, error: Exception) -> Response:
    """Answer where the service is at fault; the server logs the error."""
    return RequestError(500, FAILED).response()


class Counted:
    """Counts the answers of `app`."""

    def __init__(self, app, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope, receive, send) -> None:
        """Hand a request on, and count the status of its answer."""

        async def sending(message) -> None:
            if message["type"] == "http.response.start":
                # Of the routes only, so that no caller fills the memory with names.
                endpoint = scope["path"] if scope["path"] in ENDPOINTS else "other"
                self.metrics.request(endpoint, message["status"])
            await send(message)

        await self.app(scope, receive, sending if scope["type"] == "http" else send)


ENDPOINTS = ("/", "/health", "/metrics", "/v1/models", "/v1/audio/transcriptions")


def make_app(
    models: Models, settings: Settings, metrics: Metrics, wyoming: socket.socket | None = None
) -> Starlette:
    """Return the service as an ASGI application; it answers Wyoming's callers at the socket `wyoming`."""
    service = Service(models, settings, metrics, wyoming)
    routes = [
        Route("/", service.page),
        Route("/health", service.health),
        Route("/metrics", service.show_metrics),
        Route("/v1/models", service.list_models),
        Route("/v1/models/{name:path}", service.show_model),
        Route("/v1/audio/transcriptions", service.transcribe, methods=["POST"]),
        WebSocketRoute("/v1/stream", service.streams.serve),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Counted, metrics=metrics), Middleware(Guard, settings=settings)],
        exception_handlers={HTTPException: _refused, AsrError: _refused, Exception: _failed},
        lifespan=service.lifespan,
    )
    app.state.service = service
    return app
