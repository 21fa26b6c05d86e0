"""Measure the service on this machine: requests a second, streams a core, how late words come, and scaling over Ray.

  python scripts/bench/bench_serving.py SPEECH_FOLDER --model an4
  python scripts/bench/bench_serving.py SPEECH_FOLDER --ray 1 2    files over Ray instead, by 1 and by 2 workers

The service runs as `asr serve`, the callers in this process; on two cores they share them, so the processor time of
the service alone is printed, too. A stream is fed in real time. Streams a core are streams over the cores in use.
"""

import argparse
import asyncio
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import soundfile
from websockets.asyncio.client import connect

from asr.audio import audio_files, load_audio
from asr.cluster import GROUP, Outcome, Task, run_here, run_on_ray
from asr.serve.client import to_pcm16

RATE = 16000
BLOCK_SECONDS = 0.1
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="folder of speech")
    parser.add_argument("--model", default="an4")
    parser.add_argument("--threads", default="0", help="of the service")
    parser.add_argument("--file-seconds", type=float, default=5.0, help="of a request's audio")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 2, 8, 32])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 10, 20, 40])
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measurement")
    parser.add_argument(
        "--ray", type=int, nargs="*", default=[], help="numbers of workers; nothing else is measured"
    )
    parser.add_argument("--files", type=int, default=2000, help="of a measurement with --ray")
    arguments = parser.parse_args()
    paths = audio_files(arguments.folder)[:200]
    if not paths:
        parser.error(f"there is no audio in {arguments.folder}")
    speech = np.concatenate([load_audio(path, RATE) for path in paths])
    if arguments.ray:
        scaling(speech, arguments)
        return
    with served(arguments.model, arguments.threads) as (url, process):
        requests(url, process, speech, arguments)
        streams(url, process, speech, arguments)


@contextmanager
def served(model: str, threads: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """Run the service; yield its address and its process."""
    command = [sys.executable, "-m", "asr", "serve", "--model", model, "--port", "0", "--threads", threads]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if line.startswith("serving"))
        try:
            yield line.split(" at ")[1].split("/;")[0], process
        finally:
            process.terminate()


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process and its children, that ran or run."""
    total = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it ended
            continue
        if int(path.parent.name) == pid or int(fields[1]) == pid:
            total += sum(map(int, fields[11:15])) / TICKS
    return total


def requests(url: str, process: subprocess.Popen, speech: np.ndarray, arguments: argparse.Namespace) -> None:
    """Send files from several callers at once."""
    size = round(arguments.file_seconds * RATE)
    count = max(1, min(64, len(speech) // size))
    files = [wav(np.resize(speech[i * size :], size)) for i in range(count)]
    post(url, files[0])
    print(f"\nrequests with {arguments.file_seconds:g} s of audio, {arguments.seconds:g} s each")
    print(f"{'callers':>8} {'a second':>9} {'p50 s':>8} {'p95 s':>8} {'x real time':>12} {'cores used':>11}")
    for callers in arguments.callers:
        began, used = time.monotonic(), processor_seconds(process.pid)

        def call(number: int, until: float = began + arguments.seconds) -> list[float]:
            took = []
            while time.monotonic() < until:
                start = time.monotonic()
                post(url, files[(number + len(took)) % len(files)])
                took.append(time.monotonic() - start)
            return took

        with ThreadPoolExecutor(callers) as pool:
            took = [seconds for part in pool.map(call, range(callers)) for seconds in part]
        wall = time.monotonic() - began
        cores = (processor_seconds(process.pid) - used) / wall
        rate = len(took) / wall
        p50, p95 = np.quantile(took, [0.5, 0.95])
        print(
            f"{callers:8} {rate:9.1f} {p50:8.3f} {p95:8.3f} {rate * arguments.file_seconds:12.0f} {cores:11.2f}"
        )


def post(url: str, content: bytes) -> str:
    """Send a file; return the text."""
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    kind = f"multipart/form-data; boundary={boundary}"
    request = urllib.request.Request(f"{url}/v1/audio/transcriptions", body, {"Content-Type": kind})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["text"]


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV")
    return file.getvalue()


def streams(url: str, process: subprocess.Popen, speech: np.ndarray, arguments: argparse.Namespace) -> None:
    """Feed streams in real time; a word's latency is from the end of its sound to its coming here."""
    print(f"\nstreams in real time, {arguments.seconds:g} s each")
    print(
        f"{'streams':>8} {'words':>7} {'p50 s':>8} {'p95 s':>8} {'behind s':>9} {'cores used':>11} {'a core':>8}"
    )
    for count in arguments.streams:
        began, used = time.monotonic(), processor_seconds(process.pid)
        late, behind = asyncio.run(feed_all(url, speech, count, arguments.seconds))
        cores = (processor_seconds(process.pid) - used) / (time.monotonic() - began)
        p50, p95 = np.quantile(late or [0.0], [0.5, 0.95])
        print(
            f"{count:8} {len(late):7} {p50:8.3f} {p95:8.3f} {behind:9.2f} {cores:11.2f} {count / max(cores, 1e-6):8.0f}"
        )


