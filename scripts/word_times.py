"""Measure how far the word times that forced alignment finds are from the truth.

  python scripts/word_times.py --model runs/digits/bundle --manifest data/digits/cuts_test.jsonl.gz --utterances 200

The manifest's supervisions must hold the words' true times, as lhotse alignments named "word": those of speech that
`recipes/digits/synthesize.py` makes do.
"""

import argparse
from itertools import islice

import numpy as np

import asr
from asr.data import load_cuts, read_samples, text_of

CLOSE = 0.05  # seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="BUNDLE")
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--utterances", type=int, help="only so many of the first (default: all)")
    arguments = parser.parse_args()
    model = asr.load(arguments.model)
    utterances, off = 0, []
    for cut in islice(load_cuts(arguments.manifest), arguments.utterances):
        truth = (cut.supervisions[0].alignment or {}).get("word")
        if truth is None:
            parser.error(f"{arguments.manifest}: {cut.id} has no alignment 'word', the times of its words")
        found = model.align(read_samples(cut, model.sample_rate), text_of(cut) or "").words
        utterances += 1
        off += [
            (word.start - item.start, word.end - item.end) for word, item in zip(found, truth, strict=True)
        ]
    print(f"{len(off)} words of {utterances} utterances")
    for name, seconds in zip(("starts", "ends"), np.abs(off).T, strict=True):
        mean, median, share = seconds.mean(), np.median(seconds), (seconds <= CLOSE).mean()
        print(
            f"{name}: off by {1000 * mean:.0f} ms on average, median {1000 * median:.0f}; "
            f"{100 * share:.0f} % within {1000 * CLOSE:.0f} ms"
        )


if __name__ == "__main__":
    main()
