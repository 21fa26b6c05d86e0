"""A report to look at: one HTML file that needs nothing else, with every utterance aligned."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from importlib.resources import files

from asr.scoring.align import align_kinds
from asr.scoring.breakdown import (
    TITLES,
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
from asr.scoring.table import footnote, interval, percent
from asr.version import __version__

SHOWN = 10  # rows of a breakdown or list; further ones of a breakdown can be unfolded
FIELDS = 4  # columns of the list of utterances
HIGHLIGHTS = 4  # sentences on where the errors are
STRIKING = 0.15  # by which a group's share of the errors exceeds its share of the words
FEWEST_WORDS = 0.02  # share of the words that a group needs to set the scale of its plot
FEWEST_ERRORS = 10  # on which anything is said


def render(
    reports: ErrorReport | Mapping[str, ErrorReport],
    title: str = "Report",
    *,
    extra: Mapping[str, Mapping[str, str]] | None = None,
    breakdowns: Mapping[str, Sequence[Group]] | None = None,
    calibration: Calibration | None = None,
    audio: Mapping[str, str] | None = None,
    pictures: Mapping[str, str] | None = None,
    part: str = "set",
) -> str:
    """Draw one report, or several by name: test sets, or systems (`part` says which).

    `extra` are further figures by report, such as the real-time factor; `breakdowns` further ones by title, such
    as words never seen. `audio` (data URIs, or paths relative to the page) and `pictures` (SVG, see
    `asr.scoring.sound`) are by utterance's id. Returns the page's HTML.
    """
    reports = {title: reports} if isinstance(reports, ErrorReport) else dict(reports)
    name, first = next(iter(reports.items()))
    whole = merge(reports, part)
    fields = [field for field in fields_of(whole) if field in whole.fields][:FIELDS]
    references, hypotheses = (map(str.split, texts) for texts in (whole.references, whole.hypotheses))
    data = {
        "ids": whole.ids,
        "references": whole.references,
        "hypotheses": whole.hypotheses,
        "kinds": align_kinds(references, hypotheses, whole.aligner),
        "fields": [{"name": field, "values": list(map(_short, whole.fields[field]))} for field in fields],
        "audio": dict(audio or {}),
        "pictures": dict(pictures or {}),
    }
    groups = {TITLES.get(field, field): by_field(whole, field) for field in fields_of(whole)}
    groups |= {"length of the word": by_letters(whole)} | dict(breakdowns or {})
    groups |= {"place in utterances of five words and more": by_place(whole)}
    extra = extra or {}
    sections = [
        _figures(whole, extra.get(name, {}))
        if len(reports) == 1
        else _section("Result", _sets(reports, part, extra)),
        _highlights(whole, groups),
        _section("What is confused", _confusions(whole)),
        _section("Where the errors are", _breakdowns(groups, calibration)),
    ]
    values = {
        "head": head(title),
        "title": escape(title),
        "counted": escape(f"{footnote(first)}, asr {__version__}"),
        "summary": "\n".join(sections),
        # Inside a script element only "<" could end the data.
        "data": json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"),
    }
    return fill(_template("report.html"), values)


def head(title: str) -> str:
    """Write the head of every report: its title, its colors, and that it asks the network for nothing."""
    return fill(_template("head.html"), {"title": escape(title)})


def fill(template: str, values: Mapping[str, str]) -> str:
    """Put HTML in the places of a template.

    >>> fill("<p>{{text}}</p>", {"text": "hello"})
    '<p>hello</p>'
    """
    first, *pieces = template.split("{{")
    return first + "".join(values[name] + rest for name, rest in (piece.split("}}", 1) for piece in pieces))


def _template(name: str) -> str:
    return files("asr.scoring").joinpath(name).read_text("utf-8")


def merge(reports: Mapping[str, ErrorReport], part: str = "set") -> ErrorReport:
    """Make one report of several, the name of each in the field `part`, without intervals; one alone stays as it is."""
    several = list(reports.values())
    if len(several) == 1:
        return several[0]
    names = dict.fromkeys(name for report in several for name in report.fields)
    fields = {
        name: [v for report in several for v in report.fields.get(name, (None,) * report.utterances)]
        for name in names
    }
    whole = score(
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
    return replace(whole, **same)


def _figures(report: ErrorReport, extra: Mapping[str, str]) -> str:
    """Show the result in large figures, and of what kinds the errors are."""
    figures = (
        ("word error rate", f"{percent(report.wer)} %", f"95 %: {interval(report.wer_interval)}"),
        ("character error rate", f"{percent(report.cer)} %", f"95 %: {interval(report.cer_interval)}"),
        ("utterances with errors", f"{percent(report.sentence_error_rate)} %", f"of {report.utterances}"),
    )
    figures += tuple((escape(name), escape(value), "") for name, value in extra.items())
    items = "".join(
        f'<li>{name}<b>{value}</b><span class="quiet">{note}</span></li>' for name, value, note in figures
    )
    kinds = (("s", report.substitutions, "substituted"), ("d", report.deletions, "deleted"))
    kinds += (("i", report.insertions, "inserted"),)
    parts = "".join(f'<span class="{letter}" style="flex: {count}"></span>' for letter, count, _ in kinds)
    legend = " &nbsp; ".join(
        f'<span class="sign {letter}"></span> {count} {name}' for letter, count, name in kinds
    )
    return (
        f'<ul class="figures">{items}</ul>\n<div class="errors" aria-hidden="true">{parts}</div>\n'
        f'<p class="key">{legend}, of {report.words} words</p>'
    )


def _highlights(report: ErrorReport, groups: Mapping[str, Sequence[Group]]) -> str:
    """Say in words what a reader is to see first: the commonest confusions, and who or what has most of the errors."""
    lines = []
    common = [
        f"“{escape(heard)}” for “{escape(said)}” ({count} times)"
        for (said, heard), count in word_confusions(report).substitutions.most_common(3)
        if count > 1
    ]
    if common:
        lines.append(f"Heard most often: {', '.join(common)}.")
    errors, words = report.word_errors.errors, max(report.words, 1)
    excess = [
        (group.errors.errors / errors - group.errors.length / words, title, group)
        for title, parts in groups.items()
        if errors >= FEWEST_ERRORS
        for group in parts
        if group.name != "unknown"
    ]
    told: set[str] = set()
    for more, title, group in sorted(excess, key=lambda item: -item[0]):
        if more >= STRIKING and title not in told and len(told) < HIGHLIGHTS:
            told.add(title)
            shares = (group.errors.errors / errors, group.errors.length / words)
            lines.append(
                "{} <b>{}</b>: {:.0%} of the errors in {:.0%} of the words.".format(
                    escape(title[:1].upper() + title[1:]), escape(group.name), *shares
                )
            )
    items = "".join(f"<li>{line}</li>" for line in lines)
    return f'<ul class="highlights">{items}</ul>' if items else ""


def _sets(reports: Mapping[str, ErrorReport], part: str, extra: Mapping[str, Mapping[str, str]]) -> str:
    """Compare test sets or systems: counts, rates, and their intervals on one axis."""
    top = max(max(report.wer, (report.wer_interval or (0, 0))[1]) for report in reports.values()) or 1.0
    lines, names = [], []
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
        names = [part, *cells, f"0 to {percent(top)} %"]
        low, high = report.wer_interval or (report.wer, report.wer)
        middle = 100 * report.wer / top
        plot = f'<path class="line" d="M{100 * low / top:.2f} 5H{100 * high / top:.2f}M{middle:.2f} 1V9"/>'
        lines.append(_line(name, cells.values(), f'<path class="axis" d="M0 0V10M0 5H100M100 0V10"/>{plot}'))
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in names)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<div class="wide" role="region" aria-label="Result" tabindex="0">{table}</div>'


def _confusions(report: ErrorReport) -> str:
    """List the most frequent errors, by word and by character."""
    said = Counter(word for text in report.references for word in text.split())
    titles = ("taken for another", "missed", "invented")
    lists = _lists(word_confusions(report), [f"Words {title}" for title in titles], said)
    lists += _lists(character_confusions(report), [f"Characters {title}" for title in titles])
    return f'<div class="columns">{"".join(lists)}</div>'


def _lists(found: Confusions, titles: Sequence[str], said: Mapping[str, int] | None = None) -> list[str]:
    """List errors; with the times each word was `said`, they are of words: buttons that show their utterances."""
    counted = (
        [(f"{left} → {right}", ("S", left, right), n) for (left, right), n in found.substitutions.items()],
        [(left, ("D", left, ""), n) for left, n in found.deletions.items()],
        [(right, ("I", "", right), n) for right, n in found.insertions.items()],
    )
    blocks = []
    for title, entries in zip(titles, counted, strict=True):
        entries.sort(key=lambda entry: (-entry[2], entry[0]))
        items = []
        for text, pattern, count in entries[:SHOWN]:
            total = f" of {said[pattern[1]]}" if said and pattern[1] else ""
            shown = f"<span>{escape(text)}</span><span>{count}{total}</span>"
            button = f"button type='button' data-pattern='{escape(json.dumps(pattern, ensure_ascii=False))}'"
            items.append(f"<li><{button}>{shown}</button></li>" if said else f"<li><div>{shown}</div></li>")
        total = f"{sum(entry[2] for entry in entries)} in all"
        listed = f'<ol class="list">{"".join(items)}</ol>' if items else ""
        blocks.append(f'<section><h3>{title} <span class="quiet">{total}</span></h3>{listed}</section>')
    return blocks


def _breakdowns(groups: Mapping[str, Sequence[Group]], calibration: Calibration | None) -> str:
    parts = [_bars(f"by {title}", list(parts)) for title, parts in groups.items() if len(parts) > 1]
    if calibration is not None:
        parts.append(_reliability(calibration))
    return f'<div class="columns">{"".join(parts)}</div>'


def _bars(title: str, groups: list[Group]) -> str:
    words = sum(group.errors.length for group in groups)
    telling = [group.errors.rate for group in groups if group.errors.length >= FEWEST_WORDS * words]
    top = max(telling, default=0) or 1.0
    lines = [
        _line(
            group.name,
            (group.errors.length, percent(group.errors.rate)),
            f'<rect class="bar" width="{min(100, 100 * group.errors.rate / top):.2f}" height="10"/>',
        )
        for group in groups
    ]
    head = '<thead><tr><th scope="col"></th><th scope="col">words</th><th scope="col">WER %</th><td></td></tr></thead>'
    table = "<table>{}<tbody>{}</tbody></table>"
    first = table.format(f"<caption>{escape(title)}</caption>{head}", "".join(lines[:SHOWN]))
    rest = table.format("", "".join(lines[SHOWN:]))
    more = (
        f"<details><summary>{len(lines) - SHOWN} more</summary>{rest}</details>" if len(lines) > SHOWN else ""
    )
    return f"<div>{first}{more}</div>"


def _reliability(calibration: Calibration) -> str:
    """Draw, for each bin of confidence, the share of words that is right, with a tick at the confidence."""
    lines = [
        _line(
            f"{confidence:.2f}",
            (words, percent(right)),
            f'<rect class="bar" width="{100 * right:.2f}" height="10"/>'
            f'<path class="line" d="M{100 * confidence:.2f} 0V10"/>',
        )
        for words, confidence, right in calibration.bins
    ]
    caption = f"confidence and share right; expected calibration error {percent(calibration.error)} %"
    columns = '<th scope="col">confidence</th><th scope="col">words</th><th scope="col">right %</th><td></td>'
    return (
        f"<div><table><caption>{caption}</caption><thead><tr>{columns}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _line(name: str, cells: Iterable[object], drawing: str) -> str:
    """Write a row that ends in a plot, 100 by 10; its numbers stand beside it, so screen readers pass over it."""
    numbers = "".join(f"<td>{escape(str(cell))}</td>" for cell in cells)
    plot = f'<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">{drawing}</svg>'
    return f'<tr><th scope="row">{escape(name)}</th>{numbers}<td class="plot">{plot}</td></tr>'


def _short(value: object) -> object:
    return round(value, 3) if isinstance(value, float) else value


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>"
