"""Turn audio files into text.

  asr transcribe speech.wav --model runs/an4/bundle               print what was said
  asr transcribe recordings/ -o texts -f srt json --model BUNDLE  a .srt and a .json for every file of a folder
  asr transcribe @list.txt --beside -f all --model BUNDLE         every format, beside each file that a list names
  ffmpeg ... -f wav - | asr transcribe - --model BUNDLE           audio from standard input
  asr transcribe --microphone --model BUNDLE                      words as they are spoken

Files that cannot be read are named at the end, the others are done, and the exit status is 1. Outputs that were made
of the same files already are kept, so that the same command goes on where it was stopped.
"""

import argparse
import errno
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from glob import iglob
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from asr.cli import live, options
from asr.cli.console import note, report_failures, speech_progress
from asr.errors import AsrError, AudioError
from asr.outputs import FORMATS, Layout, Origin, Origins, output_path, render, to_json, write_outputs

if TYPE_CHECKING:
    from asr.transcript import Transcript

STDIN = "-"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="FILE",
        help="audio files, folders, globs, @FILE with one of these a line, or - for standard input",
    )
    options.add_model(parser)
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "-o",
        "--output-dir",
        metavar="DIR",
        help="write NAME.txt, ... there instead of printing; folders keep their tree",
    )
    place.add_argument("--beside", action="store_true", help="write NAME.txt, ... beside each input")
    parser.add_argument(
        "-f",
        "--format",
        nargs="+",
        action="extend",
        metavar="FORMAT",
        help=f"what to write, one or several of {', '.join(FORMATS)}, or all (default: txt)",
    )
    parser.add_argument("--overwrite", action="store_true", help="do again what is done already")
    parser.add_argument(
        "--word-timestamps", action="store_true", help="list the words of each segment in json"
    )
    parser.add_argument(
        "--character-timestamps", action="store_true", help="list the letters of each word with it in json"
    )
    parser.add_argument("--max-line-width", type=int, metavar="N", help="characters in a line of subtitles")
    parser.add_argument(
        "--max-line-count", type=int, metavar="N", help="lines in a subtitle; needs --max-line-width"
    )
    parser.add_argument(
        "--highlight-words", action="store_true", help="underline each word of a subtitle while it is spoken"
    )
    parser.add_argument("--recursive", action="store_true", help="read the folders' subfolders too")
    options.add_computing(parser)
    options.add_decoding(parser)
    live.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Transcribe everything readable; 1 if anything was not."""
    if live.is_wanted(arguments):
        return live.run(arguments, options.load_recognizer(arguments))
    formats, inputs = _formats(arguments.format or [])
    inputs = [*arguments.inputs, *inputs]
    if not inputs:
        raise AsrError(
            "nothing was named; expected audio files, folders, globs, @FILE, or - for standard input"
        )
    layout = _layout(arguments)
    if arguments.character_timestamps and "json" not in formats:
        raise AsrError("--character-timestamps are written into json, which was not asked for; add -f json")
    found, failures = find_audio(inputs, arguments.recursive)
    asked_for = len(found) + len(failures)
    if not found and not failures:
        raise AudioError("there is nothing to transcribe")
    writes = arguments.beside or arguments.output_dir not in (None, STDIN)  # -o - prints, as elsewhere
    if not writes and len(formats) > 1:
        raise AsrError("several formats are several files for each input: say where with -o DIR or --beside")
    if not writes and len(found) > 1 and formats[0] in ("srt", "vtt", "tsv"):
        raise AsrError(f"{formats[0]} of several inputs is several files: say where with -o DIR or --beside")
    root = Path(arguments.output_dir or "")
    if writes and not arguments.beside:
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AsrError(f"cannot write into -o {root}: {error.strerror}") from error
    targets = _targets(found, None if arguments.beside else root)
    paths = list(found)
    origins = Origins(root if writes and not arguments.beside else None)
    read = {path: Origin.of(path) for path in paths if writes and path != STDIN}
    wanted = [list(formats) for _ in paths]
    if writes and not arguments.overwrite:
        refused: set[int] = set()
        for i, path in enumerate(paths):
            try:
                wanted[i] = _left_to_write(targets[i], formats, origins, read.get(path))
            except AsrError as error:
                failures.append(f"{path}: {error}")
                refused.add(i)
        left = [i for i in range(len(paths)) if wanted[i] and i not in refused]
        others = {
            i: other
            for i in left
            if paths[i] in read and (other := origins.other(targets[i], wanted[i], read[paths[i]]))
        }
        if others:
            first = min(others)
            note(
                f"{len(others)} of {len(paths)} have outputs of other files that had their names, which are replaced "
                f"({output_path(targets[first], formats[0])} was made of {others[first]})"
            )
        if done := [i for i in range(len(paths)) if not wanted[i]]:
            there = output_path(targets[done[0]], formats[0])
            note(
                f"{len(done)} of {len(paths)} were done before ({there} is there); --overwrite does them again"
            )
        paths, targets = [paths[i] for i in left], [targets[i] for i in left]
        wanted = [wanted[i] for i in left]
        if not paths:
            return report_failures(failures, asked_for)

    from asr.audio import stream_audio
    from asr.recognizer import in_order
    from asr.sources import AudioSource, source_of
    from asr.transcript import Transcript

    recognizer = options.load_recognizer(arguments)
    # Read here: a thread that waits for standard input would not hear of Ctrl-C.
    stdin = io.BytesIO(sys.stdin.buffer.read() if STDIN in paths else b"")
    stdin.name = "<stdin>"  # type: ignore[attr-defined] - as errors call it

    def source(path: str) -> AudioSource:
        if path == STDIN:
            return AudioSource("<stdin>", lambda: stream_audio(stdin, recognizer.sample_rate))
        return source_of(path, recognizer.sample_rate)

    sources = [source(path) for path in paths]
    # In CTM and TRN a recording is called by its place in the folder of the outputs.
    ids = [target.name if arguments.beside else str(target.relative_to(root)) for target in targets]
    seconds = sum(source.seconds for source in sources)
    progress = speech_progress(seconds, len(sources), "transcribing", quiet=arguments.quiet)
    outcomes = recognizer.transcribe_as_completed(
        sources,
        batch_seconds=arguments.batch_seconds,
        progress=progress.update,
        character_times=arguments.character_timestamps,
    )
    try:
        # Files are written as soon as they are done; what is printed comes in the order of the inputs.
        for index, outcome in outcomes if writes else in_order(outcomes):
            if not isinstance(outcome, Transcript):
                failures.append(str(outcome))
            elif not writes:
                several = len(paths) > 1
                line = _line(outcome, paths[index], ids[index], formats[0], several, layout)
                print(line, end="", flush=True)
            elif problem := _write(outcome, targets[index], wanted[index], ids[index], layout):
                failures.append(problem)
            elif paths[index] in read:
                origins.add(targets[index], wanted[index], read[paths[index]])
    except (AsrError, KeyboardInterrupt):  # before the run ends, report what failed
        progress.close()
        for message in failures:
            note(message)
        raise
    progress.close()
    return report_failures(failures, asked_for)


def _write(
    transcript: "Transcript", target: Path, formats: Sequence[str], name: str, layout: Layout
) -> str | None:
    """Write a transcript's outputs; gives what kept them from being written. Raises AsrError for a full disk."""
    try:
        write_outputs(transcript, target, formats, name, layout)
    except OSError as error:
        problem = f"cannot write {output_path(target, formats[0])}: {error.strerror}"
        if error.errno in DISK_FULL:
            raise AsrError(
                f"{problem}; stopped; with more space, the same command goes on where it was"
            ) from None
        return problem
    return None


