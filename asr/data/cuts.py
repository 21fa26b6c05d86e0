"""Cuts: stretches of recordings and what is spoken in them, in the JSON lines (.jsonl, .jsonl.gz) that lhotse writes.

Cuts of plain recordings, each in one file, are read and written here without lhotse, which takes seconds to import and
is not installed for transcribing. Other cuts (padded, joined, mixed, transformed, read by a command) become lhotse's
own objects, whose attributes have the same names.
"""

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from asr.audio import existing
from asr.errors import ManifestError
from asr.files import replacing
from asr.version import install_hint

KINDS = ("MonoCut", "MultiCut")  # of lhotse's cuts, those that are read here: of one channel, of several
# Shards that are read side by side, so that a batch is not followed by another of the same shard. Each worker process
# keeps those of its batches in memory; a number that most numbers of workers divide.
LANES = 16


class AlignmentItem(NamedTuple):
    """A word, or another unit, and when it is spoken: seconds from the recording's start."""

    symbol: str
    start: float
    duration: float
    score: float | None = None

    @property
    def end(self) -> float:
        """Seconds from the recording's start."""
        return round(self.start + self.duration, 8)


@dataclass
class Supervision:
    """What is spoken in a part of a cut; `lhotse.SupervisionSegment` has the same fields.

    Attributes:
        start, duration: seconds, from the cut's start.
        channel: of the recording, one or several.
        custom: what else is known, such as the speaker's age.
        alignment: {"word": [AlignmentItem, ...]}.
    """

    id: str
    recording_id: str
    start: float
    duration: float
    channel: int | list[int] = 0
    text: str | None = None
    language: str | None = None
    speaker: str | None = None
    gender: str | None = None
    custom: dict[str, Any] | None = None
    alignment: dict[str, list[AlignmentItem]] | None = None

    def __post_init__(self):
        if self.alignment is not None:
            self.alignment = {
                kind: [AlignmentItem(*item) for item in items] for kind, items in self.alignment.items()
            }


@dataclass
class Source:
    """Where a recording's audio is: in a file, or as the bytes of one (type "memory")."""

    type: str
    channels: list[int]
    source: str | bytes


@dataclass
class Recording:
    """A file of audio; `lhotse.Recording` has the same fields."""

    id: str
    sources: list[Source]
    sampling_rate: int
    num_samples: int
    duration: float
    channel_ids: list[int] | None = None

    def __post_init__(self):
        if self.channel_ids is None:
            self.channel_ids = sorted(channel for source in self.sources for channel in source.channels)


@dataclass
class Cut:
    """A stretch of a recording, an utterance as a rule; `lhotse.MonoCut` and `lhotse.MultiCut` have the same fields.

    Attributes:
        start, duration: seconds of the recording.
        channel: of the recording; a list of channels is mixed when it is read.
        custom, features: kept as they were read.
    """

    id: str
    start: float
    duration: float
    channel: int | list[int]
    recording: Recording
    supervisions: list[Supervision] = field(default_factory=list)
    custom: dict[str, Any] | None = None
    features: dict[str, Any] | None = None

    @property
    def end(self) -> float:
        """Seconds of the recording at which the cut ends."""
        return round(self.start + self.duration, 8)

    @property
    def sampling_rate(self) -> int:
        """Sample rate of the recording in Hz."""
        return self.recording.sampling_rate

    @property
    def num_samples(self) -> int:
        """Samples of the cut at the recording's rate."""
        return round(self.duration * self.sampling_rate)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Cut":
        """Read a cut as lhotse writes it; raises KeyError, TypeError or ValueError where it is no plain one."""
        values = dict(values)
        kind, recording = values.pop("type"), dict(values.pop("recording"))
        if kind not in KINDS:
            raise ValueError(f"{kind} is not read here")
        supervisions = [Supervision(**item) for item in values.pop("supervisions", ())]
        sources = [Source(**source) for source in recording.pop("sources")]
        cut = cls(recording=Recording(sources=sources, **recording), supervisions=supervisions, **values)
        if (
            not isinstance(cut.id, str)
            or len(sources) != 1
            or sources[0].type not in ("file", "memory", "shar")
        ):
            raise ValueError("not of one file")
        cut.start, cut.duration = float(cut.start), float(cut.duration)
        return cut

    def to_dict(self) -> dict[str, Any]:
        """Return what lhotse writes for the same cut."""
        values = _without_none(self)
        values["supervisions"] = [_without_none(item) for item in self.supervisions]
        values["recording"] = asdict(self.recording)
        return values | {"type": KINDS[isinstance(self.channel, list)]}

    def to_lhotse(self) -> Any:
        """Return the `lhotse.MonoCut` or `lhotse.MultiCut`; raises ModuleNotFoundError without lhotse."""
        from lhotse.serialization import deserialize_item

        return deserialize_item(self.to_dict())


