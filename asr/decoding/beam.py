"""CTC beam search with flashlight-text (Kahn et al. 2022), alone or with a language model over words or tokens."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from asr.decoding.alignment import align
from asr.decoding.greedy import Hypothesis, collapse
from asr.decoding.hotwords import BiasTree
from asr.decoding.vocabulary import NO_LEXICON, Speller, token_names
from asr.errors import DecodingError
from asr.lm.kenlm import load_kenlm, missing_flashlight, read_vocabulary
from asr.text import BLANK, CharacterTokenizer, Tokenizer
from asr.wording import some

LOG10 = math.log(10)  # KenLM's scores are log10, ours natural
# Probability from which on a blank frame leaves nothing to search.
SURE_BLANK = 0.9999
# Words that flashlight's trie holds for one spelling or pronunciation; the most frequent ones are taken.
MOST_HOMOPHONES = 6
# Log-probability of what must not happen.
IMPOSSIBLE = -1e4


@dataclass(frozen=True)
class BeamConfig:
    """How far to search and how to weigh.

    Attributes:
        beam_size: hypotheses kept after each frame.
        beam_threshold: log-probability by which a hypothesis may fall behind the best before it is dropped.
        frame_tokens: the best tokens of each frame that are tried.
        lm_weight: factor on the language model's log-probability.
        word_bonus: added for every word, against the language model's liking for few words; with a lexicon only.
        nbest: how many hypotheses to return.
        blank_penalty: subtracted from the blank's log-probability in every frame searched. CTC takes the blank wherever
            it doubts, and so deletes letters; as hybrid systems divide by the labels' priors (Bourlard and Morgan
            1994; for CTC, Miao et al. 2015), this divides by a constant one of the blank.
    """

    beam_size: int = 32
    beam_threshold: float = 20.0
    frame_tokens: int = 40
    lm_weight: float = 1.0
    word_bonus: float = 0.0
    nbest: int = 1
    blank_penalty: float = 0.0

    def __post_init__(self):
        if self.beam_size < 1 or self.nbest < 1 or self.frame_tokens < 1:
            raise DecodingError(
                f"beam size {self.beam_size} and n-best {self.nbest} were asked for; expected 1 or more of each"
            )
        if not (math.isfinite(self.lm_weight) and self.lm_weight >= 0 and math.isfinite(self.word_bonus)):
            raise DecodingError(
                f"LM weight {self.lm_weight} and word bonus {self.word_bonus} were asked for; expected a weight of 0 "
                "or more and a finite bonus"
            )
        check_blank_penalty(self.blank_penalty)


def check_blank_penalty(penalty: float) -> None:
    """Raise DecodingError for what is no penalty."""
    if not (math.isfinite(penalty) and penalty >= 0):
        raise DecodingError(
            f"a blank penalty of {penalty} was asked for; expected a finite number, 0 or more"
        )


def penalize_blank(log_probs: np.ndarray, penalty: float) -> np.ndarray:
    """Return log-probabilities (..., token) less the penalty at the blank; a copy, unless the penalty is 0."""
    if penalty:
        log_probs = log_probs.copy()
        log_probs[..., BLANK] -= penalty
    return log_probs


class BeamSearch:
    """Decodes with a beam: call it with log-probabilities as `greedy`.

    Arguments:
        tokenizer: the model's.
        config: sizes and weights.
        lm: ARPA file, compressed or not, or KenLM binary. Over words, unless `lexicon` is "none": then over tokens,
            " " written as "▁".
        lexicon: file whose lines begin with a word, the only words to be recognized; without it, the words of the
            language model; "none" lets the model write any word.
        hotwords: bonus, in natural log, for each word to be preferred; they join the lexicon.
        normalizer: name of the one that the model's transcripts went through (`Bundle.normalizer`). Words of the
            language model, the lexicon and the hotwords that hold letters the tokenizer lacks, as capitals, are
            written as it writes them; the language model is asked for them as its file has them.

    Attributes:
        left_out: words of the lexicon and hotwords that the tokenizer lacks letters for all the same.

    Raises DecodingError for files that cannot be used with this model, and where flashlight-text is missing.

    >>> decode = BeamSearch(CharacterTokenizer(" ab"))
    >>> path = np.array([2, 2, 0, 2, 1, 3])
    >>> decode([np.log(np.eye(4, dtype=np.float32)[path] + 1e-6)])[0].tokens
    [2, 2, 1, 3]
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: BeamConfig | None = None,
        *,
        lm: str | Path | None = None,
        lexicon: str | Path | None = None,
        hotwords: Mapping[str, float] | None = None,
        normalizer: str = "none",
    ):
        self.tokenizer, self.symbols = tokenizer, tokenizer.vocab_size
        self.config = config or BeamConfig()
        speller = Speller(tokenizer, normalizer)
        self.hotwords = speller.hotwords(hotwords or {})
        if str(lexicon) == NO_LEXICON or (lexicon is None and lm is None):
            self.words = None
            self.lm = self._token_lm(lm)
        else:
            self.words = speller.vocabulary(lm, lexicon, list(self.hotwords))
            self.spellings = [[speller.spelling(word)] for word in self.words.values()]
            self.lm = load_kenlm(lm, list(self.words)) if lm is not None else load_flashlight().ZeroLM()
        self.left_out = speller.left_out
        self.has_lm = lm is not None
        # Where words are parted by a token, their spelling ends with it, and so does the utterance, by one more frame.
        # Otherwise a word's last token ends it at once, or stays until the next blank: flashlight cannot let it stay
        # otherwise. That blank, and the one that flashlight wants between words, have columns of their own.
        self.separator = None
        if isinstance(tokenizer, CharacterTokenizer) and tokenizer.space in tokenizer.tokens:
            self.separator = tokenizer.tokens.index(tokenizer.space)
        self.reweigh(self.config)

    def describe_left_out(self) -> str:
        """Return in words how many are `left_out`, and some of them."""
        return (
            f"{len(self.left_out)} of the lexicon's words and hotwords are left out, as the model lacks their letters: "
            f"{some(self.left_out)}"
        )

    @property
    def is_free(self) -> bool:
        """Return whether nothing but the model has a say: no language model, lexicon or hotwords."""
        return self.words is None and not self.has_lm and not self.hotwords

    def reweigh(self, config: BeamConfig) -> None:
        """Take other sizes and weights, without reading the language model again."""
        self.config = config
        # The parts live as long as the decoder that uses them.
        self._decoder, self._parts = self._flashlight_decoder()

    def __call__(self, log_probs: Sequence[np.ndarray]) -> list[Hypothesis]:
        """Decode utterances.

        Arguments: log_probs (frame, token) float32 of each, blank at 0. Returns the best hypothesis of each utterance,
        with the others of the n best as its `alternatives`. Scores are what the search ranks by: the blank penalty of
        every frame searched is in them, but not in the confidences and the tokens' frames.
        """
        return [self._decode(utterance) for utterance in log_probs]

    def _decode(self, log_probs: np.ndarray) -> Hypothesis:
        log_probs = np.asarray(log_probs, np.float32)
        frames = frames_to_search(log_probs)
        if not len(frames):
            return Hypothesis([], [], [], float(log_probs[:, BLANK].sum()))
        best: dict[str, Hypothesis] = {}
        for hypothesis in self._search(log_probs[frames], frames):
            spelled = " ".join(self.tokenizer.decode(hypothesis.tokens).split())
            best.setdefault(spelled, hypothesis)  # results come best first
            if len(best) == self.config.nbest:
                break
        if not best:  # no path has a probability: the log-probabilities are no numbers
            return Hypothesis([], [], [], math.nan)
        first, *alternatives = best.values()
        if first.tokens:  # where they are most probable, rather than where the beam first found them
            first = replace(align(log_probs, first.tokens), score=first.score)
        return replace(first, alternatives=tuple(alternatives))

    def _search(self, log_probs: np.ndarray, frames: np.ndarray) -> Iterator[Hypothesis]:
        """Yield what flashlight finds in log-probabilities (frame, token) of the frames numbered so, best first."""
        for result, score in self._found(log_probs):
            path = np.array(result.tokens[1 : len(frames) + 1])  # without flashlight's begin and end
            path[path >= self.symbols] = BLANK
            if self.words is not None:
                ended = max((i for i, word in enumerate(result.words) if word >= 0), default=0)
                path[ended:] = BLANK
            places = np.arange(len(frames))
            yield replace(collapse(path, log_probs[places, path], frames), score=score)

    def _found(self, log_probs: np.ndarray) -> Iterator[tuple[Any, float]]:
        """Yield flashlight's results and their scores, best first."""
        emissions = self._emissions(log_probs)
        for result in self._decoder.decode(emissions.ctypes.data, *emissions.shape):
            # Nothing in the beam may end where a word does: what was begun then is no word.
            unended = self.words is not None and result.score < IMPOSSIBLE / 2
            yield result, result.score - IMPOSSIBLE if unended else result.score

    def _emissions(self, log_probs: np.ndarray) -> np.ndarray:
        """Penalize the blank, and add what flashlight needs beside the tokens: (frame, token), contiguous float32."""
        log_probs = penalize_blank(log_probs, self.config.blank_penalty)
        if self.words is None:
            return np.ascontiguousarray(log_probs)
        if self.separator is not None:
            end = np.full_like(log_probs[:1], IMPOSSIBLE)
            end[0, self.separator] = 0.0
            return np.concatenate([log_probs, end])
        never = np.full_like(log_probs[:, :1], IMPOSSIBLE)
        parted = np.concatenate([log_probs, log_probs[:, BLANK : BLANK + 1], never], axis=1)
        end = np.full_like(parted[:1], IMPOSSIBLE)  # one more blank, at which a last token that stays may end
        end[0, [BLANK, self.symbols]] = 0.0
        return np.concatenate([parted, end])

    def _token_lm(self, lm: str | Path | None) -> Any:
        if lm is None:
            return load_flashlight().ZeroLM()
        names = token_names(self.tokenizer)
        if strangers := sorted(set(read_vocabulary(lm)).difference(names)):
            raise DecodingError(
                f"the language model {lm} is not over this model's tokens: it holds {strangers[0]!r}; build one with "
                "`asr lm build --tokens --model BUNDLE`, or leave out `--lexicon none`"
            )
        return load_kenlm(lm, names)

    def _flashlight_decoder(self) -> tuple[Any, Any]:
        flashlight = load_flashlight()
        config, tokens = self.config, self.symbols
        weight = config.lm_weight * LOG10 if self.has_lm else 1.0
        lm = self.lm
        if self.hotwords:
            weight = max(weight, 1e-3)  # of 0 would silence the hotwords too
            lm = self._biased(weight)
        options = {
            "beam_size": max(config.beam_size, config.nbest),
            "beam_size_token": min(config.frame_tokens, tokens),
            "beam_threshold": config.beam_threshold,
            "lm_weight": weight,
            "sil_score": 0.0,
            "log_add": True,
            "criterion_type": flashlight.CriterionType.CTC,
        }
        if self.words is None:
            free = flashlight.LexiconFreeDecoderOptions(**options)
            return flashlight.LexiconFreeDecoder(free, lm, tokens, BLANK, []), lm
        if self.separator is None:  # both ways to end a word would be added up
            options["log_add"] = False
            options["beam_size_token"] = min(config.frame_tokens + 1, tokens + 1)
        silence = tokens + 1 if self.separator is None else self.separator
        trie = flashlight.Trie(tokens + 2, silence)
        start = lm.start(False)
        scores = [lm.score(start, label)[1] for label in range(len(self.spellings))]
        homophones: Counter[tuple[int, ...]] = Counter()
        for label in sorted(range(len(scores)), key=lambda label: -scores[label]):
            for spelling in self.spellings[label]:
                homophones[tuple(spelling)] += 1
                if homophones[tuple(spelling)] > MOST_HOMOPHONES:
                    continue
                for way in self._ways(spelling):
                    trie.insert(way, label, scores[label])
        trie.smear(flashlight.SmearingMode.MAX)
        lexical = flashlight.LexiconDecoderOptions(
            **options, word_score=config.word_bonus, unk_score=-math.inf
        )
        return flashlight.LexiconDecoder(lexical, trie, lm, silence, BLANK, -1, [], False), (lm, trie)

    def _biased(self, weight: float) -> Any:
        """Return the language model with the hotwords' bonuses, divided by the weight that they will meet."""
        from asr.decoding.biased_lm import BiasedTokens, BiasedWords

        if self.words is None:
            return BiasedTokens(self.lm, BiasTree(self.hotwords, self.tokenizer), weight)
        bonuses = [self.hotwords.get(word, 0.0) / weight for word in self.words.values()]
        return BiasedWords(self.lm, {label: bonus for label, bonus in enumerate(bonuses) if bonus})

    def _ways(self, spelling: list[int]) -> list[list[int]]:
        """Return the token sequences that stand for a word in the trie."""
        if self.separator is not None:
            return [[*spelling, self.separator]]
        until_blank = [*spelling, self.symbols]
        if len(spelling) > 1 and spelling[-1] == spelling[-2]:
            return [until_blank]  # flashlight would take one token for both
        return [spelling, until_blank]


def frames_to_search(log_probs: np.ndarray) -> np.ndarray:
    """Return the numbers of the frames that a search needs: of several sure blanks in a row, one is enough."""
    sure = log_probs[:, BLANK] > math.log(SURE_BLANK)
    return np.flatnonzero(~(sure & np.roll(sure, 1)))


def load_flashlight() -> Any:
    """Return flashlight-text's decoders. Raises DecodingError where it is not installed."""
    try:
        from flashlight.lib.text import decoder
    except ImportError as error:
        raise missing_flashlight() from error
    return decoder
