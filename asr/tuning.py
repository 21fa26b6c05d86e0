"""The weights of a language model in a beam search, tuned on a development set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from asr.data.cuts import load_cuts, text_of
from asr.data.reading import read_samples
from asr.decoding import BeamConfig, BeamSearch, Decoder, greedy, reads_phones
from asr.decoding.pronouncing import search_of
from asr.decoding.vocabulary import NO_LEXICON
from asr.errors import AudioError, ManifestError
from asr.recognizer import Recognizer
from asr.scoring import score
from asr.text import normalize

LM_WEIGHTS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5)
WORD_BONUSES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
BLANK_PENALTIES = (0.0, 1.0, 2.0, 3.0, 4.0)
RESCORE_WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
RESCORE_BONUSES = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
# Utterances whose log-probabilities are computed together.
BATCH = 16


@dataclass(frozen=True)
class Trial:
    """A decoder, and its word error rate on each development set; `config` is None without the language model."""

    name: str
    wers: tuple[float, ...]
    config: BeamConfig | None = None

    @property
    def wer(self) -> float:
        """Return the mean of the sets' word error rates."""
        return sum(self.wers) / len(self.wers)


@dataclass(frozen=True)
class Tuning:
    """What was tried: without the language model, and with it, by weights, bonuses and penalties."""

    without: list[Trial]
    trials: list[Trial]

    @property
    def best(self) -> Trial:
        """Return the first of the best with the language model."""
        return min(self.trials, key=lambda trial: trial.wer)

    @property
    def best_without(self) -> Trial:
        """Return the first of the best without the language model."""
        return min(self.without, key=lambda trial: trial.wer)

    @property
    def helps(self) -> bool:
        """Return whether the language model makes fewer errors than there are without it."""
        return self.best.wer < self.best_without.wer


def tune(
    model: Recognizer,
    manifests: Sequence[str | Path],
    lm: str | Path,
    lexicon: str | Path | None = None,
    *,
    beam_size: int = 32,
    lm_weights: Sequence[float] | None = None,
    word_bonuses: Sequence[float] | None = None,
    blank_penalties: Sequence[float] | None = None,
    on_failure: Callable[[str], object] = lambda message: None,
    on_trial: Callable[[Trial], object] = lambda trial: None,
) -> Tuning:
    """Try weights of a language model with bonuses for words and penalties of the blank; the model is computed once.

    All combinations of the values given are tried, with every second one of those that are not (LM_WEIGHTS,
    WORD_BONUSES, BLANK_PENALTIES); then, from the best one on, the next values of each, until none is better.

    Arguments: manifests to tune on, never those of a test set, which count alike; lm and lexicon as in `BeamSearch`;
    lm_weights, word_bonuses and blank_penalties to try, a bonus of 0 only where any token may end a word; on_failure
    and on_trial, called with each utterance that is left out and each result. Raises ManifestError where no utterance
    is left, DecodingError for files that cannot be used.
    """
    tokenizer, normalizer = model.bundle.tokenizer, model.bundle.normalizer
    search = search_of(
        tokenizer,
        BeamConfig(beam_size),
        phones=model.bundle.model.phones,
        lm=lm,
        lexicon=lexicon,
        normalizer=normalizer,
    )
    sets = []
    for manifest in manifests:
        references, outputs = acoustic_outputs(model, manifest, on_failure, reads_phones(search))
        if not outputs:
            raise ManifestError(f"{manifest} holds no utterance with a transcript that could be read")
        sets.append(([normalize(text, normalizer) for text in references], outputs))

    def wer(decode: Decoder, references: list[str], outputs: list[np.ndarray]) -> float:
        if not reads_phones(decode):
            outputs = [log_probs[:, : tokenizer.vocab_size] for log_probs in outputs]
        texts = [tokenizer.decode(hypothesis.tokens) for hypothesis in decode(outputs)]
        hypotheses = [normalize(" ".join(text.split()), normalizer) for text in texts]
        return score(references, hypotheses, bootstrap=0).wer

    def tried(name: str, decode: Decoder, config: BeamConfig | None = None) -> Trial:
        trial = Trial(name, tuple(wer(decode, *item) for item in sets), config)
        on_trial(trial)
        return trial

    without = [tried("greedy", greedy), tried("beam, no lm", BeamSearch(tokenizer, search.config))]
    trials = []

    def with_lm(weight: float, bonus: float, penalty: float) -> float:
        config = replace(search.config, lm_weight=weight, word_bonus=bonus, blank_penalty=penalty)
        search.reweigh(config)
        trials.append(tried("lm", search, config))
        return trials[-1].wer

    if str(lexicon) == NO_LEXICON:
        word_bonuses = (0.0,)
    given = (lm_weights, word_bonuses, blank_penalties)
    axes = [
        own or default
        for own, default in zip(given, (LM_WEIGHTS, WORD_BONUSES, BLANK_PENALTIES), strict=True)
    ]
    descend(with_lm, axes, [1 if own else 2 for own in given])
    return Tuning(without, trials)


