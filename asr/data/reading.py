"""A cut's audio, from a file, from memory, or, for what only lhotse reads, through lhotse."""

import functools
import shutil
from typing import Any

import numpy as np

from asr.audio import load_audio
from asr.data.cuts import Cut, file_of, plain
from asr.errors import AudioError


def read_samples(cut: Cut, sample_rate: int) -> np.ndarray:
    """Return a cut's audio as (time,) float32, mono, at `sample_rate`; the channels of a cut of several are averaged.

    Raises AudioError that names the file.
    """
    if cut.duration <= 0:
        raise AudioError(f"{cut.id} lasts {cut.duration} s")
    cut = plain(cut)
    if not isinstance(cut, Cut):
        return _read_with_lhotse(cut, sample_rate)
    channels = _channels_of(cut)
    if file_of(cut) is None:
        return load_audio(cut.recording.sources[0].source, sample_rate, channels=channels)
    is_part = cut.start > 0 or cut.end < cut.recording.duration
    duration = cut.duration if is_part else None
    return load_audio(file_of(cut) or "", sample_rate, offset=cut.start, duration=duration, channels=channels)


def _channels_of(cut: Cut) -> list[int] | None:
    """Return the places in the file of the channels that the cut is of; None for all of the file's."""
    in_file = cut.recording.sources[0].channels
    channels = cut.channel if isinstance(cut.channel, list) else [cut.channel]
    if sorted(channels) == sorted(in_file):
        return None
    if missing := [channel for channel in channels if channel not in in_file]:
        raise AudioError(f"{cut.id} is of channel {missing[0]}, but its recording has {in_file}")
    return [in_file.index(channel) for channel in channels]


def _read_with_lhotse(cut: Any, sample_rate: int) -> np.ndarray:
    from lhotse.audio.utils import AudioLoadingError, DurationMismatchError

    _read_sphere_without_sph2pipe()
    try:
        samples = cut.resample(sample_rate).load_audio()
    except (AudioLoadingError, DurationMismatchError, OSError) as error:
        reason = str(error).splitlines()[0]  # what follows are the calls and their arguments
        raise AudioError(f"cannot read the audio of {cut.id}: {reason}") from error
    if samples is None:
        raise AudioError(f"{cut.id} has no audio")
    return samples.mean(0)


@functools.cache
def _read_sphere_without_sph2pipe() -> None:
    """Let libsndfile read NIST sphere files, for which lhotse wants a program that is seldom installed."""
    from lhotse.audio import backend

    if shutil.which("sph2pipe") is None:
        default: Any = backend.get_default_audio_backend()
        without = [
            item for item in default.backends if not isinstance(item, backend.Sph2pipeSubprocessBackend)
        ]
        backend.set_current_audio_backend(backend.CompositeAudioBackend(without))
