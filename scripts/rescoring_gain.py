"""What a recurrent language model adds to a beam search, its weights tuned on other speakers than it is measured on.

    python scripts/rescoring_gain.py MANIFEST --model BUNDLE --lm NGRAM --rescore-lm DIR --cache nbest.json

Prints the word error rate of the beam search without and with the n-gram, each alone, with its n best ranked anew
by a bonus for words, by the recurrent model and such a bonus, and with --source-lm by both less the model of the
recognizer's training transcripts. Weights and bonus are for each speaker those that are best for all the others. Paired
tests compare each way with the one before it. The processor time of the search and of the recurrent models is printed,
too. The n-best lists are kept in the cache, so that another language model costs seconds.
"""

import argparse
import json
import time
from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path

import numpy as np

from asr.data.cuts import load_cuts, speaker_of, text_of
from asr.data.reading import read_samples
from asr.decoding import BeamConfig, reads_phones
from asr.decoding.pronouncing import search_of
from asr.language_model import load_lm
from asr.recognizer import load
from asr.rescoring import CANDIDATES
from asr.scoring import score
from asr.scoring.significance import compare
from asr.text import normalize
from asr.tuning import RESCORE_BONUSES, RESCORE_WEIGHTS

SOURCE_WEIGHTS = (0.05, 0.1, 0.2, 0.3)


def search(arguments: argparse.Namespace) -> dict:
    """Return the references, speakers, and (text, score) of the n best of both searches."""
    model = load(arguments.model, "cpu")
    bundle = model.bundle
    cuts = [cut for cut in load_cuts(arguments.manifest) if text_of(cut) is not None]
    outputs = [
        model.log_probs(read_samples(cut, model.sample_rate), phones=bool(bundle.model.phones))
        for cut in cuts
    ]
    spelled = [log_probs[:, : bundle.tokenizer.vocab_size] for log_probs in outputs]
    beam_size = max(CANDIDATES, arguments.beam_size)
    config = BeamConfig(
        beam_size,
        lm_weight=arguments.lm_weight,
        word_bonus=arguments.word_bonus,
        blank_penalty=arguments.blank_penalty,
        nbest=beam_size,
    )
    found = {
        "references": [normalize(text_of(cut) or "", bundle.normalizer) for cut in cuts],
        "speakers": [speaker_of(cut) for cut in cuts],
        "seconds": {},
    }
    options = {"phones": bundle.model.phones, "normalizer": bundle.normalizer}
    for name, lm, lexicon in (("beam", None, None), ("n-gram", arguments.lm, arguments.lexicon)):
        decode = search_of(bundle.tokenizer, config, lm=lm, lexicon=lexicon, **options)
        found[name] = []
        began = time.process_time()
        decoded = decode(outputs if reads_phones(decode) else spelled)
        found["seconds"][name] = time.process_time() - began
        for best in decoded:
            texts = [bundle.tokenizer.decode(h.tokens) for h in (best, *best.alternatives)]
            scores = [h.score for h in (best, *best.alternatives)]
            rows = [" ".join(normalize(text, bundle.normalizer).split()) for text in texts]
            found[name].append([rows, scores])
    return found


Point = tuple[float, float, float]  # weight of the recurrent model, bonus for each word, weight of the source


def chosen(lists: list, models: Sequence[dict[str, float]], point: Point) -> list[str]:
    """Return the best text of each n-best list; models are the log-probabilities of texts by the LM and the source."""
    weight, bonus, source_weight = point

    def total(text: str, own: float) -> float:
        source = source_weight * models[1][text] if source_weight else 0.0
        return own + weight * models[0][text] + bonus * len(text.split()) - source

    return [texts[int(np.argmax(list(map(total, texts, scores))))] for texts, scores in lists]


