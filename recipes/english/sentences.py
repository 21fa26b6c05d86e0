"""Write the sentences that the English language model is built of, one a line.

  python recipes/english/sentences.py -o data/english/sentences.txt.gz --books books.txt.xz --prompts prompts/*.txt

Books count once, prompts three times, and the training transcripts under data/ as often as TIMES has it: they are few,
and spelled letters, digits and dates occur nowhere else. Sentences with letters other than a to z are left out.
"""

import argparse
import gzip
import sys
from collections.abc import Iterator
from pathlib import Path

from asr.data.texts import read_texts
from asr.errors import AsrError
from asr.files import replacing
from asr.text import normalize

TIMES = {
    "data/mini_librispeech/cuts_train.jsonl.gz": 4,
    "data/speechocean762/cuts_train.jsonl.gz": 4,
    "data/an4/cuts_train.jsonl.gz": 8,
    "data/fsdd/cuts_train_joined.jsonl.gz": 2,
}
PROMPT_TIMES = 3
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz' ")


def sentences(path: str | Path) -> Iterator[str]:
    """Yield the normalized sentences of a text or manifest that are written with LETTERS alone."""
    for line in read_texts([str(path)]):
        text = normalize(line, "basic")
        if text and LETTERS.issuperset(text):
            yield text


def main() -> int:
    """Command line; the exit status."""
    parser = argparse.ArgumentParser(
        description="Write the sentences of the English language model.", allow_abbrev=False
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write, compressed (.gz)")
    parser.add_argument("--books", nargs="+", default=[], metavar="TEXT", help="texts of a sentence a line")
    parser.add_argument(
        "--prompts", nargs="+", default=[], metavar="TEXT", help="texts that count three times"
    )
    arguments = parser.parse_args()
    times = dict.fromkeys(arguments.books, 1) | dict.fromkeys(arguments.prompts, PROMPT_TIMES) | TIMES
    count = 0
    try:
        with replacing(arguments.output) as scratch, gzip.open(scratch, "wt", encoding="utf-8") as file:
            for path, repeats in times.items():
                lines = [f"{sentence}\n" for sentence in sentences(path)]
                count += len(lines)
                file.writelines(lines * repeats)
    except (AsrError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{count} sentences: {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
