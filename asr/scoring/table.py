"""Reports as text, Markdown, CSV and LaTeX, and alignments as text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any
from unicodedata import combining, east_asian_width

import numpy as np

from asr.scoring.align import DELETION, EQUAL, INSERTION, SUBSTITUTION, Column
from asr.scoring.breakdown import Confusions, Group
from asr.scoring.report import ErrorCounts, ErrorReport

FORMATS = ("text", "markdown", "csv", "latex")
# What a field is called where it stands beside counts of words and utterances.
TITLES = {"words": "length in words", "duration": "length in seconds", "snr": "signal-to-noise ratio in dB"}
NAMES = {SUBSTITUTION: "substitution", DELETION: "deletion", INSERTION: "insertion"}


def table(rows: Sequence[Mapping[str, str]], form: str = "text") -> str:
    """Return rows laid out, all with the same columns: the first to the left, the others to the right.

    >>> print(table([{"set": "dev", "WER %": "12.50"}], "markdown"))
    | set | WER % |
    |:----|------:|
    | dev | 12.50 |
    """
    lines = [list(rows[0]), *(list(row.values()) for row in rows)] if rows else [[]]
    if form == "csv":
        import csv
        import io

        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(lines)
        return out.getvalue().rstrip("\n")
    if form == "latex":
        escaped = [[_escape_latex(cell) for cell in line] for line in lines]
        head, *body = [" & ".join(line) + r" \\" for line in escaped]
        columns = "l" + "r" * (len(lines[0]) - 1)
        parts = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
        return "\n".join([*parts, r"\end{tabular}"])
    if form == "markdown":
        lines = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    widths = [max(map(width, column)) for column in zip(*lines, strict=True)]
    padded = [
        [
            pad(cell, size, right=index > 0)
            for index, (cell, size) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    if form == "markdown":
        rule = [f":{'-' * (widths[0] + 1)}", *(f"{'-' * (size + 1)}:" for size in widths[1:])]
        bars = [f"| {' | '.join(line)} |" for line in padded]
        return "\n".join([bars[0], f"|{'|'.join(rule)}|", *bars[1:]])
    return "\n".join("  ".join(line).rstrip() for line in padded)


def row(
    name: str, report: ErrorReport, extra: Mapping[str, str] | None = None, part: str = "set"
) -> dict[str, str]:
    """Return one report as a row of a table of several test sets (or systems: `part`); `extra` adds columns."""
    return {
        part: name,
        "utterances": str(report.utterances),
        "words": str(report.words),
        "WER %": percent(report.wer),
        "WER 95 %": interval(report.wer_interval),
        "sub": str(report.substitutions),
        "del": str(report.deletions),
        "ins": str(report.insertions),
        "CER %": percent(report.cer),
        "CER 95 %": interval(report.cer_interval),
        "SER %": percent(report.sentence_error_rate),
        **(extra or {}),
    }


def summary(report: ErrorReport) -> str:
    """Return one report as a table: words, characters and sentences, a line each, and how they were counted."""

    def line(name: str, counts: ErrorCounts, bounds: tuple[float, float] | None) -> dict[str, str]:
        return {
            "": name,
            "count": str(counts.length),
            "errors": str(counts.errors),
            "error rate %": percent(counts.rate),
            "95 % interval": interval(bounds),
            "substitutions": str(counts.substitutions),
            "deletions": str(counts.deletions),
            "insertions": str(counts.insertions),
        }

    words = line("words", report.word_errors, report.wer_interval)
    sentences = dict.fromkeys(words, "") | {
        "": "utterances",
        "count": str(report.utterances),
        "errors": str(report.sentence_errors),
        "error rate %": percent(report.sentence_error_rate),
    }
    rows = [words, line("characters", report.character_errors, report.cer_interval), sentences]
    return f"{table(rows)}\n{footnote(report)}"


def groups(name: str, parts: Sequence[Group], form: str = "text") -> str:
    """Return a breakdown by `name`: a row for each part of the test set."""
    rows = [
        {
            TITLES.get(name, name): part.name,
            "utterances": str(part.utterances),
            "words": str(part.errors.length),
            "WER %": percent(part.errors.rate),
            "sub": str(part.errors.substitutions),
            "del": str(part.errors.deletions),
            "ins": str(part.errors.insertions),
        }
        for part in parts
    ]
    return table(rows, form)


def confusions(found: Confusions, count: int) -> str:
    """Return the most frequent substitutions, deletions and insertions side by side, `count` of each."""
    substituted = [f"{left} → {right} {n}" for (left, right), n in _top(found.substitutions, count)]
    missed, invented = (
        [f"{word} {n}" for word, n in _top(side, count)] for side in (found.deletions, found.insertions)
    )
    names = ("substituted", "deleted", "inserted")
    columns = zip_longest(substituted, missed, invented, fillvalue="")
    return (
        table([dict(zip(names, cells, strict=True)) for cells in columns])
        if substituted + missed + invented
        else "none"
    )


def _top(counts: Counter[Any], count: int) -> list[tuple[Any, int]]:
    """Return the most frequent, equals in alphabetical order, so that the list is the same each time."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:count]


