"""Published layouts of corpora that are read here; what lhotse has a recipe for is read by that.

Each reader takes a CorpusFolder and gives its utterances by split. Audio is not opened yet.
"""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from asr.audio import existing
from asr.data.corpora.fields import read_lines
from asr.data.corpora.generic import read_kaldi
from asr.data.corpora.tables import read_table
from asr.data.corpora.utterances import JOBS, Utterance
from asr.errors import ManifestError
from asr.wording import some

Splits = dict[str, list[Utterance]]


@dataclass
class CorpusFolder:
    """Where a corpus lies and what of it is wanted.

    Attributes:
        folder: of the corpus.
        language: the one to read, where the corpus has several.
        jobs: threads that open files.
        problems: what had to be left out, a line for each utterance.
        notes: what the user should know of the rest.
    """

    folder: Path
    language: str | None = None
    jobs: int = JOBS
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def require(self, path: str, corpus: str, expected: str) -> Path:
        """Return a path of the corpus; raises ManifestError where it is not there."""
        if not (self.folder / path).exists():
            raise ManifestError(f"{self.folder} is not {corpus}: there is no {path}; expected {expected}")
        return self.folder / path

    def language_folder(self, found: dict[str, Path], corpus: str) -> tuple[str, Path]:
        """Choose among the languages found, {name: folder}."""
        if not found:
            raise ManifestError(f"{self.folder} is not {corpus}: it has no folder of a language")
        if self.language is None and len(found) == 1:
            return next(iter(found.items()))
        if self.language not in found:
            named = f"no language {self.language}" if self.language else "several languages"
            raise ManifestError(
                f"{self.folder} has {named}; choose --language from {', '.join(sorted(found))}"
            )
        return self.language, found[self.language]


def an4(source: CorpusFolder) -> Splits:
    """CMU AN4, the official layout. The test part may be absent."""
    folder = source.folder
    source.require("etc/an4_train.fileids", "AN4", "what an4_sphere.tar.gz holds")
    splits = {}
    for split, audio in (("train", "wav/an4_clstk"), ("test", "wav/an4test_clstk")):
        missing = [
            name
            for name in (f"etc/an4_{split}.fileids", f"etc/an4_{split}.transcription", audio)
            if not (folder / name).exists()
        ]
        if missing and split == "test":
            source.notes.append(f"no test split: {folder} has no {', no '.join(missing)}")
        elif missing:
            raise ManifestError(f"{folder} is not the whole of AN4: it has no {', no '.join(missing)}")
        else:
            splits[split] = list(_an4_split(source, split))
    return splits


def _an4_split(source: CorpusFolder, split: str) -> Iterator[Utterance]:
    transcripts = {}
    for line in read_lines(source.folder / f"etc/an4_{split}.transcription"):
        # The test transcripts stand without <s> and </s>.
        if match := re.fullmatch(r"(?:<s>)?(.*?)(?:</s>)?\s*\(([^()]+)\)", line.strip()):
            transcripts[match[2]] = match[1].strip()
    for line in read_lines(source.folder / f"etc/an4_{split}.fileids"):
        if not (name := line.strip()):
            continue
        *_, speaker, key = name.split("/")
        if key in transcripts:
            yield Utterance(
                id=key,
                audio=source.folder / "wav" / f"{name}.sph",
                text=transcripts[key],
                speaker=speaker,
                gender={"f": "F", "m": "M"}.get(speaker[0]),  # AN4 names women f..., men m...
                language="English",
            )
        else:
            source.problems.append(f"{key}: no transcript in etc/an4_{split}.transcription")


def speechocean762(source: CorpusFolder) -> Splits:
    """Kaldi data folders train and test; at least one must be there."""
    splits = {}
    for split in ("train", "test"):
        if (source.folder / split / "wav.scp").is_file():
            splits[split] = list(read_kaldi(source.folder / split, source.problems))
        else:
            source.notes.append(f"no {split} split: there is no {source.folder / split / 'wav.scp'}")
    if not splits:
        raise ManifestError(f"{source.folder} has none of train/wav.scp, test/wav.scp")
    return splits


def librispeech_genders(source: CorpusFolder) -> dict[str, str]:
    """Read LibriSpeech's SPEAKERS.TXT where it is there: lines such as `14 | F | train-clean-360 | 25.03 | NAME`."""
    path = source.folder / "SPEAKERS.TXT"
    lines = path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else []
    rows = ([part.strip() for part in line.split("|")] for line in lines if not line.startswith(";"))
    return {row[0]: row[1] for row in rows if len(row) > 1}


