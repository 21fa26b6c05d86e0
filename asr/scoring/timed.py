"""Lines and cues with times: STM, CTM, SubRip and WebVTT."""

import re
from collections.abc import Iterator, Sequence
from html import unescape
from itertools import groupby
from typing import NamedTuple

from asr.scoring.alternatives import parse
from asr.scoring.sniff import CLOCK, is_number

IGNORED = "ignore_time_segment_in_scoring"  # NIST's mark of a segment that is not scored


class Timed(NamedTuple):
    """A stretch of a recording: a segment of an STM file or subtitles, or a word of a CTM file; times in seconds."""

    file: str
    channel: str
    start: float
    end: float
    text: str
    speaker: str = ""
    confidence: float | None = None


def parse_stm(line: str) -> Timed:
    """Return a segment. Raises ValueError."""
    words = line.split(maxsplit=5)
    if len(words) < 5 or not (is_number(words[3]) and is_number(words[4])):
        raise ValueError("expected `file channel speaker start end [<label>] words`, times in seconds")
    text = re.sub(r"^<[^>\s]*>\s*", "", words[5]) if len(words) == 6 else ""
    parse(text)  # refuses alternatives that are not closed
    return Timed(words[0], words[1], float(words[3]), float(words[4]), text, words[2])


def parse_ctm(lines: Sequence[tuple[int, str]]) -> Iterator[tuple[int, str, Timed | str]]:
    """Yield (number, line, word) or, for what is malformed, (number, line, reason).

    NIST's alternatives, between lines of <ALT_BEGIN>, <ALT> and <ALT_END>, become one word `{ a / b }`.
    """
    group: list[list[Timed]] | None = None
    begin_number, begin_line = 0, ""
    for number, line in lines:
        words = line.split()
        mark = words[4].upper() if len(words) > 4 and words[4].upper().startswith("<ALT") else ""
        if mark == "<ALT_BEGIN>" and group is None:
            group, begin_number, begin_line = [[]], number, line
        elif mark == "<ALT>" and group is not None:
            group.append([])
        elif mark == "<ALT_END>" and group is not None:
            if any(group):
                yield number, line, _joined(group)
            group = None
        elif mark:
            yield number, line, f"alternatives are {'nested' if group is not None else 'not begun'}"
        elif len(words) < 5 or not (is_number(words[2]) and is_number(words[3])):
            yield number, line, "expected `file channel start duration word [confidence]`, times in seconds"
        elif group is not None:
            group[-1].append(_ctm_word(words))
        else:
            yield number, line, _ctm_word(words)
    if group is not None:
        yield begin_number, begin_line, "alternatives (<ALT_BEGIN>) are not closed by <ALT_END>"


def _ctm_word(words: Sequence[str]) -> Timed:
    start, end = float(words[2]), float(words[2]) + float(words[3])
    known = len(words) > 5 and is_number(words[5]) and 0 <= float(words[5]) <= 1
    return Timed(words[0], words[1], start, end, words[4], confidence=float(words[5]) if known else None)


def _joined(group: Sequence[Sequence[Timed]]) -> Timed:
    words = [word for branch in group for word in branch]
    text = " / ".join(" ".join(word.text for word in branch) or "@" for branch in group)
    end = max(word.end for word in words)
    return words[0]._replace(
        start=min(word.start for word in words), end=end, text=f"{{ {text} }}", confidence=None
    )


def parse_subtitles(content: str, file: str) -> list[Timed]:
    """Return the cues of SubRip or WebVTT; cues that repeat a text with another word underlined are one."""
    cues = []
    for block in re.split(r"\n[ \t]*\n", content.replace("\r\n", "\n")):
        lines = block.strip("\n").split("\n")
        clock = next((n for n, line in enumerate(lines[:2]) if "-->" in line), None)
        found = clock is not None and re.match(rf"\s*({CLOCK})\s*-->\s*({CLOCK})", lines[clock])
        if not found or clock is None:
            continue
        text = " ".join(lines[clock + 1 :])
        voice = re.search(r"<v(?:\.[^\s>]*)?\s+([^>]+)>", text)
        speaker = voice[1].strip() if voice else ""
        plain = " ".join(unescape(re.sub(r"<[^>]*>|\{\\[^}]*\}", "", text)).split())
        cues.append(Timed(file, "1", _seconds(found[1]), _seconds(found[2]), plain, speaker))
    if "<u>" not in content:
        return cues
    runs = [list(run) for _, run in groupby(cues, key=lambda cue: cue.text)]
    return [run[0]._replace(end=run[-1].end) for run in runs]


def _seconds(clock: str) -> float:
    parts = clock.replace(",", ".").split(":")
    return sum(float(part) * 60**power for power, part in enumerate(reversed(parts)))