def _formats(named: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part what follows -f into formats and the inputs behind them, as in `-f srt json speech.wav`."""
    formats = [name for name in named if name in FORMATS or name == "all"]
    inputs = [name for name in named if name not in formats]
    for name in inputs:
        if name != STDIN and not set(name) & set("./*?[@") and not Path(name).exists():
            raise AsrError(f"-f: there is no format {name!r}; expected {', '.join(FORMATS)} or all")
    return (list(FORMATS) if "all" in formats else list(dict.fromkeys(formats)) or ["txt"]), inputs


def _layout(arguments: argparse.Namespace) -> Layout:
    for name in ("max_line_width", "max_line_count"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise AsrError(f"--{name.replace('_', '-')} is {value}; expected 1 or more")
    if arguments.max_line_count is not None and arguments.max_line_width is None:
        raise AsrError("--max-line-count was given without --max-line-width, which says where lines end")
    return Layout(
        arguments.word_timestamps or arguments.character_timestamps,
        arguments.max_line_width,
        arguments.max_line_count,
        arguments.highlight_words,
    )


def find_audio(inputs: Sequence[str], recursive: bool = False) -> tuple[dict[str, Path], list[str]]:
    """Expand files, folders, globs and @lists into audio paths, each once, and say what led nowhere.

    Returns the paths, each with its place in the tree that it was found in, and messages. A file named outright is
    taken whatever its suffix.
    """
    from asr.audio import AUDIO_SUFFIXES, files_in

    found: dict[str, Path] = {}
    seen: set[str] = set()
    failures = []

    def unread(error: OSError) -> None:
        failures.append(f"{origin}{error.filename or item}: cannot be read: {error.strerror}")

    for item, origin in _entries(inputs, failures):
        path = Path(item)
        try:
            if item == STDIN:
                matches = {STDIN: Path("stdin")}
            elif not item:  # as of a shell's variable that is not set; not the folder here
                failures.append("an input is empty (''); expected a file, a folder or a glob")
                continue
            elif path.exists() and not path.is_dir():  # pipes and devices, too
                matches = {item: Path(path.name)}
            elif path.is_dir():
                inside = [one for one in files_in(path, recursive, unread) if one.is_file()]
                matches = {str(p): p.relative_to(path) for p in inside if p.suffix.lower() in AUDIO_SUFFIXES}
                if not matches:
                    deeper = "" if recursive else " (--recursive looks into its subfolders)"
                    failures.append(f"{origin}{item}: no audio files in this folder{deeper}")
            else:
                fixed = list(takewhile(lambda part: not set(part) & set("*?["), path.parts[:-1]))
                files = sorted(Path(match) for match in iglob(item, recursive=True) if Path(match).is_file())
                own = {f".{form}" for form in FORMATS}  # a glob finds what was written beside the audio, too
                matches = {str(p): p.relative_to(Path(*fixed)) for p in files if p.suffix.lower() not in own}
                if not matches:
                    failures.append(f"{origin}{item}: there is no such file or folder")
        except OSError as error:
            unread(error)
            continue
        for match, place in matches.items():
            if (normal := os.path.normpath(match)) not in seen:  # ./a.wav is a.wav
                seen.add(normal)
                found[match] = place
    return found, failures


def _entries(inputs: Sequence[str], failures: list[str]) -> Iterator[tuple[str, str]]:
    """Give each input, those that @lists name among them, and where it is from; unreadable lists are `failures`."""
    for item in inputs:
        if not item.startswith("@") or Path(item).exists():
            yield item, ""
            continue
        path = Path(item[1:])
        try:
            with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
                lines = list(file)
        except OSError as error:
            failures.append(f"the list {path} cannot be read: {error.strerror}")
        else:
            yield from (
                (line.strip(), f"{path} line {i}: ") for i, line in enumerate(lines, 1) if line.strip()
            )


def _line(transcript, path: str, name: str, form: str, several: bool, layout: Layout) -> str:
    if form == "json":
        return json.dumps({"file": path} | to_json(transcript, layout), ensure_ascii=False) + "\n"
    if form == "txt" and several:
        return f"{path}: {transcript.text}\n"
    return render(transcript, form, name, layout)


def _left_to_write(
    target: Path, formats: Sequence[str], origins: Origins, origin: Origin | None
) -> list[str]:
    """Give the formats whose outputs are missing, or were made of another file or of this one before it changed.

    What standard input brings, which has no origin, is always new. Raises AsrError for an output that is older than
    the input and may be anyone's work.
    """
    if origin is None:
        return list(formats)
    left = []
    for form in formats:
        output = output_path(target, form)
        try:
            is_there = output.is_file()
            is_older = is_there and output.stat().st_mtime_ns < origin.mtime_ns
        except OSError as error:
            raise AsrError(f"cannot look for {output}: {error.strerror}") from error
        if is_older and not origins.made(target, form):
            raise AsrError(
                f"{output} is there, older than its audio, and not known to be written by asr; --overwrite replaces it"
            )
        if not is_there or is_older or origins.other(target, [form], origin):
            left.append(form)
    return left


def _targets(found: Mapping[str, Path], folder: Path | None) -> list[Path]:
    """Name the outputs, without a format's suffix: in `folder` by the inputs' places, or (None) beside the inputs.

    Inputs of one place keep the folders in which they differ, those whose names differ only in their suffix keep that;
    one whose name is taken all the same gets a number.
    """
    from asr.audio import AUDIO_SUFFIXES

    def bare(place: Path) -> Path:
        return place.with_suffix("") if place.suffix.lower() in AUDIO_SUFFIXES else place

    namesakes: dict[Path, list[str]] = {}
    for path, place in found.items():
        namesakes.setdefault(place, []).append(path)
    places = []
    for path, place in found.items():
        if folder is None:
            places.append(place if path == STDIN else Path(path))
            continue
        if len(namesakes[place]) > 1:
            common = os.path.commonpath([Path(each).absolute().parent for each in namesakes[place]])
            place = Path(os.path.relpath(path, common))
        places.append(folder / place)
    stems = Counter(map(bare, places))
    names = [place if stems[bare(place)] > 1 else bare(place) for place in places]
    seen: Counter[Path] = Counter()
    several = Counter(names)
    targets = []
    for name in names:
        seen[name] += 1
        targets.append(name if several[name] == 1 else name.with_name(f"{name.name}.{seen[name]}"))
    return targets
