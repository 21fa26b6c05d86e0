"""Latency of one utterance after load: the engines, weights in int8, one thread and two, and what a stream costs.

    python scripts/bench/bench_latency.py speech.wav --rounds 30

Each configuration is a process of its own, which loads the model once and transcribes when it is asked to; rounds take
the configurations in turn, so that all meet the same machine. Measure on a quiet machine. Printed are medians of wall
and CPU time, the first call, the peak of memory, and the CPU time of a stream as a share of one core.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median, quantiles

# Name: engine and compute type.
ENGINES = {
    "torch": ("torch", "float32"),
    "torch bfloat16": ("torch", "bfloat16"),
    "torch int8": ("torch", "int8"),
    "onnx": ("onnx", "float32"),
}
SECONDS = 5.0
BLOCK = 0.1  # seconds of a stream that come at once, as from a microphone


def serve(name: str, model_name: str, threads: int, path: str) -> None:
    """Answer each line of standard input with a measurement: "run" or "stream"."""
    import asr

    engine, compute_type = ENGINES[name]
    model = asr.load(model_name, "cpu", engine=engine, compute_type=compute_type, threads=threads)
    samples = asr.load_audio(path, model.sample_rate, duration=SECONDS)
    measure = {"run": lambda: model.transcribe(samples), "stream": lambda: stream(model, samples)}
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        measure[line.strip()]()
        result = {
            "wall": time.perf_counter() - wall,
            "cpu": time.process_time() - cpu,
            "seconds": len(samples) / model.sample_rate,
            "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        print(json.dumps(result), flush=True)


def stream(model, samples) -> None:
    """Feed the samples to a stream block by block."""
    block, running = round(BLOCK * model.sample_rate), model.stream()
    for start in range(0, len(samples), block):
        running.feed(samples[start : start + block])
    running.finish()


class Configuration:
    """A process that measures one engine with so many threads."""

    def __init__(self, name: str, threads: int, arguments: argparse.Namespace):
        self.name, self.threads = name, threads
        command = [sys.executable, __file__, arguments.audio, "--model", arguments.model]
        self.process = subprocess.Popen(
            [*command, "--serve", name, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )
        self.first = self.ask("run")
        self.runs: list[dict] = []
        self.streams: list[dict] = []

    def ask(self, what: str) -> dict:
        """Measure once."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def row(self) -> str:
        """Return a row of the table."""
        walls = [1000 * run["wall"] for run in self.runs]
        cells = [
            self.name,
            str(self.threads),
            f"{median(walls):.1f}",
            f"{quantiles(walls, n=10)[-1]:.1f}",
            f"{1000 * median(run['cpu'] for run in self.runs):.1f}",
            f"{1000 * self.first['wall']:.0f}",
            f"{100 * median(run['cpu'] / run['seconds'] for run in self.streams):.1f}",
            f"{self.streams[-1]['megabytes']:.0f}",
        ]
        return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("audio", metavar="FILE", help="speech of 5 s or more")
    parser.add_argument("--model", default="english", metavar="BUNDLE", help="model (default: english)")
    parser.add_argument(
        "--rounds", type=int, default=30, metavar="N", help="measurements of each (default: 30)"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="CPU threads")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="engines")
    parser.add_argument("--serve", choices=ENGINES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not Path(arguments.audio).is_file():
        parser.error(f"there is no file {arguments.audio}")
    if arguments.serve:
        return serve(arguments.serve, arguments.model, arguments.threads[0], arguments.audio)
    configurations = [
        Configuration(name, threads, arguments) for threads in arguments.threads for name in arguments.engines
    ]
    for _ in range(arguments.rounds):
        for configuration in configurations:
            configuration.runs.append(configuration.ask("run"))
    for _ in range(max(3, arguments.rounds // 10)):
        for configuration in configurations:
            configuration.streams.append(configuration.ask("stream"))
    print("| engine | threads | median ms | 90 % ms | CPU ms | first ms | stream, % of a core | peak MB |")
    print("|---|---|---|---|---|---|---|---|")
    for configuration in configurations:
        print(configuration.row())
        configuration.process.stdin.close()
        configuration.process.wait()
    return None


if __name__ == "__main__":
    main()
