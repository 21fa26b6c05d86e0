"""Downloads that resume where they stopped, are checked, and leave no half file under the final name.

`If-Range`, growing pauses and "no byte is lost" are what pooch and lhotse's downloads lack.
"""

import errno
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from asr.errors import DownloadError
from asr.files import sha256 as sha256_of

BLOCK = 1 << 18  # bytes
LONGEST_PAUSE = 60.0  # seconds between attempts
HOPELESS = {401, 403, 404, 410}  # HTTP statuses that trying again does not change

Show = Callable[[str, int, int | None], None]  # (file, bytes that are there, bytes in all or None)
Tell = Callable[[str], None]  # what went wrong, and that it is tried again


def fetch(
    url: str,
    path: Path,
    *,
    sha256: str = "",
    attempts: int = 8,
    pause: float = 1.0,
    timeout: float = 30.0,
    show: Show | None = None,
    tell: Tell | None = None,
) -> None:
    """Download `url` to `path`, going on with `path`.partial where that is there.

    Arguments:
        sha256: expected checksum, in hexadecimal; "" checks only the length that the server announces.
        attempts: fruitless ones in a row before giving up; one that brought anything new counts none.
        pause: seconds before the second of them, doubled each time up to LONGEST_PAUSE.
        timeout: seconds without a byte after which a connection counts as dead.
        show, tell: called with the progress, and before each further attempt.

    Raises DownloadError that says what happened last; what was downloaded stays in `path`.partial.
    """
    partial = path.with_name(path.name + ".partial")
    fruitless = 0
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        try:
            _continue(url, partial, timeout, show)
        except urllib.error.HTTPError as error:
            reason = f"HTTP status {error.code} ({error.reason})"
            if error.code in HOPELESS:
                raise DownloadError(f"cannot download {url}: {reason}") from error
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise DownloadError(f"the disk is full: {partial} holds {before} bytes so far") from error
            # Only what this machine refuses names a file.
            if isinstance(error, OSError) and error.filename is not None:
                raise DownloadError(f"cannot write {error.filename}: {error.strerror}") from error
            reason = str(error) or type(error).__name__
        else:
            found = sha256_of(partial) if sha256 else ""
            if found == sha256:
                _forget(_validator(partial))
                partial.replace(path)
                return
            _forget(partial, _validator(partial))
            before = 0
            reason = f"its SHA-256 is {found}, expected {sha256}"
        after = partial.stat().st_size if partial.exists() else 0
        fruitless = 0 if after > before else fruitless + 1
        if fruitless >= attempts:
            raise DownloadError(
                f"cannot download {url}: {reason}; given up after {attempts} attempts without a new byte, "
                "the same command goes on later"
            )
        seconds = min(pause * 2 ** max(fruitless - 1, 0), LONGEST_PAUSE)
        if tell is not None:
            tell(f"{url}: {reason}; trying again in {seconds:.0f} s")
        time.sleep(seconds)


def _continue(url: str, partial: Path, timeout: float, show: Show | None) -> None:
    """Append to the partial file what it lacks; raises what urllib raises, ConnectionError for a short body."""
    there = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "asr"})
    if there:
        request.add_header("Range", f"bytes={there}-")
        if _validator(partial).exists():  # if the file has changed since, the server sends all of it
            request.add_header("If-Range", _validator(partial).read_text())
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get("Content-Range") == f"bytes */{there}":
            return  # it was whole already
        _forget(partial, _validator(partial))
        raise ConnectionError(f"the server has less than the {there} bytes that were there") from error
    with response, partial.open("r+b" if there else "wb") as file:
        if there and response.status == 206:
            file.seek(there)
        else:
            there = 0
            file.truncate()
        length = response.headers.get("Content-Length")
        total = there + int(length) if length else None
        if validator := response.headers.get("ETag") or response.headers.get("Last-Modified"):
            _validator(partial).write_text(validator)
        while block := response.read1(BLOCK):
            file.write(block)
            there += len(block)
            if show is not None:
                show(partial.name.removesuffix(".partial"), there, total)
        if total is not None and there != total:
            raise ConnectionError(f"the connection ended after {there} of {total} bytes")
        file.flush()
        os.fsync(file.fileno())


def _validator(partial: Path) -> Path:
    """Where the server's name for this version of the file is kept between runs."""
    return partial.with_name(partial.name + ".version")


def _forget(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
