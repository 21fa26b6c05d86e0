"""Turn audio files into text.

  asr transcribe speech.wav --model runs/an4/bundle           print what was said
  asr transcribe recordings/ -o texts -f all --model BUNDLE   a .txt and a .json for every file of a folder
  ffmpeg ... -f wav - | asr transcribe - --model BUNDLE       audio from standard input

Files that cannot be read are named at the end, the others are done, and the exit status is 1.
"""

import argparse
import io
import json
import sys
from collections.abc import Callable, Sequence
from glob import iglob
from pathlib import Path

from asr.cli import decoding_options
from asr.errors import AsrError, AudioError

STDIN = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "inputs", nargs="+", metavar="FILE", help="audio files, folders, globs, or - for standard input"
    )
    parser.add_argument("--model", required=True, metavar="BUNDLE", help="folder of a trained model")
    parser.add_argument(
        "-o", "--output-dir", metavar="DIR", help="write NAME.txt, NAME.json there instead of printing"
    )
    parser.add_argument(
        "-f", "--format", choices=["txt", "json", "all"], default="txt", help="what to write (default: txt)"
    )
    parser.add_argument("--recursive", action="store_true", help="read the folders' subfolders too")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU (default: torch's choice)")
    parser.add_argument(
        "--batch-seconds", type=float, default=240.0, help="seconds of audio computed together (default: 240)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    decoding_options.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Transcribe everything readable; 1 if anything was not."""
    paths, failures = find_audio(arguments.inputs, arguments.recursive)
    asked_for = len(paths) + len(failures)
    if not paths and not failures:
        raise AudioError("there is nothing to transcribe")
    if arguments.output_dir:
        targets = _targets(paths, Path(arguments.output_dir))
    elif arguments.format == "all":
        raise AsrError("-f all writes several files for each input: say where with -o DIR")

    from asr.audio import load_audio
    from asr.transcribe import Source, Transcript, load

    recogniser = load_recogniser(load, arguments)

    def source(path: str) -> Source:
        if path == STDIN:
            return Source(
                "<stdin>", lambda: load_audio(io.BytesIO(sys.stdin.buffer.read()), recogniser.sample_rate)
            )
        return Source(path, lambda: load_audio(path, recogniser.sample_rate), header_seconds(path))

    sources = [source(path) for path in paths]
    printed = InOrder(lambda index, text: print(text, flush=True))
    progress = progress_bar(sources, "transcribing", quiet=arguments.quiet)
    for index, outcome in recogniser.transcribe_sources(sources, arguments.batch_seconds):
        progress.update(1)
        if not isinstance(outcome, Transcript):
            failures.append(str(outcome))
            printed.skip(index)
        elif arguments.output_dir:
            try:
                write(outcome, targets[index], arguments.format)
            except OSError as error:
                failures.append(f"cannot write {targets[index]}: {error.strerror}")
        else:
            printed.put(index, _line(outcome, paths[index], arguments.format, len(paths) > 1))
    progress.close()
    return report_failures(failures, asked_for)


def load_recogniser(load: Callable, arguments: argparse.Namespace):
    """Load the model the arguments name, on the device they name, with the decoder they ask for."""
    import torch

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        raise AsrError(f"--device {arguments.device} was asked for but torch finds no GPU; use --device cpu")
    try:
        recogniser = load(arguments.model, arguments.device)
    except RuntimeError as error:
        raise AsrError(f"cannot load the model on --device {arguments.device}: {error}") from error
    recogniser.decoder = decoding_options.decoder_from(arguments, recogniser.bundle)
    return recogniser


def find_audio(inputs: Sequence[str], recursive: bool = False) -> tuple[list[str], list[str]]:
    """Expand files, folders and globs into audio paths, each once, and say what led nowhere.

    Returns (paths, messages). A file named outright is taken whatever its suffix.
    """
    from asr.audio import AUDIO_SUFFIXES

    found: dict[str, None] = {}
    failures = []
    for item in inputs:
        path = Path(item)
        if item == STDIN or path.is_file():
            matches = [item]
        elif path.is_dir():
            inside = sorted(path.rglob("*") if recursive else path.iterdir())
            matches = [str(p) for p in inside if p.suffix.lower() in AUDIO_SUFFIXES and p.is_file()]
            if not matches:
                deeper = "" if recursive else " (--recursive looks into its subfolders)"
                failures.append(f"{item}: no audio files in this folder{deeper}")
        else:
            matches = sorted(match for match in iglob(item, recursive=True) if Path(match).is_file())
            if not matches:
                failures.append(f"{item}: there is no such file or folder")
        found |= dict.fromkeys(matches)
    return list(found), failures


def header_seconds(path: str) -> float:
    """Length in seconds by the file's header, to batch by length; 0 where it does not tell."""
    import soundfile

    try:
        return soundfile.info(path).duration
    except (soundfile.SoundFileError, OSError):
        return 0.0


def progress_bar(items: Sequence, label: str, quiet: bool):
    """Show progress on a terminal when there is more than one thing to do."""
    from tqdm import tqdm

    hidden = quiet or len(items) < 2 or not sys.stderr.isatty()
    return tqdm(total=len(items), desc=label, unit="file", disable=hidden)


def report_failures(failures: Sequence[str], total: int) -> int:
    """Name what failed on standard error; the exit status that follows from it."""
    for message in failures:
        print(message, file=sys.stderr)
    if failures and total > 1:
        rest = "; the others are done" if total > len(failures) else ""
        print(f"{len(failures)} of {total} could not be done{rest}", file=sys.stderr)
    return 1 if failures else 0


class InOrder:
    """Hands results on in the order of their index, holding back those that come early."""

    def __init__(self, emit: Callable[[int, str], None]):
        self.emit = emit
        self.waiting: dict[int, str | None] = {}
        self.next = 0

    def put(self, index: int, value: str | None) -> None:
        """Take the result of `index`; None for one that has nothing to hand on."""
        self.waiting[index] = value
        while self.next in self.waiting:
            ready = self.waiting.pop(self.next)
            if ready is not None:
                self.emit(self.next, ready)
            self.next += 1

    def skip(self, index: int) -> None:
        """Say that `index` has no result."""
        self.put(index, None)


def _line(transcript, path: str, form: str, several: bool) -> str:
    if form == "json":
        return json.dumps({"file": path} | transcript.to_dict(), ensure_ascii=False)
    return f"{path}: {transcript.text}" if several else transcript.text


def write(transcript, target: Path, form: str) -> None:
    """Write `target`.txt and/or `target`.json, each whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    contents = {
        "txt": transcript.text + "\n",
        "json": json.dumps(transcript.to_dict(), ensure_ascii=False, indent=2) + "\n",
    }
    for suffix, content in contents.items():
        if form in (suffix, "all"):
            scratch = target.with_name(f".{target.name}.{suffix}.part")
            scratch.write_text(content, "utf-8")
            scratch.replace(target.with_name(f"{target.name}.{suffix}"))


def _targets(paths: Sequence[str], folder: Path) -> list[Path]:
    """Name the outputs after the inputs; inputs of one name from different folders keep their suffix or a number."""
    stems = ["stdin" if path == STDIN else Path(path).stem for path in paths]
    names = [
        stem if stems.count(stem) == 1 else Path(path).name for path, stem in zip(paths, stems, strict=True)
    ]
    return [
        folder / (name if names.count(name) == 1 else f"{name}.{names[:i].count(name) + 1}")
        for i, name in enumerate(names)
    ]