def ljspeech(source: CorpusFolder) -> Splits:
    """LJ Speech: metadata.csv with id|transcript|transcript as it is spoken, and wavs/ID.wav. One speaker.

    Where only a part of the audio is there, that part is the corpus; lhotse's recipe calls the rest faulty.
    """
    table = source.require("metadata.csv", "LJ Speech", "metadata.csv and wavs/")
    utterances, missing = [], []
    for number, line in enumerate(read_lines(table), 1):
        key, *texts = line.strip().split("|")
        if not key:
            continue
        path = existing(source.folder / "wavs" / f"{key}.wav")
        if not texts:
            source.problems.append(
                f"line {number} of {table}: expected id|transcript|transcript as it is spoken"
            )
        elif path.is_file():
            utterances.append(
                Utterance(key, path, texts[-1], speaker="linda-johnson", gender="F", language="English")
            )
        else:
            missing.append(key)
    if missing:
        source.notes.append(
            f"{len(missing)} of {len(missing) + len(utterances)} utterances of metadata.csv have no audio here: "
            f"{some(missing)}"
        )
    if not utterances:
        raise ManifestError(f"{source.folder / 'wavs'} holds none of the audio that metadata.csv names")
    return {"train": utterances}


DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def fsdd(source: CorpusFolder) -> Splits:
    """Free Spoken Digit Dataset: recordings/DIGIT_SPEAKER_INDEX.wav; test is the official one, index 0 to 4."""
    folder = source.require("recordings", "FSDD", "recordings/DIGIT_SPEAKER_INDEX.wav")
    splits: Splits = {"train": [], "test": []}
    for path in sorted(folder.glob("*.wav")):
        named = re.fullmatch(r"(\d)_(.+)_(\d+)", path.stem)
        if named is None:
            source.problems.append(f"{path.stem}: is not named DIGIT_SPEAKER_INDEX")
            continue
        utterance = Utterance(path.stem, path, DIGITS[int(named[1])], named[2], language="English")
        splits["test" if int(named[3]) < 5 else "train"].append(utterance)
    if not splits["test"]:
        source.notes.append(f"no test split: {folder} has no recordings with an index from 0 to 4")
    return splits


def speech_commands(source: CorpusFolder) -> Splits:
    """Google Speech Commands, either version: WORD/SPEAKER_nohash_N.wav, split by its two lists.

    lhotse's recipe also gives the background noise as speech with empty transcripts, and wants another test set.
    """
    expected = "WORD/SPEAKER_nohash_N.wav and testing_list.txt"
    lists = {
        "dev": source.require("validation_list.txt", "Speech Commands", expected),
        "test": source.require("testing_list.txt", "Speech Commands", expected),
    }
    split_of = {line.strip(): split for split, path in lists.items() for line in read_lines(path)}
    split_of.pop("", None)
    splits: Splits = {"train": [], "dev": [], "test": []}
    for path in sorted(source.folder.glob("[!_]*/*.wav")):
        name = f"{path.parent.name}/{path.name}"
        speaker = path.stem.partition("_nohash_")[0]
        utterance = Utterance(name.removesuffix(".wav"), path, path.parent.name, speaker, language="English")
        splits[split_of.pop(name, "train")].append(utterance)
    source.problems += [f"{name}: is in the {split} list but not there" for name, split in split_of.items()]
    return splits


def common_voice(source: CorpusFolder) -> Splits:
    """Common Voice in any language and release: LANGUAGE/{train,dev,test}.tsv and LANGUAGE/clips.

    lhotse's recipe knows 24 languages and the columns of one release.
    """
    found = {path.parent.name: path.parent for path in source.folder.glob("*/train.tsv")}
    if (source.folder / "train.tsv").is_file():
        found = {source.language or source.folder.name: source.folder}
    language, folder = source.language_folder(found, "Common Voice")
    return {
        split: [_in_language(utterance, language) for utterance in read_table(path, source.problems)]
        for split in ("train", "dev", "test")
        if (path := folder / f"{split}.tsv").is_file()
    }


def _in_language(utterance: Utterance, language: str) -> Utterance:
    return Utterance(**{**vars(utterance), "language": language})


