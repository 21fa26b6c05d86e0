"""What a recurrent language model adds to a beam search, its weights tuned on other speakers than it is measured on.

    python scripts/rescoring_gain.py MANIFEST --model BUNDLE --lm NGRAM --rescore-lm DIR --cache nbest.json

Prints the word error rate of the beam search without and with the n-gram, each alone, with its 32 best ranked anew
by a bonus for words, and by the recurrent model and such a bonus. Weight and bonus are for each speaker those that are
best for all the others. The paired test compares the last two. The n-best lists are kept in the cache, so that another
language model costs seconds.
"""

import argparse
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

from asr.data.cuts import load_cuts, speaker_of, text_of
from asr.data.reading import read_samples
from asr.decoding import BeamConfig, BeamSearch
from asr.language_model import load_lm
from asr.recognizer import load
from asr.rescoring import CANDIDATES
from asr.scoring import score
from asr.scoring.significance import compare
from asr.text import normalize
from asr.tuning import RESCORE_BONUSES, RESCORE_WEIGHTS


def search(arguments: argparse.Namespace) -> dict:
    """Return the references, speakers, and (text, score) of the n best of both searches."""
    model = load(arguments.model, "cpu")
    bundle = model.bundle
    cuts = [cut for cut in load_cuts(arguments.manifest) if text_of(cut) is not None]
    outputs = [model.log_probs(read_samples(cut, model.sample_rate)) for cut in cuts]
    config = BeamConfig(
        max(CANDIDATES, arguments.beam_size),
        lm_weight=arguments.lm_weight,
        word_bonus=arguments.word_bonus,
        nbest=CANDIDATES,
    )
    found = {
        "references": [normalize(text_of(cut) or "", bundle.normalizer) for cut in cuts],
        "speakers": [speaker_of(cut) for cut in cuts],
    }
    for name, lm in (("beam", None), ("n-gram", arguments.lm)):
        decode = BeamSearch(bundle.tokenizer, config, lm=lm, normalizer=bundle.normalizer)
        found[name] = []
        for best in decode(outputs):
            texts = [bundle.tokenizer.decode(h.tokens) for h in (best, *best.alternatives)]
            scores = [h.score for h in (best, *best.alternatives)]
            rows = [" ".join(normalize(text, bundle.normalizer).split()) for text in texts]
            found[name].append([rows, scores])
    return found


def chosen(lists: list, log_probs: dict[str, float], weight: float, bonus: float) -> list[str]:
    """Return the best text of each n-best list."""
    return [
        texts[
            int(
                np.argmax(
                    [
                        own + weight * log_probs[text] + bonus * len(text.split())
                        for text, own in zip(texts, scores, strict=True)
                    ]
                )
            )
        ]
        for texts, scores in lists
    ]


def cross_tuned(found: dict, name: str, log_probs: dict[str, float], weights: Sequence[float]) -> list[str]:
    """Return texts chosen with, for each speaker, the weight and bonus that make the fewest errors of all others."""
    references, speakers = found["references"], np.array(found["speakers"])
    grid = [(0.0, 0.0), *product(weights, RESCORE_BONUSES)]
    texts = [chosen(found[name], log_probs, *point) for point in grid]
    errors = np.array([score(references, row, bootstrap=0).utterance_errors[:, :3].sum(1) for row in texts])
    result = [""] * len(references)
    for speaker in sorted(set(found["speakers"])):
        best = int(errors[:, speakers != speaker].sum(1).argmin())
        print(f"  {name}, speaker {speaker}: weight {grid[best][0]}, bonus {grid[best][1]}")
        for place in np.flatnonzero(speakers == speaker):
            result[place] = texts[best][place]
    return result


def main() -> None:
    """Search, or read the cache, rescore and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest")
    parser.add_argument("--model", required=True)
    parser.add_argument("--lm", required=True)
    parser.add_argument("--rescore-lm")
    parser.add_argument("--beam-size", type=int, default=32)
    parser.add_argument("--lm-weight", type=float, default=0.5)
    parser.add_argument("--word-bonus", type=float, default=1.0)
    parser.add_argument("--cache", type=Path, required=True)
    arguments = parser.parse_args()
    if not arguments.cache.exists():
        arguments.cache.write_text(json.dumps(search(arguments)))
    found = json.loads(arguments.cache.read_text())
    if arguments.rescore_lm is None:
        return
    texts = sorted({text for name in ("beam", "n-gram") for row, _ in found[name] for text in row})
    log_probs = dict(zip(texts, load_lm(arguments.rescore_lm).log_prob(texts), strict=True))
    for name in ("beam", "n-gram"):
        alone = [row[0] for row, _ in found[name]]
        bonus_only = cross_tuned(found, name, log_probs, [0.0])
        both = cross_tuned(found, name, log_probs, RESCORE_WEIGHTS)
        oracle = [
            min(row, key=lambda text, reference=reference: score([reference], [text], bootstrap=0).wer)
            for (row, _), reference in zip(found[name], found["references"], strict=True)
        ]
        for label, hypotheses in (
            ("alone", alone),
            ("with a bonus tuned alike", bonus_only),
            ("and recurrent", both),
            ("oracle", oracle),
        ):
            print(
                f"{name} {label}: WER {100 * score(found['references'], hypotheses, bootstrap=0).wer:.2f} %"
            )
        fields = {"speaker": found["speakers"]}
        reports = [score(found["references"], texts, fields=fields) for texts in (bonus_only, both)]
        result = compare(*reports)
        print(
            f"{name}: {100 * result.difference:.2f} points fewer errors than with a bonus, 95 % interval "
            f"{result.interval}, resampled by {result.resampled}, matched pairs p {result.matched_pairs.p:.4f}"
        )


if __name__ == "__main__":
    main()
