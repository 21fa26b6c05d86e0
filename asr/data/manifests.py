"""Manifests: what is known of a corpus's utterances, as lhotse cuts in `cuts_NAME.jsonl.gz` files."""

import gzip
import json
import os
import random
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import soundfile
from lhotse import AudioSource, CutSet, MonoCut, MultiCut, Recording, SupervisionSegment
from lhotse.cut import Cut
from lhotse.serialization import deserialize_item

from asr.audio import load_audio, read_header
from asr.errors import AudioError, ManifestError

JOBS = (
    8  # threads that read headers: the time goes to waiting for the disk, and libsndfile runs without the GIL
)
# How far a manifest's duration may be from the audio's before it is taken for a part of the file.
DURATION_TOLERANCE = 0.1  # seconds


@dataclass(frozen=True)
class Utterance:
    """What a corpus says of one utterance, before its audio has been opened.

    Attributes:
        id: unique in the corpus.
        audio: the file.
        text: the transcript as the corpus has it; normalization belongs to the model.
        speaker, gender, language: None where unknown.
        start: seconds into the file.
        duration: seconds; None takes the rest of the file.
        traits: what else is known of the speaker, such as the age, to break errors down by.
    """

    id: str
    audio: Path
    text: str
    speaker: str | None = None
    gender: str | None = None
    language: str | None = None
    start: float = 0.0
    duration: float | None = None
    traits: Mapping[str, str | int] = field(default_factory=dict)


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


def build_cuts(
    utterances: Iterable[Utterance], progress: Callable[[Iterable], Iterable] = iter, jobs: int = JOBS
) -> tuple[list[Cut], list[str]]:
    """Open every utterance's audio, in `jobs` threads, and make its cut. `progress` wraps the loop, as tqdm does.

    Returns the cuts, sorted by id, and a line for each utterance whose audio is missing or unreadable, or
    whose id is taken.
    """
    problems: list[str] = []
    utterances = list(_writable(sorted(utterances, key=lambda utterance: utterance.id), problems))
    files = list(dict.fromkeys(utterance.audio for utterance in utterances))
    with ThreadPoolExecutor(jobs) as pool:
        recordings = dict(zip(files, progress(pool.map(_open_recording, files)), strict=True))
    cuts: dict[str, Cut] = {}
    for utterance in utterances:
        recording = recordings[utterance.audio]
        if isinstance(recording, str):
            problems.append(f"{utterance.id}: {recording}")
        elif utterance.id in cuts:
            problems.append(f"{utterance.id}: a second utterance has this id, of {utterance.audio}")
        elif utterance.duration is not None and utterance.duration <= 0:
            problems.append(f"{utterance.id}: its duration is {utterance.duration} s")
        elif utterance.start >= recording.duration:
            problems.append(
                f"{utterance.id}: starts at {utterance.start} s, after the end of {utterance.audio} "
                f"({recording.duration:.2f} s)"
            )
        else:
            cuts[utterance.id] = _cut(utterance, recording)
    return list(cuts.values()), problems


def _writable(utterances: Iterable[Utterance], problems: list[str]) -> Iterator[Utterance]:
    """Pass over what a manifest, which is UTF-8, cannot hold: files have any bytes for names, JSON half characters."""
    for utterance in utterances:
        try:
            "\n".join((utterance.id, str(utterance.audio), utterance.text, utterance.speaker or "")).encode()
        except UnicodeEncodeError as error:
            stray = error.object[error.start : error.end]
            problems.append(f"{utterance.id}: its name or transcript holds {stray!a}, which is no character")
        else:
            yield utterance


