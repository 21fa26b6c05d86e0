"""Serve models to many callers: OpenAI's transcription API, streams, a page, Wyoming.

  asr serve --model runs/mine/bundle                        http://127.0.0.1:8000/ is a page, /v1 is the API
  asr serve --model english=runs/en/bundle --model an4      several models by name, each loaded when it is asked for
  asr serve --host 0.0.0.0 --token-file secret              for other machines, which present the token

  curl -F file=@speech.wav -F response_format=text http://127.0.0.1:8000/v1/audio/transcriptions

Ctrl-C or SIGTERM ends it once the requests in progress are answered.
"""

import argparse
import os
import signal
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from asr.cli import options
from asr.cli.console import note
from asr.errors import AsrError

if TYPE_CHECKING:
    from asr import Recognizer
    from asr.serve.settings import Settings

TOKEN_VARIABLE = "ASR_SERVE_TOKEN"
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--model",
        action="append",
        metavar="[NAME=]BUNDLE",
        help="trained model: a folder, or a name of `asr models`, served as NAME; may be repeated, and the first "
        "answers requests that name none (default: the small one that comes with asr)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    parser.add_argument(
        "--port",
        type=options.count(),
        default=8000,
        metavar="N",
        help="port to listen at; 0 is any free one (default: 8000)",
    )
    parser.add_argument(
        "--wyoming",
        type=options.count(),
        metavar="PORT",
        help="port for Home Assistant's Wyoming protocol, which knows no token (default: none)",
    )
    parser.add_argument(
        "--languages",
        nargs="+",
        default=["en"],
        metavar="CODE",
        help="languages of the models, which Home Assistant chooses by (default: en)",
    )
    _add_access(parser)
    _add_bounds(parser)
    group = parser.add_argument_group("computing")
    options.add_device(group)
    options.add_precision(group)
    options.add_decoding(parser)


def _add_access(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("access")
    group.add_argument(
        "--token-file",
        metavar="FILE",
        help=f"file of the token that callers present as a bearer (default: the variable {TOKEN_VARIABLE}, else none)",
    )
    group.add_argument(
        "--cors",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="origin, as https://example.com, whose pages may call; may be repeated (default: only the page here)",
    )


def _add_bounds(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("bounds")
    numbers = (
        ("--max-megabytes", 256, "MB", "size of an upload"),
        ("--max-seconds", 14400, "SECONDS", "audio of a request or a stream"),
        ("--max-requests", 128, "N", "requests in progress; beyond them, callers are told to come back"),
        ("--max-streams", 64, "N", "streams open at a time"),
        ("--timeout", 1800, "SECONDS", "time to answer a request, once it is sent"),
        ("--batch-wait", 10, "MS", "time that a request may wait for others to be computed with it"),
    )
    for name, usual, unit, text in numbers:
        group.add_argument(
            name, type=options.count(), default=usual, metavar=unit, help=f"{text} (default: {usual})"
        )


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    import starlette  # noqa: F401 - named before all else where it is missing

    from asr.serve.app import make_app
    from asr.serve.metrics import Metrics
    from asr.serve.models import Models, folders_of
    from asr.serve.server import listening, make_server

    settings = _settings(arguments)
    if settings.token is None and arguments.host not in LOCAL_HOSTS:
        note(f"everyone who reaches {arguments.host} may call; --token-file FILE asks for a token")
    folders = folders_of(arguments.model or [str(options.model_folder(arguments))])
    search = options.decoding(arguments)
    metrics = Metrics()

    @cache
    def load(folder: Path) -> "Recognizer":
        return _load(folder, arguments)

    load(next(iter(folders.values())))
    listener = listening(arguments.host, arguments.port)
    wyoming = None if arguments.wyoming is None else listening(arguments.host, arguments.wyoming)
    models = Models(folders, load, search, settings.batch_wait, metrics)
    server = make_server(make_app(models, settings, metrics, wyoming), settings)
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    also = f" and tcp://{host}:{wyoming.getsockname()[1]} (Wyoming)" if wyoming else ""
    note(f"serving {', '.join(folders)} at http://{host}:{listener.getsockname()[1]}/{also}; Ctrl-C ends")
    # uvicorn raises the signal again once all is done; that is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with suppress(KeyboardInterrupt):
        server.run([listener])
    return 0


def _settings(arguments: argparse.Namespace) -> "Settings":
    from asr.serve.settings import MEGABYTE, Settings

    return Settings(
        token=_token(arguments.token_file),
        origins=tuple(arguments.cors),
        max_bytes=arguments.max_megabytes * MEGABYTE,
        max_seconds=arguments.max_seconds,
        max_requests=arguments.max_requests,
        max_streams=arguments.max_streams,
        request_seconds=arguments.timeout,
        batch_wait=arguments.batch_wait / 1000,
        languages=tuple(arguments.languages),
    )


def _token(path: str | None) -> str | None:
    """Return the token of a file or, without one, of the environment. Raises AsrError for a file without one."""
    if path is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        token = Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AsrError(f"the token file {path} cannot be read: {error}") from error
    if not token:
        raise AsrError(f"the token file {path} is empty; expected the token that callers present")
    return token


def _load(folder: Path, arguments: argparse.Namespace) -> "Recognizer":
    """Load a model with the options of the command. Decoding takes no processes: forks and threads do not mix."""
    import asr

    search = options.decoding(arguments)
    if search:
        search["processes"] = 1
    return asr.load(
        folder,
        arguments.device,
        engine=arguments.engine,
        compute_type=arguments.compute_type,
        threads=arguments.threads or None,
        **search,
    )
