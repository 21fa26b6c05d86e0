"""Turn audio files into text.

  asr transcribe speech.wav --model runs/an4/bundle               print the text
  asr transcribe recordings/ -o texts -f srt json --model BUNDLE  a .srt and a .json for every file of a folder
  asr transcribe @list.txt --beside -f all --model BUNDLE         every format, beside each file that a list names
  asr transcribe call.wav --channels separate -f vtt              a speaker on each channel, merged by time
  ffmpeg ... -f wav - | asr transcribe - --model BUNDLE           audio from standard input
  asr transcribe s3://bucket/audio/ -o s3://bucket/texts/ --ray   files elsewhere, on a cluster; --shard I/N without one

Files that cannot be read are listed at the end, the rest are transcribed, and the exit status is 1. Outputs that asr
already made from the same files are kept, so that the same command continues where it was stopped. `asr listen`
transcribes while somebody speaks.
"""

import argparse
import errno
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.cli import elsewhere, options
from asr.cli.console import (
    STDOUT,
    Failure,
    check_writable,
    note,
    report_failures,
    speech_progress,
    write_failures,
)
from asr.cli.inputs import STDIN, find_audio
from asr.cli.plan import Destination, Job, plan
from asr.cli.recordings import join_channels, open_recordings
from asr.errors import AsrError, AudioError
from asr.outputs import FORMATS, Layout, Origins, output_path, render, to_json, write_outputs
from asr.wording import nearest

if TYPE_CHECKING:
    from asr import Recognizer, Transcript

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
SUBTITLES = ("srt", "vtt", "tsv")  # of which each file has its own


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="FILE",
        help="audio files, folders, globs, @FILE with one of these a line, or - for standard input",
    )
    options.add_model(parser)
    parser.add_argument("--recursive", action="store_true", help="subfolders of folders are read, too")
    parser.add_argument(
        "--channels",
        type=_channels,
        default="mix",
        metavar="mix|separate|N",
        help="channels of a file: averaged, each on its own with a speaker label, or only the Nth, counted from 1 "
        "(default: mix)",
    )
    parser.add_argument(
        "--salvage", action="store_true", help="damaged files: keep what can be read of them, and mark it"
    )
    _add_output_arguments(parser)
    _add_layout_arguments(parser)
    _add_machine_arguments(parser)
    options.add_computing(parser)
    options.add_decoding(parser)


def _add_output_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("outputs")
    place = group.add_mutually_exclusive_group()
    place.add_argument(
        "-o",
        "--output-dir",
        metavar="DIR",
        help="folder for NAME.txt, ... instead of printing; folders keep their tree",
    )
    place.add_argument("--beside", action="store_true", help="outputs NAME.txt, ... go beside each input")
    group.add_argument(
        "-f",
        "--format",
        nargs="+",
        action="extend",
        metavar="FORMAT",
        help=f"formats, one or several of {', '.join(FORMATS)}, or all (default: txt)",
    )
    group.add_argument("--overwrite", action="store_true", help="existing outputs are made again")
    group.add_argument(
        "--failures", metavar="FILE", help="file for what failed, a line of JSON each: source, message, kind"
    )


def _add_layout_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("layout")
    group.add_argument("--word-timestamps", action="store_true", help="words of each segment are in json")
    group.add_argument(
        "--character-timestamps", action="store_true", help="letters of each word, with times, are in json"
    )
    group.add_argument(
        "--min-confidence",
        type=_share,
        metavar="P",
        help="confidence from 0 to 1, below which a word is doubtful",
    )
    group.add_argument(
        "--doubtful",
        choices=("mark", "omit"),
        default="mark",
        help="doubtful words: mark them as [word] in txt, srt, vtt and tsv and as doubtful in json, or omit them "
        "everywhere (default: mark)",
    )
    group.add_argument("--max-line-width", type=int, metavar="N", help="characters in a line of subtitles")
    group.add_argument(
        "--max-line-count",
        type=int,
        metavar="N",
        help="lines in a subtitle; needs --max-line-width",
    )
    group.add_argument(
        "--highlight-words",
        action="store_true",
        help="words of a subtitle are underlined while they are spoken",
    )


