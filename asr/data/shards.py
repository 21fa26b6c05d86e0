"""Corpora too large for single files: shards of some hundred utterances each, read one after the other.

The form is lhotse's Shar: `cuts.N.jsonl.gz` and `recording.N.tar`, which `CutSet.from_shar` reads as well. Beside it
lies `cuts.json` with the durations, from which the batches of an epoch are planned without opening a shard.
"""

import gzip
import io
import json
import math
import random
import tarfile
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from asr.data.cuts import LANES, Cut, Recording, ShardedCut, Source, load_cuts, read_cut
from asr.data.fetch import fetch
from asr.data.reading import read_samples
from asr.errors import AsrError, AudioError, ManifestError
from asr.files import replacing

INDEX = "cuts.json"  # a name that lhotse passes over when it looks through the folder
BUCKETS = 20  # of similar lengths; a shard is of one of them, so that its batches need little padding
SHARD_SIZE = 250  # utterances: some 50 MB of flac, what one read from a disk or a store is worth


class Shards(Sequence):
    """A sharded corpus in a folder, under an http(s) URL, or in an object store (s3://, gs://, ...).

    Iterating reads the manifests alone and gives cuts without audio; `open` and `cut` bring the audio along.

    Attributes:
        location: folder or URL.
        durations: of each shard's utterances, in seconds.
        kept: shards that stay in memory, as many as the batches of this process go round.
    """

    def __init__(self, location: str | Path, kept: int = LANES):
        self.kept = kept
        self.location = str(location).rstrip("/")
        try:
            index = json.loads(self._read(INDEX))
            self.durations = [np.array(shard, np.float32) for shard in index["durations"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestError(
                f"{self.location}/{INDEX} is damaged: {error!r}; write the shards anew"
            ) from error
        if not self.durations:
            raise ManifestError(f"{self.location}/{INDEX} names no shard")
        self._starts = np.cumsum([0, *map(len, self.durations)])
        self._opened: OrderedDict[int, list[Cut]] = OrderedDict()

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def seconds(self) -> float:
        """Of audio in all."""
        return float(sum(map(np.sum, self.durations)))

    def __iter__(self) -> Iterator[Cut]:
        for shard in range(len(self.durations)):
            yield from self._manifest(shard)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"no utterance {index} of {len(self)}")
        index %= len(self)
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.open(shard)[index - int(self._starts[shard])]

    def some(self, count: int, seed: int) -> Iterator[Cut]:
        """Return the first `count` cuts of shards in random order, with audio: a sample at the cost of few reads."""
        order = random.Random(seed).sample(range(len(self.durations)), len(self.durations))
        for shard in order:
            for cut in self.open(shard)[:count]:
                yield cut
                count -= 1
            if count <= 0:
                return

    def cut(self, item: ShardedCut) -> Cut:
        """Return the cut with its audio; raises AudioError where the shard cannot be had."""
        return self.open(item.shard)[item.position]

    def open(self, shard: int) -> list[Cut]:
        """Read a shard whole, and keep it in memory with the last `kept` ones."""
        if shard in self._opened:
            self._opened.move_to_end(shard)
            return self._opened[shard]
        try:
            cuts = self._manifest(shard)
            audio = self._audio(shard)
            self._opened[shard] = [_with_audio(cut, audio[cut.id]) for cut in cuts]
        except (tarfile.TarError, KeyError, AsrError) as error:
            raise AudioError(f"shard {shard:06d} of {self.location} cannot be read: {error}") from error
        while len(self._opened) > self.kept:
            self._opened.popitem(last=False)
        return self._opened[shard]

    def _manifest(self, shard: int) -> list[Cut]:
        name = f"cuts.{shard:06d}.jsonl.gz"
        try:
            lines = io.BytesIO(
                gzip.decompress(self._read(name))
            )  # str.splitlines would part transcripts at U+2028
            cuts = [read_cut(line) for line in lines]
        except (EOFError, OSError, ValueError, KeyError, TypeError) as error:
            raise ManifestError(f"{self.location}/{name} is damaged: {error}") from error
        if len(cuts) != len(self.durations[shard]):
            raise ManifestError(
                f"{self.location}/{name} has {len(cuts)} utterances, {INDEX} says {len(self.durations[shard])}"
            )
        return cuts

    def _audio(self, shard: int) -> dict[str, bytes]:
        content = self._read(f"recording.{shard:06d}.tar")
        found = {}
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for member in tar:
                key, _, suffix = member.name.rpartition(".")
                if suffix != "json":
                    found[key] = content[member.offset_data : member.offset_data + member.size]
        return found

    def _read(self, name: str) -> bytes:
        if not is_url(self.location):
            try:
                return (Path(self.location) / name).read_bytes()
            except OSError as error:
                raise ManifestError(
                    f"cannot read {self.location}/{name}: {error.strerror}; expected a manifest (cuts_*.jsonl.gz), "
                    "or a folder of shards as `asr prepare --shar` writes it"
                ) from error
        if not self.location.startswith(("http://", "https://")):
            return _read_from_store(f"{self.location}/{name}")
        with tempfile.TemporaryDirectory() as folder:
            fetch(f"{self.location}/{name}", Path(folder) / name)
            return (Path(folder) / name).read_bytes()

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_opened": OrderedDict()}  # a worker opens its own


def _read_from_store(url: str) -> bytes:
    """Read a file whole through fsspec, whose packages know a store's credentials and try again themselves."""
    import fsspec  # which torch brings

    try:
        with fsspec.open(url, "rb") as file:
            return file.read()  # type: ignore[union-attr]
    except FileNotFoundError as error:
        raise ManifestError(
            f"there is no {url}; expected the address of a folder of shards, as `asr prepare --shar` writes it"
        ) from error
    except ImportError as error:
        raise ManifestError(f"cannot read {url}: a package is missing: {error}") from error
    except Exception as error:  # each store has errors of its own
        raise ManifestError(f"cannot read {url}: {str(error) or type(error).__name__}") from error


def is_url(location: str) -> bool:
    """Whether a location is to be read over the network."""
    return "://" in location


def is_sharded(location: str) -> bool:
    """Whether a location is that of shards, not of a manifest."""
    return not location.endswith((".jsonl", ".jsonl.gz")) and (is_url(location) or Path(location).is_dir())


def open_corpus(location: str) -> Sequence[Cut]:
    """Return a manifest's cuts, or Shards; raises ManifestError."""
    return Shards(location) if is_sharded(location) else load_cuts(location)


def _with_audio(cut: Cut, audio: bytes) -> Cut:
    channels = cut.recording.sources[0].channels
    return replace(cut, recording=replace(cut.recording, sources=[Source("memory", channels, audio)]))


def write_shards(
    cuts: Sequence[Cut],
    folder: Path,
    *,
    shard_size: int = SHARD_SIZE,
    jobs: int = 8,
    seed: int = 0,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[str]:
    """Write cuts as shards of flac: of similar lengths, and otherwise mixed.

    Returns a line for each utterance whose audio could not be read. Raises ManifestError if none could, or if the
    folder already holds shards.
    """
    from lhotse.shar import SharWriter

    if (folder / INDEX).exists():
        raise ManifestError(f"{folder} already holds shards; remove it, or name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    order = _by_length(cuts, min(BUCKETS, -(-len(cuts) // shard_size)), random.Random(seed))
    durations: list[float] = []
    problems = []
    with (
        ThreadPoolExecutor(jobs) as pool,
        SharWriter(folder, fields={"recording": "flac"}, shard_size=shard_size) as writer,
    ):
        # A piece at a time, or the pool would hold all the audio that the writer has not got to yet.
        pieces = (order[start : start + 4 * jobs] for start in range(0, len(order), 4 * jobs))
        for found in progress(one for piece in pieces for one in pool.map(_in_memory, piece)):
            if isinstance(found, str):
                problems.append(found)
            else:
                writer.write(found)
                durations.append(round(found.duration, 3))
    if not durations:
        raise ManifestError("\n".join([f"no utterance could be written to {folder}", *problems[:1]]))
    parts = [durations[start : start + shard_size] for start in range(0, len(durations), shard_size)]
    with replacing(folder / INDEX) as scratch:  # comes last: without it a folder is none of shards
        scratch.write_text(json.dumps({"durations": parts}))
    return problems


def _by_length(cuts: Sequence[Cut], buckets: int, chance: random.Random) -> list[Cut]:
    """Sort cuts into buckets of equally many, from the shortest to the longest, and mix each."""
    order = sorted(cuts, key=lambda cut: (cut.duration, cut.id))
    size = math.ceil(len(order) / buckets)
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    return [cut for part in parts for cut in chance.sample(part, len(part))]


def _in_memory(cut: Cut) -> Any:
    """Return the cut with its audio alone, as flac in memory, as lhotse's; a string says why that failed."""
    import soundfile

    rate = cut.sampling_rate
    try:
        samples = read_samples(cut, rate)
    except AudioError as error:
        return f"{cut.id}: {error}"
    file = io.BytesIO()
    try:
        soundfile.write(file, samples, rate, format="FLAC", subtype="PCM_16")
    except soundfile.LibsndfileError as error:  # of rates past 655,350 Hz
        return f"{cut.id}: {error.error_string}"
    duration = len(samples) / rate
    recording = Recording(cut.id, [Source("memory", [0], file.getvalue())], rate, len(samples), duration)
    place = {"recording_id": cut.id, "channel": 0, "start": 0.0, "duration": duration}
    supervisions = [replace(item, **place) for item in cut.supervisions]
    return Cut(cut.id, 0.0, duration, 0, recording, supervisions).to_lhotse()
