"""The corpora that `asr prepare` knows by name, and the way from a corpus to its manifests."""

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhotse import CutSet
from lhotse.cut import Cut

from asr.data.manifests import Preparation, Utterance, build_cuts, hold_out, write_cuts
from asr.data.readers import read_kaldi, read_manifest
from asr.errors import ManifestError

Progress = Callable[[Iterable], Iterable]


@dataclass(frozen=True)
class Corpus:
    """A corpus in the layout in which it is published.

    Attributes:
        about: what is spoken, in a few words.
        hours: of speech.
        licence: under which it is published.
        read: (folder, progress) -> Preparation with the splits that the folder has.
    """

    about: str
    hours: str
    licence: str
    read: Callable[[Path, Progress], Preparation]


def prepare(
    corpus: str,
    corpus_dir: str | Path,
    output_dir: str | Path,
    *,
    dev_speakers: Sequence[str] | None = None,
    dev_fraction: float = 0.1,
    seed: int = 0,
    progress: Progress = iter,
) -> Preparation:
    """Read a corpus of CORPORA and write `cuts_train.jsonl.gz`, `cuts_dev.jsonl.gz` and `cuts_test.jsonl.gz`.

    Splits that the corpus does not have are not written, except dev, which is held out of train by speaker
    (see `hold_out`) unless `dev_fraction` is 0. Raises ManifestError if the folder is not that corpus.
    """
    if corpus not in CORPORA:
        raise ManifestError(
            f"there is no corpus {corpus!r}; known are {', '.join(CORPORA)}, and `manifest` for your own data"
        )
    folder = Path(corpus_dir)
    if not folder.is_dir():
        raise ManifestError(f"there is no folder {folder} with the corpus {corpus}")
    preparation = CORPORA[corpus].read(folder, progress)
    return _finish(preparation, folder, Path(output_dir), dev_speakers, dev_fraction, seed)


def prepare_manifest(
    source: str | Path,
    output_dir: str | Path,
    *,
    split: str = "train",
    dev_speakers: Sequence[str] | None = None,
    dev_fraction: float = 0.1,
    seed: int = 0,
    language: str | None = None,
    progress: Progress = iter,
) -> Preparation:
    """Read anything that `read_manifest` recognises and write it as the split of that name.

    Of "train", dev is held out as `prepare` does it. Raises ManifestError if `source` is nothing known or
    empty.
    """
    utterances, problems = read_manifest(Path(source))
    cuts, unreadable = build_cuts(utterances, progress)
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
        raise ManifestError("\n".join([f"{source} holds no readable utterance", *preparation.problems[:1]]))
    if "train" in splits and "dev" not in splits and (dev_speakers or dev_fraction > 0):
        train, dev, done = hold_out(splits["train"], speakers=dev_speakers, fraction=dev_fraction, seed=seed)
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


# ------------------------------------------------------------------------------------------------------------


def read_an4(folder: Path, progress: Progress = iter) -> Preparation:
    """Read AN4's official layout, in `folder` or in `folder`/an4. The test part may be absent."""
    if not (folder / "etc").is_dir() and (folder / "an4" / "etc").is_dir():
        folder = folder / "an4"
    if not (folder / "etc" / "an4_train.fileids").is_file():
        raise ManifestError(
            f"{folder} is not AN4: there is no etc/an4_train.fileids; expected what an4_sphere.tar.gz holds"
        )
    preparation = Preparation()
    for split, audio in (("train", "wav/an4_clstk"), ("test", "wav/an4test_clstk")):
        missing = [
            name
            for name in (f"etc/an4_{split}.fileids", f"etc/an4_{split}.transcription", audio)
            if not (folder / name).exists()
        ]
        if missing and split == "test":
            preparation.notes.append(f"no test split: {folder} has no {', no '.join(missing)}")
        elif missing:
            raise ManifestError(f"{folder} is not the whole of AN4: it has no {', no '.join(missing)}")
        else:
            utterances, unlisted = _an4_utterances(folder, split)
            preparation.splits[split], unreadable = build_cuts(utterances, progress)
            preparation.problems += unlisted + unreadable
    return preparation