def _add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("many machines")
    group.add_argument(
        "--shard",
        type=options.shard,
        metavar="I/N",
        help="part of the inputs, the Ith of N, told by their names, for N runs on as many machines",
    )
    group.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="Ray cluster that does the work, as auto or ray://head:10001 (default: processes of this machine)",
    )
    group.add_argument(
        "--ray-workers",
        type=options.count(1),
        metavar="N",
        help="processes at most (default: as the cluster has room)",
    )
    group.add_argument(
        "--ray-gpus", type=float, default=0, metavar="N", help="GPUs of a process, as 1 or 0.5 (default: 0)"
    )


@dataclass(frozen=True)
class Writer:
    """Writes or prints transcripts.

    Attributes:
        destination, layout, origins: where they go, how they look, and which output was made of which file.
        several: whether there are several inputs, so that a printed text needs the name of its own.
        facts: of the run, for JSON: model and version.
    """

    destination: Destination
    layout: Layout
    origins: Origins
    several: bool
    facts: dict[str, Any]

    def put(self, job: Job, transcript: "Transcript") -> str | None:
        """Write or print a transcript; return why its files cannot be written. Raises AsrError for a full disk."""
        # A name that is not UTF-8 is not JSON either.
        facts = {"file": os.fsencode(job.source).decode("utf-8", "replace")} | self.facts
        if not self.destination.writes:
            print(self._line(job, transcript, facts), end="", flush=True)
            return None
        try:
            write_outputs(transcript, job.stem, job.formats, job.name, self.layout, facts)
        except OSError as error:
            problem = f"cannot write {output_path(job.stem, job.formats[0])}: {error.strerror}"
            if error.errno in DISK_FULL:
                raise AsrError(
                    f"{problem}; stopped; with more space, the same command continues where it was"
                ) from None
            return problem
        if job.origin is not None:
            self.origins.add(job.stem, job.formats, job.origin)
        return None

    def _line(self, job: Job, transcript: "Transcript", facts: dict[str, Any]) -> str:
        (form,) = job.formats
        if form == "json":
            return json.dumps(to_json(transcript, self.layout, facts), ensure_ascii=False) + "\n"
        text = render(transcript, form, job.name, self.layout)
        if form != "txt" or not self.several:
            return text
        return "".join(f"{job.source}: {line}\n" for line in text.splitlines() or [""])


def run(arguments: argparse.Namespace) -> int:
    """Transcribe everything readable; 1 if anything was not."""
    formats, inputs = _formats(arguments)
    layout = _layout(arguments, formats)
    if not inputs:
        raise AsrError(
            "no input was given; expected audio files, folders, globs, @FILE, or - for standard input"
        )
    if elsewhere.is_asked_for(arguments, inputs):
        return elsewhere.run(arguments, inputs, formats, layout)
    found, failures = find_audio(inputs, arguments.recursive)
    if not found and not failures:
        raise AudioError("there is nothing to transcribe")
    _check(len(found), formats, arguments)
    destination = _destination(arguments)
    origins = Origins(destination.folder)
    planned = plan(found, destination, formats, origins, arguments.overwrite, arguments.shard)
    total = len(found) if arguments.shard is None else sum(map(arguments.shard.holds, found.values()))
    total += len(failures)
    failures += planned.failures
    for notice in planned.notices:
        note(notice)
    try:
        if planned.jobs:
            writer = Writer(destination, layout, origins, len(planned.jobs) > 1, options.facts(arguments))
            _transcribe(options.load_recognizer(arguments), planned.jobs, writer, arguments, failures)
    except (AsrError, KeyboardInterrupt):  # before the run ends, report what failed
        report_failures(failures, 0)
        raise
    finally:
        if arguments.failures:
            write_failures(arguments.failures, failures)
    return report_failures(failures, total)