@dataclass(frozen=True, slots=True)
class ShardedCut:
    """What is known of an utterance before its shard is opened."""

    shard: int
    position: int
    duration: float

    @property
    def id(self) -> str:
        """A name that sorts."""
        return f"{self.shard:06d}-{self.position:06d}"


def _without_none(item: Any) -> dict[str, Any]:
    return {part.name: value for part in fields(item) if (value := getattr(item, part.name)) is not None}


def plain(cut: Any) -> Any:
    """Return lhotse's cut as a Cut, where it is of a plain recording; anything else as it is."""
    if isinstance(cut, Cut) or not hasattr(cut, "to_dict"):
        return cut
    try:
        return Cut.from_dict(cut.to_dict())
    except (KeyError, TypeError, ValueError):
        return cut


def file_of(cut: Cut) -> str | None:
    """Return the one file that holds a cut's audio; None where the audio comes from anywhere else."""
    recording = getattr(cut, "recording", None)
    if recording is None or len(recording.sources) != 1 or recording.sources[0].type != "file":
        return None
    return str(recording.sources[0].source)


def speaker_of(cut: Cut) -> str | None:
    """Return the speaker of a cut's first supervision that names one."""
    return next((segment.speaker for segment in cut.supervisions if segment.speaker), None)


def text_of(cut: Cut) -> str | None:
    """Join the transcripts of a cut's supervisions; None where there is none at all."""
    texts = [segment.text for segment in cut.supervisions if segment.text is not None]
    return " ".join(texts) if texts else None


def write_cuts(cuts: Iterable[Cut], output_dir: Path, name: str) -> Path:
    """Write `cuts_NAME.jsonl.gz`; a file of that name is replaced only by a whole one."""
    return write_manifest(cuts, output_dir / f"cuts_{name}.jsonl.gz")


