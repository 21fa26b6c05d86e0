"""Whole tasks in one call, as the commands of the same names do them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from asr.bundle import SHIPPED

if TYPE_CHECKING:
    from asr.recognizer import Recognizer
    from asr.sources import Audio
    from asr.transcript import Transcript


@overload
def transcribe(
    audio: list, model: "str | Path | Recognizer" = SHIPPED, **options: Any
) -> "list[Transcript]": ...


@overload
def transcribe(
    audio: "Audio", model: "str | Path | Recognizer" = SHIPPED, **options: Any
) -> "Transcript": ...


def transcribe(audio: Any, model: "str | Path | Recognizer" = SHIPPED, **options: Any) -> Any:
    """Transcribe a file, bytes, an open binary stream or samples; a list gives a list.

    Arguments: model, its name or folder, or a recognizer; options, those of `asr.load`. Whoever calls this more than
    once loads the model first. Raises AsrError.

    >>> import numpy as np
    >>> transcribe(np.zeros(16000, np.float32), "an4", device="cpu").text
    ''
    """
    return _recognizer(model, options).transcribe(audio)


def train(config: str | Path | Sequence[str], *, resume: bool = False, overwrite: bool = False) -> Path:
    """Train a recognizer and return the folder of its bundle, for `asr.load`.

    Arguments: config, a YAML file, or the options of `asr train` as a list, such as ["--config", "config.yaml",
    "--run.epochs=3"]; resume, whether to continue from the run folder's last checkpoint; overwrite, whether to replace
    what the folder holds. Raises AsrError; KeyboardInterrupt if the run was interrupted.

    >>> train(["--data.train=none.jsonl.gz", "--data.dev=none.jsonl.gz", "--run.folder=/tmp/never"])
    Traceback (most recent call last):
    asr.errors.ManifestError: there is no manifest none.jsonl.gz; `asr prepare` writes manifests (cuts_*.jsonl.gz)
    """
    from asr.training.read_config import read_config
    from asr.training.train import train as run

    options = ["--config", str(config)] if isinstance(config, str | Path) else list(config)
    configuration = read_config(options)
    status = run(configuration, resume=resume, overwrite=overwrite)
    if status >= 128:  # 128 and the number of the signal, as a shell reports it
        raise KeyboardInterrupt(status - 128)
    return Path(configuration.run.folder) / "bundle"


def _recognizer(model: "str | Path | Recognizer", options: dict[str, Any]) -> "Recognizer":
    from asr.recognizer import Recognizer, load

    return model if isinstance(model, Recognizer) else load(model, **options)
