"""The corpora that `asr prepare` knows by name, and the way from a corpus to its manifests."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lhotse import SupervisionSegment
from lhotse.cut import Cut

from asr.data import layouts, recipes
from asr.data.download import Archive, Show, Tell, obtain
from asr.data.layouts import Source, Splits
from asr.data.manifests import JOBS, Preparation, build_cuts, hold_out, write_cuts
from asr.data.readers import read_manifest
from asr.errors import ManifestError

Progress = Callable[[Iterable], Iterable]
Reader = Callable[[Source, Progress, Sequence[str]], dict[str, list[Cut]]]


@dataclass(frozen=True)
class Corpus:
    """A corpus in the layout in which it is published.

    Attributes:
        about: what is spoken, in a few words.
        hours: of speech.
        licence: under which it is published.
        read: (source, progress, parts) -> {split: cuts}; parts are those wanted, () for all.
        archives: what `--download` fetches.
        by_hand: where to get it otherwise.
        folder: name of the folder in its archives.
    """

    about: str
    hours: str
    licence: str
    read: Reader
    archives: tuple[Archive, ...] = ()
    by_hand: str = ""
    folder: str = ""


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
    source = Source(folder, language, jobs)
    splits = known.read(source, progress, parts)
    if parts:
        splits = _only(parts, splits, source)
    preparation = Preparation(splits, source.problems, source.notes)
    return _finish(preparation, folder, Path(output_dir), dev_speakers, dev_fraction, seed)


def find_corpus(name: str) -> Corpus:
    """Give the entry of CORPORA, or one for any other of lhotse's recipes; raises ManifestError for neither."""
    if name in CORPORA:
        return CORPORA[name]
    if name in recipes.known():
        return Corpus("see lhotse", "?", "?", by_lhotse(name))
    nearest = difflib.get_close_matches(name, [*CORPORA, "manifest"], 1)
    raise ManifestError(
        f"there is no corpus {name!r}{f' (did you mean {nearest[0]!r}?)' if nearest else ''}; "
        "`asr prepare --list` names them, and `manifest` is for your own data"
    )


def _wanted(name: str, corpus: Corpus, parts: Sequence[str]) -> list[Archive]:
    """Choose the archives that hold these parts."""
    if not corpus.archives:
        raise ManifestError(
            f"{name} cannot be downloaded here{': ' + corpus.by_hand if corpus.by_hand else ''}; "
            "give its folder as --corpus-dir, without --download"
        )
    there = {archive.part for archive in corpus.archives} - {""}
    unknown = set(parts) - there
    if there and unknown:
        raise ManifestError(
            f"{name} has no part {', '.join(sorted(unknown))}; it has {', '.join(sorted(there))}"
        )
    return [archive for archive in corpus.archives if not there or not parts or archive.part in parts]


def _only(parts: Sequence[str], splits: dict[str, list[Cut]], source: Source) -> dict[str, list[Cut]]:
    """Keep the named parts, and join those that begin alike into train, dev and test."""
    _refuse_missing(parts, splits, source)
    kept: dict[str, list[Cut]] = {}
    for part in dict.fromkeys(parts):
        for split in {part, recipes.kind_of(part)}:
            kept.setdefault(split, []).extend(splits[part])
    return kept


def _refuse_missing(parts: Sequence[str], there: Iterable[str], source: Source) -> None:
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
    """Read anything that `read_manifest` recognises and write it as the split of that name.

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


def by_layout(layout: Callable[[Source], Splits]) -> Reader:
    """Read a corpus by one of the functions in `layouts`."""

    def read(source: Source, progress: Progress, parts: Sequence[str]) -> dict[str, list[Cut]]:
        found = layout(source)
        _refuse_missing(parts, found, source)
        splits = {}
        for split in parts or found:
            splits[split], unreadable = build_cuts(found[split], progress, source.jobs)
            source.problems += unreadable
        return splits

    return read


def by_lhotse(name: str, text: Callable[[SupervisionSegment], str | None] | None = None, **options) -> Reader:
    """Read a corpus by lhotse's recipe of that name, see `recipes.read`."""
    return lambda source, progress, parts: recipes.read(name, source, parts, text, **options)


