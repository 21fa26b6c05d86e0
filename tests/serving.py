"""A service in this process, on a free port."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import asr
from asr.bundle import find_bundle
from asr.serve.app import Service, make_app
from asr.serve.metrics import Metrics
from asr.serve.models import Models, folders_of
from asr.serve.server import listening, make_server
from asr.serve.settings import Settings

RATE = 16000
AN4 = find_bundle("an4")


@cache
def load(folder: Path) -> asr.Recognizer:
    return asr.load(folder, "cpu", engine="onnx", threads=1)


@dataclass
class Running:
    port: int
    service: Service
    server: Any
    wyoming: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def folder(self) -> Path:
        return Path(self.service.uploads._folder.name)


@contextmanager
def serving(names=("an4",), loader=load, **bounds: Any) -> Iterator[Running]:
    """Serve models until the block ends."""
    settings = Settings(**({"decoders": 1} | bounds))
    metrics = Metrics()
    models = Models(folders_of(list(names)), loader, {}, settings.batch_wait, metrics)
    wyoming = listening("127.0.0.1", 0)
    app = make_app(models, settings, metrics, wyoming)
    server = make_server(app, settings)
    listener = listening("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    until = time.monotonic() + 30
    while not server.started and thread.is_alive() and time.monotonic() < until:
        time.sleep(0.02)
    assert server.started
    running = Running(listener.getsockname()[1], app.state.service, server, wyoming.getsockname()[1])
    try:
        yield running
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
        assert not running.folder.exists()
