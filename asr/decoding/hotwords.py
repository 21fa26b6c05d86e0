"""Biasing words: a bonus for words the user expects, names above all (shallow fusion, Zhao et al. 2019)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from asr.errors import DecodingError
from asr.text import Tokenizer

DEFAULT_BONUS = 4.0  # natural log, as acoustic scores


def read_hotwords(path: str | Path) -> dict[str, float]:
    """Read a word a line, with its bonus behind it where it is to have its own: `nguyen` or `nguyen 6`.

    Raises DecodingError.
    """
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DecodingError(f"there is no file of hotwords {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DecodingError(f"the hotwords {path} cannot be read: {error}") from error
    words = {}
    for number, line in enumerate(lines, start=1):
        columns = line.split()
        if len(columns) > 2:
            raise DecodingError(
                f"{path}, line {number}: {line.strip()!r}; expected one word and, if any, its bonus; the words of a "
                "phrase take a line each"
            )
        try:
            bonus = float(columns[1]) if len(columns) == 2 else DEFAULT_BONUS
            if not math.isfinite(bonus):
                raise ValueError
        except ValueError:
            raise DecodingError(
                f"{path}, line {number}: the bonus {columns[1]!r} is no number; expected one like {DEFAULT_BONUS}, or "
                "one word a line"
            ) from None
        if columns:
            words[columns[0]] = bonus
    if not words:
        raise DecodingError(f"the file of hotwords {path} is empty")
    return words


@dataclass
class BiasNode:
    """A place in the tree of the hotwords' spellings.

    Attributes:
        gain: bonus granted on the way here, in proportion to the part of the word that is spelled.
        bonus: what the word that ends here earns; 0 where none does.
    """

    gain: float = 0.0
    bonus: float = 0.0
    children: dict[int, "BiasNode"] = field(default_factory=dict)


class BiasTree:
    """Hotwords spelled in tokens: grants a part of the bonus with each token, and takes it back from false starts.

    Without the parts, a beam would drop a rare word before it is whole.
    """

    def __init__(self, hotwords: Mapping[str, float], tokenizer: Tokenizer):
        self.root = BiasNode()
        # At the beginning of a word, nothing of it is spelled.
        self.start = BiasNode(children=self.root.children)
        self.begins = [token.startswith(tokenizer.space) for token in tokenizer.tokens]
        self.parts = [token == tokenizer.space for token in tokenizer.tokens]
        for word, bonus in hotwords.items():
            node, ids = self.root, tokenizer.encode(word)
            for depth, token in enumerate(ids, start=1):
                node = node.children.setdefault(token, BiasNode())
                node.gain = max(node.gain, bonus * depth / len(ids))
            node.bonus = bonus

    def step(self, node: BiasNode | None, token: int) -> tuple[BiasNode | None, float]:
        """Return the place behind a token, None inside of other words, and the change of the score."""
        if self.parts[token]:
            return self.start, self.end(node)
        if self.begins[token]:
            following = self.start.children.get(token)
            return following, self.end(node) + (following.gain if following else 0.0)
        following = node.children.get(token) if node else None
        return following, (following.gain if following else 0.0) - (node.gain if node else 0.0)

    def end(self, node: BiasNode | None) -> float:
        """Return the change of the score when a word ends at a place."""
        return node.bonus - node.gain if node else 0.0
