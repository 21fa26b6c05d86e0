"""Replacements that both sides pass before they are compared: a plain list, or NIST's global map (GLM).

A plain list has a rule a line, `colour => color` (or a tab in place of the arrow), whose words are replaced where they
stand as they are written; nothing behind the arrow deletes them, and # begins a comment. A GLM file, as NIST's rfilter1
reads it, may name what stands beside the words, `[I'M] => [{ I'M / I AM }] / [ ] __ [ ]`, and give alternatives.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from asr.errors import TextError
from asr.files import sha256

EDGE = " "  # what stands on both sides of a word, also at the ends of a text


@dataclass(frozen=True)
class Rule:
    """One replacement: of `words`, where they stand between `left` and `right`, by `new`."""

    words: str
    new: str
    left: str = EDGE
    right: str = EDGE


class Rules:
    """Replacements in one pass from left to right; of rules that fit, the first of the file.

    What was replaced is not read again. Without regard to case, a replacement of lower-case text is written in lower
    case, one of upper-case text in upper case.

    >>> Rules([Rule("gonna", "going to"), Rule("uh", "")])("we uh gonna go")
    'we going to go'
    """

    def __init__(self, rules: list[Rule], ignore_case: bool = False, version: str = ""):
        self.version = version
        self.has_alternatives = any("{" in rule.new for rule in rules)
        self._rules = rules
        self._ignore_case = ignore_case
        patterns = (
            f"(?<={re.escape(rule.left)})({re.escape(rule.words)})(?={re.escape(rule.right)})"
            for rule in rules
        )
        self._pattern = re.compile("|".join(patterns), re.IGNORECASE if ignore_case else 0)

    def __call__(self, text: str) -> str:
        """Return the text with its words replaced, one space between words."""
        text = f"{EDGE}{EDGE.join(text.split())}{EDGE}"
        return " ".join(self._pattern.sub(self._new, text).split())

    def _new(self, match: re.Match) -> str:
        new = self._rules[(match.lastindex or 1) - 1].new
        if self._ignore_case and match[0].islower():
            return new.lower()
        return new.upper() if self._ignore_case and match[0].isupper() else new


def read_rules(path: str | Path) -> Rules:
    """Read a file of replacements. Raises TextError for what is missing or malformed, with the line."""
    path = Path(path)
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise TextError(f"there is no file of replacements {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(f"{path} cannot be read as UTF-8 text: {error}") from error
    is_glm = path.suffix.lower() == ".glm" or any(line.startswith(("* ", ";;")) for line in lines)
    rules, ignore_case = [], is_glm
    for number, line in enumerate(lines, 1):
        comment = ";;" if is_glm else "#"
        line = line.split(comment)[0] if is_glm or line.lstrip().startswith("#") else line
        if not line.strip():
            continue
        if is_glm and line.startswith("*"):
            if re.match(r"\*\s*case_sensitive\s*=\s*'T'", line, re.IGNORECASE):
                ignore_case = False
            continue
        try:
            rules.append(_glm_rule(line) if is_glm else _plain_rule(line))
        except ValueError as error:
            raise TextError(f"{path}: line {number}: {error}; found {line.strip()!r}") from None
    if not rules:
        raise TextError(f"{path} holds no replacement; expected lines such as `colour => color`")
    return Rules(rules, ignore_case, f"{path.name} {sha256(path)[:8]}")


def _plain_rule(line: str) -> Rule:
    words, arrow, new = line.partition("=>" if "=>" in line else "\t")
    if not arrow or not words.strip():
        raise ValueError("expected `words => other words`")
    return Rule(" ".join(words.split()), " ".join(new.split()))


def _glm_rule(line: str) -> Rule:
    words, arrow, rest = line.partition("=>")
    words = _side(words)
    if not arrow or not words.strip():
        raise ValueError("expected `[words] => [other words] / [ ] __ [ ]`")
    # Alternatives have slashes of their own: the context begins behind the last one before its mark.
    if found := re.fullmatch(r"(.*)/(.*?)__(.*)", rest, re.DOTALL):
        return Rule(words, _side(found[1]), _side(found[2]), _side(found[3]))
    return Rule(words, _side(rest), "", "")


def _side(text: str) -> str:
    """Return what stands in brackets as it is, and other text without the spaces around it."""
    text = text.strip()
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text
