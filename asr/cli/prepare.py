"""Turn a corpus, or any folder of audio, into manifests to train on.

  asr prepare an4 /data/an4 -o data/an4
  asr prepare mini_librispeech /data/mini --download -o data/mini
  asr prepare librispeech /data/LibriSpeech --parts train-clean-100 dev-clean -o data/100
  asr prepare common_voice /data/cv-corpus-21.0 --language de -o data/de
  asr prepare manifest /data/my_recordings -o data/mine
  asr prepare --list

`manifest` reads
  a folder of audio, each file with its transcript beside it, talk.wav and talk.txt; if all audio is in sub-folders,
    each sub-folder is treated as one speaker
  a table (CSV, TSV or separated by |) whose header names a column audio (or path, file, ...) and a column text (or
    sentence, transcript, ...), and may name speaker, gender, age, accent, channel, and start with end or duration, in
    seconds, of a part of a file
  NeMo's JSON lines (.json, .jsonl): audio_filepath and text, perhaps offset, duration, speaker, gender, lang, channel
  a Kaldi data folder: wav.scp and text, perhaps segments, reco2file_and_channel, utt2spk, spk2gender, spk2age

Paths in a table are relative to it or to the current folder, and text is UTF-8. The manifests name audio by absolute
paths, so that they can be used from any folder. The command writes cuts_train.jsonl.gz, cuts_dev.jsonl.gz and,
if the corpus has a test set, cuts_test.jsonl.gz. Audio that cannot be read is skipped and listed at the end; the exit
status is then 1.
"""

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from asr.cli.console import note, with_progress
from asr.cli.options import count

if TYPE_CHECKING:
    from asr.data.corpora.prepare import Preparation

MOST_PROBLEMS_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `asr prepare` takes."""
    parser.add_argument("corpus", nargs="?", help="name of a corpus in --list, or `manifest`")
    parser.add_argument(
        "folder",
        nargs="?",
        help="folder of the corpus as published; with `manifest`, the file or folder to read",
    )
    parser.add_argument("--list", action="store_true", help="list the known corpora and exit")
    parser.add_argument("-o", "--output-dir", metavar="DIR", help="folder for the manifests")
    parser.add_argument(
        "--download",
        action="store_true",
        help="download into the corpus's folder what is not there yet; an interrupted download resumes",
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        default=[],
        metavar="PART",
        help="parts to read, such as train-clean-100 (default: all)",
    )
    parser.add_argument(
        "--shar",
        action="store_true",
        help="shards, too: each split as lhotse Shar in shar_NAME, which training streams",
    )
    parser.add_argument(
        "--jobs", type=count(1), default=8, metavar="N", help="files opened at a time (default: 8)"
    )
    parser.add_argument(
        "--split",
        type=_split,
        metavar="NAME",
        help="with `manifest`: name of the split, for cuts_NAME.jsonl.gz (default: train)",
    )
    parser.add_argument(
        "--dev-speakers",
        nargs="+",
        metavar="SPEAKER",
        help="speakers held out for development, if the corpus has no dev split; also as 19,226,3664",
    )
    parser.add_argument(
        "--dev-fraction",
        type=_fraction,
        default=0.1,
        metavar="SHARE",
        help="share of the speakers to hold out instead, at random (of the utterances, if speakers are unknown); 0 for "
        "none (default: 0.1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of --dev-fraction (default: 0)")
    parser.add_argument(
        "--language",
        help="language to read from a multilingual corpus; with `manifest`, the language to record if the data name "
        "none",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the manifests, print a summary, and return the exit status."""
    if arguments.list:
        _list()
        return 0
    # lhotse's recipes would draw progress bars into logs; tqdm reads this once.
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")

    from asr.data.corpora.prepare import summary

    _refuse_what_does_not_fit(arguments)
    preparation = _prepare(arguments)
    print(summary(preparation.splits))
    for line in preparation.notes:
        print(line)
    written = (f"{arguments.output_dir}/cuts_{name}.jsonl.gz" for name in preparation.splits)
    print(f"wrote {', '.join(written)}")
    problems = list(preparation.problems)
    if arguments.shar:
        problems += _write_shards(preparation.splits, Path(arguments.output_dir), arguments.jobs)
    return _report(problems)


