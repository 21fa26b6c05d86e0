"""Utterances, as corpora describe them, and the cuts that become of them once their audio has been opened."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import soundfile

from asr.audio import load_audio, read_header
from asr.data.cuts import Cut, Recording, Source, Supervision
from asr.errors import AudioError

# Threads that read headers: the time goes to waiting for the disk, and libsndfile runs without the GIL.
JOBS = 8
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
        sources=[Source(type="file", channels=list(range(channels)), source=str(path))],
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
    channel = channels[0] if len(channels) == 1 else channels
    supervision = Supervision(
        id=utterance.id,
        recording_id=recording.id,
        start=0.0,
        duration=duration,
        channel=channel,
        text=utterance.text,
        language=utterance.language,
        speaker=utterance.speaker,
        gender=utterance.gender,
        custom=dict(utterance.traits) or None,
    )
    return Cut(utterance.id, utterance.start, duration, channel, recording, [supervision])