def results(
    reports: Mapping[str, ErrorReport],
    form: str = "text",
    extra: Mapping[str, Mapping[str, str]] | None = None,
    part: str = "set",
) -> str:
    """Return a table of several test sets or systems (`part`), with a note of how they were counted.

    The note is a paragraph below the table, comments in LaTeX, and columns in CSV. `extra` adds columns by report.
    """
    rows = [row(name, report, (extra or {}).get(name), part) for name, report in reports.items()]
    if form == "csv":
        counted = [
            {
                "normalizer": report.normalizer,
                "aligner": report.aligner,
                "intervals over": f"{report.blocks} {report.resampled}" if report.wer_interval else "-",
            }
            for report in reports.values()
        ]
        added = len(next(iter((extra or {}).values()), {}))
        rows = [
            dict([*cells[: len(cells) - added], *notes.items(), *cells[len(cells) - added :]])
            for cells, notes in zip((list(cells.items()) for cells in rows), counted, strict=True)
        ]
        return table(rows, form)
    return with_note(table(rows, form), footnotes(reports), form)


def with_note(drawn: str, note: str, form: str = "text") -> str:
    """Return a table with lines of notes below it; csv has no place for them."""
    if form == "latex":
        return "\n".join([drawn, *(f"% {line}" for line in note.split("\n"))])
    return {"text": f"{drawn}\n{note}", "markdown": f"{drawn}\n\n{note}"}.get(form, drawn)


def footnotes(reports: Mapping[str, ErrorReport]) -> str:
    """Return how reports were counted: one line where it is the same for all, else one for each."""
    notes = {name: footnote(report) for name, report in reports.items()}
    if len(set(notes.values())) == 1:
        return next(iter(notes.values()))
    return "\n".join(f"{name}: {note}" for name, note in notes.items())


def footnote(report: ErrorReport) -> str:
    """Return how a report was counted: normalizer, aligner, and what its intervals are over."""
    over = f"intervals over {report.blocks} {report.resampled}" if report.wer_interval else "no interval"
    speakers = len(set(report.fields.get("speaker", ())) - {None})
    if report.wer_interval and speakers and report.resampled == "utterances":
        these = "this speaker" if speakers == 1 else f"these {speakers} speakers"
        over += f", which hold for other utterances of {these}, not for other speakers"
    version = f" ({report.normalizer_version})" if report.normalizer_version else ""
    return f"normalizer {report.normalizer}{version}, aligned as {report.aligner}, {over}"


