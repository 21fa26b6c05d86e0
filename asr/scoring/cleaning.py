"""What both sides pass before they are compared: a normalizer, replacements, alternatives, and sclite's habits."""

import re
import string
from collections.abc import Sequence
from pathlib import Path

from asr.errors import TextError
from asr.scoring.alternatives import NULL, normalized, resolve
from asr.scoring.rules import Rules, read_rules

LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


class Cleaning:
    """The steps from transcripts to what is compared.

    Arguments: the name of a normalizer in `asr.text`; a file of replacements (`asr.scoring.rules`); whether texts hold
    NIST's alternatives; the aligner, of which "sclite" takes no notice of case (of ASCII letters, as that tool) and
    takes `@` for no word. `name` and `version` are of the normalizer and the replacements. Raises TextError for a
    normalizer or file that is missing.
    """

    def __init__(
        self,
        normalizer: str = "none",
        rules: str | Path | None = None,
        alternatives: bool = False,
        aligner: str = "jiwer",
    ):
        self._normalizer, self._aligner = normalizer, aligner
        self._rules: Rules | None = None if rules is None else read_rules(rules)
        self._alternatives = alternatives or (self._rules is not None and self._rules.has_alternatives)
        self.name, self.version = normalizer, ""
        if normalizer != "none":
            from asr.text import normalizer_version

            self.version = normalizer_version(normalizer)
            self._normalized("")
        if self._rules is not None:
            self.name = f"{normalizer}, {Path(str(rules)).name}"
            self.version = "; ".join(filter(None, (self.version, self._rules.version)))

    def __call__(
        self, references: Sequence[str], hypotheses: Sequence[str]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return both sides as they are compared. Raises TextError for alternatives that are not closed."""
        if not self._alternatives:
            return tuple(map(self._plain, references)), tuple(map(self._plain, hypotheses))
        pairs = [self._pair(*pair) for pair in zip(references, hypotheses, strict=True)]
        return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)

    def _pair(self, reference: str, hypothesis: str) -> tuple[str, str]:
        try:
            marked = [self._replaced(normalized(text, self._normalized)) for text in (reference, hypothesis)]
            if any("{" in text for text in marked):
                marked = list(resolve(marked[0], marked[1], self._aligner))
        except ValueError as error:
            raise TextError(f"{reference!r} against {hypothesis!r}: {error}") from error
        return self._without_null(marked[0]), self._without_null(marked[1])

    def _plain(self, text: str) -> str:
        if self._normalizer == "none" and self._rules is None and self._aligner != "sclite":
            return self._without_null(text)
        return self._without_null(self._replaced(self._normalized(text)))

    def _normalized(self, text: str) -> str:
        if self._normalizer == "none":
            return text
        from asr.text import normalize

        return normalize(text, self._normalizer)

    def _replaced(self, text: str) -> str:
        text = text if self._rules is None else self._rules(text)
        return text.translate(LOWER) if self._aligner == "sclite" else text

    def _without_null(self, text: str) -> str:
        if self._aligner.startswith("sclite") and NULL in text:
            return re.sub(rf"(?<!\S){NULL}(?!\S)", "", text)
        return text