def _refuse_what_does_not_fit(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for an input or output that is missing, and for an option of the other kind of source."""
    from asr.errors import ConfigError

    given = {"CORPUS": arguments.corpus, "FOLDER": arguments.folder, "-o DIR": arguments.output_dir}
    if missing := [name for name, value in given.items() if value is None]:
        raise ConfigError(
            f"{', '.join(missing)} missing; expected `asr prepare CORPUS FOLDER -o DIR`, or `asr prepare "
            "manifest SOURCE -o DIR` for your own recordings; `asr prepare --list` lists the corpora"
        )
    foreign = ("download", "parts") if arguments.corpus == "manifest" else ("split",)
    for name in foreign:
        if getattr(arguments, name):
            raise ConfigError(
                f"--{name} is not an option of `asr prepare {arguments.corpus}`; see `asr prepare --help`"
            )


def _prepare(arguments: argparse.Namespace) -> "Preparation":
    from asr.data.corpora.prepare import prepare, prepare_manifest

    options = {
        "dev_speakers": _names(arguments.dev_speakers),
        "dev_fraction": arguments.dev_fraction,
        "seed": arguments.seed,
        "language": arguments.language,
        "jobs": arguments.jobs,
        "progress": lambda files: with_progress(files, "reading headers", unit="files"),
    }
    if arguments.corpus == "manifest":
        split = arguments.split or "train"
        return prepare_manifest(arguments.folder, arguments.output_dir, split=split, **options)
    with _Downloads() as show:
        return prepare(
            arguments.corpus,
            arguments.folder,
            arguments.output_dir,
            download=arguments.download,
            parts=arguments.parts,
            show=show,
            tell=lambda message: note(f"asr prepare: {message}"),
            **options,
        )


def _names(arguments: list[str] | None) -> list[str] | None:
    """Part what is separated by commas, too."""
    if arguments is None:
        return None
    return [name for argument in arguments for name in argument.split(",") if name]


def _write_shards(splits: dict, output_dir: Path, jobs: int) -> list[str]:
    from asr.data.shards import write_shards

    problems = []
    for name, cuts in splits.items():

        def progress(written: Iterable, name: str = name, total: int = len(cuts)) -> Iterable:
            return with_progress(written, f"writing shar_{name}", total, "utterances")

        folder = output_dir / f"shar_{name}"
        problems += write_shards(cuts, folder, jobs=jobs, progress=progress)
        print(f"wrote {folder}")
    return problems


def _list() -> None:
    from asr.data.corpora.catalogue import CORPORA, FURTHER

    print(f"{'':22} {'hours':>6}  {'license':19} what is spoken; * can be downloaded")
    for name, corpus in CORPORA.items():
        if name == next(iter(FURTHER)):
            print("\nread by lhotse's recipes; ? is unknown")
        star = "*" if corpus.archives else " "
        print(f"{name:21}{star} {corpus.hours:>6}  {corpus.license:19} {corpus.about}")


class _Downloads:
    """A bar on the terminal for each file that is downloaded."""

    def __init__(self):
        self.bars = {}

    def __enter__(self):
        return self.show

    def show(self, name: str, there: int, total: int | None) -> None:
        from tqdm import tqdm

        if name not in self.bars:
            self.bars[name] = tqdm(
                desc=name, total=total, initial=there, unit="B", unit_scale=True, disable=None
            )
        self.bars[name].update(there - self.bars[name].n)

    def __exit__(self, *error: object) -> None:
        for bar in self.bars.values():
            bar.close()


def _report(problems: list[str]) -> int:
    if not problems:
        return 0
    note(f"{len(problems)} skipped:")
    for problem in problems[:MOST_PROBLEMS_SHOWN]:
        note(f"  {problem}")
    if len(problems) > MOST_PROBLEMS_SHOWN:
        note(f"  and {len(problems) - MOST_PROBLEMS_SHOWN} more")
    return 1


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share; expected a number from 0 to below 1")
    return value


def _split(text: str) -> str:
    if Path(text).name != text:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be part of a file name")
    return text
