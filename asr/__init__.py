"""Speech recognition with convolutions, LSTMs and CTC: train, understand and ship.

    import asr
    model = asr.load("runs/an4/bundle")
    print(model.transcribe("speech.wav").text)

Nothing heavy is imported until it is used.
"""

from typing import TYPE_CHECKING, Any

from asr.version import __version__

if TYPE_CHECKING:
    from asr.recognizer import Recognizer, load
    from asr.scoring import ErrorReport, score
    from asr.streaming import Stream
    from asr.transcript import Transcript

_HOMES = {
    "load": "asr.recognizer",
    "Recognizer": "asr.recognizer",
    "Transcript": "asr.recognizer",
    "Stream": "asr.streaming",
    "score": "asr.scoring",
    "ErrorReport": "asr.scoring",
}
__all__ = ["ErrorReport", "Recognizer", "Stream", "Transcript", "__version__", "load", "score"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'asr' has no attribute {name!r}")
