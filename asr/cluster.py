"""Transcribing on many machines: a callable that holds the engine, for Ray Data and Spark, and a run of it on Ray."""

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from asr.bundle import SHIPPED
from asr.errors import AsrError
from asr.outputs import Layout, render
from asr.recognizer import load
from asr.remote import read, write
from asr.sources import BLOCK_SECONDS, AudioSource
from asr.transcript import Transcript
from asr.version import install_hint

# Files that one call computes, the same ones wherever it runs: what is computed together changes the last digits.
GROUP = 64


@dataclass(frozen=True)
class Task:
    """One file to transcribe.

    Attributes:
        source: its path or address.
        target: path or address of its outputs, without a format's suffix.
        name: the recording's in CTM and TRN.
        formats: of the outputs to write.
    """

    source: str
    target: str
    name: str
    formats: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a task: the seconds of audio and, where it failed, why, and the kind of error."""

    source: str
    seconds: float
    error: str = ""
    kind: str = ""


class Transcriber:
    """Transcribes batches; where it is called, it loads the model once.

    Arguments: model, its name or folder, which every machine reads; layout (None for the usual one) and facts, of the
    outputs that tasks ask for; options, those of `asr.load`.

    For Ray, `dataset.map_batches(Transcriber, fn_constructor_kwargs={"model": ...}, concurrency=8, num_cpus=1)` with a
    column `audio` of paths, addresses or the bytes of files adds the columns `text`, `seconds` and `error`, "" where
    there is none. For Spark, `mapInPandas(lambda frames: Transcriber(...).in_pandas(frames), schema)`.

    >>> silence = io.BytesIO()
    >>> import soundfile
    >>> soundfile.write(silence, np.zeros(16000), 16000, format="WAV")
    >>> batch = Transcriber("an4", device="cpu")({"audio": [silence.getvalue(), b"no audio"]})
    >>> list(batch["text"]), [bool(error) for error in batch["error"]]
    (['', ''], [False, True])
    """

    def __init__(
        self,
        model: str = str(SHIPPED),
        *,
        layout: Layout | None = None,
        facts: Mapping[str, Any] | None = None,
        **options: Any,
    ):
        self.recognizer = load(model, **options)
        self.layout, self.facts = layout or Layout(), dict(facts or {})

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return a batch, columns by name, with the columns `text`, `seconds` and `error` besides."""
        outcomes = self._transcribe(list(batch["audio"]))
        texts = ["" if isinstance(outcome, AsrError) else outcome.text for outcome in outcomes]
        seconds = [0.0 if isinstance(outcome, AsrError) else outcome.duration for outcome in outcomes]
        errors = [str(outcome) if isinstance(outcome, AsrError) else "" for outcome in outcomes]
        columns = {
            "text": np.array(texts, object),
            "seconds": np.array(seconds),
            "error": np.array(errors, object),
        }
        return {**batch, **columns}

    def in_pandas(self, frames: Iterable[Any]) -> Iterator[Any]:
        """Yield data frames with the columns `text`, `seconds` and `error` besides, for Spark's mapInPandas."""
        for frame in frames:
            columns = self({name: frame[name].to_numpy() for name in frame.columns})
            yield frame.assign(**{name: columns[name] for name in ("text", "seconds", "error")})

    def run(self, tasks: Sequence[Task]) -> list[Outcome]:
        """Transcribe tasks and write their outputs, each whole; an error is that of its task alone."""
        outcomes = self._transcribe([task.source for task in tasks])
        return [self._write(task, outcome) for task, outcome in zip(tasks, outcomes, strict=True)]

    def _write(self, task: Task, outcome: Transcript | AsrError) -> Outcome:
        if isinstance(outcome, AsrError):
            return Outcome(task.source, 0.0, str(outcome), type(outcome).__name__)
        facts = {"file": task.source} | self.facts
        try:
            for form in task.formats:
                text = render(outcome, form, task.name, self.layout, facts)
                write(f"{task.target}.{form}", text.encode("utf-8", "surrogateescape"))
        except AsrError as error:
            return Outcome(task.source, outcome.duration, str(error), type(error).__name__)
        return Outcome(task.source, outcome.duration)

    def _transcribe(self, audio: Sequence[str | bytes]) -> list[Transcript | AsrError]:
        sources = [_source(item, self.recognizer.sample_rate) for item in audio]
        return list(self.recognizer.transcribe_many(sources, errors="return"))


def _source(audio: str | bytes, sample_rate: int) -> AudioSource:
    """Return a source that is fetched when it is its turn, and forgotten then."""
    from asr.audio import stream_audio

    def blocks() -> Iterator[np.ndarray]:
        content = io.BytesIO(audio if isinstance(audio, bytes) else read(str(audio)))
        if not isinstance(audio, bytes):
            content.name = str(audio)  # type: ignore[attr-defined] - as errors call it
        yield from stream_audio(content, sample_rate, BLOCK_SECONDS)

    return AudioSource("<bytes>" if isinstance(audio, bytes) else str(audio), blocks)


class Groups(Transcriber):
    """Transcribes rows of groups of tasks, as Ray's actors are given them; returns a row an outcome."""

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the column `outcome` of a batch with the column `tasks`, both JSON."""
        outcomes = [outcome for row in batch["tasks"] for outcome in self.run(_tasks(row))]
        return {"outcome": np.array([json.dumps(asdict(outcome)) for outcome in outcomes], object)}


def _tasks(row: str) -> list[Task]:
    tasks = [Task(**values) for values in json.loads(row)]
    return [replace(task, formats=tuple(task.formats)) for task in tasks]


def groups_of(tasks: Sequence[Task]) -> list[list[Task]]:
    """Divide tasks into groups that are computed together, here or on any machine."""
    return [list(tasks[i : i + GROUP]) for i in range(0, len(tasks), GROUP)]


def run_here(tasks: Sequence[Task], **options: Any) -> Iterator[Outcome]:
    """Run tasks in this process; options are those of Transcriber."""
    transcriber = Transcriber(**options)
    for group in groups_of(tasks):
        yield from transcriber.run(group)


def run_on_ray(
    tasks: Sequence[Task],
    address: str | None = None,
    *,
    workers: int | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    **options: Any,
) -> Iterator[Outcome]:
    """Run tasks on a Ray cluster: actors hold the engine, and what a dead one had begun, another one does again.

    Arguments: address of the cluster, None for processes of this machine; workers, at most so many actors, None for as
    many as the cluster has room for; num_cpus and num_gpus of an actor; options, those of Transcriber. Raises AsrError
    where Ray is missing or cannot be reached.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise AsrError(f"--ray needs the package ray; {install_hint('ray')}") from error
    try:
        connection: dict[str, Any] = {} if address else {"include_dashboard": False}
        connection |= {"ignore_reinit_error": True, "log_to_driver": False, "logging_level": "error"}
        ray.init(address, **connection)
    except Exception as error:  # it also raises the plainest class
        place = f"no Ray cluster is reached at {address}" if address else "Ray does not start here"
        raise AsrError(f"{place}: {error}") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    rows = [{"tasks": json.dumps([asdict(task) for task in group])} for group in groups_of(tasks)]
    room = ray.cluster_resources()
    most = [room.get("CPU", 1) // num_cpus] if num_cpus else []
    most += [room.get("GPU", 0) // num_gpus] if num_gpus else []
    count = max(1, int(min([workers or len(rows), len(rows), *most])))
    outcomes = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Groups,
        fn_constructor_kwargs=options,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=count),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
    )
    for row in outcomes.iter_rows():
        yield Outcome(**json.loads(row["outcome"]))
