"""The corpora that `asr prepare` knows by name, and the way from a corpus to its manifests."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr.data.corpora import lhotse as recipes
from asr.data.corpora import published
from asr.data.corpora.catalogue import CORPORA, Corpus
from asr.data.corpora.download import Archive, obtain
from asr.data.corpora.generic import read_manifest, with_problems
from asr.data.corpora.hold_out import hold_out
from asr.data.corpora.published import CorpusFolder, Splits
from asr.data.corpora.utterances import JOBS, build_cuts
from asr.data.cuts import Cut, speaker_of, text_of, write_cuts
from asr.data.fetch import Show, Tell
from asr.errors import ManifestError
from asr.wording import nearest

Progress = Callable[[Iterable], Iterable]
Reader = Callable[[CorpusFolder, Progress, Sequence[str]], dict[str, list[Cut]]]


@dataclass
class Preparation:
    """The outcome of reading a corpus.

    Attributes:
        splits: {"train": cuts, ...}
        problems: what had to be left out, a line for each utterance; the exit status is 1 if there are any.
        notes: what the user should know of the rest.
    """

    splits: dict[str, list[Cut]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def prepare(
    corpus: str,
    corpus_dir: str | Path,
    output_dir: str | Path,
    *,
    download: bool = False,
    parts: Sequence[str] = (),
    language: str | None = None,
    jobs: int = JOBS,
    dev_speakers: Sequence[str] | None = None,
    dev_fraction: float = 0.1,
    seed: int = 0,
    progress: Progress = iter,
    show: Show | None = None,
    tell: Tell | None = None,
) -> Preparation:
    """Read a corpus of CORPORA and write `cuts_train.jsonl.gz`, `cuts_dev.jsonl.gz` and `cuts_test.jsonl.gz`.

    Splits that the corpus does not have are not written, except dev, which is held out of train by speaker
    (see `hold_out`) unless `dev_fraction` is 0.

    Arguments:
        corpus: a name of CORPORA, or of any recipe of lhotse.
        corpus_dir: the corpus as published, or where to download it.
        output_dir: where the manifests go.
        download: fetch what is not there yet.
        parts: only these parts, such as train-clean-100; () for all there are.
        language: the one to read of a corpus with several.
        jobs: threads that open files.
        dev_speakers, dev_fraction, seed: what to hold out.
        progress: wraps the loop over files.
        show, tell: called while downloading, with (file, bytes, bytes in all) and with what went wrong.

    Raises ManifestError if the folder is not that corpus, DownloadError if it cannot be had.
    """
    known = find_corpus(corpus)
    folder = Path(corpus_dir)
    if download:
        obtain(_wanted(corpus, known, parts), folder, show, tell)
    if not folder.is_dir():
        raise ManifestError(f"there is no folder {folder} with the corpus {corpus}")
    if known.folder and (folder / known.folder).is_dir():
        folder = folder / known.folder
    source = CorpusFolder(folder, language, jobs)
    splits = READERS.get(corpus, by_lhotse(corpus))(source, progress, parts)
    if parts:
        splits = _only(parts, splits, source)
    preparation = Preparation(splits, source.problems, source.notes)
    return _finish(preparation, folder, Path(output_dir), dev_speakers, dev_fraction, seed)


def find_corpus(name: str) -> Corpus:
    """Return the entry of CORPORA, or one for any other of lhotse's recipes; raises ManifestError for neither."""
    if name in CORPORA:
        return CORPORA[name]
    if name in recipes.known():
        return Corpus("see lhotse", "?", "?")
    raise ManifestError(
        f"there is no corpus {name!r}{nearest(name, [*CORPORA, 'manifest'])}; "
        "`asr prepare --list` names them, and `manifest` is for your own data"
    )


def _wanted(name: str, corpus: Corpus, parts: Sequence[str]) -> list[Archive]:
    """Choose the archives that hold these parts."""
    if not corpus.archives:
        raise ManifestError(
            f"{name} cannot be downloaded here{': ' + corpus.by_hand if corpus.by_hand else ''}; "
            "give its folder, without --download"
        )
    there = {archive.part for archive in corpus.archives} - {""}
    unknown = set(parts) - there
    if there and unknown:
        raise ManifestError(
            f"{name} has no part {', '.join(sorted(unknown))}; it has {', '.join(sorted(there))}"
        )
    return [archive for archive in corpus.archives if not there or not parts or archive.part in parts]


def _only(parts: Sequence[str], splits: dict[str, list[Cut]], source: CorpusFolder) -> dict[str, list[Cut]]:
    """Keep the named parts, and join those that begin alike into train, dev and test."""
    _refuse_missing(parts, splits, source)
    kept: dict[str, list[Cut]] = {}
    for part in dict.fromkeys(parts):
        for split in {part, recipes.kind_of(part)}:
            kept.setdefault(split, []).extend(splits[part])
    return kept


def _refuse_missing(parts: Sequence[str], there: Iterable[str], source: CorpusFolder) -> None:
    missing = [part for part in parts if part not in there]
    if missing:
        raise ManifestError(
            f"{source.folder} has no part {', '.join(missing)}; it has {', '.join(sorted(there))}"
        )


