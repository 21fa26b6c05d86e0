"""What is wrong with a corpus's audio: missing, broken, silent, clipped, of other rates and durations, repeated.

Reading the audio takes nearly all the time of a check, and of each piece it tells the same wherever it is done: in
threads here, or in parts on many machines (`asr.data.corpora.doctor.parts`).
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import soundfile

from asr.audio import read_header
from asr.data.corpora.doctor.findings import Finding, Target, shared
from asr.data.cuts import Cut, file_of, text_of
from asr.data.reading import read_samples
from asr.data.shards import Shards
from asr.errors import AudioError

SILENCE = 1e-3  # of full scale, -60 dB: the loudest sample of what counts as silent
# Of the samples, and ten, repeat the two before at the peak; of a loud voice hardly one does.
CLIPPED_SHARE = 1e-3
LEAST_CLIPPED = 10
LEAST_CLIPPED_PEAK = 0.1
DURATION_TOLERANCE = 0.1  # seconds

# What is read at a time: how many utterances, and what gives them with their audio.
Piece = tuple[int, Callable[[], Sequence[Cut]]]
Examined = tuple[tuple[str, str] | None, bytes | None]  # the first fault, and a fingerprint of the audio


@dataclass(frozen=True)
class Reading:
    """What is to be read of a corpus's audio.

    Attributes:
        pieces: in the order of the utterances.
        needed_rate: Hz below which a file's sample rate is a fault.
        decode: read the audio; else its header.
        corpus: a fingerprint of all this; the same on every machine.
    """

    pieces: list[Piece]
    needed_rate: int
    decode: bool
    corpus: str

    @classmethod
    def of(
        cls,
        splits: Mapping[str, Sequence[Cut]],
        known: Mapping[str, Sequence[Cut]],
        target: Target,
        decode: bool,
    ) -> "Reading":
        """Part splits, {name: cuts}, whose manifests are `known`, into what is read at a time."""
        rates = Counter(cut.sampling_rate for cuts in known.values() for cut in cuts)
        usual = rates.most_common(1)[0][0] if rates else 0
        needed = min(usual, target.sample_rate)  # a corpus all of 8 kHz is no fault of its files
        digest = hashlib.blake2b(f"{needed} {decode}".encode(), digest_size=16)
        for cut in (cut for cuts in known.values() for cut in cuts):
            digest.update(f"{cut.id} {cut.duration}".encode())
        pieces = [
            piece for name, cuts in splits.items() for piece in _pieces(cuts if decode else known[name])
        ]
        return cls(pieces, needed, decode, digest.hexdigest())


def _pieces(cuts: Sequence[Cut]) -> list[Piece]:
    if isinstance(cuts, Shards):
        return [(len(those), partial(cuts.open, shard)) for shard, those in enumerate(cuts.durations)]
    return [(1, lambda cut=cut: [cut]) for cut in cuts]


def in_threads(reading: Reading, jobs: int = 8) -> Iterator[list[Examined]]:
    """Examine a corpus's audio in threads, which suffice: libsndfile and numpy work without the GIL."""
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(lambda piece: examine(piece, reading.needed_rate, reading.decode), reading.pieces)


def check_audio(splits: Mapping[str, Sequence[Cut]], examined: Iterable[Examined]) -> list[Finding]:
    """Look for what is wrong with the audio, of which reading it told this."""
    told = iter(examined)
    findings = []
    digests: dict[str, list[tuple[Any, str]]] = {}
    for name, those in splits.items():
        digests[name] = []
        for index, cut in enumerate(those):
            fault, digest = next(told)
            digests[name].append((digest, "its audio"))
            if fault is not None:
                findings.append(Finding(fault[0], name, index, cut.id, fault[1]))
    repeated = [finding for name, cuts in splits.items() for finding in _repeated(name, cuts, digests[name])]
    return findings + repeated + shared("same audio", splits, digests)


