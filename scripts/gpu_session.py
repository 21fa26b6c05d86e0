"""Use a short lease of a GPU well: tests, benchmarks and trainings in order of importance, within a limit of minutes.

  python scripts/gpu_session.py wheels --output wheels               # here: packages that the machine lacks
  scripts/gpu_session.sh --output results --data data --wheels wheels    # there: about nine minutes, unattended
  scripts/gpu_session.sh --output rehearsal --data data --rehearse       # here: the same on a CPU, for typing errors

`--data` holds data/an4 and data/mini_librispeech as `asr prepare` writes them. The machine needs Python 3.12, PyTorch
with CUDA, Triton, and no network. Each step has a bound of its own, and none starts that the rest of the time cannot
hold. After every step OUTPUT/session.md and OUTPUT/session.json are written anew, and what a step prints goes to
OUTPUT/STEP.txt line by line, so that a session that is cut off keeps all that came before.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = sys.executable
LIMIT_MB = 64  # of what travels to the machine, the working tree included
REHEARSAL_SLOWNESS = 6.0  # of a CPU, in starting and in computing
# Packages that an image with PyTorch lacks, each without its dependencies, which that image has.
WHEELS = (
    *(
        "soundfile",
        "cffi",
        "pycparser",
        "soxr",
        "lhotse",
        "jsonargparse",
        "typeshed-client",
        "docstring-parser",
    ),
    *(
        "lightning-fabric",
        "jiwer",
        "rapidfuzz",
        "intervaltree",
        "audioread",
        "lilcom",
        "tabulate",
        "flashlight-text",
    ),
)
SHORT = "--run.precision bfloat16 --run.epochs 40 --run.max_minutes"


@dataclass(frozen=True)
class Step:
    """A command of the session.

    Attributes:
        name: of its row and its file.
        command: what runs, without the Python interpreter; {data} and {out} stand for the folders.
        most: seconds after which it is stopped; what it printed is kept.
        least: seconds without which it is not worth starting.
        rehearsal: the command for a CPU, "" to run the same.
    """

    name: str
    command: str
    most: float
    least: float
    rehearsal: str = ""


def training(name: str, minutes: float) -> list[Step]:
    """Return the steps of a recipe: train for some minutes in bfloat16, then report the WER."""
    data = f"--data.train {{data}}/{name}/cuts_train.jsonl.gz --data.dev {{data}}/{name}/cuts_dev.jsonl.gz"
    run = f"--run.folder {{out}}/runs/{name} {data}"
    config = (
        f"-m asr train --config recipes/{name}/config.yaml --run.warm_start= --loss.lexicon= "
        "--loss.intermediate_layers=[2]"
    )
    small = "--run.epochs 1 --run.max_minutes 0.2 --model.layers 3 --model.hidden_size 16 --data.workers 0"
    evaluate = f"-m asr evaluate {{data}}/{name}/cuts_dev.jsonl.gz --model {{out}}/runs/{name}/bundle"
    return [
        Step(
            f"train_{name}",
            f"{config} {SHORT} {minutes} {run}",
            60 * minutes + 30,
            60,
            f"{config} {small} {run}",
        ),
        Step(f"wer_{name}", f"{evaluate} --device cuda", 30, 10, f"{evaluate} --device cpu"),
    ]


def steps() -> list[Step]:
    """Return the session's steps, the most important first."""
    device, interpreted = "tests/recurrent/test_gpu_device.py", "tests/recurrent/test_gpu_interpreted.py"
    bench = "scripts/bench/bench_recurrent_gpu.py --rounds 5"
    an4, wer_an4 = training("an4", 1.0)
    beam = "-m asr evaluate {data}/an4/cuts_dev.jsonl.gz --model asr/bundles/an4 --beam-size 32"
    return [
        Step("environment", "-m asr info", 20, 5),
        Step(
            "correct",
            f"-m pytest -q -m gpu {device} -k matches",
            110,
            20,
            f"-m pytest -q -x {interpreted} -k test_a_dense",
        ),
        Step(
            "tests", f"-m pytest -q -m gpu {device} -k 'not matches'", 60, 10, f"-m pytest -q -m gpu {device}"
        ),
        Step("table_512", f"{bench} --hidden 512 --batch 32", 60, 15, f"{bench} --help"),
        Step("table_1024", f"{bench} --hidden 1024 --batch 64", 60, 15, f"{bench} --help"),
        an4,
        wer_an4,
        *training("mini_librispeech", 1.5),
        Step("beam_search", f"{beam} --device cuda", 30, 10, f"{beam} --device cpu"),
        Step("table_rest", f"{bench} --hidden 320 512 800 1024 --batch 32 64", 120, 20, f"{bench} --help"),
    ]


