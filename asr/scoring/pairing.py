"""Bring references and hypotheses together by their ids, or by time where the files hold times."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, compress
from typing import Any

from asr.errors import TextError
from asr.scoring.formats import NIST, Transcripts
from asr.scoring.sniff import UNDECIDED
from asr.scoring.timed import IGNORED, Timed
from asr.wording import short, some

MISMATCHED = ("error", "empty", "skip")
SHOWN = 5  # ids named in a message


@dataclass(frozen=True)
class Pairs:
    """Utterances with a reference and a hypothesis each, and what else is known of them, by column."""

    ids: tuple[str, ...]
    references: tuple[str, ...]
    hypotheses: tuple[str, ...]
    fields: dict[str, tuple]
    confidences: tuple[tuple[float, ...], ...] | None = None  # of the hypotheses' words, where each has one
    sides: tuple[Transcripts, ...] = ()  # what the pairs were made of, as it was read

    @property
    def alternatives(self) -> bool:
        """Whether texts may hold NIST's alternatives."""
        return any(side.form in NIST for side in self.sides)

    def only(self, ids: Collection[str]) -> "Pairs":
        """Return the pairs with these ids."""
        kept = [name in ids for name in self.ids]

        def of(column: tuple) -> tuple:
            return tuple(compress(column, kept))

        return Pairs(
            of(self.ids),
            of(self.references),
            of(self.hypotheses),
            {name: of(column) for name, column in self.fields.items()},
            None if self.confidences is None else of(self.confidences),
            self.sides,
        )


def pair(reference: Transcripts, hypothesis: Transcripts, mismatched: str = "error") -> Pairs:
    """Return hypotheses matched with references.

    By id; words with times (CTM) fall into the reference's segments (STM) by their middles, as sclite has it;
    times on one side only are left aside and whole recordings compared. Where ids stand on one side only,
    "error" names them in a TextError, "empty" takes a missing hypothesis for an empty one, "skip" drops them.
    Where the first words of a file may be ids or words, the other side decides. Raises TextError where it does not.
    """
    sides = reference, hypothesis = _decided(reference, hypothesis), _decided(hypothesis, reference)
    if UNDECIDED in (reference.form, hypothesis.form):
        raise TextError(_two_readings(reference, hypothesis))
    if reference.form == "stm" and hypothesis.form == "ctm":
        reference, hypothesis = _by_segment(reference, hypothesis)
    elif reference.form == hypothesis.form == "stm":
        reference, hypothesis = (_with_texts(side, _segment_name) for side in (reference, hypothesis))
    else:
        reference, hypothesis = (_by_recording(side) for side in (reference, hypothesis))
    return replace(_match(reference, hypothesis, mismatched), sides=sides)


def _decided(side: Transcripts, other: Transcripts) -> Transcripts:
    """Return a side whose first words may be ids or words as what the other side leaves possible."""
    if side.form != UNDECIDED or other.form == UNDECIDED:
        return side
    if other.form == "lines":
        return replace(side, form="lines", texts=side.lines or {}, lines=None)
    names = {item.file for item in other.timed} | {f"{item.file}-{item.channel}" for item in other.timed}
    if names.union(other.texts) & side.texts.keys():
        return replace(side, form="kaldi", lines=None)
    return side


def _two_readings(reference: Transcripts, hypothesis: Transcripts) -> str:
    """Return the message on files that can be read in two ways."""
    sides = [side for side in (reference, hypothesis) if side.lines is not None]
    names = " and ".join(side.source for side in sides)
    first = next(iter(sides[0].texts))
    line = short(next(filter(None, (sides[0].lines or {}).values())), 40)
    other = hypothesis if sides[0] is reference else reference
    common = len(sides[0].texts.keys() & other.texts.keys())
    shared = f"{common} ids in common" if common else "no id in common"
    return (
        f"{names} can be read in two ways: as Kaldi's text, whose lines begin with ids such as {first!r} ({shared}), "
        f"or as plain lines such as {line!r}; choose with --format kaldi or --format lines"
    )


def _match(reference: Transcripts, hypothesis: Transcripts, mismatched: str) -> Pairs:
    missing = [name for name in reference.texts if name not in hypothesis.texts]
    extra = [name for name in hypothesis.texts if name not in reference.texts]
    if mismatched == "error" and (missing or extra):
        raise TextError(_mismatch(reference, hypothesis, missing, extra))
    names = [name for name in reference.texts if mismatched == "empty" or name in hypothesis.texts]
    if not names:
        raise TextError(f"{reference.source} and {hypothesis.source} have no id in common")
    fields = [reference.fields.get(name, {}) for name in names]
    columns = {column: None for known in fields for column in known}
    confidences = tuple(hypothesis.confidences.get(name, ()) for name in names)
    return Pairs(
        ids=tuple(names),
        references=tuple(reference.texts[name] for name in names),
        hypotheses=tuple(hypothesis.texts.get(name, "") for name in names),
        fields={column: tuple(known.get(column) for known in fields) for column in columns},
        confidences=confidences if any(confidences) else None,
    )


