r"""Measure what biasing towards hotwords brings: their recall, and what they cost the other words.

  python scripts/hotwords.py --model runs/an4/bundle --manifest data/an4/cuts_dev.jsonl.gz \
    --train data/an4/cuts_train.jsonl.gz

The words of a manifest that training heard at most --rare times are given to the beam search as hotwords, and as many
that the manifest does not hold, drawn from those that are as rare in training. Printed are, by the bonus, the recall of
the hotwords that were said, how many were heard that were not said, and the word error rate of all other words.
"""

import argparse
import random
from collections import Counter
from pathlib import Path

import asr
from asr.data.cuts import load_cuts, text_of
from asr.data.reading import read_samples
from asr.decoding import BeamConfig, BeamSearch
from asr.scoring.align import align
from asr.text import normalize


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="BUNDLE")
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--rare", type=int, default=2, metavar="N", help="most occurrences in training")
    parser.add_argument("--lm", metavar="FILE")
    parser.add_argument("--lm-weight", type=float, default=0.75)
    parser.add_argument("--word-bonus", type=float, default=3.0)
    parser.add_argument("--blank-penalty", type=float, default=0.0)
    parser.add_argument("--bonuses", type=float, nargs="+", default=[0, 2, 4, 6, 8])
    parser.add_argument("--list", metavar="FILE", help="write the hotwords there")
    arguments = parser.parse_args()
    model = asr.load(arguments.model)
    normalizer = model.bundle.normalizer
    cuts = load_cuts(arguments.manifest)
    references = [normalize(text_of(cut) or "", normalizer).split() for cut in cuts]
    trained = Counter(
        word
        for cut in load_cuts(arguments.train)
        for word in normalize(text_of(cut) or "", normalizer).split()
    )
    said = {word for reference in references for word in reference}
    wanted = sorted(word for word in said if trained[word] <= arguments.rare)
    others = sorted(word for word, count in trained.items() if count <= arguments.rare and word not in said)
    distractors = random.Random(0).sample(others, min(len(wanted), len(others)))
    if arguments.list:
        lines = "".join(f"{word}\n" for word in sorted([*wanted, *distractors]))
        Path(arguments.list).write_text(lines, "utf-8")
    samples = [read_samples(cut, model.sample_rate) for cut in cuts]
    spoken = sum(word in wanted for reference in references for word in reference)
    if not spoken:
        parser.error(
            f"no word of {arguments.manifest} is that rare in {arguments.train}; give a larger --rare"
        )
    print(f"{len(wanted)} words said {spoken} times, {len(distractors)} that are not said")
    print("bonus  recall of hotwords  heard, not said  WER of other words  WER of all")
    config = BeamConfig()
    if arguments.lm:
        config = BeamConfig(
            lm_weight=arguments.lm_weight,
            word_bonus=arguments.word_bonus,
            blank_penalty=arguments.blank_penalty,
        )
    for bonus in arguments.bonuses:
        hotwords = dict.fromkeys([*wanted, *distractors], bonus) if bonus else None
        model.decoder = BeamSearch(model.bundle.tokenizer, config, lm=arguments.lm, hotwords=hotwords)
        heard = [transcript.text.split() for transcript in model.transcribe(samples)]  # type: ignore[union-attr]
        print(f"{bonus:5g}  {_row(references, heard, set(wanted), {*wanted, *distractors})}", flush=True)


def _row(references: list[list[str]], heard: list[list[str]], wanted: set[str], hotwords: set[str]) -> str:
    found = spoken = false = errors = words = wrong = length = 0
    for reference, hypothesis in zip(references, heard, strict=True):
        for kind, left, right in align(reference, hypothesis):
            length += left is not None
            wrong += kind != "="
            if left in wanted:
                spoken += 1
                found += kind == "="
            else:
                words += left is not None
                errors += kind != "="
                false += right in hotwords and kind != "="
    rest = f"{100 * errors / words:.2f} %" if words else "-"  # every word may be that rare
    return (
        f"{found:4} of {spoken} ({100 * found / spoken:5.1f} %) {false:16} {rest:>19} "
        f"{100 * wrong / length:9.2f} %"
    )


if __name__ == "__main__":
    main()
