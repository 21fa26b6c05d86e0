"""What is wrong with a corpus, found before a training run finds it: `check_texts`, `check`."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
import soundfile

from asr.audio import read_header
from asr.data.cuts import Cut, file_of, speaker_of, text_of
from asr.data.reading import read_samples
from asr.data.shards import Shards
from asr.errors import AudioError, TextError
from asr.text import SENTENCEPIECE_SPACE, Tokenizer, normalize

# What may be wrong, in the order of the report. Of an utterance with several faults in its audio the first is named.
KINDS = {
    "unreadable": "audio that is missing or cannot be decoded",
    "truncated": "audio that ends before its header says",
    "silent": "audio without a sound",
    "clipped": "audio cut off at its peaks",
    "rate": "sample rates other than the manifest's, or below the model's and those of most files",
    "duration": "durations that differ from the file's",
    "duplicate": "ids that were there before",
    "empty": "transcripts without a letter",
    "letters": "letters outside the alphabet",
    "too long": "transcripts that CTC cannot align with so few frames",
    "pace": "far more or fewer letters a second than others",
    "same audio": "audio that is in a later manifest too",
    "same sentence": "transcripts that are in a later manifest too",
    "same speaker": "utterances of speakers who are in a later manifest too",
}
# By design of many corpora: read out, but not removed by a repair unless asked for.
MAY_BE_MEANT = frozenset({"same sentence", "same speaker"})

SILENCE = 1e-3  # of full scale, -60 dB: the loudest sample of what counts as silent
CLIPPED_SHARE = (
    1e-3  # of the samples, and ten, repeat the two before at the peak; of a loud voice hardly one does
)
LEAST_CLIPPED = 10
LEAST_CLIPPED_PEAK = 0.1
DURATION_TOLERANCE = 0.1  # seconds
# Without a model's alphabet, a letter is of the corpus if this share of its transcripts, and two of them, hold it;
# of a small corpus all letters are.
LETTER_SHARE = 1 / 2000
FEWEST_FOR_LETTERS = 500
PACE_DEVIATIONS = 6.0  # robust standard deviations of the logarithm of letters a second ...
PACE_FACTOR = 3.0  # ... and this factor from the median
FEWEST_FOR_PACE = 50


@dataclass(frozen=True)
class Finding:
    """One fault of one utterance.

    Attributes:
        kind: a key of KINDS.
        split: name of the manifest.
        index: place of the utterance in it.
        id: of the utterance.
        detail: what was found.
    """

    kind: str
    split: str
    index: int
    id: str
    detail: str


@dataclass(frozen=True)
class Target:
    """The model that the corpus is meant for.

    Attributes:
        normalizer: that transcripts pass first.
        tokenizer: with its alphabet; None takes each character for a token and the corpus's common ones for known.
        frames: seconds of audio -> frames of logits; None skips the check of lengths.
        sample_rate: of its features, in Hz.
    """

    normalizer: str = "basic"
    tokenizer: Tokenizer | None = None
    frames: Callable[[float], int] | None = None
    sample_rate: int = 16000


@dataclass(frozen=True)
class CheckReport:
    """The outcome of a check.

    Attributes:
        utterances, hours: that were looked at.
        findings: in the order of KINDS.
    """

    utterances: int
    hours: float
    findings: tuple[Finding, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many findings there are of each kind that was found."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in KINDS if found[kind]}

    def faulty(self, meant: Iterable[str] = MAY_BE_MEANT) -> set[tuple[str, int]]:
        """Give (split, index) of the utterances with a fault of another kind than these."""
        return {(item.split, item.index) for item in self.findings if item.kind not in meant}

    def as_dict(self) -> dict[str, Any]:
        """Give what a machine reads."""
        return {
            "utterances": self.utterances,
            "hours": round(self.hours, 4),
            "counts": self.counts,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def as_text(self, examples: int = 3) -> str:
        """Give what people read: counts, and the first few of each kind."""
        lines = [f"{self.utterances} utterances, {self.hours:.2f} h"]
        for kind, count in self.counts.items():
            lines.append(f"{count:8} {kind}: {KINDS[kind]}")
            shown = [finding for finding in self.findings if finding.kind == kind][:examples]
            lines += [f"{'':10}{finding.split} {finding.id}: {finding.detail}" for finding in shown]
        return "\n".join(lines if self.findings else [*lines, "nothing wrong was found"])


def check(
    splits: Mapping[str, Sequence[Cut]],
    target: Target | None = None,
    *,
    decode: bool = True,
    jobs: int = 8,
    progress: Callable[[Iterable], Iterable] = iter,
) -> CheckReport:
    """Look for every fault of KINDS.

    Arguments:
        splits: {"train": cuts, ...}, what is trained on first: of two that share something, the earlier is named.
            Lists of cuts, or `Shards`.
        target: the model that they are meant for.
        decode: listen to the audio; else only its header is read, which tells no silent, clipped or same audio.
        jobs: threads; progress wraps the loop over utterances.
    """
    target = target or Target()
    known = {name: list(cuts) for name, cuts in splits.items()}  # of shards, what their manifests say
    pieces = {name: _pieces(cuts if decode else known[name]) for name, cuts in splits.items()}
    findings = [
        *_check_audio(known, pieces, target, decode, jobs, progress),
        *check_texts(known, target),
    ]
    order = {kind: place for place, kind in enumerate(KINDS)}
    names = {name: place for place, name in enumerate(splits)}
    findings.sort(key=lambda item: (order[item.kind], names[item.split], item.index))
    seconds = sum(cut.duration for cuts in known.values() for cut in cuts)
    return CheckReport(sum(map(len, known.values())), seconds / 3600, tuple(findings))


# ------------------------------------------------------------------------------------------------------------


def check_texts(splits: Mapping[str, Sequence[Cut]], target: Target | None = None) -> list[Finding]:
    """Look for what needs no audio: ids, transcripts, speakers. About a second for 30,000 utterances.

    Arguments as in `check`.
    """
    target = target or Target()
    texts = {
        name: [normalize(text_of(cut) or "", target.normalizer).strip() for cut in cuts]
        for name, cuts in splits.items()
    }
    alphabet = _alphabet(texts, target.tokenizer)
    paces = _usual_paces(splits, texts)
    findings = []
    for name, cuts in splits.items():
        seen: set[str] = set()
        for index, (cut, text) in enumerate(zip(cuts, texts[name], strict=True)):
            if cut.id in seen:
                findings.append(Finding("duplicate", name, index, cut.id, "an earlier line has this id"))
            seen.add(cut.id)
            if found := _fault_of_text(cut, text, alphabet, paces, target):
                findings.append(Finding(found[0], name, index, cut.id, found[1]))
    sentences = {name: [(text, repr(text[:60])) for text in those] for name, those in texts.items()}
    speakers = {
        name: [(speaker_of(cut), f"speaker {speaker_of(cut)}") for cut in cuts]
        for name, cuts in splits.items()
    }
    return findings + _shared("same sentence", splits, sentences) + _shared("same speaker", splits, speakers)


def _fault_of_text(
    cut: Cut, text: str, alphabet: set[str], paces: tuple[float, float], target: Target
) -> tuple[str, str] | None:
    if not text:
        raw = text_of(cut)
        return "empty", "no transcript" if raw is None else f"nothing is left of {raw!r}"
    if strays := sorted(set(text) - alphabet):
        return "letters", f"{' '.join(map(repr, strays))} in {text[:60]!r}"
    if target.frames is not None:
        tokens: Sequence = text
        if target.tokenizer is not None:
            try:
                tokens = target.tokenizer.encode(text)
            except TextError as error:
                return "letters", str(error)
        # CTC needs a blank between equal neighbors (Graves et al. 2006).
        needed = len(tokens) + sum(left == right for left, right in pairwise(tokens))
        frames = target.frames(cut.duration)
        if needed > frames:
            return "too long", f"{needed} frames are needed, {cut.duration:.2f} s give {frames}"
    lowest, highest = paces
    pace = len(text) / cut.duration
    if not lowest <= pace <= highest:
        usual = math.sqrt(lowest * highest)
        return "pace", f"{pace:.1f} letters a second, usual are {usual:.1f}: {text[:60]!r}"
    return None


def _alphabet(texts: Mapping[str, Sequence[str]], tokenizer: Tokenizer | None) -> set[str]:
    if tokenizer is not None:
        return set().union(*tokenizer.tokens[1:]) - {SENTENCEPIECE_SPACE} | {" "}
    trained = next(iter(texts.values()), ())
    holding = Counter(letter for text in trained for letter in set(text))
    least = max(2, len(trained) * LETTER_SHARE) if len(trained) >= FEWEST_FOR_LETTERS else 1
    return {letter for letter, count in holding.items() if count >= least} | {" "}


def _usual_paces(
    splits: Mapping[str, Sequence[Cut]], texts: Mapping[str, Sequence[str]]
) -> tuple[float, float]:
    """Give the fewest and the most letters a second that are no outliers."""
    paces = [
        math.log(len(text) / cut.duration)
        for name, cuts in splits.items()
        for cut, text in zip(cuts, texts[name], strict=True)
        if text and cut.duration > 0
    ]
    if len(paces) < FEWEST_FOR_PACE:
        return 0.0, math.inf
    middle = median(paces)
    deviation = 1.4826 * median(abs(pace - middle) for pace in paces)  # of a normal distribution
    reach = max(PACE_DEVIATIONS * deviation, math.log(PACE_FACTOR))
    return math.exp(middle - reach), math.exp(middle + reach)


def _shared(
    kind: str,
    splits: Mapping[str, Sequence[Cut]],
    keys: Mapping[str, Sequence[tuple[Any, str]]],
) -> list[Finding]:
    """Find utterances whose key, shown as the text beside it, is in a later split as well."""
    findings = []
    names = list(splits)
    for place, name in enumerate(names):
        later: dict[Any, str] = {}
        for other in reversed(names[place + 1 :]):
            later.update(
                (key, f"{other} {cut.id}") for cut, (key, _) in zip(splits[other], keys[other], strict=True)
            )
        for index, (cut, (key, shown)) in enumerate(zip(splits[name], keys[name], strict=True)):
            if key and key in later:
                findings.append(Finding(kind, name, index, cut.id, f"{shown} is that of {later[key]}"))
    return findings


# ------------------------------------------------------------------------------------------------------------


# What is read at a time: how many utterances, and what gives them with their audio.
Piece = tuple[int, Callable[[], Sequence[Cut]]]


def _pieces(cuts: Sequence[Cut]) -> list[Piece]:
    if isinstance(cuts, Shards):
        return [(len(those), partial(cuts.open, shard)) for shard, those in enumerate(cuts.durations)]
    return [(1, lambda cut=cut: [cut]) for cut in cuts]


def _check_audio(
    splits: Mapping[str, Sequence[Cut]],
    pieces: Mapping[str, Sequence[Piece]],
    target: Target,
    decode: bool,
    jobs: int,
    progress: Callable[[Iterable], Iterable],
) -> list[Finding]:
    """Look for what is wrong with the audio."""
    rates = Counter(cut.sampling_rate for cuts in splits.values() for cut in cuts)
    usual = rates.most_common(1)[0][0] if rates else 0
    needed = min(usual, target.sample_rate)  # a corpus all of 8 kHz is no fault of its files
    # Threads suffice: libsndfile and numpy work without the GIL.
    with ThreadPoolExecutor(jobs) as pool:
        whole = [piece for those in pieces.values() for piece in those]
        done = pool.map(lambda piece: _examine_piece(piece, needed, decode), whole)
        examined = iter(list(progress(one for found in done for one in found)))
    findings = []
    digests: dict[str, list[tuple[Any, str]]] = {}
    for name, those in splits.items():
        digests[name] = []
        for index, cut in enumerate(those):
            fault, digest = next(examined)
            digests[name].append((digest, "its audio"))
            if fault is not None:
                findings.append(Finding(fault[0], name, index, cut.id, fault[1]))
    return findings + _shared("same audio", splits, digests)


Examined = tuple[tuple[str, str] | None, bytes | None]  # the first fault, and a fingerprint of the audio


def _examine_piece(piece: Piece, needed_rate: int, decode: bool) -> list[Examined]:
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
        return fault, None
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
