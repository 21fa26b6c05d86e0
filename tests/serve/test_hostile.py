"""Callers with bad intentions: each gets a 4xx with a sentence, and the service stays up."""

import io
import json
import random
import resource
import socket
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import numpy as np
import pytest
import soundfile
from serving import RATE, load, serving

PATH = "/v1/audio/transcriptions"
BOUNDARY = b"frontier"


def form(content: bytes, name: bytes = b"file", filename: bytes = b"a.wav", more: bytes = b"") -> bytes:
    part = b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n%s\r\n' % (
        BOUNDARY,
        name,
        filename,
        more,
    )
    return part + content + b"\r\n--%s--\r\n" % BOUNDARY


def request(
    body: bytes, *, kind: bytes = b"multipart/form-data; boundary=" + BOUNDARY, more: bytes = b"", length=None
):
    head = b"POST %s HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Type: %s\r\n" % (
        PATH.encode(),
        kind,
    )
    count = len(body) if length is None else length
    return head + more + b"Content-Length: %d\r\n\r\n" % count + body


def audio(seconds=0.3, kind="WAV", subtype=None, generator=None):
    generator = generator or np.random.default_rng(0)
    file = io.BytesIO()
    soundfile.write(
        file, 0.1 * generator.standard_normal(round(seconds * RATE)), RATE, format=kind, subtype=subtype
    )
    return file.getvalue()


def bomb() -> bytes:
    """A hundred megabytes of zeros in a zip."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.wav", bytes(100 << 20))
    return file.getvalue()


def silence() -> bytes:
    """Hours of silence in few bytes: beyond the bound on seconds."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(40 * RATE), RATE, format="FLAC")
    return file.getvalue()


def damaged(content: bytes, chance: random.Random) -> bytes:
    values = bytearray(content)
    for _ in range(chance.randint(1, 60)):
        values[chance.randrange(min(len(values), chance.choice([60, len(values)])))] = chance.randrange(256)
    return bytes(values[: chance.choice([len(values), chance.randrange(1, len(values))])])