def _open_recording(path: Path) -> Recording | str:
    """Read a file's header; a string says why that failed."""
    if not os.path.isfile(path):  # noqa: PTH113 - Path's raises for names that are too long
        return f"there is no file {path.absolute()}"
    path = path.resolve()
    try:
        channels, sample_rate, num_samples = read_header(path)
    except (soundfile.LibsndfileError, OSError):
        channels, sample_rate, num_samples = 1, 16000, None  # m4a and the like
    if num_samples is None:
        try:  # only decoding tells its length
            num_samples = len(load_audio(path, sample_rate))
        except AudioError as error:
            return str(error)
    if num_samples == 0:
        return f"{path} holds no samples"
    return Recording(
        id=path.stem,
        sources=[AudioSource(type="file", channels=list(range(channels)), source=str(path))],
        sampling_rate=sample_rate,
        num_samples=num_samples,
        duration=num_samples / sample_rate,
    )


def _cut(utterance: Utterance, recording: Recording) -> Cut:
    left = recording.duration - utterance.start
    duration = left
    if utterance.duration is not None and utterance.duration < left - DURATION_TOLERANCE:
        duration = utterance.duration
    channels = recording.sources[0].channels
    kind, channel = (MonoCut, channels[0]) if len(channels) == 1 else (MultiCut, channels)
    supervision = SupervisionSegment(
        id=utterance.id,
        recording_id=recording.id,
        start=0.0,
        duration=duration,
        channel=channel,
        text=utterance.text,
        speaker=utterance.speaker,
        gender=utterance.gender,
        language=utterance.language,
        custom=dict(utterance.traits) or None,
    )
    return kind(
        id=utterance.id,
        start=utterance.start,
        duration=duration,
        channel=channel,  # type: ignore[arg-type]
        recording=recording,
        supervisions=[supervision],
    )


def file_of(cut: Cut) -> str | None:
    """Give the one file that holds a cut's audio; None where it comes from anywhere else."""
    recording = cut.recording if isinstance(cut, MonoCut | MultiCut) else None
    if recording is None or len(recording.sources) != 1 or recording.sources[0].type != "file":
        return None
    return str(recording.sources[0].source)


def speaker_of(cut: Cut) -> str | None:
    """Give the speaker of a cut's first supervision that names one."""
    return next((segment.speaker for segment in cut.supervisions if segment.speaker), None)


def text_of(cut: Cut) -> str | None:
    """Join the transcripts of a cut's supervisions; None where there is none at all."""
    texts = [segment.text for segment in cut.supervisions if segment.text is not None]
    return " ".join(texts) if texts else None


def hold_out(
    cuts: Sequence[Cut], *, speakers: Sequence[str] | None = None, fraction: float = 0.1, seed: int = 0
) -> tuple[list[Cut], list[Cut], str]:
    """Part cuts in two without a speaker on both sides: those to train on and those held out for development.

    Arguments: speakers names those to hold out; else a `fraction` of the speakers is drawn, the same for the
        same `seed`, leaving out of the draw anyone who alone would make more than twice that fraction of the
        audio. Utterances are drawn instead where speakers are unknown or too few. Returns (train, dev, a
        sentence that says what was done). Raises ManifestError for a speaker who is not there or when nothing
        is left to train on.
    """
    seconds: dict[str, float] = {}
    genders: dict[str, str | None] = {}
    for cut in cuts:
        if (speaker := speaker_of(cut)) is not None:
            seconds[speaker] = seconds.get(speaker, 0.0) + cut.duration
            genders[speaker] = cut.supervisions[0].gender
    if speakers is not None:
        unknown = sorted(set(speakers) - seconds.keys())
        if unknown:
            known = f"the corpus has {_shortened(sorted(seconds))}" if seconds else "the speakers are unknown"
            raise ManifestError(f"no speaker {', '.join(unknown)} to hold out; {known}")
        held_out = set(speakers)
    else:
        held_out = _draw_speakers(seconds, genders, fraction, seed) if seconds else set()
    if held_out:
        is_dev = {cut.id for cut in cuts if speaker_of(cut) in held_out}
        names = ", ".join(sorted(held_out))
        done = f"held out for dev: {len(held_out)} of {len(seconds)} speakers ({names})"
        if unnamed := sum(speaker_of(cut) is None for cut in cuts):
            done += f"; {unnamed} utterances without a speaker stay in train"
    else:
        ids = sorted(cut.id for cut in cuts)
        is_dev = set(random.Random(seed).sample(ids, max(1, round(fraction * len(ids)))))
        why = f"too few speakers ({len(seconds)})" if seconds else "the speakers are unknown"
        done = f"held out for dev: {len(is_dev)} of {len(ids)} utterances, for {why}"
    train = [cut for cut in cuts if cut.id not in is_dev]
    dev = [cut for cut in cuts if cut.id in is_dev]
    if not train or not dev:
        raise ManifestError(
            f"cannot hold out development utterances: {len(dev)} of {len(cuts)} would be held out and {len(train)} "
            "left to train on; give more data, other speakers or another fraction (0 holds out nothing)"
        )
    return train, dev, done


