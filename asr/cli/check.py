"""Check a corpus for faults before training on it.

  asr check data/an4/cuts_train.jsonl.gz data/an4/cuts_dev.jsonl.gz
  asr check cuts_train.jsonl.gz cuts_test.jsonl.gz --config recipes/an4/config.yaml --json report.json
  asr check cuts_train.jsonl.gz --model runs/an4/bundle
  asr check cuts_train.jsonl.gz --fix cuts_train_good.jsonl.gz
  asr check huge.jsonl.gz --headers-only --jobs 32
  asr check data/huge/shar_train
  asr check huge.jsonl.gz --shard 3/8 --parts audio/     on each of eight machines; then, without --shard, the report

Name the training data first: of two utterances that share their audio, the one in the earlier manifest is reported.
With --model each transcript is aligned to its audio and compared with what the model recognizes, which finds
transcripts that belong to other audio. The exit status is 1 if a definite fault was found; sentences and speakers
shared between manifests are reported, but many corpora share them by design.
"""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from asr.cli.console import STDOUT, check_writable, with_progress, write
from asr.cli.options import count, shard
from asr.wording import nearest

if TYPE_CHECKING:
    from asr.data.corpora.doctor import Target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `asr check` takes."""
    parser.add_argument(
        "manifests",
        nargs="+",
        metavar="MANIFEST",
        help="manifests (cuts_*.jsonl.gz) or folders of shards (shar_*), the training data first",
    )
    model = parser.add_mutually_exclusive_group()
    model.add_argument(
        "--config",
        metavar="FILE",
        help="configuration of the training to check for (default: that of `asr train`)",
    )
    model.add_argument(
        "--model",
        metavar="BUNDLE",
        help="trained model to check against: its alphabet and frames, and what it recognizes",
    )
    parser.add_argument(
        "--headers-only",
        action="store_true",
        help="headers are read and no audio: much faster, but misses silence, clipping, corrupt data and copies",
    )
    parser.add_argument(
        "--fix",
        metavar="OUT",
        help="file, or folder for several, for the manifests without faulty utterances",
    )
    parser.add_argument(
        "--ignore",
        nargs="+",
        default=[],
        metavar="KIND",
        help="kinds of findings to leave out, as the report names them",
    )
    parser.add_argument(
        "--remove-shared",
        action="store_true",
        help="with --fix: shared sentences and speakers are removed, too",
    )
    parser.add_argument("--json", metavar="FILE", help="file for every finding (- for standard output)")
    parser.add_argument(
        "--examples", type=count(), default=3, metavar="N", help="findings of each kind to print (default: 3)"
    )
    parser.add_argument(
        "--jobs", type=count(1), default=8, metavar="N", help="files read at a time (default: 8)"
    )
    group = parser.add_argument_group("many machines")
    group.add_argument(
        "--shard",
        type=shard,
        metavar="I/N",
        help="part of the audio, the Ith of N, to read now for the folder --parts; nothing else is checked",
    )
    group.add_argument(
        "--parts",
        type=Path,
        metavar="DIR",
        help="folder of what runs with --shard found; without --shard the report is made of all of them",
    )


def run(arguments: argparse.Namespace) -> int:
    """Check, print, write; 1 if a fault was found."""
    from dataclasses import replace

    from asr.data.corpora.doctor import MAY_BE_MEANT, check
    from asr.data.corpora.doctor.audio import in_threads
    from asr.data.corpora.doctor.parts import read_parts
    from asr.data.shards import open_corpus

    _refuse_what_does_not_fit(arguments)
    fixed = _places_of_fixed(arguments.manifests, Path(arguments.fix)) if arguments.fix else []
    check_writable(arguments.json)
    splits = {name: open_corpus(path) for name, path in _names(arguments.manifests).items()}
    target = _target(arguments, next(iter(splits.values())))
    total = sum(map(len, splits.values()))
    if arguments.shard:
        _read_part(arguments, splits, target)
        return 0
    judgments = []
    if arguments.model and not arguments.headers_only:
        from asr.mismatch import judge, mismatches, worst
        from asr.recognizer import load

        judgments = judge(
            load(arguments.model, lm="none"),
            splits,
            lambda cuts: with_progress(cuts, "recognizing", total, "utterances"),
        )
    report = check(
        splits,
        target,
        decode=not arguments.headers_only,
        examine=lambda reading: (
            read_parts(reading, arguments.parts) if arguments.parts else in_threads(reading, arguments.jobs)
        ),
        progress=lambda cuts: with_progress(cuts, "reading audio", total, "utterances"),
        more=mismatches(judgments) if judgments else (),
    )
    report = replace(
        report, findings=tuple(item for item in report.findings if item.kind not in arguments.ignore)
    )
    if arguments.json != STDOUT:
        print(report.as_text(arguments.examples))
        if judgments and arguments.examples:
            print(worst(judgments, arguments.examples))
    if arguments.json:
        values = report.as_dict() | ({"judgments": [asdict(item) for item in judgments]} if judgments else {})
        write(arguments.json, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    if arguments.fix:
        faulty = report.faulty(() if arguments.remove_shared else MAY_BE_MEANT)
        with _writing(arguments.fix):
            _fix(splits, faulty, arguments.manifests, fixed)
    return 1 if report.faulty() else 0


def _read_part(arguments: argparse.Namespace, splits: dict, target: "Target") -> None:
    """Read the audio of --shard, and write what it told into --parts."""
    from asr.data.corpora.doctor.audio import Reading, in_threads
    from asr.data.corpora.doctor.parts import part_of, write_part

    index, count = arguments.shard.index, arguments.shard.count
    known = {name: list(cuts) for name, cuts in splits.items()}
    whole = Reading.of(splits, known, target, not arguments.headers_only)
    part = part_of(whole, index, count)
    told = (one for piece in in_threads(part, arguments.jobs) for one in piece)
    total = sum(utterances for utterances, _ in part.pieces)
    with _writing(arguments.parts):
        path = write_part(
            with_progress(told, "reading audio", total, "utterances"), whole, index, count, arguments.parts
        )
    print(
        f"wrote {path}; once all {count} parts are there, `asr check ... --parts {arguments.parts}` reports"
    )


def _refuse_what_does_not_fit(arguments: argparse.Namespace) -> None:
    from asr.data.corpora.doctor import KINDS
    from asr.data.shards import is_sharded
    from asr.errors import ConfigError

    if unknown := [kind for kind in arguments.ignore if kind not in KINDS]:
        raise ConfigError(
            f"--ignore {unknown[0]!r} is no kind of finding{nearest(unknown[0], KINDS)}; there are {', '.join(KINDS)}"
        )
    if arguments.shard and not arguments.parts:
        raise ConfigError("--shard needs a folder for what is found; name it with --parts DIR")
    if arguments.shard and (arguments.fix or arguments.json):
        raise ConfigError("--fix and --json need what all parts found; give them to the run without --shard")
    if arguments.fix and (sharded := [path for path in arguments.manifests if is_sharded(path)]):
        raise ConfigError(
            f"--fix writes manifests, not shards such as {sharded[0]}; fix the manifest that they were made of, "
            "and write them anew"
        )
    if twice := [path for path in arguments.manifests if arguments.manifests.count(path) > 1]:
        raise ConfigError(f"{twice[0]} is given twice")


def _names(manifests: list[str]) -> dict[str, str]:
    """Call cuts_train.jsonl.gz and shar_train train; where two are called alike, by their paths."""
    short = [re.sub("^(cuts|shar)_", "", Path(path).name.split(".")[0]) for path in manifests]
    return dict(zip(short if len(set(short)) == len(short) else manifests, manifests, strict=True))


def _target(arguments: argparse.Namespace, trained_on: Sequence) -> "Target":
    """Return what the model asks of a corpus; word pieces are learned from the first manifest, as in training."""
    from asr.data.cuts import text_of
    from asr.text import BpeTokenizer, normalize
    from asr.training.checks import target_of

    if arguments.model:
        from asr.bundle import Bundle

        bundle = Bundle.load(arguments.model)
        front_end = bundle.model.front_end
        return target_of(bundle.features, front_end, bundle.normalizer, bundle.tokenizer)
    from asr.training.read_config import read_config

    config = read_config(["--config", arguments.config] if arguments.config else [])
    text, tokenizer = config.text, None
    if text.tokenizer == "bpe":
        texts = (normalize(text_of(cut) or "", text.normalizer) for cut in trained_on)
        tokenizer = BpeTokenizer.train(texts, text.vocab_size)
    speeds = config.data.speed_perturb
    return target_of(config.features, config.model.front_end, text.normalizer, tokenizer, speeds)


def _places_of_fixed(manifests: list[str], out: Path) -> list[Path]:
    """Return where each manifest is written without faulty utterances; none may replace another."""
    from asr.errors import ConfigError

    is_file = out.name.endswith((".jsonl", ".jsonl.gz"))
    if is_file and len(manifests) > 1:
        raise ConfigError(f"--fix {out} is one file for {len(manifests)} manifests; give a folder")
    places = [out if is_file else out / Path(manifest).name for manifest in manifests]
    for place, manifest in zip(places, manifests, strict=True):
        if any(place.exists() and Path(m).exists() and place.samefile(m) for m in manifests):
            raise ConfigError(f"--fix {out} would replace the manifest that is checked; give another place")
        if places.count(place) > 1:
            raise ConfigError(
                f"--fix {out} would write {manifest} and another of this name to {place}; fix them one at a time, "
                "each into a folder of its own"
            )
    return places


def _fix(splits: dict, faulty: set[tuple[str, int]], manifests: list[str], places: list[Path]) -> None:
    from asr.data.cuts import write_manifest
    from asr.errors import ManifestError

    for (name, cuts), manifest, path in zip(splits.items(), manifests, places, strict=True):
        kept = [cut for index, cut in enumerate(cuts) if (name, index) not in faulty]
        if not kept:
            raise ManifestError(f"every utterance of {manifest} is faulty; nothing is left to write")
        write_manifest(kept, path)
        print(f"wrote {path} with {len(kept)} of {len(cuts)} utterances")


@contextmanager
def _writing(path: str | Path) -> Iterator[None]:
    """Raise what the operating system refuses to write as an AsrError."""
    from asr.errors import AsrError

    try:
        yield
    except OSError as error:
        raise AsrError(f"cannot write {path}: {error.strerror}") from error
