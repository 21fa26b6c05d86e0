"""Time the scoring of a million made-up pairs of ten words, with intervals over a thousand speakers.

python scripts/bench/bench_scoring.py [--pairs 1000000] [--aligner sclite]
"""

import argparse
import random
import resource
import time

from asr.scoring import score
from asr.scoring.table import summary


def make_pairs(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Make references of ten words from 5000, and hypotheses with some 10 % of errors of every kind."""
    rng = random.Random(seed)
    lexicon = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(1, 9))) for _ in range(5000)]

    def hear(word: str) -> str:
        chance = rng.random()
        if chance < 0.05:
            return rng.choice(lexicon)
        if chance < 0.08:
            return ""
        return f"{word} {rng.choice(lexicon)}" if chance < 0.1 else word

    references = [rng.choices(lexicon, k=10) for _ in range(count)]
    return [" ".join(words) for words in references], [" ".join(map(hear, words)) for words in references]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--speakers", type=int, default=1000, help="0: unknown, so utterances are resampled")
    parser.add_argument("--aligner", default="jiwer", choices=["jiwer", "sclite"])
    arguments = parser.parse_args()
    references, hypotheses = make_pairs(arguments.pairs)
    speakers = [f"s{i % arguments.speakers}" for i in range(arguments.pairs)] if arguments.speakers else None
    began = time.perf_counter()
    report = score(references, hypotheses, speakers=speakers, aligner=arguments.aligner)
    elapsed = time.perf_counter() - began
    print(summary(report))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{arguments.pairs} pairs in {elapsed:.1f} s, {peak:.1f} GiB at the peak")


if __name__ == "__main__":
    main()
