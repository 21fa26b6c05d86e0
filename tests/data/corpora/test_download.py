"""Downloads from a server on this machine that stalls, cuts off and corrupts."""

import hashlib
import io
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from asr.cli.main import main
from asr.data.corpora import prepare as corpora
from asr.data.corpora.catalogue import Corpus
from asr.data.corpora.download import Archive, obtain, unpack
from asr.data.fetch import fetch
from asr.errors import DownloadError

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server:
    """Serves one file. Each request takes the next fault of the list; then all goes well.

    Faults: ("cut", n) sends n bytes and hangs up, ("stall", n) sends n and then nothing, ("corrupt", n) flips
    byte n, ("status", code) refuses, ("no range",) sends all from the beginning.
    """

    def __init__(self):
        self.body, self.faults, self.ranges, self.etag = BODY, [], [], '"one"'
        serves = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def do_GET(self):
                serves.answer(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/corpus.tar.gz"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        fault, *value = self.faults.pop(0) if self.faults else ("none",)
        wanted = request.headers.get("Range")
        self.ranges.append(wanted)
        if fault == "status":
            request.send_error(value[0])
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if fault == "no range" or request.headers.get("If-Range", self.etag) != self.etag:
            start = 0
        if start >= len(self.body):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.body)}")
            request.end_headers()
            return
        body = bytearray(self.body)
        if fault == "corrupt":
            body[value[0]] ^= 0xFF
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(body) - start))
        request.send_header("ETag", self.etag)
        request.end_headers()
        end = start + value[0] if fault in ("cut", "stall") else len(body)
        request.wfile.write(body[start:end])
        if fault == "stall":
            time.sleep(1)


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def get(server, path, **options):
    fetch(server.url, path, **{"sha256": SHA256, "pause": 0.01, "timeout": 0.3, **options})


def test_a_whole_file(server, tmp_path):
    shown = []
    get(server, tmp_path / "file", show=lambda *progress: shown.append(progress))
    assert (tmp_path / "file").read_bytes() == BODY
    assert shown[-1] == ("file", len(BODY), len(BODY))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_cut_off_and_stalled_downloads_go_on(server, tmp_path):
    server.faults = [("cut", 300_000), ("status", 503), ("stall", 100_000), ("cut", 0), ("cut", 200_000)]
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    begun = ["bytes=300000-"] * 2 + ["bytes=400000-"] * 2 + ["bytes=600000-"]
    assert server.ranges == [None, *begun]


def test_a_later_run_goes_on(server, tmp_path):
    server.faults = [("cut", 300_000), *[("status", 503)] * 3]
    with pytest.raises(DownloadError, match=r"503.*given up after 3 attempts"):
        get(server, tmp_path / "file", attempts=3)
    assert not (tmp_path / "file").exists()
    assert (tmp_path / "file.partial").stat().st_size == 300_000
    get(server, tmp_path / "file")
    assert server.ranges[-1] == "bytes=300000-"
    assert (tmp_path / "file").read_bytes() == BODY
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_changed_in_between_is_fetched_anew(server, tmp_path):
    server.faults = [("cut", 300_000), ("status", 503)]
    with pytest.raises(DownloadError):
        get(server, tmp_path / "file", attempts=1)
    server.body, server.etag = BODY[::-1], '"two"'
    get(server, tmp_path / "file", sha256="")
    assert (tmp_path / "file").read_bytes() == BODY[::-1]


def test_corruption_is_found_and_fetched_again(server, tmp_path):
    server.faults = [("corrupt", 1000)]
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    server.faults = [("corrupt", 1000)] * 2
    with pytest.raises(DownloadError, match=f"its SHA-256 is .*, expected {SHA256}"):
        get(server, tmp_path / "other", attempts=2)
    assert not (tmp_path / "other").exists()
    assert not (tmp_path / "other.partial").exists()


def test_a_server_without_ranges(server, tmp_path):
    server.faults = [("cut", 300_000), ("no range",)]
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY


def test_whole_but_not_yet_renamed(server, tmp_path):
    (tmp_path / "file.partial").write_bytes(BODY)
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    (tmp_path / "more.partial").write_bytes(BODY + b"more than there is")
    get(server, tmp_path / "more")
    assert (tmp_path / "more").read_bytes() == BODY