def _transcribe(
    recognizer: "Recognizer",
    jobs: Sequence[Job],
    writer: Writer,
    arguments: argparse.Namespace,
    failures: list[Failure],
) -> None:
    """Transcribe the jobs and write or print their results; what fails goes to `failures`."""
    from asr.recognizer import in_order

    paths = [job.source for job in jobs]
    recordings = open_recordings(paths, recognizer.sample_rate, arguments.channels, arguments.salvage)
    sources = [source for recording in recordings for source in recording.sources]
    seconds = sum(source.seconds for source in sources)
    with speech_progress(seconds, len(sources), "transcribing", quiet=arguments.quiet) as progress:
        outcomes = recognizer.transcribe_as_completed(
            sources,
            batch_seconds=arguments.batch_seconds,
            progress=progress.update,
            character_times=arguments.character_timestamps,
        )
        joined = join_channels(outcomes, recordings)
        # Files are written as soon as they are done; what is printed comes in the order of the inputs.
        for index, outcome in joined if writer.destination.writes else in_order(joined):
            job, damage = jobs[index], recordings[index].damage
            if isinstance(outcome, AsrError):
                failures.append(Failure(job.source, str(outcome), type(outcome).__name__))
                continue
            if damage:
                failures.append(Failure(job.source, f"{damage[0]}; what comes before is kept", "AudioError"))
                outcome = replace(outcome, damage=str(damage[0]))
            if problem := writer.put(job, outcome):
                failures.append(Failure(job.source, problem, "OSError"))


def _formats(arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return the formats and the inputs: what follows -f may be both, as in `-f srt json speech.wav`."""
    names = arguments.format or []
    formats = [name for name in names if name in FORMATS or name == "all"]
    inputs = [name for name in names if name not in formats]
    for name in inputs:
        if name != STDIN and not set(name) & set("./*?[@") and not Path(name).exists():
            suggestion = nearest(name, FORMATS)
            raise AsrError(
                f"-f: there is no format {name!r}; expected {', '.join(FORMATS)} or all{suggestion}"
            )
    chosen: list[str] = [*FORMATS] if "all" in formats else list(dict.fromkeys(formats)) or ["txt"]
    return chosen, [*arguments.inputs, *inputs]


def _layout(arguments: argparse.Namespace, formats: Sequence[str]) -> Layout:
    """Return how outputs look. Raises AsrError for options that do not fit."""
    for name in ("max_line_width", "max_line_count"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise AsrError(f"--{name.replace('_', '-')} is {value}; expected 1 or more")
    if arguments.max_line_count is not None and arguments.max_line_width is None:
        raise AsrError("--max-line-count was given without --max-line-width, which tells where lines end")
    if arguments.character_timestamps and "json" not in formats:
        raise AsrError("--character-timestamps are written into json, which was not asked for; add -f json")
    return Layout(
        arguments.word_timestamps or arguments.character_timestamps,
        arguments.max_line_width,
        arguments.max_line_count,
        arguments.highlight_words,
        arguments.min_confidence or 0.0,
        omit_doubtful=arguments.doubtful == "omit",
    )


def _destination(arguments: argparse.Namespace) -> Destination:
    """Return where outputs go, and make their folder. Raises AsrError if that cannot be."""
    if arguments.beside or arguments.output_dir in (None, STDOUT):  # -o - prints, as elsewhere
        return Destination(beside=arguments.beside)
    folder = Path(arguments.output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AsrError(f"cannot write into -o {folder}: {error.strerror}") from error
    return Destination(folder)


def _check(inputs: int, formats: Sequence[str], arguments: argparse.Namespace) -> None:
    """Raise AsrError for outputs that need files, where nothing but standard output was named."""
    check_writable(arguments.failures)
    if arguments.beside or arguments.output_dir not in (None, STDOUT):
        return
    if len(formats) > 1:
        raise AsrError("several formats need several files for each input; name a place: -o DIR or --beside")
    if inputs > 1 and formats[0] in SUBTITLES:
        raise AsrError(
            f"{formats[0]} of several inputs needs several files; name a place: -o DIR or --beside"
        )


def _channels(text: str) -> str | int:
    if text in ("mix", "separate"):
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} was given; expected mix, separate, or the number of a channel, counted from 1"
        )
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} was given; expected a number from 0 to 1")
    return value
