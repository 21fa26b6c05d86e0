"""Write sentences like those of AN4's training half: more letters, numbers and dates for a language model than it has.

  python recipes/an4/sentences.py data/an4/cuts_train.jsonl.gz -o data/an4/sentences.txt --words cmudict.dict

The 858 training sentences are built of classes: a code's letters, a spelled name, digits, months, ordinals. Each
sentence is written ten times as it is and thirty times with every word replaced by another of its class, drawn as often
as the training half has it: a class-based language model (Brown et al. 1992), by sampling. A code's letters are drawn
evenly, and a spelled name is any word of --words, spelled.
"""

import argparse
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import ascii_lowercase

from asr.data.texts import read_texts
from asr.errors import AsrError
from asr.files import replacing
from asr.text import normalize

AS_IT_IS, VARIANTS = 10, 30
CLASSES = [
    frozenset(words.split())
    for words in (
        "oh zero one two three four five six seven eight nine",
        "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen",
        "twenty thirty forty fifty sixty seventy eighty ninety",
        "january february march april may june july august september october november december",
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
        "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth thirtieth",
    )
]


class Variants:
    """Sentences of the same classes as a given one.

    Arguments: the normalized training sentences, by which words are drawn; names to spell; random.
    """

    def __init__(self, sentences: Sequence[str], names: Sequence[str], draw: random.Random):
        counts = Counter(word for sentence in sentences for word in sentence.split())
        self._names, self._draw = names, draw
        self._class_of = {
            word: {w: counts[w] for w in sorted(c) if w in counts} for c in CLASSES for word in c
        }

    def of(self, sentence: str) -> str:
        """Return a sentence of the same classes."""
        words = sentence.split()
        if len(words) > 2 and all(word in ascii_lowercase for word in words):
            return " ".join(self._draw.choice(self._names))
        return " ".join(map(self._another, words))

    def _another(self, word: str) -> str:
        if word in ascii_lowercase:
            return self._draw.choice(ascii_lowercase)
        members = self._class_of.get(word)
        return self._draw.choices(list(members), list(members.values()))[0] if members else word


def names_of(dictionary: Path) -> list[str]:
    """Return the words of 3 to 11 letters of a dictionary, a word and anything behind it on each line."""
    firsts = (
        line.split(maxsplit=1)[0] for line in dictionary.read_text("utf-8").splitlines() if line.strip()
    )
    return sorted(
        {
            word
            for word in map(str.lower, firsts)
            if 3 <= len(word) <= 11 and set(word) <= set(ascii_lowercase)
        }
    )


def sentences(manifest: str, dictionary: Path) -> Iterator[str]:
    """Yield every training sentence as it is and in its variants."""
    given = [normalize(text, "basic") for text in read_texts([manifest])]
    variants = Variants(given, names_of(dictionary), random.Random(1))
    for sentence in given:
        yield from [sentence] * AS_IT_IS
        yield from (variants.of(sentence) for _ in range(VARIANTS))


def main() -> int:
    """Command line; the exit status."""
    parser = argparse.ArgumentParser(description="Write sentences like AN4's.", allow_abbrev=False)
    parser.add_argument("manifest", help="manifest of the training half")
    parser.add_argument("-o", "--output", type=Path, required=True, help="text to write, a sentence a line")
    parser.add_argument(
        "--words", type=Path, required=True, help="dictionary whose words are spelled: cmudict.dict"
    )
    arguments = parser.parse_args()
    try:
        with replacing(arguments.output) as scratch, scratch.open("w", encoding="utf-8") as file:
            file.writelines(f"{sentence}\n" for sentence in sentences(arguments.manifest, arguments.words))
    except (AsrError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