def _an4_utterances(folder: Path, split: str) -> tuple[list[Utterance], list[str]]:
    transcripts = {}
    for line in (folder / f"etc/an4_{split}.transcription").read_text("ascii").splitlines():
        # The test transcripts stand without <s> and </s>.
        if match := re.fullmatch(r"(?:<s>)?(.*?)(?:</s>)?\s*\(([^()]+)\)", line.strip()):
            transcripts[match[2]] = match[1].strip()
    utterances, problems = [], []
    for name in (folder / f"etc/an4_{split}.fileids").read_text("ascii").split():
        *_, speaker, key = name.split("/")
        if key in transcripts:
            utterances.append(
                Utterance(
                    id=key,
                    audio=folder / "wav" / f"{name}.sph",
                    text=transcripts[key],
                    speaker=speaker,
                    gender={"f": "F", "m": "M"}.get(speaker[0]),  # AN4 names women f..., men m...
                    language="English",
                )
            )
        else:
            problems.append(f"{key}: no transcript in etc/an4_{split}.transcription")
    return utterances, problems


# ------------------------------------------------------------------------------------------------------------


def kaldi_folders(**splits: str) -> Callable[[Path, Progress], Preparation]:
    """Read a corpus published as Kaldi data folders: split="FOLDER"; at least one must be there."""

    def read(folder: Path, progress: Progress) -> Preparation:
        preparation = Preparation()
        for split, name in splits.items():
            if (folder / name / "wav.scp").is_file():
                utterances = list(read_kaldi(folder / name, preparation.problems))
                preparation.splits[split], unreadable = build_cuts(utterances, progress)
                preparation.problems += unreadable
            else:
                preparation.notes.append(f"no {split} split: there is no {folder / name / 'wav.scp'}")
        if not preparation.splits:
            raise ManifestError(
                f"{folder} has none of {', '.join(f'{name}/wav.scp' for name in splits.values())}"
            )
        return preparation

    return read


def lhotse_recipe(function: str, **options: Any) -> Callable[[Path, Progress], Preparation]:
    """Read a corpus through `lhotse.recipes.FUNCTION(folder, **options)`.

    A part called train-..., dev-... or test-... becomes a split of its own, and all parts that begin alike
    are joined into the split train, dev or test as well. What lhotse warns of becomes a problem.
    """

    def read(folder: Path, progress: Progress) -> Preparation:
        import lhotse.recipes

        preparation = Preparation()
        with _warnings_of_lhotse(preparation.problems):
            try:
                parts = getattr(lhotse.recipes, function)(folder, **options)
            except Exception as error:  # whatever a recipe meets, assertions too, it met in the user's folder
                raise ManifestError(
                    f"{folder} cannot be read as the layout of {function}: {error}"
                ) from error
        if "recordings" in parts:  # a corpus of a single part
            parts = {"train": parts}
        for name, part in sorted(parts.items()):
            cuts = _one_cut_each(CutSet.from_manifests(**part))
            for split in {name, _kind_of(name)}:
                preparation.splits.setdefault(split, []).extend(cuts)
        return preparation

    return read


def _one_cut_each(cuts: CutSet) -> list[Cut]:
    """Give each supervision a cut of its own, called as the supervision is; sorted by that."""
    trimmed = cuts.trim_to_supervisions(keep_overlapping=False, num_jobs=1)
    named = (cut.with_id(cut.supervisions[0].id) for cut in trimmed.data)
    return sorted(named, key=lambda cut: cut.id)


def _kind_of(part: str) -> str:
    """Tell train, dev and test by how a part's name begins; any other name stands for itself."""
    kinds = {"train": "train", "dev": "dev", "valid": "dev", "test": "test", "eval": "test"}
    return next((kind for prefix, kind in kinds.items() if part.lower().startswith(prefix)), part)


@contextmanager
def _warnings_of_lhotse(problems: list[str]):
    """Collect what lhotse's recipes log, such as missing files, which they otherwise pass over."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            problems.append(record.getMessage())

    handler = Collector(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


# A corpus that lhotse has a recipe for takes one entry here.
CORPORA = {
    "an4": Corpus("spelled words, letters, digits, dates", "1", "BSD-style", read_an4),
    "librispeech": Corpus(
        "read English books, any of the subsets, mini_librispeech too",
        "5 to 960",
        "CC BY 4.0",
        lhotse_recipe("prepare_librispeech", num_jobs=8),
    ),
    "speechocean762": Corpus(
        "English sentences read by Mandarin speakers",
        "6",
        "free for any use",
        kaldi_folders(train="train", test="test"),
    ),
    "yesno": Corpus("yes and no in Hebrew, one speaker", "0.1", "CC BY 3.0", lhotse_recipe("prepare_yesno")),
}