def _draw_speakers(
    seconds: Mapping[str, float], genders: Mapping[str, str | None], fraction: float, seed: int
) -> set[str]:
    chance = random.Random(seed)
    # Shuffle each gender, then interleave them, so that those drawn are mixed as all are.
    places = {}
    for gender in sorted(set(genders.values()), key=str):
        members = sorted(speaker for speaker in seconds if genders[speaker] == gender)
        chance.shuffle(members)
        places |= {speaker: (index + 0.5) / len(members) for index, speaker in enumerate(members)}
    order = sorted(places, key=lambda speaker: (places[speaker], speaker))
    wanted = max(1, round(fraction * len(order)))
    room = 2 * fraction * sum(seconds.values())
    drawn: set[str] = set()
    for speaker in order:
        if len(drawn) < wanted and seconds[speaker] <= room:
            drawn.add(speaker)
            room -= seconds[speaker]
    return drawn


def write_cuts(cuts: Iterable[Cut], output_dir: Path, name: str) -> Path:
    """Write `cuts_NAME.jsonl.gz`; a file of that name is replaced only by a whole one."""
    return write_manifest(cuts, output_dir / f"cuts_{name}.jsonl.gz")


def write_manifest(cuts: Iterable[Cut], path: Path) -> Path:
    """Write a manifest; a file of that name is replaced only by a whole one.

    Raises ManifestError where the folder cannot be written to.
    """
    partial = path.with_name(f".partial.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        CutSet.from_cuts(cuts).to_file(partial)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        at = f"{error.filename}: " if error.filename else ""
        raise ManifestError(f"cannot write {path}: {at}{error.strerror or error}") from error
    return path


def load_cuts(path: str | Path) -> list[Cut]:
    """Read a manifest of cuts (`.jsonl` or `.jsonl.gz`), as `asr prepare` writes it, into memory.

    Raises ManifestError if the file is missing, holds anything but cuts, is empty, or if none of the audio
    files that it names exists; a few lost files are the loader's to report.
    """
    path = Path(path)
    if not path.is_file():
        raise ManifestError(f"there is no manifest {path}; `asr prepare` writes manifests (cuts_*.jsonl.gz)")
    cuts = []
    number = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open() as lines:
            for line in lines:
                number += 1
                if line.strip():
                    cuts.append(_read_cut(line))
    except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} is damaged after line {number}: {error}; prepare it again") from error
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise ManifestError(
            f"line {number} of {path} is not a cut as `asr prepare` writes it; "
            "`asr prepare manifest` converts NeMo lines, CSV and Kaldi folders"
        ) from error
    if not cuts:
        raise ManifestError(f"the manifest {path} is empty; expected one utterance a line")
    _check_files(path, cuts)
    return cuts


def _read_cut(line: str) -> Cut:
    cut = deserialize_item(json.loads(line))
    if not isinstance(cut, Cut) or not cut.has_recording:
        raise TypeError("not a cut with audio")
    return cut


def _check_files(path: Path, cuts: Sequence[Cut]) -> None:
    files = {file for cut in cuts if (file := file_of(cut)) is not None}
    if files and not any(map(os.path.exists, files)):
        raise ManifestError(
            f"none of the {len(files)} audio files that {path} names exists (the first is {min(files)}); "
            "has the corpus moved? Prepare it again"
        )


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


def _shortened(names: Sequence[str], most: int = 10) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