def per_utterance(report: ErrorReport) -> str:
    """Return every utterance aligned, in the form of Kaldi's per_utt files.

    Operations are C, S, D and I; `#csid` counts correct words, substitutions, insertions and deletions.

    >>> from asr.scoring.report import score
    >>> print(per_utterance(score("go to bed", "go two bed now", bootstrap=0)))
    1 ref  go to  bed ***
    1 hyp  go two bed now
    1 op   C   S   C   I
    1 #csid 2 1 1 0
    """
    lines = []
    for index, name in enumerate(report.ids):
        sides: list[list[str]] = [[], [], []]
        for kind, reference, hypothesis in report.alignment(index):
            cells = (reference or "***", hypothesis or "***", "C" if kind == EQUAL else kind)
            size = max(map(width, cells))
            for side, cell in zip(sides, cells, strict=True):
                side.append(cell.center(size) if side is sides[2] else pad(cell, size))
        substitutions, deletions, insertions, length = report.utterance_errors[index].tolist()
        heads = (f"{name} ref ", f"{name} hyp ", f"{name} op  ")
        lines += [" ".join([head, *side]).rstrip() for head, side in zip(heads, sides, strict=True)]
        correct = length - substitutions - deletions
        lines.append(f"{name} #csid {correct} {substitutions} {insertions} {deletions}")
    return "\n".join(lines)


def percent(rate: float) -> str:
    """Return a fraction as per cent with two decimals."""
    return f"{100 * rate:.2f}"


def interval(bounds: tuple[float, float] | None, between: str = "-") -> str:
    """Return an interval of fractions as per cent, or a dash where there is none.

    >>> interval((0.101, 0.2))
    '10.10-20.00'
    """
    return f"{percent(bounds[0])}{between}{percent(bounds[1])}" if bounds else "-"


def worst(report: ErrorReport, count: int = 5) -> str:
    """Return the utterances with the most errors, aligned; "" where there is no error."""
    errors = report.utterance_errors[:, :3].sum(axis=1)
    most = [index for index in np.argsort(-errors, kind="stable")[:count] if errors[index]]
    return "\n\n".join(aligned(report.ids[index], report.alignment(index)) for index in most)


def aligned(name: str, columns: Sequence[Column]) -> str:
    """Return an alignment in three lines under its name, stars where a side has no word.

    >>> from asr.scoring.align import align
    >>> print(aligned("u1", align("go to bed".split(), "go two bed now".split())))
    u1: 2 errors in 3 words (1 substitution, 1 insertion)
      reference   go to  bed ***
      hypothesis  go two bed now
                     S       I
    """
    sides: list[list[str]] = [[], [], []]
    for kind, reference, hypothesis in columns:
        size = max(width(reference or ""), width(hypothesis or ""))
        sides[0].append(pad(reference or "*" * size, size))
        sides[1].append(pad(hypothesis or "*" * size, size))
        sides[2].append(pad("" if kind == EQUAL else kind, size))
    heads = (f"{name}: {describe(columns)}", "  reference   ", "  hypothesis  ", "              ")
    lines = [head + " ".join(side) for head, side in zip(heads, ([], *sides), strict=True)]
    return "\n".join(line.rstrip() for line in lines)


def describe(columns: Sequence[Column]) -> str:
    """Return what an alignment costs: `2 errors in 3 words (1 substitution, 1 insertion)`."""
    kinds = [column.kind for column in columns]
    counts = {name: kinds.count(kind) for kind, name in NAMES.items()}
    parts = [plural(count, name) for name, count in counts.items() if count]
    total = f"{plural(sum(counts.values()), 'error')} in {plural(len(kinds) - counts['insertion'], 'word')}"
    return f"{total} ({', '.join(parts)})" if parts else total


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "word"), plural(0, "word")
    ('1 word', '0 words')
    """
    return f"{count} {noun}" + ("" if count == 1 else "s")


def width(text: str) -> int:
    """Return the number of columns a terminal gives a text: two for wide letters, none for combining ones."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(letter) else 1 + (east_asian_width(letter) in "WF") for letter in text)


def pad(text: str, size: int, right: bool = False) -> str:
    """Return a text filled with spaces to `size` columns, before it if `right`."""
    space = " " * (size - width(text))
    return space + text if right else text + space


def _escape_latex(text: str) -> str:
    for letter in "&%$#_{}":
        text = text.replace(letter, "\\" + letter)
    return text
