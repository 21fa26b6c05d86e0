"""Audio of `asr transcribe`: the channels of each file as sources, and their transcripts joined again."""

import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from asr.cli.inputs import STDIN
from asr.errors import AsrError

if TYPE_CHECKING:
    import numpy as np

    from asr import Transcript
    from asr.sources import AudioSource


@dataclass
class Recording:
    """One file.

    Attributes:
        sources: what is transcribed of it: the mix or a channel, or every channel.
        damage: why reading ended before the audio did; filled while it is read, and empty unless it is salvaged.
    """

    sources: "list[AudioSource]" = field(default_factory=list)
    damage: list[AsrError] = field(default_factory=list)


def open_recordings(
    paths: Sequence[str], sample_rate: int, channels: str | int, salvage: bool
) -> list[Recording]:
    """Return the recordings of paths, or of standard input, -.

    Arguments: channels, "mix", "separate", or the number of one, counted from 1; salvage, whether damaged audio ends
    where it cannot be read on, instead of failing as a whole.
    """
    return [_recording(path, sample_rate, channels, salvage) for path in paths]


def _recording(path: str, sample_rate: int, channels: str | int, salvage: bool) -> Recording:
    from asr.audio import channel_count, stream_audio
    from asr.sources import BLOCK_SECONDS, AudioSource, header_seconds

    recording = Recording()
    on_damage = recording.damage.append if salvage else None
    audio = _readable(path, again=channels == "separate")
    name = "<stdin>" if path == STDIN else path

    def source(chosen: list[int] | None) -> AudioSource:
        def blocks() -> "Iterator[np.ndarray]":
            content = io.BytesIO(audio) if isinstance(audio, bytes) else audio
            if isinstance(content, io.BytesIO):
                content.name = name  # type: ignore[attr-defined] - as errors call it
            return stream_audio(content, sample_rate, BLOCK_SECONDS, chosen, on_damage)

        return AudioSource(name, blocks, 0.0 if isinstance(audio, bytes) else header_seconds(path))

    if channels == "mix":
        recording.sources = [source(None)]
    elif channels == "separate":
        try:
            count = channel_count(audio)
        except AsrError:
            count = 1  # reading it gives the reason
        recording.sources = [source([place]) for place in range(count)]
    else:
        recording.sources = [source([int(channels) - 1])]
    return recording


def _readable(path: str, again: bool) -> str | bytes:
    """Return a path, or the bytes of what can be read only once: standard input and, to read it `again`, a pipe.

    Read here: a thread that waits for standard input would not notice Ctrl-C.
    """
    if path == STDIN:
        return sys.stdin.buffer.read()
    if again and Path(path).is_fifo():
        return Path(path).read_bytes()
    return path


def join_channels(
    outcomes: "Iterable[tuple[int, Transcript | AsrError]]", recordings: Sequence[Recording]
) -> "Iterator[tuple[int, Transcript | AsrError]]":
    """Yield (index of the recording, its transcript) from (index of the source, its transcript) as they complete.

    The channels of a recording are merged by time; the error of one is that of all.
    """
    from asr.transcript import merge_channels

    owners = [(i, k) for i, recording in enumerate(recordings) for k in range(len(recording.sources))]
    waiting: dict[int, dict[int, Transcript | AsrError]] = {}
    for index, outcome in outcomes:
        recording, channel = owners[index]
        parts = waiting.setdefault(recording, {})
        parts[channel] = outcome
        if len(parts) < len(recordings[recording].sources):
            continue
        del waiting[recording]
        errors = [part for part in parts.values() if isinstance(part, AsrError)]
        if errors:
            yield recording, errors[0]
        elif len(parts) == 1:
            yield recording, parts[0]
        else:
            yield recording, merge_channels([parts[k] for k in sorted(parts)])  # type: ignore[misc]
