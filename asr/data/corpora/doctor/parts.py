"""What reading the audio told, in files: many machines read a part each, and one takes what all of them found."""

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from asr.data.corpora.doctor.audio import Examined, Reading
from asr.errors import ConfigError
from asr.files import replacing


def part_of(reading: Reading, index: int, count: int) -> Reading:
    """Return the `index`th of `count` parts of what is to be read, counted from 1."""
    return replace(reading, pieces=reading.pieces[index - 1 :: count])


def write_part(told: Iterable[Examined], reading: Reading, index: int, count: int, folder: Path) -> Path:
    """Write what a part of `reading`, the corpus's, told; the file appears once it is whole."""
    path = _path(folder, index, count)
    with replacing(path) as scratch, gzip.open(scratch, "wt", encoding="utf-8") as file:
        file.write(json.dumps({"corpus": reading.corpus}) + "\n")
        for fault, digest in told:
            file.write(json.dumps([fault, digest and digest.hex()], ensure_ascii=False) + "\n")
    return path


def read_parts(reading: Reading, folder: Path) -> Iterator[list[Examined]]:
    """Yield what all parts in a folder told, piece by piece, in the order of the corpus.

    Raises ConfigError for a part that is missing, or of another corpus or check.
    """
    found = sorted(folder.glob("[0-9]*-of-*.jsonl.gz"))
    counts = {int(path.name.split(".")[0].split("-of-")[1]) for path in found}
    if len(counts) != 1:
        raise ConfigError(
            f"{folder} holds parts of {len(counts)} divisions of a corpus; expected those of one, as "
            f"`asr check ... --shard 1/8 --parts {folder}` writes them"
        )
    (count,) = counts
    missing = [index for index in range(1, count + 1) if not _path(folder, index, count).exists()]
    if missing:
        raise ConfigError(
            f"{len(missing)} of {count} parts are missing in {folder}; run those with --shard "
            f"{' '.join(f'{index}/{count}' for index in missing[:5])}"
        )
    parts = [_read(_path(folder, index, count), reading.corpus) for index in range(1, count + 1)]
    for place, (utterances, _) in enumerate(reading.pieces):
        yield [next(parts[place % count]) for _ in range(utterances)]


def _read(path: Path, corpus: str) -> Iterator[Examined]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        if json.loads(next(file)) != {"corpus": corpus}:
            raise ConfigError(
                f"{path} was written for other manifests, or with other settings; remove it and run this part again"
            )
        for line in file:
            fault, digest = json.loads(line)
            yield (tuple(fault) if fault else None), (bytes.fromhex(digest) if digest else None)


def _path(folder: Path, index: int, count: int) -> Path:
    return folder / f"{index}-of-{count}.jsonl.gz"
