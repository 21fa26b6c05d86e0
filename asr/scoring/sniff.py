"""What a file of transcripts is, judged by its name and content; what could be two things stays undecided."""

import re
from collections.abc import Sequence
from pathlib import Path

from asr.errors import TextError
from asr.scoring.rows import delimiter_of

# Each form with what messages call it.
FORMS = {
    "trn": "TRN",
    "stm": "STM",
    "ctm": "CTM",
    "kaldi": "Kaldi's text, an id and words in a line",
    "json": "JSON",
    "table": "a table with a header",
    "srt": "SubRip subtitles",
    "vtt": "WebVTT subtitles",
    "lines": "plain lines, an utterance each",
    "folder": "a folder",
}
FORMATS = ("auto", *FORMS)
UNDECIDED = "kaldi or lines"
BY_SUFFIX = {
    **{form: form for form in ("trn", "stm", "ctm", "json", "srt", "vtt")},
    **dict.fromkeys(("jsonl", "ndjson"), "json"),
    **dict.fromkeys(("csv", "tsv"), "table"),
}
# Files that hold transcripts or speech but are not read here, by suffix or by how they begin.
FOREIGN_SUFFIXES = {
    "textgrid": "a Praat TextGrid",
    "eaf": "an ELAN file",
    "rttm": "RTTM, which has no words",
    "mlf": "an HTK label file",
    "lrc": "lyrics",
    "ass": "SubStation subtitles",
    "ssa": "SubStation subtitles",
    "sbv": "YouTube subtitles",
    "xml": "XML",
    "html": "HTML",
    "yaml": "YAML",
    "yml": "YAML",
}
FOREIGN_BEGINNINGS = {
    "File type = ": "a Praat TextGrid",
    "#!MLF!#": "an HTK label file",
    "<?xml": "XML",
    "<!doctype": "HTML",
    "SPEAKER ": "RTTM, which has no words",
    "[Script Info]": "SubStation subtitles",
}
CLOCK = r"(?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3}"
CUE = re.compile(rf"^\s*({CLOCK})\s*-->\s*({CLOCK})", re.MULTILINE)


def recognize(path: Path, content: str) -> str:
    """Return the form of a file from its name, else from its lines; `UNDECIDED` if first words may be ids or words.

    Raises TextError for forms that are not read here.

    >>> recognize(Path("a.txt"), "HELLO THERE (u1)")
    'trn'
    >>> recognize(Path("a.txt"), "talk 1 0.50 0.21 hello 0.98")
    'ctm'
    >>> recognize(Path("a.txt"), "u1 hello there")
    'kaldi'
    >>> recognize(Path("a.txt"), "hello there")
    'kaldi or lines'
    """
    for suffix in [suffix.lower().lstrip(".") for suffix in path.suffixes][::-1]:
        if suffix in BY_SUFFIX:
            return BY_SUFFIX[suffix]
        if suffix in FOREIGN_SUFFIXES:
            raise _foreign(path, FOREIGN_SUFFIXES[suffix])
    start = content.lstrip()
    for beginning, name in FOREIGN_BEGINNINGS.items():
        if start.lower().startswith(beginning.lower()):
            raise _foreign(path, name)
    if start[:1] in ("{", "["):
        return "json"
    if start.startswith("WEBVTT"):
        return "vtt"
    if CUE.search("\n".join(start.split("\n", 2)[:2])):
        return "srt"
    first = start.split("\n", 1)[0]
    if delimiter_of(first) is not None:
        return "table"
    lines = [line.split() for line in start.split("\n") if line.strip() and not line.startswith(";;")]
    return _of_lines(path, lines)


def _of_lines(path: Path, lines: Sequence[Sequence[str]]) -> str:
    if all(re.fullmatch(r".*\(\S+\)", words[-1]) for words in lines):
        return "trn"
    if all(5 <= len(words) <= 8 and are_times(words[2:4]) for words in lines):
        return "ctm"
    if all(len(words) >= 5 and are_times(words[3:5]) for words in lines):
        return "stm"
    firsts = [words[0] for words in lines]
    if path.name == "text" or path.name.endswith(".trans.txt") or _are_ids(firsts):
        return "kaldi"
    # Ids stand once; and of lines of one word each, all words would be ids.
    if len(set(firsts)) < len(firsts) or max(map(len, lines)) == 1:
        return "lines"
    return UNDECIDED


def _are_ids(words: Sequence[str]) -> bool:
    """Return whether words are ids: each has a digit and other signs, or all are numbers in turn or with leading zeros.

    >>> _are_ids(["fash-an251-b", "u1"]), _are_ids(["the", "u1"]), _are_ids(["5", "7"]), _are_ids(["0001", "0002"])
    (True, False, False, True)
    """
    if all(word.isdecimal() for word in words):
        in_turn = [int(word) for word in words] in (list(range(len(words))), list(range(1, len(words) + 1)))
        return (in_turn and len(words) > 1) or (any(w[0] == "0" and len(w) > 1 for w in words))
    return all(re.fullmatch(r"[\w.\-/+:=@~]*", word) and re.search(r"\d", word) for word in words)


def is_number(text: str) -> bool:
    """Return whether a word is a decimal number, such as 3 or -0.25."""
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)", text) is not None


def are_times(words: Sequence[str]) -> bool:
    """Return whether words are seconds, one of them at least with a point, not digits as in Kaldi's `u1 5 5 1 9`."""
    return all(map(is_number, words)) and any("." in word for word in words)


def _foreign(path: Path, name: str) -> TextError:
    return TextError(f"{path}: is {name}, which is not read here; expected one of {', '.join(FORMS)}")