def multilingual_librispeech(source: CorpusFolder) -> Splits:
    """MLS: mls_LANGUAGE[_opus]/{train,dev,test}/transcripts.txt and audio/SPEAKER/BOOK/SPEAKER_BOOK_N.flac or .opus."""
    found = {path.name.removesuffix("_opus")[4:]: path for path in sorted(source.folder.glob("mls_*"))}
    if (source.folder / "train" / "transcripts.txt").is_file():
        found = {source.folder.name.removeprefix("mls_").removesuffix("_opus"): source.folder}
    language, folder = source.language_folder(found, "MLS")
    genders = {}
    if (folder / "metainfo.txt").is_file():
        rows = (line.split("|") for line in read_lines(folder / "metainfo.txt"))
        genders = {row[0].strip(): row[1].strip() for row in rows if len(row) > 1}
    splits: Splits = {}
    for split in ("train", "dev", "test"):
        if not (transcripts := folder / split / "transcripts.txt").is_file():
            continue
        suffix = next((path.suffix for path in (folder / split / "audio").glob("*/*/*")), ".flac")
        splits[split] = []
        for line in read_lines(transcripts):
            key, _, text = line.strip().partition("\t")
            if not key:
                continue
            speaker, book, *_ = [*key.split("_"), ""]
            audio = folder / split / "audio" / speaker / book / f"{key}{suffix}"
            splits[split].append(Utterance(key, audio, text, speaker, genders.get(speaker), language))
    return splits


def voxpopuli(source: CorpusFolder) -> Splits:
    """VoxPopuli's transcribed part, as its own scripts cut it or as it is published.

    The former is [transcribed_data/]LANGUAGE/asr_{train,dev,test}.tsv and LANGUAGE/YEAR/ID.ogg, the latter
    asr_LANGUAGE.tsv.gz and raw_audios/original/YEAR/SESSION_original.ogg with the sentences' times.
    """
    raw = {path.name[4:-7]: path for path in source.folder.glob("asr_*.tsv.gz")}
    if raw:
        return _voxpopuli_sessions(source, *source.language_folder(raw, "VoxPopuli"))
    found = {
        path.parent.name: path.parent
        for depth in ("*", "*/*")
        for path in source.folder.glob(f"{depth}/asr_train.tsv")
    }
    language, folder = source.language_folder(found, "VoxPopuli")
    splits = {}
    for split in ("train", "dev", "test"):
        if (path := folder / f"asr_{split}.tsv").is_file():
            splits[split] = [
                Utterance(
                    id=row["id"],
                    audio=folder / row["id"][:4] / f"{row['id']}.ogg",
                    text=row["normalized_text"],
                    speaker=row.get("speaker_id"),
                    gender=row.get("gender"),
                    language=language,
                )
                for row in _rows(source, path, "\t", "id", "normalized_text")
            ]
    return splits


def _voxpopuli_sessions(source: CorpusFolder, language: str, table: Path) -> Splits:
    splits: Splits = {"train": [], "dev": [], "test": []}
    wanted = ("session_id", "id_", "start_time", "end_time", "normed_text", "split")
    for row in _rows(source, table, "|", *wanted):
        if row["split"] not in splits:  # the others were found to be transcribed badly
            continue
        session, start = row["session_id"], float(row["start_time"])
        splits[row["split"]].append(
            Utterance(
                id=f"{session}-{row['id_']}",
                audio=source.folder / "raw_audios" / "original" / session[:4] / f"{session}_original.ogg",
                text=row["normed_text"],
                speaker=row.get("speaker_id"),
                gender=row.get("gender"),
                language=language,
                start=start,
                duration=float(row["end_time"]) - start,
            )
        )
    return splits


FLEURS_COLUMNS = ("id", "file", "raw", "text", "characters", "samples", "gender")  # its tables have no header


def fleurs(source: CorpusFolder) -> Splits:
    """FLEURS as published: LANGUAGE/{train,dev,test}.tsv and LANGUAGE/audio/SPLIT/FILE.wav. Speakers are unknown.

    lhotse's recipe reads only what its own download has rewritten.
    """
    found = {
        path.parent.name: path.parent
        for depth in ("*", "*/*")
        for path in source.folder.glob(f"{depth}/train.tsv")
    }
    language, folder = source.language_folder(found, "FLEURS")
    splits: Splits = {}
    for split in ("train", "dev", "test"):
        if not (path := folder / f"{split}.tsv").is_file():
            continue
        splits[split] = []
        for number, line in enumerate(read_lines(path), 1):
            row = dict(zip(FLEURS_COLUMNS, line.split("\t"), strict=False))
            if len(row) < len(FLEURS_COLUMNS):
                source.problems.append(f"line {number} of {path}: expected {len(FLEURS_COLUMNS)} fields")
                continue
            splits[split].append(
                Utterance(
                    id=f"{row['id']}-{Path(row['file']).stem}",
                    audio=folder / "audio" / split / row["file"],
                    text=row["text"],
                    gender=row["gender"].strip().lower(),
                    language=language,
                )
            )
    return splits


