"""A recurrent language model in recognition: it chooses among the best transcripts of a beam search."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from asr.bundle import Bundle
from asr.decoding import Decoder, Hypothesis, RecognitionOptions, align, decoder_of, reads_phones
from asr.errors import DecodingError
from asr.language_model import LanguageModel, load_lm
from asr.lm.units import UNKNOWN_WORD
from asr.text import Tokenizer, normalize
from asr.wording import some

# Transcripts of an utterance that the search hands over at least; a wider beam hands over all that it holds.
CANDIDATES = 32
# Factor on the language model's log-probability where `asr lm tune` stored none.
WEIGHT = 0.5


class Rescorer:
    """Decodes with a search for the n best, and ranks them anew: call it as the search itself.

    A hypothesis's score is the search's, and `weight` times the natural log-probability that the language model gives
    the text with its end, and `bonus` for each word. The language model's part is the hypothesis's `lm_score`. A
    source_lm of the recognizer's training transcripts takes `source_weight` times its log-probability from the search's
    score: the language that the recognizer has learned with its sounds (density ratio, McDermott et al. 2019).

    Arguments: search for several hypotheses; lm; tokenizer of the recognizer; weight; bonus; nbest to keep; source_lm;
    source_weight, None for `weight`. Raises DecodingError for a language model that writes with other letters.
    """

    def __init__(
        self,
        search: Decoder,
        lm: LanguageModel,
        tokenizer: Tokenizer,
        weight: float = WEIGHT,
        bonus: float = 0.0,
        nbest: int = 1,
        source_lm: LanguageModel | None = None,
        source_weight: float | None = None,
    ):
        for model in (lm, source_lm or lm):
            check_letters(model, tokenizer)
        self.search, self.lm, self.tokenizer = search, lm, tokenizer
        self.weight, self.bonus, self.nbest = weight, bonus, nbest
        self.source_lm, self.source_weight = source_lm, weight if source_weight is None else source_weight

    @property
    def reads_phones(self) -> bool:
        """Return whether the search does; see `asr.decoding.reads_phones`."""
        return reads_phones(self.search)

    def prepare(self, utterances: float) -> None:
        """Start the processes of the search, where it has some."""
        if (prepare := getattr(self.search, "prepare", None)) is not None:
            prepare(utterances)

    def __call__(self, log_probs: Sequence[np.ndarray]) -> list[Hypothesis]:
        """Decode utterances: log_probs (frame, token) float32 of each."""
        found = self.candidates(log_probs)
        scores = self.lm_scores(found)
        return [
            self._ranked(hypotheses, own, utterance)
            for hypotheses, own, utterance in zip(found, scores, log_probs, strict=True)
        ]

    def candidates(self, log_probs: Sequence[np.ndarray]) -> list[list[Hypothesis]]:
        """Return the hypotheses of each utterance as the search ranks them, their scores less the source's part."""
        found = [[replace(best, alternatives=()), *best.alternatives] for best in self.search(log_probs)]
        if self.source_lm is None:
            return found
        return [
            [
                replace(hypothesis, score=hypothesis.score - self.source_weight * own)
                for hypothesis, own in zip(hypotheses, scores, strict=True)
            ]
            for hypotheses, scores in zip(found, self.lm_scores(found, self.source_lm), strict=True)
        ]

    def lm_scores(
        self, found: Sequence[Sequence[Hypothesis]], lm: LanguageModel | None = None
    ) -> list[list[float]]:
        """Return a language model's log-probability of each hypothesis, `self.lm`'s unless given."""
        texts = [[self.text(hypothesis) for hypothesis in hypotheses] for hypotheses in found]
        different = sorted({text for row in texts for text in row})  # equal texts are read once
        log_probs = dict(zip(different, (lm or self.lm).log_prob(different), strict=True))
        return [[log_probs[text] for text in row] for row in texts]

    def text(self, hypothesis: Hypothesis) -> str:
        """Return a hypothesis in words."""
        return " ".join(self.tokenizer.decode(hypothesis.tokens).split())

    def total(self, hypothesis: Hypothesis, lm_score: float) -> float:
        """Return the score that hypotheses are ranked by."""
        return hypothesis.score + self.weight * lm_score + self.bonus * len(self.text(hypothesis).split())

    def _ranked(
        self, hypotheses: Sequence[Hypothesis], lm_scores: Sequence[float], log_probs: np.ndarray
    ) -> Hypothesis:
        scored = [
            replace(hypothesis, score=self.total(hypothesis, lm_score), lm_score=lm_score)
            for hypothesis, lm_score in zip(hypotheses, lm_scores, strict=True)
        ]
        order = sorted(
            range(len(scored)), key=lambda i: -scored[i].score
        )  # stable: ties as the search has them
        best = scored[order[0]]
        if order[0] and best.tokens:  # the search aligned its own best only
            aligned = align(np.asarray(log_probs[:, : self.tokenizer.vocab_size], np.float32), best.tokens)
            best = replace(aligned, score=best.score, lm_score=best.lm_score)
        return replace(best, alternatives=tuple(scored[i] for i in order[1 : self.nbest]))


