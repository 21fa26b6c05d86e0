"""Files that are written whole or not at all, and their checksums."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: str | Path, durable: bool = False) -> Iterator[Path]:
    """Yield a scratch path beside `path`, which takes its name when the block ends without an error.

    A process killed meanwhile leaves the old file or the new one, never half of one. Missing parent folders are made.
    A link stays a link; what is there and no file, as a pipe or a device, is written to itself. With `durable` the
    content is on the disk before the old file is replaced. Raises OSError.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "words.txt")
    ...     with replacing(path) as scratch:
    ...         _ = scratch.write_text("seven")
    ...     path.read_text()
    'seven'
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        yield path
        return
    if path.is_symlink():
        path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two writers apart; suffixes stay last, for libraries that choose a format by them.
    scratch = path.with_name(f".{os.getpid()}.part.{path.name}")
    try:
        yield scratch
        if durable:
            with scratch.open("rb+") as file:
                os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