def _spoken_by_ljspeech(segment: SupervisionSegment) -> str | None:
    """Give the transcript with its numbers and abbreviations written out."""
    return (segment.custom or {})["normalized_text"]


OPENSLR = "https://www.openslr.org/resources"


def _librispeech(number: int, **sha256_of_parts: str) -> tuple[Archive, ...]:
    return tuple(
        Archive(f"{OPENSLR}/{number}/{part.replace('_', '-')}.tar.gz", sha256, part.replace("_", "-"))
        for part, sha256 in sha256_of_parts.items()
    )


_lhotse_librispeech = by_lhotse("librispeech")

# Read here and tested on folders in the published layout. Checksums are those that the publishers or torchaudio give.
CORPORA = {
    "an4": Corpus(
        "English: spelled words, letters, digits, dates",
        "1",
        "BSD-style",
        by_layout(layouts.an4),
        archives=(Archive("https://dldata-public.s3.us-east-2.amazonaws.com/an4_sphere.tar.gz"),),
        folder="an4",
    ),
    "common_voice": Corpus(
        "sentences read in 100 languages, one at a time",
        "20,000",
        "CC0",
        by_layout(layouts.common_voice),
        by_hand="its publisher asks for an address first, https://commonvoice.mozilla.org/datasets",
    ),
    "fleurs": Corpus(
        "sentences read in 102 languages, one at a time",
        "1,400",
        "CC BY 4.0",
        by_layout(layouts.fleurs),
        by_hand="https://huggingface.co/datasets/google/fleurs, the tables and archives of data/LANGUAGE",
    ),
    "fsdd": Corpus(
        "English digits, six speakers",
        "0.4",
        "CC BY-SA 4.0",
        by_layout(layouts.fsdd),
        archives=(
            Archive(
                "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz"
            ),
        ),
        folder="free-spoken-digit-dataset-1.0.10",
    ),
    "gigaspeech": Corpus(
        "English audiobooks, podcasts and videos",
        "10,000",
        "non-commercial",
        by_layout(layouts.gigaspeech),
        by_hand="its publisher wants a form signed, https://github.com/SpeechColab/GigaSpeech",
    ),
    "librispeech": Corpus(
        "read English books, any of the subsets",
        "960",
        "CC BY 4.0",
        _lhotse_librispeech,
        archives=_librispeech(
            12,
            dev_clean="76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
            dev_other="12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365",
            test_clean="39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23",
            test_other="d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29",
            train_clean_100="d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
            train_clean_360="146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
            train_other_500="ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
        ),
        folder="LibriSpeech",
    ),
    "ljspeech": Corpus(
        "read English books, one speaker",
        "24",
        "public domain",
        by_lhotse("ljspeech", _spoken_by_ljspeech),
        archives=(
            Archive(
                "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2",
                "be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5",
            ),
        ),
        folder="LJSpeech-1.1",
    ),
    "mini_librispeech": Corpus(
        "a small part of LibriSpeech",
        "8",
        "CC BY 4.0",
        _lhotse_librispeech,
        archives=_librispeech(31, train_clean_5="", dev_clean_2=""),
        folder="LibriSpeech",
    ),
    "mls": Corpus(
        "read books in 8 languages, one at a time",
        "50,000",
        "CC BY 4.0",
        by_layout(layouts.multilingual_librispeech),
        by_hand="https://www.openslr.org/94",
    ),
    "speech_commands": Corpus(
        "35 English words, 2,600 speakers",
        "30",
        "CC BY 4.0",
        by_layout(layouts.speech_commands),
        archives=(
            Archive(
                "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
                "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
                into="speech_commands_v0.02",
            ),
        ),
        folder="speech_commands_v0.02",
    ),
    "speechocean762": Corpus(
        "English sentences read by Mandarin speakers",
        "6",
        "free for any use",
        by_layout(layouts.speechocean762),
        archives=(Archive(f"{OPENSLR}/101/speechocean762.tar.gz"),),
        folder="speechocean762",
    ),
    "spgispeech": Corpus(
        "English earnings calls, with punctuation",
        "5,000",
        "non-commercial",
        by_lhotse("spgispeech", normalize_text=False),
        by_hand="its publisher wants a form signed, https://datasets.kensho.com/datasets/spgispeech",
    ),
    "tedlium": Corpus(
        "English talks, release 3 or 2",
        "452",
        "CC BY-NC-ND 3.0",
        by_layout(layouts.tedlium),
        archives=(
            Archive(
                f"{OPENSLR}/51/TEDLIUM_release-3.tgz",
                "ad1e454d14d1ad550bc2564c462d87c7a7ec83d4dc2b9210f22ab4973b9eccdb",
            ),
        ),
        folder="TEDLIUM_release-3",
    ),
    "voxpopuli": Corpus(
        "the European Parliament in 16 languages, one at a time",
        "1,800",
        "CC0",
        by_layout(layouts.voxpopuli),
        by_hand="https://github.com/facebookresearch/voxpopuli has the scripts that fetch it",
    ),
    "yesno": Corpus(
        "yes and no in Hebrew, one speaker",
        "0.1",
        "CC BY 3.0",
        by_lhotse("yesno"),
        archives=(
            Archive(
                f"{OPENSLR}/1/waves_yesno.tar.gz",
                "c3f49e0cca421f96b75b41640749167b52118f232498667ca7a5f9416aef8e73",
            ),
        ),
        folder="waves_yesno",
    ),
}