# GigaSpeech spells punctuation as words; an utterance that is only one of GARBAGE holds no speech to learn.
GIGASPEECH_PUNCTUATION = re.compile(r"<(?:COMMA|PERIOD|QUESTIONMARK|EXCLAMATIONPOINT)>")
GIGASPEECH_GARBAGE = frozenset({"<SIL>", "<MUSIC>", "<NOISE>", "<OTHER>"})


def gigaspeech(source: CorpusFolder) -> Splits:
    """GigaSpeech: GigaSpeech.json and the audio it names; its nested subsets become train-xs, train-s, ...

    lhotse's recipe needs one more package for this one file.
    """
    path = source.require("GigaSpeech.json", "GigaSpeech", "the file GigaSpeech.json beside audio/")
    try:
        audios = json.loads(path.read_text("utf-8"))["audios"]
    except (ValueError, KeyError, TypeError) as error:
        raise ManifestError(f"{path} is damaged: {error}") from error
    splits: Splits = {}
    garbage = 0
    for audio in audios:
        for segment in audio["segments"]:
            text = " ".join(GIGASPEECH_PUNCTUATION.sub(" ", segment["text_tn"]).split())
            if text in GIGASPEECH_GARBAGE:
                garbage += 1
                continue
            utterance = Utterance(
                id=segment["sid"],
                audio=source.folder / audio["path"],
                text=text,
                speaker=segment.get("speaker") if segment.get("speaker") != "N/A" else None,
                language="English",
                start=float(segment["begin_time"]),
                duration=float(segment["end_time"]) - float(segment["begin_time"]),
            )
            subsets = {name.strip("{}").lower() for name in segment["subsets"]}
            held_out = subsets & {"dev", "test"}
            for split in held_out or {"train", *(f"train-{name}" for name in subsets)}:
                splits.setdefault(split, []).append(utterance)
    if garbage:
        source.notes.append(
            f"{garbage} utterances without speech ({', '.join(sorted(GIGASPEECH_GARBAGE))}) are skipped"
        )
    return splits


def tedlium(source: CorpusFolder) -> Splits:
    """TED-LIUM 3: legacy/{train,dev,test}/stm/TALK.stm and sph/TALK.sph; release 2 has no folder legacy.

    lhotse's recipe needs a further program to read sphere files.
    """
    folder = source.folder / "legacy" if (source.folder / "legacy").is_dir() else source.folder
    splits: Splits = {}
    for split in ("train", "dev", "test"):
        for path in sorted((folder / split / "stm").glob("*.stm")):
            splits.setdefault(split, []).extend(_stm(path, folder / split / "sph", source.problems))
    if not splits:
        raise ManifestError(f"{source.folder} is not TED-LIUM: there is no legacy/train/stm")
    return splits


def _stm(path: Path, audio: Path, problems: list[str]) -> Iterator[Utterance]:
    for number, line in enumerate(read_lines(path), 1):
        talk, _, speaker, start, end, _, text = [*line.strip().split(maxsplit=6), *[""] * 7][:7]
        if text == "ignore_time_segment_in_scoring":
            continue
        try:
            begin, duration = float(start), float(end) - float(start)
        except ValueError:
            problems.append(f"line {number} of {path}: {start!r} and {end!r} are no times")
            continue
        # Clitics stand apart, and what was not understood or is no speech is marked.
        spoken = re.sub(r"<unk>|\{[A-Z]+\}|\[[A-Z]+\]", " ", text).replace(" '", "'")
        yield Utterance(
            id=f"{talk}-{number - 1}",
            audio=audio / f"{talk}.sph",
            text=" ".join(spoken.split()),
            speaker=speaker,
            language="English",
            start=begin,
            duration=duration,
        )


def _rows(source: CorpusFolder, path: Path, separator: str, *wanted: str) -> Iterator[dict[str, str]]:
    """Read a table with a header that must have these columns; rows that are cut short become problems."""
    rows = csv.DictReader(read_lines(path), delimiter=separator, quoting=csv.QUOTE_NONE)
    missing = set(wanted) - set(rows.fieldnames or ())
    if missing:
        raise ManifestError(f"{path} has no column {', '.join(sorted(missing))}")
    for row in rows:
        if None in row.values():
            source.problems.append(f"line {rows.line_num} of {path}: expected {len(row)} fields")
        else:
            yield row