def make_decoder(bundle: Bundle, **options: Unpack[RecognitionOptions]) -> Decoder:
    """Return the decoder that options ask for, with the weights that were tuned for the bundle.

    Raises AsrError for files that cannot be used, DecodingError for options that contradict each other.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    rescoring, fusing, source = (
        {name: given.pop(name) for name in list(given) if name.startswith(prefix)}
        for prefix in ("rescore", "fuse", "source")
    )
    for found, name in ((rescoring, "rescore_lm"), (fusing, "fuse_lm"), (source, "source_lm")):
        if found and name not in found:
            raise DecodingError(
                f"{some(sorted(found))} was given without a recurrent language model; name the one that it is to weigh "
                f"(--{name.replace('_', '-')})"
            )
    if source and not rescoring and not fusing:
        raise DecodingError(
            "source_lm was given alone; expected the language model of the texts to recognize, too (--rescore-lm or "
            "--fuse-lm)"
        )
    if source:
        source["source_lm"] = load_lm(source["source_lm"])
    if fusing:
        return _fusion(bundle, fusing, source, given | rescoring)
    if rescoring:
        weights = (rescoring.get("rescore_weight"), rescoring.get("rescore_bonus"))
        return rescorer_of(bundle, rescoring["rescore_lm"], *weights, given, **source)
    return decoder_of(bundle, **given)


def _fusion(
    bundle: Bundle, fusing: Mapping[str, Any], source: Mapping[str, Any], others: Mapping[str, Any]
) -> Decoder:
    from asr.fusion import FusionSearch

    if strange := sorted(set(others) - {"beam_size", "nbest", "blank_penalty", "processes"}):
        raise DecodingError(
            f"{some(strange)} was given with --fuse-lm, whose search has no n-gram, lexicon or hotwords; expected one "
            "or the other"
        )
    sizes = {name: value for name, value in others.items() if name != "processes"}
    weights = {name.removeprefix("fuse_"): value for name, value in fusing.items() if name != "fuse_lm"}
    return FusionSearch(bundle.tokenizer, load_lm(fusing["fuse_lm"]), **weights, **sizes, **source)


def rescorer_of(
    bundle: Bundle,
    lm: str | Path,
    weight: float | None,
    bonus: float | None,
    options: Mapping[str, Any],
    **source: Any,
) -> Rescorer:
    """Return a Rescorer over the beam search of other options; weights of None are the tuned ones, or the defaults.

    `source` is the Rescorer's source_lm and source_weight.
    """
    nbest, tuned = options.get("nbest") or 1, bundle.decoding
    beam_size = options.get("beam_size") or tuned.get("beam_size", 0)
    search = decoder_of(bundle, **{**options, "nbest": max(nbest, beam_size, CANDIDATES)})
    return Rescorer(
        search,
        load_lm(lm),
        bundle.tokenizer,
        tuned.get("rescore_weight", WEIGHT) if weight is None else weight,
        tuned.get("rescore_bonus", 0.0) if bonus is None else bonus,
        nbest,
        **source,
    )


def check_letters(lm: LanguageModel, tokenizer: Tokenizer) -> None:
    """Raise DecodingError for a language model none of whose letters the recognizer writes."""
    names = [name for name in lm.units.names[1:] if name != UNKNOWN_WORD]
    written = normalize(" ".join(tokenizer.tokens[1:]).replace(tokenizer.space, " "), lm.units.normalizer)
    ours, theirs = ({letter for letter in "".join(texts) if letter.isalnum()} for texts in (written, names))
    if theirs and not ours & theirs:
        raise DecodingError(
            f"the language model {lm.bundle.folder} writes {some(sorted(theirs))}, the recognizer "
            f"{some(sorted(ours))}; expected the same letters: train it with --model BUNDLE, whose normalizer its text "
            "then goes through"
        )