def descend(errors: Callable[..., float], axes: Sequence[Sequence[float]], steps: Sequence[int]) -> None:
    """Look for the least of a function on a grid: coarsely first, then among the neighbors of the best.

    Arguments: errors, called with a value of each axis, at most once a point; axes, their values in order; steps of the
    coarse grid along them, such as 2 for every second value.
    """
    tried: dict[tuple[int, ...], float] = {}
    points = list(product(*(range(0, len(axis), step) for axis, step in zip(axes, steps, strict=True))))
    while points:
        for point in points:
            tried[point] = errors(*(axis[place] for axis, place in zip(axes, point, strict=True)))
        best = min(tried, key=lambda point: tried[point])
        neighbors = [
            (*best[:i], best[i] + step, *best[i + 1 :])
            for i, axis in enumerate(axes)
            for step in (-1, 1)
            if 0 <= best[i] + step < len(axis)
        ]
        points = [point for point in neighbors if point not in tried]


@dataclass(frozen=True)
class RescoringTrial:
    """A weight of a recurrent language model with a bonus for words, and the word error rate on dev."""

    weight: float
    bonus: float
    wer: float


def tune_rescoring(
    model: Recognizer,
    manifests: Sequence[str | Path],
    rescore_lm: str | Path,
    options: Mapping[str, Any],
    *,
    weights: Sequence[float] = RESCORE_WEIGHTS,
    bonuses: Sequence[float] = RESCORE_BONUSES,
    on_failure: Callable[[str], object] = lambda message: None,
    on_trial: Callable[[RescoringTrial], object] = lambda trial: None,
) -> list[RescoringTrial]:
    """Try weights of a recurrent language model that ranks the n best of a beam search anew.

    The acoustic model, the search and the language model are computed once. The first trial is the search alone; those
    of weight 0 tell what a bonus for words does by itself. Arguments: manifests to tune on, all together, never those
    of a test set; rescore_lm, its folder; options of the beam search; weights and bonuses to try. Raises as `tune`.
    """
    from asr.rescoring import rescorer_of

    bundle = model.bundle
    rescorer = rescorer_of(bundle, rescore_lm, None, None, options)
    references, outputs = [], []
    for manifest in manifests:
        texts, log_probs = acoustic_outputs(model, manifest, on_failure, reads_phones(rescorer))
        references += [normalize(text, bundle.normalizer) for text in texts]
        outputs += log_probs
    if not outputs:
        raise ManifestError(
            f"{', '.join(map(str, manifests))} holds no utterance with a transcript that could be read"
        )
    found = rescorer.candidates(outputs)
    lm_scores = rescorer.lm_scores(found)
    texts = [[normalize(rescorer.text(h), bundle.normalizer) for h in hypotheses] for hypotheses in found]
    trials = []
    for weight, bonus in dict.fromkeys([(0.0, 0.0), *product((0.0, *weights), bonuses)]):
        rescorer.weight, rescorer.bonus = weight, bonus
        chosen = []
        for own, hypotheses, scores in zip(texts, found, lm_scores, strict=True):
            totals = [rescorer.total(h, score) for h, score in zip(hypotheses, scores, strict=True)]
            chosen.append(own[int(np.argmax(totals))])
        trials.append(RescoringTrial(weight, bonus, score(references, chosen, bootstrap=0).wer))
        on_trial(trials[-1])
    return trials


def acoustic_outputs(
    model: Recognizer, manifest: str | Path, on_failure: Callable[[str], object], phones: bool = False
) -> tuple[list[str], list[np.ndarray]]:
    """Return the references of a manifest's cuts and their log-probabilities, as `Recognizer.log_probs` gives them.

    Those that have no transcript or cannot be read are left out, with a call of `on_failure`.
    """
    references, outputs, batch = [], [], []
    for cut in sorted(load_cuts(manifest), key=lambda cut: cut.duration):
        if (text := text_of(cut)) is None:
            on_failure(f"{cut.id}: has no transcript to compare with")
            continue
        try:
            batch.append(read_samples(cut, model.sample_rate))
        except AudioError as error:
            on_failure(f"{cut.id}: {error}")
            continue
        references.append(text)
        if len(batch) == BATCH:
            outputs += model.log_probs(batch, phones=phones)
            batch = []
    return references, outputs + model.log_probs(batch, phones=phones)