def write_manifest(cuts: Iterable[Cut], path: Path) -> Path:
    """Write cuts, ours or lhotse's, as JSON lines; a file of that name is replaced only by a whole one.

    Paths of audio are written absolute, so that the manifest can be used from any folder and moved to another.
    Raises ManifestError where the folder cannot be written to.
    """
    try:
        # mtime: the same cuts give the same bytes.
        with replacing(path) as scratch, scratch.open("wb") as file:
            packed = gzip.GzipFile("", "wb", fileobj=file, mtime=0) if path.suffix == ".gz" else file
            with packed:
                for cut in cuts:
                    values = _with_paths(cut.to_dict(), os.path.abspath)
                    packed.write((json.dumps(values, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        at = f"{error.filename}: " if error.filename else ""
        raise ManifestError(f"cannot write {path}: {at}{error.strerror or error}") from error
    return path


def no_manifest(path: str | Path) -> ManifestError:
    """Return the error for a manifest that does not exist."""
    return ManifestError(f"there is no manifest {path}; `asr prepare` writes manifests (cuts_*.jsonl.gz)")


def load_cuts(path: str | Path) -> list[Cut]:
    """Read a manifest of cuts (`.jsonl` or `.jsonl.gz`), as `asr prepare` writes it, into memory.

    Relative paths of audio start at the manifest's folder or, where there is no such file, at the current one; the
    cuts hold them absolute.

    Raises ManifestError if the file is missing, holds anything but cuts, is empty, or if none of the audio
    files that it names exists; a few lost files are the loader's to report.
    """
    path = Path(path)
    if not path.is_file():
        raise no_manifest(path)
    cuts = []
    number = 0
    try:
        for number, line in enumerate(_lines(path), 1):  # noqa: B007 - messages name it
            if line.strip():
                cuts.append(read_cut(line, path.parent))
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"{path} is not a manifest; `asr prepare` writes manifests (cuts_*.jsonl.gz)"
        ) from error
    except (EOFError, OSError, zlib.error) as error:
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


def manifest_texts(path: str | Path) -> Iterator[str]:
    """Yield the transcripts of a manifest's cuts without reading more of them. Raises ManifestError."""
    path = Path(path)
    try:
        for line in _lines(path):
            yield from cut_texts(json.loads(line))
    except FileNotFoundError:
        raise ManifestError(f"there is no manifest {path}; expected one of cuts, to take its words") from None
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise ManifestError(f"{path} is not a manifest of cuts, or is damaged: {error!r}") from error


def cut_texts(cut: Mapping[str, Any]) -> Iterator[str]:
    """Yield the transcripts of a manifest's cut, of one made of several (padded, joined or mixed) in order of time."""
    if "tracks" in cut:
        for track in sorted(cut["tracks"], key=lambda track: track.get("offset", 0.0)):
            yield from cut_texts(track["cut"])
    elif cut.get("type") != "PaddingCut":
        yield from (part.get("text") or "" for part in cut["supervisions"])


def _lines(path: Path) -> Iterator[str]:
    with (
        gzip.open(path, "rt", encoding="utf-8")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8") as lines
    ):
        yield from lines


def read_cut(line: str | bytes, folder: Path | None = None) -> Cut:
    """Read a line of a manifest in a folder; cuts that are not plain become lhotse's.

    Raises ValueError, KeyError, TypeError, AttributeError or AssertionError for what is no cut, ManifestError without
    lhotse.
    """
    values = json.loads(line)
    if folder is not None:
        values = _with_paths(values, lambda path: _located(path, folder))
    try:
        return Cut.from_dict(values)
    except (KeyError, TypeError, ValueError):
        return _read_with_lhotse(values)


def _located(path: str, folder: Path) -> str:
    """Return where a manifest's audio is: beside the manifest or in the current folder, absolute."""
    if os.path.isabs(path):  # noqa: PTH117 - of strings, many of them
        return path
    candidates = (folder / path, Path(path))
    found = next((found for found in map(existing, candidates) if found.is_file()), candidates[0])
    return str(found.absolute())


def _with_paths(values: Any, change: Callable[[str], str]) -> Any:
    """Return a cut's dictionary with the paths of its audio changed, in all of its tracks."""
    if not isinstance(values, dict):
        return values
    values = dict(values)
    if isinstance(values.get("recording"), dict):
        sources = [
            source | {"source": change(source["source"])} if source.get("type") == "file" else source
            for source in values["recording"].get("sources", ())
        ]
        values["recording"] = values["recording"] | {"sources": sources}
    if isinstance(values.get("tracks"), list):
        values["tracks"] = [track | {"cut": _with_paths(track["cut"], change)} for track in values["tracks"]]
    return values


def _read_with_lhotse(values: dict[str, Any]) -> Any:
    if not isinstance(values, dict) or "type" not in values or not str(values["type"]).endswith("Cut"):
        raise TypeError("not a cut")
    try:
        from lhotse.cut import Cut as LhotseCut
        from lhotse.serialization import deserialize_item
    except ModuleNotFoundError as error:
        raise ManifestError(
            f"the cut {values.get('id')} ({values['type']}) takes lhotse to read; {install_hint('train')}"
        ) from error
    cut = deserialize_item(values)
    if not isinstance(cut, LhotseCut) or not cut.has_recording:
        raise TypeError("not a cut with audio")
    return cut


def _check_files(path: Path, cuts: Sequence[Cut]) -> None:
    files = {file for cut in cuts if (file := file_of(cut)) is not None}
    if files and not any(map(os.path.exists, files)):
        raise ManifestError(
            f"none of the {len(files)} audio files that {path} names exists (the first is {min(files)}); "
            "has the corpus moved? Prepare it again"
        )
