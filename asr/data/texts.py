"""Texts for language models: files of a sentence a line, and manifests of cuts."""

import bz2
import gzip
import io
import json
import lzma
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from asr.data.cuts import cut_texts
from asr.errors import TextError

OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
STDIN = "-"


def read_texts(paths: Sequence[str]) -> Iterator[str]:
    """Yield the sentences of texts and manifests. Raises TextError for what cannot be read."""
    for path in paths:
        compressed = Path(path).suffix if Path(path).suffix in OPENERS else ""
        is_manifest = path.removesuffix(compressed).endswith(".jsonl")
        try:
            with _opened(path, compressed) as file:
                for line in file:
                    yield from cut_texts(json.loads(line)) if is_manifest else [line.rstrip("\n")]
        except FileNotFoundError:
            raise TextError(f"there is no text {path}") from None
        except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError, KeyError, TypeError) as error:
            expected = "a manifest of cuts" if is_manifest else "text in UTF-8"
            raise TextError(f"{path} cannot be read as {expected}: {error}") from error


def _opened(path: str, compressed: str) -> IO[str]:
    if path == STDIN:
        return io.TextIOWrapper(sys.stdin.buffer, "utf-8-sig")  # whatever the terminal's encoding
    return OPENERS.get(compressed, open)(path, "rt", encoding="utf-8-sig")