def prepare_manifest(
    source: str | Path,
    output_dir: str | Path,
    *,
    split: str = "train",
    dev_speakers: Sequence[str] | None = None,
    dev_fraction: float = 0.1,
    seed: int = 0,
    language: str | None = None,
    jobs: int = JOBS,
    progress: Progress = iter,
) -> Preparation:
    """Read anything that `read_manifest` recognizes and write it as the split of that name.

    Of "train", dev is held out as `prepare` does it. Raises ManifestError if `source` is nothing known or
    empty.
    """
    utterances, problems = read_manifest(Path(source))
    cuts, unreadable = build_cuts(utterances, progress, jobs)
    if language is not None:
        for cut in cuts:
            cut.supervisions[0].language = cut.supervisions[0].language or language
    preparation = Preparation({split: cuts}, problems + unreadable)
    return _finish(preparation, Path(source), Path(output_dir), dev_speakers, dev_fraction, seed)


def _finish(
    preparation: Preparation,
    source: Path,
    output_dir: Path,
    dev_speakers: Sequence[str] | None,
    dev_fraction: float,
    seed: int,
) -> Preparation:
    """Hold out dev where there is none, and write every split."""
    splits = {name: cuts for name, cuts in preparation.splits.items() if cuts}
    if not splits:
        raise ManifestError(with_problems(f"{source} holds no readable utterance", preparation.problems))
    if "train" in splits and "dev" not in splits and (dev_speakers or dev_fraction > 0):
        try:
            train, dev, done = hold_out(
                splits["train"], speakers=dev_speakers, fraction=dev_fraction, seed=seed
            )
        except ManifestError as error:
            raise ManifestError(with_problems(str(error), preparation.problems)) from error
        # Parts of train, such as train-clean-100, would bring the held-out speakers back.
        others = {name: cuts for name, cuts in splits.items() if not name.startswith("train")}
        splits = {"train": train, "dev": dev, **others}
        preparation.notes.append(done)
    elif dev_speakers:
        raise ManifestError(f"cannot hold out speakers: {source} gives the splits {', '.join(splits)}")
    order = ("train", "dev", "test")
    preparation.splits = dict(
        sorted(
            splits.items(),
            key=lambda item: (order.index(item[0]) if item[0] in order else len(order), item[0]),
        )
    )
    for name, cuts in preparation.splits.items():
        write_cuts(cuts, output_dir, name)
    return preparation


def by_layout(layout: Callable[[CorpusFolder], Splits]) -> Reader:
    """Read a corpus by one of the functions in `layouts`."""

    def read(source: CorpusFolder, progress: Progress, parts: Sequence[str]) -> dict[str, list[Cut]]:
        try:
            found = layout(source)
        except (
            AttributeError,
            KeyError,
            TypeError,
            ValueError,
        ) as error:  # rows and fields that are no such things
            raise ManifestError(
                f"{source.folder} is damaged, or not in the layout in which this corpus is published: {error!r}"
            ) from error
        _refuse_missing(parts, found, source)
        splits = {}
        for split in parts or found:
            splits[split], unreadable = build_cuts(found[split], progress, source.jobs)
            source.problems += unreadable
        return splits

    return read


def by_lhotse(name: str, **options: Any) -> Reader:
    """Read a corpus by lhotse's recipe of that name, see `recipes.read`."""
    return lambda source, progress, parts: recipes.read(name, source, parts, **options)


def _librispeech(source: CorpusFolder, progress: Progress, parts: Sequence[str]) -> dict[str, list[Cut]]:
    """Read LibriSpeech by lhotse's recipe, and the speakers' genders, which that leaves out."""
    genders = published.librispeech_genders(source)
    splits = recipes.read("librispeech", source, parts)
    for cuts in splits.values():
        for cut in cuts:
            cut.supervisions[0].gender = genders.get(cut.supervisions[0].speaker or "")
    return splits


# Of CORPORA; any other name is that of a recipe of lhotse.
READERS = {
    "an4": by_layout(published.an4),
    "common_voice": by_layout(published.common_voice),
    "fleurs": by_layout(published.fleurs),
    "fsdd": by_layout(published.fsdd),
    "gigaspeech": by_layout(published.gigaspeech),
    "librispeech": _librispeech,
    "ljspeech": by_layout(published.ljspeech),
    "mini_librispeech": _librispeech,
    "mls": by_layout(published.multilingual_librispeech),
    "speech_commands": by_layout(published.speech_commands),
    "speechocean762": by_layout(published.speechocean762),
    "spgispeech": by_lhotse("spgispeech", normalize_text=False),
    "tedlium": by_layout(published.tedlium),
    "voxpopuli": by_layout(published.voxpopuli),
    "yesno": by_lhotse("yesno"),
}


def summary(splits: Mapping[str, Sequence[Cut]]) -> str:
    """Tabulate splits: utterances, speakers, hours, words, shortest and longest, and the alphabet of each."""
    lines = [
        f"{'':12} {'utterances':>10} {'speakers':>8} {'hours':>8} {'words':>9} {'shortest':>9} {'longest':>9}"
    ]
    alphabets: dict[str, list[str]] = {}
    for name, cuts in splits.items():
        durations = [cut.duration for cut in cuts]
        speakers = {speaker_of(cut) for cut in cuts} - {None}
        texts = [text_of(cut) or "" for cut in cuts]
        words = sum(len(text.split()) for text in texts)
        lines.append(
            f"{name:12} {len(durations):10} {len(speakers) or '?':>8} {sum(durations) / 3600:8.2f} {words:9} "
            f"{min(durations):7.2f} s {max(durations):7.2f} s"
        )
        letters = sorted(letter for letter in set().union(*texts) if not letter.isspace())
        alphabets.setdefault("".join(letters), []).append(name)
    for alphabet, names in alphabets.items():
        lines.append(f"alphabet of {', '.join(names)}: {len(alphabet)} symbols and space: {alphabet[:200]}")
    return "\n".join(lines)