# Read as lhotse reads them, and not tested here: name: (what is spoken, hours, licence).
_FURTHER = {
    "aishell": ("read Mandarin", "178", "Apache-2.0"),
    "aishell3": ("read Mandarin, 218 speakers", "85", "Apache-2.0"),
    "aishell4": ("Mandarin meetings", "120", "CC BY-SA 4.0"),
    "ali_meeting": ("Mandarin meetings", "120", "CC BY-SA 4.0"),
    "ami": ("English meetings", "100", "CC BY 4.0"),
    "cmu_kids": ("sentences read by children", "9", "LDC"),
    "cslu_kids": ("English children", "100", "LDC"),
    "csj": ("spontaneous Japanese", "660", "by agreement"),
    "daily_talk": ("English dialogues", "20", "CC BY-SA 4.0"),
    "earnings21": ("English earnings calls", "39", "CC BY-SA 4.0"),
    "earnings22": ("earnings calls, accents of the world", "119", "CC BY-SA 4.0"),
    "edacc": ("English dialogues, accents of the world", "40", "CC BY-SA 4.0"),
    "fisher_english": ("English telephone calls", "1,960", "LDC"),
    "hifitts": ("read English books, ten speakers", "292", "CC BY 4.0"),
    "icsi": ("English meetings", "72", "CC BY 4.0"),
    "kespeech": ("Mandarin and its dialects", "1,542", "non-commercial"),
    "l2_arctic": ("sentences read by learners of English", "24", "CC BY-NC 4.0"),
    "libritts": ("read English books, with punctuation", "585", "CC BY 4.0"),
    "librittsr": ("LibriTTS, restored", "585", "CC BY 4.0"),
    "magicdata": ("read Mandarin", "755", "CC BY-NC-ND 4.0"),
    "mgb2": ("Arabic broadcasts", "1,200", "by agreement"),
    "mtedx": ("talks in 8 languages", "765", "CC BY-NC-ND 4.0"),
    "nsc": ("English of Singapore", "10,000", "Singapore Open Data"),
    "peoples_speech": ("English from the web", "30,000", "CC BY, CC BY-SA"),
    "sbcsae": ("English conversations", "20", "CC BY-ND 3.0 US"),
    "stcmds": ("Mandarin commands", "110", "CC BY-NC-ND 4.0"),
    "thchs_30": ("read Mandarin", "30", "Apache-2.0"),
    "timit": ("read English, with phones", "5", "LDC"),
    "vctk": ("read English, 110 speakers", "44", "CC BY 4.0"),
    "wenet_speech": ("Mandarin podcasts and videos", "10,000", "CC BY 4.0"),
    "xbmu_amdo31": ("read Amdo Tibetan", "31", "CC BY-SA 4.0"),
}
CORPORA |= {
    name: Corpus(about, hours, licence, by_lhotse(name), by_hand="see lhotse")
    for name, (about, hours, licence) in _FURTHER.items()
}
