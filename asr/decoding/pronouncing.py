"""CTC beam search among the pronunciations of words, by a model's output of phones."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from asr.decoding.alignment import align, frames_needed
from asr.decoding.beam import LOG10, BeamConfig, BeamSearch, frames_to_search, load_flashlight
from asr.decoding.ctc_score import ctc_scores
from asr.decoding.greedy import Hypothesis
from asr.decoding.vocabulary import Speller
from asr.errors import DecodingError, TextError
from asr.lm.kenlm import load_kenlm
from asr.text import BLANK, CharacterTokenizer, Tokenizer
from asr.text.lexicon import Lexicon
from asr.wording import some

# Texts that each of two searches hands over at least, to be scored by both outputs.
JOINED = 50


class PronouncingSearch(BeamSearch):
    """Decodes with a beam over phones: call it with log-probabilities of tokens and phones, side by side.

    A word that is spelled unlike it sounds is as easily found as any other, and every pronunciation that the lexicon
    gives counts. The words found are written with the model's tokens, whose log-probabilities tell their times and
    confidences. Arguments are those of `BeamSearch`, and

        phones: the model's (`Bundle.model.phones`).
        lexicon: words with their phones, as `Lexicon` reads them. With a language model, only words that it knows.

    Attributes:
        left_out: words of the language model without a pronunciation, and hotwords without one or unknown to it.

    Raises DecodingError.
    """

    reads_phones = True

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: BeamConfig | None = None,
        *,
        phones: Sequence[str],
        lexicon: str | Path,
        lm: str | Path | None = None,
        hotwords: Mapping[str, float] | None = None,
        normalizer: str = "none",
    ):
        self.tokenizer, self.symbols = tokenizer, 1 + len(phones)
        self.config = config or BeamConfig()
        speller = Speller(tokenizer, normalizer)
        wanted = speller.hotwords(hotwords or {})
        ways = _pronunciations(lexicon, phones)
        known = speller.vocabulary(lm, None if lm is not None else lexicon, [])
        self.words = {name: word for name, word in known.items() if word in ways}
        if not self.words:
            raise DecodingError(
                f"the lexicon {lexicon} pronounces none of the {len(known)} words of the language model {lm}, such as "
                f"{next(iter(known.values()))!r}"
            )
        self.spellings = [ways[word] for word in self.words.values()]
        found = set(self.words.values())
        self.hotwords = {word: bonus for word, bonus in wanted.items() if word in found}
        self.left_out = [
            *speller.left_out,
            *(word for word in (*known.values(), *wanted) if word not in found),
        ]
        self.lm = load_kenlm(lm, list(self.words)) if lm is not None else load_flashlight().ZeroLM()
        self.has_lm = lm is not None
        self.separator = None
        self.reweigh(self.config)

    def describe_left_out(self) -> str:
        """Return in words how many are `left_out`, and some of them."""
        return (
            f"{len(self.left_out)} words are left out, as the lexicon does not pronounce them or the language model "
            f"does not know them: {some(self.left_out)}"
        )

    def lm_score(self, labels: Sequence[int]) -> float:
        """Return the language model's log10-probability of a text, by its words' places in `words`."""
        lm, _ = self._parts
        state, total = lm.start(False), 0.0
        for label in labels:
            state, score = lm.score(state, label)
            total += score
        return total + lm.finish(state)[1]

    def _decode(self, log_probs: np.ndarray) -> Hypothesis:
        log_probs = np.asarray(log_probs, np.float32)
        of_tokens, of_phones = np.split(log_probs, [self.tokenizer.vocab_size], axis=1)
        frames = frames_to_search(of_phones)
        best: dict[str, Hypothesis] = {}
        for result, score in self._found(of_phones[frames]) if len(frames) else ():
            names = list(self.words.values())
            text = " ".join(names[label] for label in result.words if label >= 0)
            tokens = self.tokenizer.encode(text)
            if frames_needed(tokens) <= len(of_tokens):
                best.setdefault(text, Hypothesis(tokens, [], [], score))
            if len(best) == self.config.nbest:
                break
        if not best:
            return Hypothesis([], [], [], float(of_phones[:, BLANK].sum()))
        return _placed(list(best.values()), of_tokens, self.tokenizer)


class JointSearch:
    """Decodes by spelling and by pronunciation: two searches, and what both outputs say of the texts that either found.

    A text's score is the mean of the log-probabilities that the tokens and the phones give it, each summed over all
    paths, with the language model's weighted score and the bonus for words. Arguments as for `PronouncingSearch`.
    """

    reads_phones = True

    def __init__(self, tokenizer: Tokenizer, config: BeamConfig | None = None, **options: Any):
        self.config = config or BeamConfig()
        by_spelling = {name: value for name, value in options.items() if name != "phones"}
        self.pronounced = PronouncingSearch(tokenizer, self._wider, **options)
        self.spelled = BeamSearch(tokenizer, self._wider, **by_spelling)
        self.tokenizer, self.hotwords, self.is_free = tokenizer, self.spelled.hotwords, False
        self.left_out, self.describe_left_out = self.pronounced.left_out, self.pronounced.describe_left_out
        self._labels = {word: label for label, word in enumerate(self.pronounced.words.values())}

    @property
    def _wider(self) -> BeamConfig:
        return replace(self.config, nbest=max(self.config.nbest, JOINED))

    def reweigh(self, config: BeamConfig) -> None:
        """Take other sizes and weights, without reading the language model again."""
        self.config = config
        for search in (self.spelled, self.pronounced):
            search.reweigh(self._wider)

    def __call__(self, log_probs: Sequence[np.ndarray]) -> list[Hypothesis]:
        """Decode utterances: log_probs (frame, token + 1 + phone) of each, as `Engine.log_probs` gives them."""
        return [self._decode(np.asarray(utterance, np.float32)) for utterance in log_probs]

    def _decode(self, log_probs: np.ndarray) -> Hypothesis:
        of_tokens, of_phones = np.split(log_probs, [self.tokenizer.vocab_size], axis=1)
        (spelled,), (pronounced,) = self.spelled([of_tokens]), self.pronounced([log_probs])
        found = {
            tuple(self.tokenizer.decode(hypothesis.tokens).split()): None
            for best in (pronounced, spelled)
            for hypothesis in (best, *best.alternatives)
        }
        texts = [words for words in found if self._labels.keys() >= set(words)]
        if not texts:
            return spelled
        scores = self._scores(of_tokens, of_phones, texts)
        order = np.argsort(-scores, kind="stable")[: self.config.nbest]
        best = [
            Hypothesis(self.tokenizer.encode(" ".join(texts[i])), [], [], float(scores[i])) for i in order
        ]
        return _placed(best, of_tokens, self.tokenizer)

    def _scores(
        self, of_tokens: np.ndarray, of_phones: np.ndarray, texts: Sequence[Sequence[str]]
    ) -> np.ndarray:
        """Return the joint score (text,) of each text, which is given by its words."""
        search, config = self.pronounced, self.config
        labels = [[self._labels[word] for word in words] for words in texts]
        phones = [[phone for label in row for phone in search.spellings[label][0]] for row in labels]
        tokens = [self.tokenizer.encode(" ".join(words)) for words in texts]
        acoustic = 0.5 * (ctc_scores(of_tokens, tokens) + ctc_scores(of_phones, phones))
        weight = config.lm_weight * LOG10 if search.has_lm else 1.0
        language = weight * np.array([search.lm_score(row) for row in labels])
        return acoustic + language + config.word_bonus * np.array([len(words) for words in texts])


def _placed(best: Sequence[Hypothesis], log_probs: np.ndarray, tokenizer: Tokenizer) -> Hypothesis:
    """Return the first hypothesis, where log-probabilities (frame, token) place it, with the others behind it.

    Where a token parts words, all end with it, if the frames allow: more of a recording may follow.
    """
    if isinstance(tokenizer, CharacterTokenizer) and tokenizer.space in tokenizer.tokens:
        ended = [[*h.tokens, tokenizer.tokens.index(tokenizer.space)] if h.tokens else [] for h in best]
        best = [
            replace(h, tokens=tokens) if frames_needed(tokens) <= len(log_probs) else h
            for h, tokens in zip(best, ended, strict=True)
        ]
    first, *alternatives = best
    if first.tokens:
        first = replace(align(log_probs, first.tokens), score=first.score)
    return replace(first, alternatives=tuple(alternatives))


def _pronunciations(lexicon: str | Path, phones: Sequence[str]) -> dict[str, list[list[int]]]:
    """Return the phones, from 1 on, of each pronunciation of a lexicon's words. Raises DecodingError."""
    place = {phone: index for index, phone in enumerate(phones, start=1)}
    try:
        words = Lexicon.read(lexicon).words
        return {word: [[place[phone] for phone in way] for way in ways] for word, ways in words.items()}
    except TextError as error:
        raise DecodingError(str(error)) from error
    except KeyError as error:
        raise DecodingError(
            f"the lexicon {lexicon} has the phone {error}, which the model lacks; it has {', '.join(phones)}"
        ) from error


def search_of(
    tokenizer: Tokenizer,
    config: BeamConfig,
    *,
    phones: Sequence[str] = (),
    lexicon: str | Path | None = None,
    **options: Any,
) -> BeamSearch | JointSearch:
    """Return a JointSearch for a model with phones and a lexicon with pronunciations, a BeamSearch otherwise."""
    if phones and lexicon is not None and _pronounces(lexicon):
        return JointSearch(tokenizer, config, phones=phones, lexicon=lexicon, **options)
    return BeamSearch(tokenizer, config, lexicon=lexicon, **options)


def _pronounces(lexicon: str | Path) -> bool:
    """Return whether a file's first word is followed by phones, as in a pronouncing dictionary."""
    with suppress(OSError, UnicodeDecodeError), Path(lexicon).open(encoding="utf-8-sig") as file:
        return len(next(filter(None, (line.partition("#")[0].split() for line in file)), [])) > 1
    return False
