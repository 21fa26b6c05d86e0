"""`asr transcribe` of files that are elsewhere, or on a Ray cluster: tasks that any machine can do."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from asr.cli import options
from asr.cli.console import Failure, note, progress_bar, report_failures, write_failures
from asr.cli.inputs import STDIN, find_audio
from asr.cli.plan import Shard, stems
from asr.cluster import Outcome, Task, run_here, run_on_ray
from asr.errors import AsrError, AudioError
from asr.outputs import Layout, output_path
from asr.remote import find_audio_at, is_remote, names_at


def is_asked_for(arguments: argparse.Namespace, inputs: Sequence[str]) -> bool:
    """Return whether inputs or outputs are elsewhere, or a cluster is to do the work."""
    places = [*inputs, arguments.output_dir or ""]
    return arguments.ray is not None or any(map(is_remote, places))


def run(arguments: argparse.Namespace, inputs: Sequence[str], formats: Sequence[str], layout: Layout) -> int:
    """Transcribe what is not done yet; 1 if anything failed."""
    _check(arguments, inputs)
    found, failures = _find(inputs, arguments.recursive)
    tasks, total = _tasks(found, arguments, formats)
    total += len(failures)
    try:
        if tasks:
            with progress_bar(len(tasks), "transcribing", quiet=arguments.quiet) as progress:
                for outcome in _outcomes(tasks, arguments, layout):
                    progress.update(1)
                    if outcome.error:
                        failures.append(Failure(outcome.source, outcome.error, outcome.kind))
    finally:
        if arguments.failures:
            write_failures(arguments.failures, failures)
    note(f"{total - len(failures)} of {total} are done, {len(tasks)} of them in this run")
    return report_failures(failures, total)


def _check(arguments: argparse.Namespace, inputs: Sequence[str]) -> None:
    if not arguments.output_dir or arguments.output_dir == STDIN:
        raise AsrError(
            "files elsewhere, and --ray, need a place for their outputs; name it: -o DIR or -o s3://..."
        )
    if STDIN in inputs:
        raise AsrError("standard input cannot be sent to other machines; name files")
    if arguments.channels != "mix" or arguments.salvage or arguments.character_timestamps:
        raise AsrError(
            "--channels, --salvage and --character-timestamps are for files on this machine; leave them out, or copy "
            "the files here"
        )


def _find(inputs: Sequence[str], recursive: bool) -> tuple[dict[str, Path], list[Failure]]:
    """Return the audio of inputs, here and elsewhere, with its place in the folder it was found in."""
    found, failures = find_audio([item for item in inputs if not is_remote(item)], recursive)
    found = {str(Path(path).absolute()): place for path, place in found.items()}
    for item in filter(is_remote, inputs):
        try:
            found |= find_audio_at(item, recursive)
        except AudioError as error:
            failures.append(Failure(item, str(error), "AudioError"))
    if not found and not failures:
        raise AudioError("there is nothing to transcribe")
    return found, failures


def _tasks(
    found: dict[str, Path], arguments: argparse.Namespace, formats: Sequence[str]
) -> tuple[list[Task], int]:
    """Return the tasks that are still to be done in this shard, and how many there are in all of it."""
    folder = arguments.output_dir.rstrip("/")
    if not is_remote(folder):
        folder = str(Path(folder).absolute())
    shard: Shard | None = arguments.shard
    planned = {
        source: stem
        for source, stem in zip(found, stems(found, Path()), strict=True)
        if shard is None or shard.holds(found[source])
    }
    done = set() if arguments.overwrite else names_at(folder)
    tasks = []
    for source, stem in planned.items():
        missing = tuple(form for form in formats if str(output_path(stem, form)) not in done)
        if missing:
            tasks.append(Task(source, f"{folder}/{stem}", str(stem), missing))
    if kept := len(planned) - len(tasks):
        note(
            f"{kept} of {len(planned)} have outputs already and are skipped; --overwrite transcribes them again"
        )
    return tasks, len(planned)


def _outcomes(tasks: Sequence[Task], arguments: argparse.Namespace, layout: Layout) -> Iterator[Outcome]:
    model = options.model_folder(arguments)
    settings = {
        "model": str(model.absolute()) if model.exists() else str(model),
        "device": arguments.device,
        "engine": arguments.engine,
        "compute_type": arguments.compute_type,
        "layout": layout,
        "facts": options.facts(arguments),
    }
    search = options.decoding(arguments)
    if arguments.ray is None:
        if search and arguments.threads:
            search["processes"] = arguments.threads
        return run_here(tasks, threads=arguments.threads or None, **settings, **search)
    if search:
        search["processes"] = 1
    return run_on_ray(
        tasks,
        arguments.ray or None,
        workers=arguments.ray_workers,
        num_cpus=arguments.threads or 1,
        num_gpus=arguments.ray_gpus,
        threads=arguments.threads or 1,
        **settings,
        **search,
    )
