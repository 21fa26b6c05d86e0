"""What `asr transcribe` is to do: which file becomes which outputs, and which outputs exist already."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asr.cli.console import Failure
from asr.cli.inputs import STDIN
from asr.errors import AsrError
from asr.outputs import Origin, Origins, output_path, recording_id
from asr.wording import some


@dataclass(frozen=True)
class Destination:
    """Where outputs go.

    Attributes:
        folder: the folder that keeps the inputs' tree; None to print, or to write beside the inputs.
        beside: whether outputs are written beside the inputs.
    """

    folder: Path | None = None
    beside: bool = False

    @property
    def writes(self) -> bool:
        """Whether there are files to write."""
        return self.beside or self.folder is not None


@dataclass(frozen=True)
class Job:
    """One audio file to transcribe.

    Attributes:
        source: its path, or - for standard input.
        stem: path of its outputs, without a format's suffix.
        name: the recording's in CTM and TRN.
        formats: of the outputs that are to be made.
        origin: the file as it was when the plan was made; None for what has none.
    """

    source: str
    stem: Path
    name: str
    formats: tuple[str, ...]
    origin: Origin | None = None


@dataclass(frozen=True)
class Shard:
    """A part of the inputs, told by their names: the same wherever they are, and whatever else there is.

    Attributes: index, counted from 1; count of all parts.

    >>> [Shard(index, 2).holds(Path("talk/a.wav")) for index in (1, 2)]
    [True, False]
    """

    index: int
    count: int

    def holds(self, place: Path) -> bool:
        """Return whether an input's place in its tree belongs to this part."""
        digest = hashlib.sha256(os.fsencode(place.as_posix())).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index - 1


@dataclass(frozen=True)
class Plan:
    """Jobs to do, failures found before, notices for the user, and how many inputs there are in all."""

    jobs: list[Job]
    failures: list[Failure]
    notices: list[str]


def plan(
    inputs: Mapping[str, Path],
    destination: Destination,
    formats: Sequence[str],
    origins: Origins,
    overwrite: bool = False,
    shard: Shard | None = None,
) -> Plan:
    """Plan the outputs of inputs, {path: its place in the tree it was found in}.

    Only a `shard` of them, if one is given. Outputs that were made of the same files before are kept unless
    `overwrite`. An output that is older than its input, and may be anyone's work, is a failure.
    """
    root = destination.folder or Path()
    paths = stems(inputs, None if destination.beside else root)
    planned = [
        (source, stem)
        for (source, place), stem in zip(inputs.items(), paths, strict=True)
        if shard is None or shard.holds(place)
    ]
    jobs, failures, kept, replaced = [], [], [], []
    for source, stem in planned:
        name = stem.name if destination.beside else str(stem.relative_to(root))
        job = Job(source, stem, name, tuple(formats))
        if destination.writes and source != STDIN:
            try:
                job = replace(job, origin=Origin.of(source))
                job = job if overwrite else replace(job, formats=_missing(job, origins))
            except (AsrError, OSError) as error:
                failures.append(Failure(source, f"{source}: {error}", type(error).__name__))
                continue
        if not job.formats:
            kept.append(output_path(stem, formats[0]))
            continue
        jobs.append(job)
        if not overwrite and job.origin and (other := origins.other(stem, job.formats, job.origin)):
            replaced.append((output_path(stem, formats[0]), other))
    notices = _notices(len(planned), kept, replaced)
    return Plan(jobs, failures, notices + _shared_ids(jobs) if {"ctm", "trn"} & {*formats} else notices)


def _shared_ids(jobs: Sequence[Job]) -> list[str]:
    """Return notices that name inputs which one id stands for in CTM and TRN, as a/b.wav and a-b.wav."""
    sources: dict[str, list[str]] = {}
    for job in jobs:
        sources.setdefault(recording_id(job.name), []).append(job.source)
    return [
        f"the id {name} in ctm and trn stands for {some(same)}; rename all but one of them to tell them apart"
        for name, same in sources.items()
        if len(same) > 1
    ]


def _notices(total: int, kept: Sequence[Path], replaced: Sequence[tuple[Path, str]]) -> list[str]:
    notices = []
    if replaced:
        output, source = replaced[0]
        notices.append(
            f"{len(replaced)} of {total} replace outputs of other files of the same name "
            f"({output} was made of {source})"
        )
    if kept:
        notices.append(
            f"{len(kept)} of {total} have outputs already, such as {kept[0]}, and are skipped; --overwrite "
            "transcribes them again"
        )
    return notices


def _missing(job: Job, origins: Origins) -> tuple[str, ...]:
    """Return the formats whose outputs are missing, or were made of another file or of this one before it changed.

    Raises AsrError for an output that is older than the input and may be anyone's work.
    """
    missing = []
    assert job.origin is not None
    for form in job.formats:
        output = output_path(job.stem, form)
        try:
            exists = output.is_file()
            outdated = exists and output.stat().st_mtime_ns < job.origin.mtime_ns
        except OSError as error:
            raise AsrError(f"cannot look for {output}: {error.strerror}") from error
        if outdated and not origins.made(job.stem, form):
            raise AsrError(
                f"{output} is there, older than its audio, and not known to be written by asr; --overwrite replaces it"
            )
        if not exists or outdated or origins.other(job.stem, [form], job.origin):
            missing.append(form)
    return tuple(missing)


def stems(inputs: Mapping[str, Path], folder: Path | None) -> list[Path]:
    """Return the outputs' paths without suffix: in `folder` by the inputs' places, or (None) beside the inputs.

    Inputs of one place keep the folders in which they differ, those whose names differ only in their suffix keep that;
    one whose name is taken all the same gets a number.
    """
    from asr.audio import AUDIO_SUFFIXES

    def bare(place: Path) -> Path:
        return place.with_suffix("") if place.suffix.lower() in AUDIO_SUFFIXES else place

    namesakes: dict[Path, list[str]] = {}
    for path, place in inputs.items():
        namesakes.setdefault(place, []).append(path)
    places = []
    for path, place in inputs.items():
        if folder is None:
            places.append(place if path == STDIN else Path(path))
            continue
        if len(namesakes[place]) > 1:
            common = os.path.commonpath([Path(other).absolute().parent for other in namesakes[place]])
            place = Path(os.path.relpath(path, common))
        places.append(folder / place)
    count_of_bare = Counter(map(bare, places))
    names = [place if count_of_bare[bare(place)] > 1 else bare(place) for place in places]
    count_of_name, used = Counter(names), Counter()
    paths = []
    for name in names:
        used[name] += 1
        paths.append(name if count_of_name[name] == 1 else name.with_name(f"{name.name}.{used[name]}"))
    return paths