def cross_tuned(found: dict, name: str, models: Sequence[dict[str, float]], grid: list[Point]) -> list[str]:
    """Return texts chosen with, for each speaker, the point of the grid that makes the fewest errors of all others."""
    references, speakers = found["references"], np.array(found["speakers"])
    texts = [chosen(found[name], models, point) for point in grid]
    errors = np.array([score(references, row, bootstrap=0).utterance_errors[:, :3].sum(1) for row in texts])
    result = [""] * len(references)
    for speaker in sorted(set(found["speakers"])):
        best = int(errors[:, speakers != speaker].sum(1).argmin())
        print(f"  {name}, speaker {speaker}: weight, bonus, source's weight {grid[best]}")
        for place in np.flatnonzero(speakers == speaker):
            result[place] = texts[best][place]
    return result


def report(found: dict, name: str, models: Sequence[dict[str, float]]) -> None:
    """Print the error rates of one search, and the paired tests."""
    references, fields = found["references"], {"speaker": found["speakers"]}
    bonus_only = [(0.0, bonus, 0.0) for bonus in (0.0, *RESCORE_BONUSES)]
    recurrent = [(weight, bonus, 0.0) for weight, bonus in product(RESCORE_WEIGHTS, RESCORE_BONUSES)]
    ways = {
        "alone": [row[0] for row, _ in found[name]],
        "with a bonus": cross_tuned(found, name, models, bonus_only),
        "with a bonus and the recurrent model": cross_tuned(found, name, models, bonus_only + recurrent),
    }
    if len(models) > 1:
        corrected = [
            (weight, bonus, share) for (weight, bonus, _), share in product(recurrent, SOURCE_WEIGHTS)
        ]
        grid = bonus_only + recurrent + corrected
        ways["and less the source"] = cross_tuned(found, name, models, grid)
    reports = {way: score(references, texts, fields=fields) for way, texts in ways.items()}
    for way, result in reports.items():
        print(f"{name} {way}: WER {100 * result.wer:.2f} %")
    best = [
        min(row, key=lambda text, reference=reference: score([reference], [text], bootstrap=0).wer)
        for (row, _), reference in zip(found[name], references, strict=True)
    ]
    print(f"{name}, best of each list: WER {100 * score(references, best, bootstrap=0).wer:.2f} %")
    for before, after in pairwise(reports):
        result = compare(reports[before], reports[after])
        print(
            f"{name}: {after} has {100 * result.difference:.2f} points fewer errors than {before}, 95 % interval "
            f"{result.interval}, resampled by {result.resampled}, matched pairs p {result.matched_pairs.p:.4f}"
        )


def main() -> None:
    """Search, or read the cache, rescore and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest")
    parser.add_argument("--model", required=True)
    parser.add_argument("--lm", required=True)
    parser.add_argument(
        "--lexicon", help="of the n-gram's words, with phones for a model that recognizes them"
    )
    parser.add_argument("--rescore-lm")
    parser.add_argument("--source-lm")
    parser.add_argument("--beam-size", type=int, default=32)
    parser.add_argument("--lm-weight", type=float, default=0.5)
    parser.add_argument("--word-bonus", type=float, default=1.0)
    parser.add_argument("--blank-penalty", type=float, default=0.0)
    parser.add_argument("--cache", type=Path, required=True)
    arguments = parser.parse_args()
    if not arguments.cache.exists():
        arguments.cache.write_text(json.dumps(search(arguments)))
    found = json.loads(arguments.cache.read_text())
    if arguments.rescore_lm is None:
        return
    lms = [load_lm(folder) for folder in (arguments.rescore_lm, arguments.source_lm) if folder is not None]
    for name in ("beam", "n-gram"):
        texts = sorted({text for row, _ in found[name] for text in row})
        began = time.process_time()
        models = [dict(zip(texts, lm.log_prob(texts), strict=True)) for lm in lms]
        print(
            f"{name}: {found['seconds'][name]:.1f} s of processor time for the search, "
            f"{time.process_time() - began:.1f} s for the recurrent models"
        )
        report(found, name, models)


if __name__ == "__main__":
    main()
