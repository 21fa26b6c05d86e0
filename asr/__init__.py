"""Speech recognition with convolutions, LSTMs and CTC: train, understand and ship.

    import asr
    model = asr.load("an4")                     # a name, or the folder of a trained model
    print(model.transcribe("speech.wav").text)

    report = asr.score(references, hypotheses)  # of any system
    print(report.wer)

Nothing heavy is imported until it is used.

>>> import asr
>>> asr.score(["three one", "yes"], ["three one", "no"]).wer
0.3333333333333333
"""

import os
from typing import Any

from asr.version import __version__

# onnxruntime 1.31 and later report to Microsoft unless this is set before they are imported; "0" lets them.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# pyright: reportUnsupportedDunderAll=false
# name: the module that it comes from
_HOMES = {
    "AsrError": "asr.errors",
    "Bundle": "asr.bundle",
    "ErrorReport": "asr.scoring",
    "Recognizer": "asr.recognizer",
    "Segment": "asr.transcript",
    "Stream": "asr.streaming",
    "Transcript": "asr.transcript",
    "Word": "asr.transcript",
    "available_models": "asr.bundle",
    "compare": "asr.scoring.significance",
    "evaluate": "asr.evaluation",
    "load": "asr.recognizer",
    "load_audio": "asr.audio",
    "load_lm": "asr.language_model",
    "read_transcripts": "asr.scoring.formats",
    "score": "asr.scoring",
    "train": "asr.api",
    "transcribe": "asr.api",
}
__all__ = [
    "AsrError",
    "Bundle",
    "ErrorReport",
    "Recognizer",
    "Segment",
    "Stream",
    "Transcript",
    "Word",
    "__version__",
    "available_models",
    "compare",
    "evaluate",
    "load",
    "load_audio",
    "load_lm",
    "read_transcripts",
    "score",
    "train",
    "transcribe",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'asr' has no attribute {name!r}")
    from importlib import import_module

    globals()[name] = value = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