def rehearsed(step: Step) -> Step:
    """Return a step as a CPU can rehearse it, with more time."""
    return replace(step, command=step.rehearsal or step.command, most=REHEARSAL_SLOWNESS * step.most)


@dataclass(frozen=True)
class Result:
    """What became of a step: ok, failed, stopped at its bound, or left out for want of time; and its last lines."""

    name: str
    state: str
    seconds: float
    tail: tuple[str, ...] = ()


Run = Callable[[Step, float], tuple[int | None, tuple[str, ...]]]


def session(
    planned: Sequence[Step],
    limit: float,
    run: Run,
    record: Callable[[Sequence[Result]], object],
    clock: Callable[[], float] = time.monotonic,
) -> list[Result]:
    """Run steps in order within `limit` seconds; `record` gets all results after each step.

    `run` takes a step and its seconds and returns the exit status, None where the step was stopped, and its last lines.
    """
    began, results = clock(), []
    for step in planned:
        left = limit - (clock() - began)
        if left < step.least:
            results.append(
                Result(step.name, "left out", 0.0, (f"{left:.0f} s were left, {step.least:.0f} needed",))
            )
        else:
            started = clock()
            status, tail = run(step, min(step.most, left))
            state = "stopped" if status is None else "failed" if status else "ok"
            results.append(Result(step.name, state, clock() - started, tail))
        record(results)
    return results


def run_command(step: Step, seconds: float, out: Path) -> tuple[int | None, tuple[str, ...]]:
    """Run a step's command for at most so many seconds, its output in a file; the whole process group ends with it."""
    path = out / f"{step.name}.txt"
    with path.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            f"exec {PYTHON} -u {step.command}",
            shell=True,
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return status, tuple(path.read_text("utf-8", errors="replace").splitlines()[-6:])


def write_results(results: Sequence[Result], out: Path) -> None:
    """Write session.json, and session.md with the tables that steps printed."""
    (out / "session.json").write_text(json.dumps([asdict(result) for result in results], indent=1), "utf-8")
    lines = ["| step | state | seconds | last line |", "|---|---|---|---|"]
    for result in results:
        last = result.tail[-1].strip().replace("|", "/") if result.tail else ""
        lines.append(f"| {result.name} | {result.state} | {result.seconds:.0f} | {last[:140]} |")
    for result in results:
        path = out / f"{result.name}.txt"
        if result.name.startswith("table") and path.is_file():
            lines += ["", f"## {result.name}", "", path.read_text("utf-8", errors="replace").strip()]
    (out / "session.md").write_text("\n".join(lines) + "\n", "utf-8")


def fetch_wheels(folder: Path) -> int:
    """Download the wheels that the machine lacks; print what travels and whether it is too much."""
    platforms = [
        f"--platform=manylinux{version}_x86_64" for version in ("_2_28", "_2_27", "_2_17", "2014", "1")
    ]
    command = [
        PYTHON,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--python-version",
        "3.12",
    ]
    failed = []
    for name in WHEELS:
        if subprocess.run([*command, *platforms, "-q", "-d", str(folder), name], check=False).returncode:
            failed.append(name)
    megabytes = sum(path.stat().st_size for path in folder.glob("*.whl")) / 2**20
    for path in sorted(folder.glob("*.whl")):
        print(path.name)
    print(
        f"{megabytes:.1f} MB of wheels; with the working tree and the data at most {LIMIT_MB} MB may travel"
    )
    if failed:
        print(f"no wheel was found of {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def main() -> int:
    """Command line; 1 if a step failed, was stopped or did not fit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", nargs="?", choices=("run", "wheels"), default="run")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the results")
    parser.add_argument(
        "--data", type=Path, default=Path("data"), metavar="DIR", help="folder of prepared corpora"
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="limit of the whole session (default: 9)")
    parser.add_argument("--rehearse", action="store_true", help="run on a CPU what there is to run there")
    arguments = parser.parse_args()
    out = arguments.output.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if arguments.action == "wheels":
        return fetch_wheels(out)
    planned = [rehearsed(step) if arguments.rehearse else step for step in steps()]
    limit = 60 * arguments.minutes * (REHEARSAL_SLOWNESS if arguments.rehearse else 1)

    def run(step: Step, seconds: float) -> tuple[int | None, tuple[str, ...]]:
        print(f"{step.name}: at most {seconds:.0f} s", flush=True)
        command = step.command.format(data=arguments.data.resolve(), out=out)
        return run_command(replace(step, command=command), seconds, out)

    results = session(planned, limit, run, lambda results: write_results(results, out))
    print((out / "session.md").read_text("utf-8"))
    return 0 if all(result.state == "ok" for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
