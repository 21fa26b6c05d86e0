"""Archives of corpora: downloaded, checked and unpacked."""

import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asr.data.fetch import Show, Tell, fetch
from asr.errors import DownloadError


@dataclass(frozen=True)
class Archive:
    """A file to download and unpack.

    Attributes:
        url: where it is.
        sha256: its checksum; "" where the publisher gives none.
        part: of the corpus that it holds; "" where the corpus is one archive.
        into: folder to unpack into, where the archive brings none of its own.
    """

    url: str
    sha256: str = ""
    part: str = ""
    into: str = ""


def obtain(
    archives: Sequence[Archive], folder: Path, show: Show | None = None, tell: Tell | None = None
) -> None:
    """Download and unpack into `folder` what is not there yet.

    Each archive appears in the folder whole or not at all; `.NAME.done` remembers it, and the archive itself is
    removed. Raises DownloadError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"cannot make the folder {folder}: {error.strerror}") from error
    for archive in archives:
        name = archive.url.rsplit("/", 1)[-1]
        done = folder / f".{name}.done"
        if done.exists():
            continue
        if not (folder / name).exists():  # else it was fetched whole, and unpacking was interrupted
            fetch(archive.url, folder / name, sha256=archive.sha256, show=show, tell=tell)
        unpack(folder / name, folder / archive.into)
        done.touch()
        (folder / name).unlink()


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive into a folder that may hold others' files; what is unpacked half is not seen there.

    Raises DownloadError where it is no tar archive, damaged, or would write elsewhere.
    """
    folder.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{archive.name}.", dir=folder))
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(aside, filter="data")  # refuses paths and links that lead out of the folder
        _merge(aside, folder)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DownloadError(
            f"cannot unpack {archive}: {error}; if it is damaged, remove it and try again"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _merge(source: Path, target: Path) -> None:
    for path in source.iterdir():
        if path.is_dir() and (target / path.name).is_dir():
            _merge(path, target / path.name)
        else:
            path.replace(target / path.name)
