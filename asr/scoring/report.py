"""Score hypotheses against references: one function, one report that goes to JSON and back."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from asr.errors import TextError
from asr.scoring.align import ALIGNERS, EQUAL, Column, align_kinds, columns, count_errors
from asr.scoring.cleaning import Cleaning
from asr.scoring.intervals import DRAWS, block_sums, blocks, rate_interval
from asr.version import __version__

COUNTS = "errors"  # the key of an utterance's counts in JSON


@dataclass(frozen=True)
class ErrorCounts:
    """What it takes to turn references of `length` words (or characters) into the hypotheses."""

    substitutions: int
    deletions: int
    insertions: int
    length: int

    @property
    def errors(self) -> int:
        """Return their total."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Return errors per reference word; against nothing at all, the number of insertions, as jiwer does."""
        return self.errors / self.length if self.length else float(self.insertions)


@dataclass(frozen=True)
class ErrorReport:
    """The error rates of a set of utterances, with the transcripts they were counted on.

    Rates are fractions. Intervals hold the true rate with 95 % confidence, resampled over `resampled`
    ("speakers" or "utterances"); None where there is nothing to resample. Transcripts are normalized, as they
    were compared, by the rules of `normalizer` in their version. `fields` are columns of what else is known of
    the utterances: speaker, gender, duration, ...

    >>> report = score(["the cat sat"], ["the cat sat down"])
    >>> report.words, report.word_errors.insertions
    (3, 1)
    """

    word_errors: ErrorCounts
    character_errors: ErrorCounts
    sentence_errors: int
    wer_interval: tuple[float, float] | None
    cer_interval: tuple[float, float] | None
    resampled: str
    blocks: int
    normalizer: str
    normalizer_version: str
    aligner: str
    ids: tuple[str, ...] = field(repr=False)
    references: tuple[str, ...] = field(repr=False)
    hypotheses: tuple[str, ...] = field(repr=False)
    fields: dict[str, tuple] = field(repr=False)

    def __str__(self) -> str:
        """Return the word error rate in one line.

        >>> print(score(["the cat sat"], ["the cat sat down"]))
        WER 33.33 %, 3 words
        """
        low, high = self.wer_interval or (0.0, 0.0)
        interval = f" [{100 * low:.2f}, {100 * high:.2f}]" if self.wer_interval else ""
        return f"WER {100 * self.wer:.2f} %{interval}, {self.words} words"

    @property
    def wer(self) -> float:
        """Return the word error rate."""
        return self.word_errors.rate

    @property
    def cer(self) -> float:
        """Return the character error rate; the spaces between words count."""
        return self.character_errors.rate

    @property
    def substitutions(self) -> int:
        """Return the number of words substituted."""
        return self.word_errors.substitutions

    @property
    def deletions(self) -> int:
        """Return the number of words deleted."""
        return self.word_errors.deletions

    @property
    def insertions(self) -> int:
        """Return the number of words inserted."""
        return self.word_errors.insertions

    @property
    def words(self) -> int:
        """Return the number of the references' words."""
        return self.word_errors.length

    @property
    def utterances(self) -> int:
        """Return the number of utterances."""
        return len(self.references)

    @property
    def sentence_error_rate(self) -> float:
        """Return the share of utterances with any error."""
        return self.sentence_errors / self.utterances if self.utterances else 0.0

    @cached_property
    def utterance_errors(self) -> np.ndarray:
        """Return (utterance, 4) int64: substitutions, deletions, insertions, reference words."""
        return count_errors(map(str.split, self.references), map(str.split, self.hypotheses), self.aligner)

    @cached_property
    def kinds(self) -> list[str]:
        """Return each utterance's alignment as a string with a letter per column: =, S, D, I."""
        return align_kinds(map(str.split, self.references), map(str.split, self.hypotheses), self.aligner)

    def alignment(self, index: int) -> list[Column]:
        """Return the alignment of one utterance's words."""
        return columns(self.references[index].split(), self.hypotheses[index].split(), self.kinds[index])

    def edits(self) -> Iterator[tuple[int, str, str | None, str | None]]:
        """Yield every error: utterance's index, S, D or I, reference word and hypothesis word or None."""
        for index in np.flatnonzero(self.utterance_errors[:, :3].any(axis=1)).tolist():
            for kind, reference, hypothesis in self.alignment(index):
                if kind != EQUAL:
                    yield index, kind, reference, hypothesis

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: rates and counts, then `hypotheses`, a row for each utterance."""
        names = ("id", "reference", "hypothesis", COUNTS, *self.fields)
        kinds = ("substitutions", "deletions", "insertions", "words")
        counts = [dict(zip(kinds, row, strict=True)) for row in self.utterance_errors.tolist()]
        rows = zip(self.ids, self.references, self.hypotheses, counts, *self.fields.values(), strict=True)
        return {
            "wer": self.wer,
            "wer_interval": self.wer_interval,
            "cer": self.cer,
            "cer_interval": self.cer_interval,
            "sentence_error_rate": self.sentence_error_rate,
            "substitutions": self.substitutions,
            "deletions": self.deletions,
            "insertions": self.insertions,
            "words": self.words,
            "utterances": self.utterances,
            "sentence_errors": self.sentence_errors,
            "characters": asdict(self.character_errors),
            "resampled": self.resampled,
            "blocks": self.blocks,
            "normalizer": self.normalizer,
            "normalizer_version": self.normalizer_version,
            "aligner": self.aligner,
            "version": __version__,
            "hypotheses": [dict(zip(names, row, strict=True)) for row in rows],
        }

    def to_json(self, indent: int | None = 2) -> str:
        """Return `to_dict` as JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=indent)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ErrorReport":
        """Read what `to_dict` returned, other keys ignored. Raises TextError for anything else."""
        try:
            rows = values["hypotheses"]
            columns = {name: tuple(row[name] for row in rows) for name in (rows[0] if rows else ())}
            columns.pop(COUNTS, None)
            words = (values[name] for name in ("substitutions", "deletions", "insertions", "words"))
            return cls(
                word_errors=ErrorCounts(*words),
                character_errors=ErrorCounts(**values["characters"]),
                sentence_errors=values["sentence_errors"],
                wer_interval=values["wer_interval"] and tuple(values["wer_interval"]),
                cer_interval=values["cer_interval"] and tuple(values["cer_interval"]),
                resampled=values["resampled"],
                blocks=values["blocks"],
                normalizer=values["normalizer"],
                normalizer_version=values["normalizer_version"],
                aligner=values["aligner"],
                ids=columns.pop("id", ()),
                references=columns.pop("reference", ()),
                hypotheses=columns.pop("hypothesis", ()),
                fields=columns,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise TextError(f"this is not a report that `ErrorReport.to_json` wrote: {error!r}") from error

    @classmethod
    def from_json(cls, text: str) -> "ErrorReport":
        """Read what `to_json` wrote."""
        try:
            return cls.from_dict(json.loads(text))
        except json.JSONDecodeError as error:
            raise TextError(f"this is not JSON: {error}") from error


def score(
    references: Sequence[str] | str,
    hypotheses: Sequence[str] | str,
    *,
    speakers: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    fields: Mapping[str, Sequence] | None = None,
    normalizer: str = "none",
    rules: str | Path | None = None,
    alternatives: bool = False,
    aligner: str = "jiwer",
    bootstrap: int = DRAWS,
) -> ErrorReport:
    """Score hypotheses against references, utterance by utterance.

    Words are what white space separates; characters are Unicode code points, one space between words
    included. Both sides go through the same `normalizer` (a name of `asr.text`), then through the replacements of
    the file `rules` (see `asr.scoring.rules`). An empty reference makes every word of its hypothesis an insertion.
    With `alternatives`, of `{ a / b }` the one counts that fits the other side, and `@` there is no word. `aligner`
    "jiwer" counts the fewest errors, "sclite" as NIST's tool does: regardless of case, `@` being no word ("sclite-s",
    as its option -s: case counts). The intervals come from `bootstrap` draws (0: none) over speakers, over utterances
    where speakers are unknown or fewer than five. Raises TextError if the numbers of references, hypotheses, speakers,
    ids or fields differ.

    >>> report = score(["the cat sat", "on the mat"], ["the cat sat down", "on a mat"])
    >>> report.wer, report.substitutions, report.deletions, report.insertions
    (0.3333333333333333, 1, 0, 1)
    >>> ErrorReport.from_json(report.to_json()) == report
    True
    """
    if isinstance(references, str) and isinstance(hypotheses, str):
        references, hypotheses = [references], [hypotheses]
    if aligner not in ALIGNERS:
        raise TextError(f"there is no aligner {aligner!r}; expected one of {', '.join(ALIGNERS)}")
    names, columns = _columns(references, hypotheses, ids, speakers, fields or {})
    clean = Cleaning(normalizer, rules, alternatives, aligner)
    left, right = clean(references, hypotheses)
    words = count_errors(map(str.split, left), map(str.split, right), aligner)
    characters = count_errors(map(_one_space, left), map(_one_space, right))
    numbers, resampled = blocks(columns.get("speaker"), len(left))
    report = ErrorReport(
        word_errors=ErrorCounts(*words.sum(axis=0).tolist()),
        character_errors=ErrorCounts(*characters.sum(axis=0).tolist()),
        sentence_errors=int(words[:, :3].any(axis=1).sum()),
        wer_interval=_interval(numbers, words, bootstrap),
        cer_interval=_interval(numbers, characters, bootstrap),
        resampled=resampled,
        blocks=int(numbers.max(initial=-1)) + 1,
        normalizer=clean.name,
        normalizer_version=clean.version,
        aligner=aligner,
        ids=names,
        references=left,
        hypotheses=right,
        fields=columns,
    )
    report.__dict__["utterance_errors"] = words  # already counted: fills the cached property
    return report


def _columns(
    references: Sequence[str],
    hypotheses: Sequence[str],
    ids: Sequence[str] | None,
    speakers: Sequence[str] | None,
    fields: Mapping[str, Sequence],
) -> tuple[tuple[str, ...], dict[str, tuple]]:
    """Return the utterances' ids and fields. Raises TextError for columns of other lengths."""
    columns = {name: tuple(values) for name, values in fields.items()}
    if speakers is not None:
        columns = {"speaker": tuple(speakers)} | columns
    names = tuple(ids) if ids is not None else tuple(map(str, range(1, len(references) + 1)))
    for name, values in {"hypotheses": hypotheses, "ids": names, **columns}.items():
        if len(values) != len(references):
            raise TextError(f"{len(references)} references but {len(values)} {name}; expected one each")
    return names, columns


def _one_space(text: str) -> str:
    """Return a text with one space between words, which is the character counted."""
    return " ".join(text.split())


def _interval(numbers: np.ndarray, counts: np.ndarray, draws: int) -> tuple[float, float] | None:
    return rate_interval(
        block_sums(numbers, counts[:, :3].sum(axis=1)), block_sums(numbers, counts[:, 3]), draws
    )
