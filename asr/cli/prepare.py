"""Turn a corpus, or any folder of audio, into manifests to train on.

  asr prepare an4 --corpus-dir /data/an4 --output-dir data/an4
  asr prepare mini_librispeech --download --corpus-dir /data/mini --output-dir data/mini
  asr prepare librispeech --parts train-clean-100 dev-clean --corpus-dir /data/LibriSpeech --output-dir data/100
  asr prepare common_voice --language de --corpus-dir /data/cv-corpus-21.0 --output-dir data/de
  asr prepare manifest /data/my_recordings --output-dir data/mine
  asr prepare --list

`manifest` takes
  a folder of audio, each file with its transcript beside it, talk.wav and talk.txt; where all of the audio lies in
    sub-folders, each of these is one speaker's
  a CSV or TSV, whose header names a column audio (or path, file, ...) and a column text (or sentence, transcript, ...),
    and may name speaker, gender, age and accent, and start with end or duration, in seconds, of a part of a file
  NeMo's JSON lines (.json, .jsonl): audio_filepath and text, perhaps offset, duration, speaker, gender, lang
  a Kaldi data folder: wav.scp and text, perhaps segments, utt2spk, spk2gender, spk2age

Paths in a table are relative to it, and text is UTF-8. Written are cuts_train.jsonl.gz, cuts_dev.jsonl.gz and, where
the corpus has one, cuts_test.jsonl.gz. Audio that cannot be read is left out and named at the end; the exit status is
then 1.
"""

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from asr.cli.console import with_progress
from asr.cli.options import count

MOST_PROBLEMS_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `asr prepare` takes."""
    parser.add_argument("corpus", nargs="?", help="a corpus of --list, or `manifest`")
    parser.add_argument("source", nargs="?", help="with `manifest`: the file or folder to read")
    parser.add_argument("--list", action="store_true", help="say which corpora are known, and exit")
    parser.add_argument(
        "--corpus-dir", metavar="DIR", help="the corpus, in the layout in which it is published"
    )
    parser.add_argument("--output-dir", metavar="DIR", help="where the manifests go")
    parser.add_argument(
        "--download",
        action="store_true",
        help="fetch into --corpus-dir what is not there yet; a download that was cut off goes on",
    )
    parser.add_argument(
        "--parts", nargs="+", default=[], metavar="PART", help="only these, such as train-clean-100"
    )
    parser.add_argument(
        "--shar",
        action="store_true",
        help="also write each split as lhotse Shar shards, into shar_NAME, which training streams",
    )
    parser.add_argument(
        "--jobs", type=count(1), default=8, metavar="N", help="files opened at a time (default 8)"
    )
    parser.add_argument(
        "--split",
        type=_split,
        metavar="NAME",
        help="with `manifest`: write cuts_NAME.jsonl.gz (default train)",
    )
    parser.add_argument(
        "--dev-speakers",
        nargs="+",
        metavar="SPEAKER",
        help="hold out these speakers for development, where the corpus has no dev split",
    )
    parser.add_argument(
        "--dev-fraction",
        type=_fraction,
        default=0.1,
        metavar="SHARE",
        help="or draw this share of the speakers (of the utterances where speakers are unknown); 0 for none "
        "(default 0.1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of that draw (default 0)")
    parser.add_argument(
        "--language",
        help="the one to read of a corpus with several; with `manifest`, to note where none is given",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the manifests, print a summary, and return the exit status."""
    if arguments.list:
        _list()
        return 0
    if not sys.stderr.isatty():
        os.environ.setdefault(
            "TQDM_DISABLE", "1"
        )  # else lhotse's recipes draw bars into logs; tqdm reads it once

    from asr.data.corpora.prepare import prepare, prepare_manifest, summary
    from asr.errors import ConfigError

    is_manifest = arguments.corpus == "manifest"
    if arguments.corpus and not is_manifest and arguments.source is not None:
        raise ConfigError(f"give the folder of {arguments.corpus} as --corpus-dir {arguments.source}")
    source = arguments.source if is_manifest else arguments.corpus_dir
    if arguments.corpus is None or source is None or arguments.output_dir is None:
        raise ConfigError(
            "expected `asr prepare manifest SOURCE --output-dir DIR` or "
            "`asr prepare CORPUS --corpus-dir DIR --output-dir DIR`; `asr prepare --list` names the corpora"
        )
    unfit = [
        f"--{name.replace('_', '-')}"
        for name in (("corpus_dir", "download", "parts") if is_manifest else ("split",))
        if getattr(arguments, name)
    ]
    if unfit:
        raise ConfigError(f"{unfit[0]} is not for `asr prepare {arguments.corpus}`; see `asr prepare --help`")
    options = {
        "dev_speakers": arguments.dev_speakers,
        "dev_fraction": arguments.dev_fraction,
        "seed": arguments.seed,
        "language": arguments.language,
        "jobs": arguments.jobs,
        "progress": lambda files: with_progress(files, "reading headers", unit="files"),
    }
    if is_manifest:
        preparation = prepare_manifest(
            source, arguments.output_dir, split=arguments.split or "train", **options
        )
    else:
        with _Downloads() as show:
            preparation = prepare(
                arguments.corpus,
                source,
                arguments.output_dir,
                download=arguments.download,
                parts=arguments.parts,
                show=show,
                tell=lambda message: print(f"asr prepare: {message}", file=sys.stderr),
                **options,
            )
    print(summary(preparation.splits))
    for note in preparation.notes:
        print(note)
    print(
        "written: " + ", ".join(f"{arguments.output_dir}/cuts_{name}.jsonl.gz" for name in preparation.splits)
    )
    problems = list(preparation.problems)
    if arguments.shar:
        problems += _write_shards(preparation.splits, Path(arguments.output_dir), arguments.jobs)
    return _report(problems)


def _write_shards(splits: dict, output_dir: Path, jobs: int) -> list[str]:
    from asr.data.shards import write_shards

    problems = []
    for name, cuts in splits.items():

        def progress(written: Iterable, name: str = name, total: int = len(cuts)) -> Iterable:
            return with_progress(written, f"writing shar_{name}", total, "utterances")

        folder = output_dir / f"shar_{name}"
        problems += write_shards(cuts, folder, jobs=jobs, progress=progress)
        print(f"written: {folder}")
    return problems


def _list() -> None:
    from asr.data.corpora.catalogue import CORPORA, FURTHER

    print(f"{'':22} {'hours':>6}  {'license':19} what is spoken; * can be downloaded")
    for name, corpus in CORPORA.items():
        if name == next(iter(FURTHER)):
            print("\nas lhotse's recipes read them; ? is what we do not know")
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
    print(f"{len(problems)} left out:", file=sys.stderr)
    for problem in problems[:MOST_PROBLEMS_SHOWN]:
        print(f"  {problem}", file=sys.stderr)
    if len(problems) > MOST_PROBLEMS_SHOWN:
        print(f"  and {len(problems) - MOST_PROBLEMS_SHOWN} more", file=sys.stderr)
    return 1


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no share; expected a number from 0 to below 1")
    return value


def _split(text: str) -> str:
    if Path(text).name != text:
        raise argparse.ArgumentTypeError(f"{text!r} is no name for a part of a file's name")
    return text
