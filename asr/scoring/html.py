"""What the page of a score shows: one HTML file that needs nothing else, with every utterance aligned."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from asr.reports.render import render as fill
from asr.scoring.breakdown import (
    Confusions,
    Group,
    by_field,
    by_letters,
    by_place,
    character_confusions,
    fields_of,
    word_confusions,
)
from asr.scoring.calibration import Calibration
from asr.scoring.report import ErrorReport, score
from asr.scoring.table import TITLES, footnote, interval, percent
from asr.version import __version__

SHOWN = 10  # rows of a breakdown or list; further ones of a breakdown can be unfolded
FIELDS = 4  # columns of the list of utterances
HIGHLIGHTS = 4  # sentences on where the errors are
STRIKING = 0.15  # by which a group's share of the errors exceeds its share of the words
FEWEST_WORDS = 0.02  # share of the words that a group needs to set the scale of its plot
FEWEST_ERRORS = 10  # below which no group is pointed out
SYSTEM = "system"


def render(
    reports: ErrorReport | Mapping[str, ErrorReport],
    title: str = "Report",
    *,
    extra: Mapping[str, Mapping[str, str]] | None = None,
    breakdowns: Mapping[str, Sequence[Group]] | None = None,
    calibration: Calibration | None = None,
    audio: Mapping[str, str] | None = None,
    pictures: Mapping[str, str] | None = None,
    confidences: Sequence[Sequence[float]] | None = None,
    surprises: Sequence[Sequence[float]] | None = None,
    part: str = "set",
) -> str:
    """Return the page of one report, or of several by name: test sets, or systems (`part` says which).

    Test sets are pooled below the result; each system's errors are shown apart. `extra` are further figures by
    report, such as the real-time factor; `breakdowns` further ones by title, such as words never seen. `audio` (data
    URIs, or paths relative to the page) and `pictures` (SVG, see `asr.reports.picture`) are by utterance's id.
    `confidences` and `surprises` (in nats) of each utterance's words color them.
    """
    reports = {title: reports} if isinstance(reports, ErrorReport) else dict(reports)
    name, first = next(iter(reports.items()))
    extra = extra or {}
    pooled = merge(reports, part)
    apart = reports if part == SYSTEM and len(reports) > 1 else {"": pooled}
    return fill(
        "scoring.html",
        title=title,
        subtitle=f"{footnote(first)}, asr {__version__}",
        shown=SHOWN,
        single=_single(pooled, extra.get(name, {})) if len(reports) == 1 else None,
        table=_table(reports, part, extra) if len(reports) > 1 else None,
        parts=[_part(name, report, breakdowns or {}) for name, report in apart.items()],
        calibration=_reliability(calibration) if calibration is not None else None,
        data=_utterances(pooled, part)
        | {"audio": dict(audio or {}), "pictures": dict(pictures or {})}
        | {"confidences": _by_word(pooled, confidences), "surprises": _by_word(pooled, surprises)},
    )


def merge(reports: Mapping[str, ErrorReport], part: str = "set") -> ErrorReport:
    """Return one report of several, the name of each in the field `part`, without intervals; one alone as it is."""
    several = list(reports.values())
    if len(several) == 1:
        return several[0]
    names = dict.fromkeys(name for report in several for name in report.fields)
    fields = {
        name: [v for report in several for v in report.fields.get(name, (None,) * report.utterances)]
        for name in names
    }
    pooled = score(
        [text for report in several for text in report.references],
        [text for report in several for text in report.hypotheses],
        ids=[name for report in several for name in report.ids],
        fields={part: [name for name, report in reports.items() for _ in report.ids], **fields},
        aligner=several[0].aligner,
        bootstrap=0,
    )
    same = {
        name: " and ".join(dict.fromkeys(getattr(report, name) for report in several))
        for name in ("normalizer", "normalizer_version")
    }
    return replace(pooled, **same)


def _utterances(report: ErrorReport, part: str) -> dict[str, Any]:
    """Return the data of the list of utterances, which the page's script draws."""
    fields = [part] if part in report.fields else []
    fields += [field for field in fields_of(report) if field in report.fields and field != part]
    return {
        "ids": report.ids,
        "references": report.references,
        "hypotheses": report.hypotheses,
        "kinds": report.kinds,
        "fields": [
            {"name": field, "values": list(map(_rounded, report.fields[field]))} for field in fields[:FIELDS]
        ],
    }


def _by_word(
    report: ErrorReport, numbers: Sequence[Sequence[float]] | None
) -> list[list[float | None] | None] | None:
    """Return a number for each word of the hypotheses; None for utterances whose words differ in number."""
    if numbers is None:
        return None
    return [
        [round(value, 2) if math.isfinite(value) else None for value in row]
        if len(row) == len(text.split())
        else None
        for row, text in zip(numbers, report.hypotheses, strict=True)
    ]


def _rounded(value: object) -> object:
    return round(value, 3) if isinstance(value, float) else value


def _single(report: ErrorReport, extra: Mapping[str, str]) -> dict[str, Any]:
    """Return one report's large figures, and of what kinds its errors are."""
    rate = f"{percent(report.sentence_error_rate)} %"
    figures = [
        ("word error rate", f"{percent(report.wer)} %", f"95 %: {interval(report.wer_interval)}"),
        ("character error rate", f"{percent(report.cer)} %", f"95 %: {interval(report.cer_interval)}"),
        ("utterances with errors", rate, f"of {report.utterances}"),
        *((name, value, "") for name, value in extra.items()),
    ]
    counts = (report.substitutions, report.deletions, report.insertions)
    kinds = zip("sdi", counts, ("substituted", "deleted", "inserted"), strict=True)
    return {"figures": figures, "kinds": list(kinds), "words": report.words}


