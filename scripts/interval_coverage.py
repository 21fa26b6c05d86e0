"""Show that the 95 % interval of a word error rate holds the true rate in 93 to 97 % of test sets.

  python scripts/interval_coverage.py [--sets 1000]

Speakers differ in how well they are recognized (a beta distribution of their rates about 10 %), talk for different
lengths, and their utterances' errors come with their rate. Every set is scored anew; the share of sets whose interval
holds 10 % is the coverage. Resampling utterances instead, as if they were independent, shows what whole speakers are
for; plain percentiles of the draws instead of the bootstrap-t show what that is for.
"""

import argparse

import numpy as np

from asr.scoring.intervals import block_sums, bootstrap, rate_interval

RATE = 0.1
SPREAD = 0.05  # standard deviation of the speakers' rates
PROMISED = (0.93, 0.97)


def make_set(speakers: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make one test set: each utterance's speaker, errors and words, (utterance,) each."""
    strength = RATE * (1 - RATE) / SPREAD**2 - 1
    rates = generator.beta(RATE * strength, (1 - RATE) * strength, speakers)
    speaker = np.repeat(np.arange(speakers), generator.integers(5, 40, speakers))
    words = generator.integers(3, 20, len(speaker))
    return speaker, generator.binomial(words, rates[speaker]), words


def coverage(speakers: int, sets: int, seed: int = 0) -> dict[str, float]:
    """Return the share of test sets whose interval holds the true rate, by method."""
    generator = np.random.default_rng(seed)
    held = {"speakers": 0, "percentiles": 0, "utterances": 0}
    for _ in range(sets):
        speaker, errors, words = make_set(speakers, generator)
        sums = block_sums(speaker, errors), block_sums(speaker, words)
        intervals = {
            "speakers": rate_interval(*sums),
            "percentiles": np.quantile(bootstrap(*sums).draws, [0.025, 0.975]),
            "utterances": rate_interval(errors, words),
        }
        for method, (low, high) in intervals.items():
            held[method] += low <= RATE <= high
    return {method: count / sets for method, count in held.items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--speakers", type=int, nargs="+", default=[10, 20, 40, 100])
    arguments = parser.parse_args()
    kept = True
    print(f"coverage of the 95 % interval over {arguments.sets} test sets\n")
    print("speakers  bootstrap-t over speakers  percentiles over speakers  bootstrap-t over utterances")
    for speakers in arguments.speakers:
        found = coverage(speakers, arguments.sets)
        print(
            f"{speakers:8}  {found['speakers']:25.1%}  {found['percentiles']:25.1%}  {found['utterances']:27.1%}"
        )
        kept &= PROMISED[0] <= found["speakers"] <= PROMISED[1]
    print(
        f"\nbootstrap-t over speakers within {PROMISED[0]:.0%} to {PROMISED[1]:.0%}: {'yes' if kept else 'NO'}"
    )
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