def _repeated(name: str, cuts: Sequence[Cut], digests: Sequence[tuple[Any, str]]) -> Iterator[Finding]:
    """Find utterances whose audio an earlier one of the same manifest has."""
    first: dict[Any, Cut] = {}
    for index, (cut, (digest, _)) in enumerate(zip(cuts, digests, strict=True)):
        if digest is None:
            continue
        if (earlier := first.setdefault(digest, cut)) is not cut:
            differ = "" if text_of(earlier) == text_of(cut) else ", with another transcript"
            yield Finding("repeated audio", name, index, cut.id, f"its audio is that of {earlier.id}{differ}")


def examine(piece: Piece, needed_rate: int, decode: bool) -> list[Examined]:
    """Read the audio of a piece; what is wrong with each utterance's, and its fingerprint."""
    count, opened = piece
    try:
        return [_examine(cut, needed_rate, decode) for cut in opened()]
    except AudioError as error:  # a shard that cannot be had
        return [(("unreadable", str(error)), None)] * count


def _examine(cut: Cut, needed_rate: int, decode: bool) -> Examined:
    """Find the first fault in a cut's audio, and its fingerprint where it can be decoded."""
    samples = None
    if decode:
        try:
            samples = read_samples(cut, cut.sampling_rate)
        except AudioError as error:
            return ("truncated" if "truncated" in str(error) else "unreadable", str(error)), None
    fault = _fault_of_header(cut, needed_rate)
    if samples is None:
        return fault, _place(cut)
    seconds = len(samples) / cut.sampling_rate
    if fault is None and abs(seconds - cut.duration) > DURATION_TOLERANCE:
        fault = "duration", f"{seconds:.2f} s are there, the manifest says {cut.duration:.2f} s"
    digest = hashlib.blake2b((32767 * samples).astype(np.int16).tobytes(), digest_size=16).digest()
    loudness = np.abs(samples)
    peak = float(loudness.max())
    if fault is None and peak < SILENCE:
        fault = "silent", f"its loudest sample is {peak:.1g} of full scale"
    elif fault is None and peak > LEAST_CLIPPED_PEAK:
        repeated = (samples[2:] == samples[1:-1]) & (samples[1:-1] == samples[:-2])
        count = int(np.sum(repeated & (loudness[2:] > 0.999 * peak)))
        share = count / len(samples)
        if count >= LEAST_CLIPPED and share > CLIPPED_SHARE:
            fault = (
                "clipped",
                f"{100 * share:.1f} % of its samples stay at the peak, {peak:.2f} of full scale",
            )
    return fault, digest if peak >= SILENCE else None  # one silence is like another


def _place(cut: Cut) -> bytes | None:
    """Return a fingerprint of where a cut's audio is, for one that is not decoded."""
    if (file := file_of(cut)) is None:
        return None
    return repr((file, cut.start, cut.duration, cut.channel)).encode()


def _fault_of_header(cut: Cut, needed_rate: int) -> tuple[str, str] | None:
    file = file_of(cut)
    if file is None:
        return None
    recording = cut.recording  # type: ignore[attr-defined] - what has a file has it
    try:
        _, sample_rate, frames = read_header(file)
    except (soundfile.LibsndfileError, OSError) as error:
        # What takes ffmpeg has no header to read here; if it is broken, only decoding tells.
        return None if _takes_ffmpeg(file) else ("unreadable", f"{file}: {error}")
    if sample_rate != recording.sampling_rate:
        return "rate", f"{sample_rate} Hz, the manifest says {recording.sampling_rate} Hz"
    if sample_rate < needed_rate:
        return "rate", f"{sample_rate} Hz, others have {needed_rate} Hz or more: what lies above is missing"
    if frames is None:
        return None
    seconds = frames / sample_rate
    if abs(seconds - recording.duration) > DURATION_TOLERANCE:
        return "duration", f"{seconds:.2f} s, the manifest says {recording.duration:.2f} s"
    if cut.end > seconds + DURATION_TOLERANCE:
        return "duration", f"it ends at {cut.end:.2f} s, the file at {seconds:.2f} s"
    return None


def _takes_ffmpeg(file: str) -> bool:
    return file.lower().endswith((".m4a", ".mp4", ".webm", ".aac", ".wma", ".mkv", ".mov"))