def _mismatch(reference: Transcripts, hypothesis: Transcripts, missing: list[str], extra: list[str]) -> str:
    parts = [
        f"{reference.source} ({reference.form}) and {hypothesis.source} ({hypothesis.form}) do not match"
    ]
    if missing:
        parts.append(f"without a hypothesis: {some(missing, SHOWN)}")
    if extra:
        parts.append(f"without a reference: {some(extra, SHOWN)}")
    hint = "--mismatched skip leaves them out"
    if missing:
        hint = f"--mismatched empty counts missing hypotheses as deleted words, {hint}"
    if reference.form == hypothesis.form == "lines":
        counts = (f"{side.source} has {len(side.texts)} lines" for side in (reference, hypothesis))
        return f"{' and '.join(counts)}; plain lines are paired one by one, so expected as many in both"
    if len(missing) == len(reference.texts):
        hint = (
            "no id is on both sides; see `asr score --help` for the forms, --format lines pairs line by line"
        )
    return f"{'; '.join(parts)}\n{hint}"


def _by_segment(reference: Transcripts, hypothesis: Transcripts) -> tuple[Transcripts, Transcripts]:
    """Assign each word to the first segment that ends after the word's middle, later ones into the last."""
    segments, words = _by_channel(reference.timed), _by_channel(hypothesis.timed)
    reference = _with_texts(reference, _segment_name)
    words_of: dict[str, list[Timed]] = {}
    for (file, channel), spoken in words.items():
        if (file, channel) not in segments:
            words_of[f"{file} channel {channel}"] = []
            continue
        names = list(map(_segment_name, segments[file, channel]))
        ends = list(accumulate((segment.end for segment in segments[file, channel]), max))
        words_of |= {name: [] for name in names if name in reference.texts}
        for word in spoken:
            name = names[min(bisect_right(ends, (word.start + word.end) / 2), len(ends) - 1)]
            if name in words_of:
                words_of[name].append(word)
    texts = {name: " ".join(word.text for word in spoken) for name, spoken in words_of.items()}
    return reference, replace(hypothesis, texts=texts, confidences=_confidences(words_of))


def _confidences(words_of: Mapping[str, Sequence[Timed]]) -> dict[str, tuple[float, ...]]:
    """Return the confidences of utterances' words, without those where a word has none."""
    known = {name: [word.confidence for word in words] for name, words in words_of.items()}
    return {name: tuple(sure) for name, sure in known.items() if None not in sure}  # type: ignore[misc]


def _by_channel(timed: Iterable[Timed]) -> Mapping[tuple[str, str], list[Timed]]:
    channels: dict[tuple[str, str], list[Timed]] = defaultdict(list)
    for item in timed:
        channels[item.file, item.channel].append(item)
    return channels


def _by_recording(side: Transcripts) -> Transcripts:
    """Return timed stretches joined into a text for each recording, or for each channel where it has several."""
    if not side.timed:
        return side
    channels: dict[str, set[str]] = defaultdict(set)
    for item in side.timed:
        channels[item.file].add(item.channel)

    def name(item: Timed) -> str:
        return item.file if len(channels[item.file]) == 1 else f"{item.file}-{item.channel}"

    return _with_texts(side, name)


def _with_texts(side: Transcripts, name: Callable[[Timed], str]) -> Transcripts:
    """Return the timed stretches as texts under their names, without segments that NIST marks as not scored."""
    texts: dict[str, str] = {}
    fields: dict[str, dict[str, Any]] = {}
    stretches: dict[str, list[Timed]] = defaultdict(list)
    for item in side.timed:
        if IGNORED in item.text.lower():
            continue
        key = name(item)
        texts[key] = f"{texts[key]} {item.text}".strip() if key in texts else item.text
        stretches[key].append(item)
        speaker = {"speaker": item.speaker} if item.speaker else {}
        fields[key] = speaker if fields.setdefault(key, speaker) == speaker else {}
    return replace(side, texts=texts, fields=fields, confidences=_confidences(stretches))


def _segment_name(segment: Timed) -> str:
    return f"{segment.file}-{segment.channel}-{segment.start:.2f}-{segment.end:.2f}"