def test_what_is_not_there_is_not_tried_again(server, tmp_path):
    server.faults = [("status", 404)]
    with pytest.raises(DownloadError, match=r"cannot download http.*: HTTP status 404"):
        get(server, tmp_path / "file")
    assert len(server.ranges) == 1
    with pytest.raises(DownloadError, match="refused"):
        fetch("http://127.0.0.1:9/x", tmp_path / "file", attempts=2, pause=0.01)


def test_a_full_disk_is_named_and_what_was_fetched_stays(server, tmp_path):
    def fill(*progress):
        raise OSError(28, "No space left on device")

    with pytest.raises(DownloadError, match=r"the disk is full: .*file.partial"):
        get(server, tmp_path / "file", show=fill)
    assert (tmp_path / "file.partial").stat().st_size > 0


def test_what_cannot_be_written_is_not_tried_again(server, tmp_path):
    (tmp_path / "file.partial").mkdir()
    with pytest.raises(DownloadError, match=r"cannot write .*file\.partial: Is a directory"):
        get(server, tmp_path / "file")
    assert len(server.ranges) == 1
    (tmp_path / "corpus").touch()
    with pytest.raises(DownloadError, match=r"cannot make the folder .*corpus: File exists"):
        obtain([Archive(server.url)], tmp_path / "corpus")


def test_pauses_grow(server, tmp_path, monkeypatch):
    pauses, told = [], []
    monkeypatch.setattr("asr.data.fetch.time.sleep", pauses.append)
    server.faults = [("status", 503)] * 9
    with pytest.raises(DownloadError):
        get(server, tmp_path / "file", pause=1.0, attempts=9, tell=told.append)
    assert told[3] == f"{server.url}: HTTP status 503 (Service Unavailable); trying again in 8 s"
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


def archive_of(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


def test_archives_are_unpacked_whole_or_not_at_all(server, tmp_path):
    server.body = archive_of({"LibriSpeech/dev-clean/1.txt": b"one", "LibriSpeech/README": b"read me"})
    (tmp_path / "LibriSpeech" / "train").mkdir(parents=True)
    obtain([Archive(server.url)], tmp_path)
    obtain([Archive(server.url)], tmp_path)  # there already
    assert len(server.ranges) == 1
    (tmp_path / ".corpus.tar.gz.done").unlink()
    (tmp_path / "corpus.tar.gz").write_bytes(server.body)  # whole, but unpacking it was interrupted
    obtain([Archive(server.url)], tmp_path)
    assert len(server.ranges) == 1
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert names == [".corpus.tar.gz.done", "LibriSpeech/README", "LibriSpeech/dev-clean/1.txt"]
    damaged = tmp_path / "damaged.tar.gz"
    damaged.write_bytes(server.body[: len(server.body) // 2])
    with pytest.raises(
        DownloadError, match=r"cannot unpack .*damaged.tar.gz: .*; if it is damaged, remove it"
    ):
        unpack(damaged, tmp_path / "elsewhere")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    evil = tmp_path / "evil.tar.gz"
    evil.write_bytes(archive_of({"../../evil.txt": b"out"}))
    with pytest.raises(DownloadError, match="cannot unpack"):
        unpack(evil, tmp_path / "elsewhere" / "deep")
    assert not (tmp_path / "evil.txt").exists()


def test_prepare_downloads(server, tmp_path, an4, monkeypatch, capsys):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        tar.add(an4, "an4")
    server.body = content.getvalue()
    server.faults = [("cut", 10_000)]
    known = corpora.CORPORA["an4"]
    archive = Archive(server.url, hashlib.sha256(server.body).hexdigest())
    monkeypatch.setitem(
        corpora.CORPORA,
        "an4",
        Corpus(known.about, known.hours, known.license, (archive,), folder="an4"),
    )
    command = ["prepare", "an4", "--download", str(tmp_path / "new")]
    assert main([*command, "--output-dir", str(tmp_path / "out")]) == 0
    assert "test                  9" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [".corpus.tar.gz.done", "an4"]