async def feed_all(url: str, speech: np.ndarray, count: int, seconds: float) -> tuple[list[float], float]:
    """Return the words' latencies, and how long after its audio the last stream was done."""
    offsets = [i * len(speech) // count for i in range(count)]
    parts = [
        np.resize(np.roll(speech, -offset)[: round(seconds * RATE)], round(seconds * RATE))
        for offset in offsets
    ]
    found = await asyncio.gather(
        *(feed(url, part, i / count * BLOCK_SECONDS) for i, part in enumerate(parts))
    )
    return [late for words, _ in found for late in words], max(behind for _, behind in found)


async def feed(url: str, samples: np.ndarray, delay: float) -> tuple[list[float], float]:
    await asyncio.sleep(delay)
    size = round(BLOCK_SECONDS * RATE)
    late: list[float] = []
    async with connect(f"ws{url.removeprefix('http')}/v1/stream?rate={RATE}") as socket:
        await socket.recv()  # that it is ready
        began = time.monotonic()

        async def send() -> None:
            for i in range(0, len(samples), size):
                # A block is there once its last sample is spoken.
                await asyncio.sleep(max(0.0, began + (i + size) / RATE - time.monotonic()))
                await socket.send(to_pcm16(samples[i : i + size]))
            await socket.send('{"type": "finish"}')

        sender = asyncio.create_task(send())
        async for message in socket:
            for word in json.loads(message).get("words", ()):
                late.append(time.monotonic() - began - word["end"])
        await sender
        return late, time.monotonic() - began - len(samples) / RATE


def scaling(speech: np.ndarray, arguments: argparse.Namespace) -> None:
    """Time the transcription of many files: one process of one thread, and Ray's workers of one thread.

    Rates are without the start of Ray and of the workers, which is printed, too. Processor time tells about a machine
    that others use as well.
    """
    with tempfile.TemporaryDirectory() as folder:
        size = round(arguments.file_seconds * RATE)
        tasks = []
        for i in range(arguments.files):
            path = Path(folder, f"{i:04}.wav")
            soundfile.write(path, np.resize(np.roll(speech, -i * size)[:size], size), RATE)
            tasks.append(Task(str(path), str(path.with_suffix("")), path.stem, ("txt",)))
        options = {"model": arguments.model, "engine": "onnx", "threads": 1}
        print(f"\n{len(tasks)} files of {arguments.file_seconds:g} s")
        alone = measure(run_here(tasks, **options), "one process", lambda: [os.getpid()])
        for workers in arguments.ray:
            outcomes = run_on_ray(tasks, workers=workers, **options)
            found = measure(outcomes, f"{workers} Ray workers", workers_of_ray)
            print(
                f"{'':12}efficiency {found[0] / alone[0] / workers:.2f}, by processor time {alone[1] / found[1]:.2f}"
            )


def measure(
    outcomes: Iterator[Outcome], name: str, processes: Callable[[], list[int]]
) -> tuple[float, float]:
    """Return files a second and the processes' processor seconds a file, from the first group of files to the last."""
    began, marks = time.monotonic(), []
    for number, outcome in enumerate(outcomes):
        assert not outcome.error, outcome.error
        if number % GROUP == 0:
            marks.append((number, time.monotonic(), sum(map(processor_seconds, processes()))))
    files, seconds, used = (last - first for first, last in zip(marks[0], marks[-1], strict=True))
    print(
        f"{name}: {files / seconds:.1f} files a second, {1000 * used / files:.2f} ms of processor time each; "
        f"first files after {marks[0][1] - began:.1f} s",
        flush=True,
    )
    return files / seconds, used / files


def workers_of_ray() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended
            found += [int(path.parent.name)] * path.read_bytes().startswith(b"ray::MapWorker")
    return found


if __name__ == "__main__":
    main()