GARBAGE = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "huge header": request(b"", more=b"X-Long: " + b"a" * 100_000 + b"\r\n"),
    "many headers": request(b"", more=b"".join(b"X-%d: a\r\n" % i for i in range(5000))),
    "no length": b"POST %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % PATH.encode(),
    "two lengths": request(b"x", more=b"Content-Length: 5\r\n"),
    "negative length": request(b"x", length=-5),
    "smuggled": request(b"0\r\n\r\n", more=b"Transfer-Encoding: chunked\r\n"),
    "json": request(b'{"file": "/etc/passwd"}', kind=b"application/json"),
    "no boundary": request(form(b"x"), kind=b"multipart/form-data"),
    "other boundary": request(form(b"x"), kind=b"multipart/form-data; boundary=else"),
    "truncated form": request(form(audio())[:-400]),
    "no file": request(form(b"x", name=b"other")),
    "empty file": request(form(b"")),
    "a path": request(form(b"/etc/passwd", filename=b"/etc/passwd")),
    "a path upward": request(form(b"../../etc/passwd", filename=b"../../../etc/passwd\x00.wav")),
    "huge part header": request(form(audio(), more=b"X-Long: " + b"a" * 2_000_000 + b"\r\n")),
    "zip": request(form(bomb())),
    "silence": request(form(silence())),
    "playlist": request(
        form(b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")
    ),
    "concatenation": request(form(b"ffconcat version 1.0\nfile /etc/passwd\n")),
    "pickle": request(form(b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix")),
    "elf": request(form(b"\x7fELF" + bytes(1000))),
    "too long a length": request(b"x", length=1 << 60),
}

SHAPES = [(kind, None) for kind in ("WAV", "FLAC", "MP3", "NIST", "AIFF", "CAF", "W64", "AU")]
SHAPES += [("OGG", "VORBIS"), ("OGG", "OPUS")]


def answer(port: int, content: bytes) -> bytes:
    """Send bytes and return what comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as caller:
        found = b""
        with suppress(OSError):  # it may be refused before all is sent; the answer is there
            caller.sendall(content)
        try:
            while piece := caller.recv(1 << 16):
                found += piece
        except ConnectionResetError:
            pass
        return found


def check_refused(found: bytes, name: str) -> None:
    status = int(found.split(b" ", 2)[1]) if found.startswith(b"HTTP/1.1 ") else 0
    assert 400 <= status < 500, (name, found[:300])
    head, _, body = found.partition(b"\r\n\r\n")
    text = json.loads(body)["error"]["message"] if b"application/json" in head else body.decode()
    assert len(text.split()) >= 3, (name, found[:300])
    assert "Traceback" not in text
    assert "root:" not in text


@pytest.fixture(scope="module")
def running():
    with serving(max_bytes=8 << 20, max_seconds=30, idle_seconds=2, header_seconds=2) as running:
        yield running


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_refused_with_a_sentence(running, name):
    check_refused(answer(running.port, GARBAGE[name]), name)


def hostile(seed: int) -> tuple[str, bytes]:
    """Return a request that is made to break something; a few damaged files are still audio."""
    chance = random.Random(seed)
    kind = chance.choice(["garbage", "damaged", "damaged", "damaged", "bytes", "form"])
    if kind == "garbage":
        name = chance.choice(list(GARBAGE))
        return name, GARBAGE[name]
    if kind == "damaged":
        shape = chance.choice(SHAPES)
        return f"damaged {shape[0]}", request(form(damaged(audio(0.3, *shape), chance)))
    if kind == "bytes":
        return "bytes", request(form(chance.randbytes(chance.randrange(1, 5000))))
    body = damaged(form(audio()), chance)
    return "damaged form", request(body, length=chance.choice([len(body), len(body) + 9]))


def attack(running, count: int) -> None:
    """Send hostile requests from several callers at once; real ones are answered meanwhile."""

    def one(seed: int) -> None:
        name, content = hostile(seed)
        found = answer(running.port, content)
        if not found.startswith(b"HTTP/1.1 200"):
            check_refused(found, f"{name}, seed {seed}")

    before = httpx.post(running.url + PATH, files={"file": audio(1.0)}, timeout=60).json()
    with ThreadPoolExecutor(8) as callers:
        for _ in callers.map(one, range(count)):
            pass
    assert httpx.post(running.url + PATH, files={"file": audio(1.0)}, timeout=60).json() == before
    until = time.monotonic() + 10
    while running.service.requests and time.monotonic() < until:
        time.sleep(0.05)
    assert running.service.requests == 0
    assert not list(running.folder.iterdir())


def test_hostile_requests_at_once(running):
    attack(running, 40)


@pytest.mark.slow
def test_a_thousand_hostile_requests(running):
    attack(running, 1000)


def test_slow_senders_hold_up_nobody(running):
    sleepers = [socket.create_connection(("127.0.0.1", running.port), timeout=30) for _ in range(50)]
    try:
        for i, sleeper in enumerate(sleepers):
            sleeper.sendall(request(form(audio()))[: 10 + 13 * i])
        assert httpx.post(running.url + PATH, files={"file": audio()}, timeout=30).status_code == 200
        for sleeper in sleepers:
            check_refused(sleeper.recv(4096) + sleeper.recv(4096), "slow")
    finally:
        for sleeper in sleepers:
            sleeper.close()


@pytest.mark.slow
def test_fifty_callers_at_once(spoken):
    """None fails, the memory is bounded, and the transcripts are those of the files."""
    paths = (spoken * 50)[:50]
    expected = dict(zip(spoken, load("an4").transcribe(list(spoken)), strict=True))
    with serving() as running, ThreadPoolExecutor(50) as callers:

        def call(path):
            with path.open("rb") as file:
                return httpx.post(running.url + PATH, files={"file": file}, timeout=120)

        call(paths[0])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answers = list(callers.map(call, paths))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert [answer.status_code for answer in answers] == [200] * 50
        assert [answer.json()["text"] for answer in answers] == [expected[path].text for path in paths]
        metrics = httpx.get(f"{running.url}/metrics").text
    batches = next(
        float(line.split()[1]) for line in metrics.splitlines() if line.startswith("asr_batches_total")
    )
    assert batches < 51  # several were computed together
    assert grown < 600_000  # kB