def _table(
    reports: Mapping[str, ErrorReport], part: str, extra: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """Return a row for each test set or system: its name, counts and rates, and where its interval is on the axis."""
    top = max(max(report.wer, (report.wer_interval or (0, 0))[1]) for report in reports.values()) or 1.0
    rows, heads = [], []
    for name, report in reports.items():
        cells = {
            "WER %": percent(report.wer),
            "95 %": interval(report.wer_interval),
            "CER %": percent(report.cer),
            "sub": report.substitutions,
            "del": report.deletions,
            "ins": report.insertions,
            "words": report.words,
            "utterances": report.utterances,
            **extra.get(name, {}),
        }
        heads = [part, *cells, f"0 to {percent(top)} %"]
        low, high = report.wer_interval or (report.wer, report.wer)
        rows.append((name, list(cells.values()), *(100 * rate / top for rate in (low, report.wer, high))))
    return {"heads": heads, "rows": rows}


def _part(name: str, report: ErrorReport, further: Mapping[str, Sequence[Group]]) -> dict[str, Any]:
    """Return what the page shows of one system's errors, or of all sets': what stands out, confusions, groups."""
    groups = {TITLES.get(field, field): by_field(report, field) for field in fields_of(report)}
    groups |= {"length of the word": by_letters(report)} | dict(further)
    groups |= {"place in utterances of five words and more": by_place(report)}
    words = word_confusions(report)
    return {
        "name": name,
        "substitutions": [
            (hypothesis, reference, count)
            for (reference, hypothesis), count in words.substitutions.most_common(3)
            if count > 1
        ],
        "shares": _shares(report, groups),
        "confusions": _word_lists(report, words, name) + _character_lists(report),
        "breakdowns": [_bars(title, group) for title, group in groups.items() if len(group) > 1],
    }


def _shares(report: ErrorReport, groups: Mapping[str, Sequence[Group]]) -> list[tuple[str, str, str, str]]:
    """Return the groups that have far more of the errors than of the words, the most striking of each breakdown."""
    errors, words = report.word_errors.errors, max(report.words, 1)
    if errors < FEWEST_ERRORS:
        return []
    excess = [
        (group.errors.errors / errors - group.errors.length / words, title, group)
        for title, parts in groups.items()
        for group in parts
        if group.name != "unknown"
    ]
    found: dict[str, tuple[str, str, str, str]] = {}
    for more, title, group in sorted(excess, key=lambda item: -item[0]):
        if more >= STRIKING and title not in found and len(found) < HIGHLIGHTS:
            shares = (f"{group.errors.errors / errors:.0%}", f"{group.errors.length / words:.0%}")
            found[title] = (title[:1].upper() + title[1:], group.name, *shares)
    return list(found.values())


def _word_lists(report: ErrorReport, words: Confusions, system: str) -> list[dict[str, Any]]:
    """Return the most frequent errors by word; each entry has the pattern of the utterances it stands in."""
    total = Counter(word for text in report.references for word in text.split())
    blocks = _lists(words, "Words")
    for block in blocks:
        block["entries"] = [
            (
                text,
                (*pattern, system or None),
                f"{count} of {total[pattern[1]]}" if pattern[1] else str(count),
            )
            for text, pattern, count in block["entries"]
        ]
    return blocks


def _character_lists(report: ErrorReport) -> list[dict[str, Any]]:
    blocks = _lists(character_confusions(report), "Characters")
    for block in blocks:
        block["entries"] = [(text, None, str(count)) for text, _, count in block["entries"]]
    return blocks


def _lists(confusions: Confusions, unit: str) -> list[dict[str, Any]]:
    """Return a list for each kind of error: its title, count and most frequent (text, pattern, count)."""
    entries = (
        [
            (f"{left} → {right}", ("S", left, right), n)
            for (left, right), n in confusions.substitutions.items()
        ],
        [(left, ("D", left, ""), n) for left, n in confusions.deletions.items()],
        [(right, ("I", "", right), n) for right, n in confusions.insertions.items()],
    )
    return [
        {
            "title": f"{unit} {kind}",
            "count": sum(count for _, _, count in found),
            "entries": sorted(found, key=lambda entry: (-entry[2], entry[0]))[:SHOWN],
        }
        for kind, found in zip(("substituted", "deleted", "inserted"), entries, strict=True)
    ]


def _bars(title: str, groups: Sequence[Group]) -> dict[str, Any]:
    """Return a breakdown's rows: name, cells, and the width of the bar in per cent."""
    words = sum(group.errors.length for group in groups)
    rates = [group.errors.rate for group in groups if group.errors.length >= FEWEST_WORDS * words]
    top = max(rates, default=0) or 1.0
    rows = [
        (
            group.name,
            (group.errors.length, percent(group.errors.rate)),
            min(100, 100 * group.errors.rate / top),
        )
        for group in groups
    ]
    return {"title": f"by {title}", "rows": rows}


def _reliability(calibration: Calibration) -> dict[str, Any]:
    """Return each bin of confidence, the share of words that is right, and where the confidence's tick stands."""
    rows = [
        (f"{confidence:.2f}", (words, percent(right)), 100 * right, 100 * confidence)
        for words, confidence, right in calibration.bins
    ]
    return {"error": percent(calibration.error), "rows": rows}
