"""Utterances, as corpora describe them, and the cuts that become of them once their audio has been opened."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import soundfile

from asr.audio import existing, measure, read_header
from asr.data.cuts import Cut, Recording, Source, Supervision
from asr.errors import AudioError
from asr.wording import some

LOG = logging.getLogger(__name__)

# Threads that read headers: the time goes to waiting for the disk, and libsndfile runs without the GIL.
JOBS = 8
# How far a manifest's duration may be from the audio's before it is taken for a part of the file.
DURATION_TOLERANCE = 0.1  # seconds
ROUNDING = 0.01  # seconds by which an end may lie past its file's


@dataclass(frozen=True)
class Utterance:
    """What a corpus says of one utterance, before its audio has been opened.

    Attributes:
        id: unique in the corpus.
        audio: the file.
        text: the transcript as the corpus has it; normalization belongs to the model.
        speaker, gender, language: None where unknown.
        start: seconds into the file; None for an utterance that is a file of its own, whose duration may be rounded.
        duration: seconds; None takes the rest of the file.
        channel: of the file, counted from 0; None mixes all channels.
        channel_of_original: the channel is that of a call, of which the file may be a single channel by now.
        traits: what else is known of the speaker, such as the age, to break errors down by.
    """

    id: str
    audio: Path
    text: str
    speaker: str | None = None
    gender: str | None = None
    language: str | None = None
    start: float | None = None
    duration: float | None = None
    channel: int | None = None
    channel_of_original: bool = False
    traits: Mapping[str, str | int] = field(default_factory=dict)


def build_cuts(
    utterances: Iterable[Utterance], progress: Callable[[Iterable], Iterable] = iter, jobs: int = JOBS
) -> tuple[list[Cut], list[str]]:
    """Open every utterance's audio, in `jobs` threads, and make its cut. `progress` wraps the loop, as tqdm does.

    Returns the cuts, sorted by id, and a line for each utterance whose audio is missing or unreadable, which is not in
    its file, or whose id is taken.
    """
    problems: list[str] = []
    utterances = list(_writable(sorted(utterances, key=lambda utterance: utterance.id), problems))
    files = list(dict.fromkeys(utterance.audio for utterance in utterances))
    with ThreadPoolExecutor(jobs) as pool:
        recordings = dict(zip(files, progress(pool.map(_open_recording, files)), strict=True))
    cuts: dict[str, Cut] = {}
    past_the_end = []
    for utterance in utterances:
        recording = recordings[utterance.audio]
        if isinstance(recording, str):
            problems.append(f"{utterance.id}: {recording}")
        elif utterance.id in cuts:
            problems.append(f"{utterance.id}: a second utterance has this id, of {utterance.audio}")
        elif fault := _misplaced(utterance, recording):
            problems.append(f"{utterance.id}: {fault}")
        else:
            cuts[utterance.id] = _cut(utterance, recording)
            if _excess(utterance, recording) > ROUNDING:
                past_the_end.append(utterance.id)
    if past_the_end:
        LOG.warning(
            "%d utterances end after their files and are cut there: %s", len(past_the_end), some(past_the_end)
        )
    return list(cuts.values()), problems


def _misplaced(utterance: Utterance, recording: Recording) -> str | None:
    """Return why an utterance is not in its recording."""
    channels = len(recording.sources[0].channels)
    if utterance.duration is not None and utterance.duration <= 0:
        return f"its duration is {utterance.duration} s"
    if (utterance.start or 0.0) >= recording.duration:
        return (
            f"starts at {utterance.start} s, after the end of {utterance.audio} ({recording.duration:.2f} s)"
        )
    if (
        utterance.channel is not None
        and utterance.channel >= channels
        and not _is_single(utterance, recording)
    ):
        return f"is of channel {utterance.channel}, counted from 0, but {utterance.audio} has {channels}"
    return None


def _is_single(utterance: Utterance, recording: Recording) -> bool:
    """Whether the file is the one channel of the call that the utterance is of."""
    return utterance.channel_of_original and len(recording.sources[0].channels) == 1


def _excess(utterance: Utterance, recording: Recording) -> float:
    """Return by how many seconds an utterance ends after its file."""
    if utterance.start is None or utterance.duration is None:
        return 0.0
    return utterance.start + utterance.duration - recording.duration


def _writable(utterances: Iterable[Utterance], problems: list[str]) -> Iterator[Utterance]:
    """Skip what a manifest, which is UTF-8, cannot hold: files have any bytes for names, JSON half characters."""
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
    path = existing(path)
    if not os.path.isfile(path):  # noqa: PTH113 - Path's raises for names that are too long
        return f"there is no file {path.absolute()}"
    path = path.resolve()
    try:
        channels, sample_rate, num_samples = read_header(path)
        if num_samples is None:
            channels, sample_rate, num_samples = measure(path)
    except (soundfile.LibsndfileError, OSError, AudioError):
        try:  # of m4a and the like, only decoding tells the length
            channels, sample_rate, num_samples = measure(path)
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
    start = utterance.start or 0.0
    duration = rest = recording.duration - start
    # Only the duration of a whole file may be its header's, rounded; the end of a part stays where it was set.
    tolerance = DURATION_TOLERANCE if utterance.start is None else 0.0
    if utterance.duration is not None and utterance.duration < rest - tolerance:
        duration = utterance.duration
    channel: int | list[int] = recording.sources[0].channels
    if utterance.channel is not None and not _is_single(utterance, recording):
        channel = utterance.channel
    elif len(channel) == 1:
        channel = channel[0]
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
    return Cut(utterance.id, start, duration, channel, recording, [supervision])
