"""CTC beam search with flashlight-text (Kahn et al. 2022), alone or with a language model over words or tokens."""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asr.decoding.alignment import align
from asr.decoding.cuda_beam import CudaBeamSearch
from asr.decoding.greedy import Hypothesis, collapse
from asr.decoding.hotwords import BiasNode, BiasTree
from asr.errors import DecodingError, TextError
from asr.lm.kenlm import load_kenlm, missing_flashlight, read_vocabulary
from asr.text import BLANK, CharacterTokenizer, Tokenizer, normalize

LOG10 = math.log(10)  # KenLM's scores are log10, ours natural
NO_LEXICON = "none"
NO_WORD = tuple("<[({!#")  # how dictionaries begin what is none, as <UNK>, [NOISE], !SIL
SURE_BLANK = 0.9999  # probability from which on a blank frame leaves nothing to search
IMPOSSIBLE = -1e4  # log probability of what must not happen


@dataclass(frozen=True)
class BeamConfig:
    """How far to search and how to weigh.

    Attributes:
        beam_size: hypotheses kept after each frame.
        beam_threshold: log probability by which a hypothesis may fall behind the best before it is dropped.
        frame_tokens: the best tokens of each frame that are tried.
        lm_weight: factor on the language model's log probability.
        word_bonus: added for every word, against the language model's liking for few words; with a lexicon only.
        nbest: how many hypotheses to return.
    """

    beam_size: int = 32
    beam_threshold: float = 20.0
    frame_tokens: int = 40
    lm_weight: float = 1.0
    word_bonus: float = 0.0
    nbest: int = 1

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


class BeamSearch:
    """Decode with a beam: call it with logits and lengths as `greedy`.

    Logits on a GPU are searched there where nothing but the model has a say: no language model, lexicon or hotwords.

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

    >>> import torch
    >>> decode = BeamSearch(CharacterTokenizer(" ab"))
    >>> path = torch.tensor([[2, 2, 0, 2, 1, 3]])
    >>> decode(torch.nn.functional.one_hot(path, 4) * 9.0, torch.tensor([6]))[0].tokens
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
        self.tokenizer, self.normalizer = tokenizer, normalizer
        self.config = config or BeamConfig()
        written = {text: self._written(text) for text in hotwords or {}}
        self.left_out = [text for text, words in written.items() if not words]
        self.hotwords = {word: bonus for text, bonus in (hotwords or {}).items() for word in written[text]}
        if str(lexicon) == NO_LEXICON or (lexicon is None and lm is None):
            self.words = None
            self.lm = self._token_lm(lm)
        else:
            self.words = self._vocabulary(lm, lexicon)
            self.spellings = [tokenizer.encode(word) for word in self.words.values()]
            self.lm = load_kenlm(lm, list(self.words)) if lm is not None else _flashlight().ZeroLM()
        self.has_lm = lm is not None
        # Where words are parted by a token, their spelling ends with it, and so does the utterance, by one more frame.
        # Otherwise a word's last token ends it at once, or stays until the next blank: flashlight cannot let it stay
        # otherwise. That blank, and the one that flashlight wants between words, have columns of their own.
        self.separator = None
        if isinstance(tokenizer, CharacterTokenizer) and tokenizer.space in tokenizer.tokens:
            self.separator = tokenizer.tokens.index(tokenizer.space)
        self.reweigh(self.config)

    def what_is_left_out(self) -> str:
        """Say of `left_out` how many there are, and some of them."""
        shown = ", ".join(self.left_out[:3])
        return (
            f"left out for letters that the model lacks: {len(self.left_out)} of the lexicon's words and hotwords, "
            f"such as {shown}"
        )

    def reweigh(self, config: BeamConfig) -> None:
        """Take other sizes and weights, without reading the language model again."""
        self.config = config
        self._on_gpu: CudaBeamSearch | None = None
        self._decoder, self._parts = (
            self._flashlight_decoder()
        )  # the parts live as long as the decoder that uses them

    def __call__(self, logits: Tensor, lengths: Tensor) -> list[Hypothesis]:
        """Decode a batch.

        Arguments: logits (batch, frame, token), unnormalized or log probabilities, blank at 0; lengths (batch,) int64.
        Returns the best hypothesis of each utterance, with the others of the n best as its `alternatives`.
        """
        if self.runs_on_gpu(logits):
            if self._on_gpu is None:
                size = max(self.config.beam_size, self.config.nbest)
                self._on_gpu = CudaBeamSearch(self.tokenizer, size, self.config.nbest, SURE_BLANK)
            return self._on_gpu(logits, lengths)
        log_probs = logits.float().log_softmax(-1).cpu().numpy()
        return [self.decode_one(log_probs[i, :n]) for i, n in enumerate(lengths.tolist())]

    def runs_on_gpu(self, logits: Tensor) -> bool:
        """Whether these logits are searched on the GPU that they are on."""
        config = self.config
        free = self.words is None and not self.has_lm and not self.hotwords
        return logits.is_cuda and free and CudaBeamSearch.fits(self.tokenizer, config.beam_size, config.nbest)

    def decode_one(self, log_probs: np.ndarray) -> Hypothesis:
        """Decode one utterance's log probabilities, (frame, token)."""
        sure = log_probs[:, BLANK] > math.log(SURE_BLANK)
        frames = np.flatnonzero(
            ~(sure & np.roll(sure, 1))
        )  # of several sure blanks in a row, one says it all
        if not len(frames):
            return Hypothesis([], [], [], float(log_probs[:, BLANK].sum()))
        emissions = self._emissions(log_probs[frames])
        results = self._decoder.decode(emissions.ctypes.data, *emissions.shape)
        best: dict[str, Hypothesis] = {}
        for result in results:
            path = np.array(result.tokens[1 : len(frames) + 1])  # without flashlight's begin and end
            path[path >= self.tokenizer.vocab_size] = BLANK
            score = result.score
            if (
                self.words is not None
            ):  # nothing in the beam may end where a word does: what was begun is no word
                ended = max((i for i, word in enumerate(result.words) if word >= 0), default=0)
                path[ended:] = BLANK
                score -= IMPOSSIBLE if score < IMPOSSIBLE / 2 else 0.0
            hypothesis = replace(collapse(path, log_probs[frames, path], frames), score=score)
            spelled = " ".join(self.tokenizer.decode(hypothesis.tokens).split())
            best.setdefault(spelled, hypothesis)  # results come best first
            if len(best) == self.config.nbest:
                break
        if not best:  # no path has a probability: the logits are no numbers
            return Hypothesis([], [], [], math.nan)
        first, *others = best.values()
        if first.tokens:  # where they are said most probably, rather than where the beam first heard them
            first = replace(align(torch.from_numpy(log_probs), first.tokens), score=first.score)
        return replace(first, alternatives=tuple(others))

    def _emissions(self, log_probs: np.ndarray) -> np.ndarray:
        """Add what flashlight needs beside the model's tokens: (frame, token), contiguous float32."""
        if self.words is None:
            return np.ascontiguousarray(log_probs)
        if self.separator is not None:
            end = np.full_like(log_probs[:1], IMPOSSIBLE)
            end[0, self.separator] = 0.0
            return np.concatenate([log_probs, end])
        never = np.full_like(log_probs[:, :1], IMPOSSIBLE)
        parted = np.concatenate([log_probs, log_probs[:, BLANK : BLANK + 1], never], axis=1)
        end = np.full_like(parted[:1], IMPOSSIBLE)  # one more blank, at which a last token that stays may end
        end[0, [BLANK, self.tokenizer.vocab_size]] = 0.0
        return np.concatenate([parted, end])

    def _token_lm(self, lm: str | Path | None) -> Any:
        names = token_names(self.tokenizer)
        if lm is None:
            model = _flashlight().ZeroLM()
        else:
            known = set(read_vocabulary(lm))
            if not known.issubset(names):
                stranger = sorted(known.difference(names))[0]
                raise DecodingError(
                    f"the language model {lm} is not over this model's tokens: it holds {stranger!r}; build one with "
                    "`asr lm build --tokens --model BUNDLE`, or leave out `--lexicon none`"
                )
            model = load_kenlm(lm, names)
        return model

    def _vocabulary(self, lm: str | Path | None, lexicon: str | Path | None) -> dict[str, str]:
        """Give the words to recognize, by how the language model's file has them, as the model writes them."""
        in_lm = [] if lm is None else read_vocabulary(lm, optional=lexicon is not None)
        listed = in_lm if lexicon is None else read_lexicon(lexicon)
        written = {word: self._written(word) for word in dict.fromkeys([*in_lm, *listed])}
        self.left_out += [word for word in dict.fromkeys(listed) if not written[word]]
        wanted = dict.fromkeys([own for word in listed for own in written[word]] + list(self.hotwords))
        if not wanted:
            raise DecodingError(
                f"this model can write none of the {len(self.left_out)} words of the language model or lexicon, such "
                f"as {self.left_out[0]!r}: it lacks their letters; `asr lm build --model BUNDLE` writes words as the "
                "model does"
            )
        words = {
            word: written[word][0] for word in in_lm if len(written[word]) == 1 and written[word][0] in wanted
        }
        if in_lm and not words:
            raise DecodingError(
                f"the language model {lm} knows none of the {len(wanted)} words to be recognized, such as "
                f"{next(iter(wanted))!r}; expected one that was built of such words"
            )
        known = set(words.values())
        return words | {own: own for own in wanted if own not in known}

    def _written(self, text: str) -> list[str]:
        """Give the words of a text as the model writes them: as they are or, where it cannot, normalized.

        There are none where it lacks letters for that, too.
        """

        def forms() -> Iterator[str]:
            yield text
            if not text.startswith(NO_WORD):
                yield normalize(text, self.normalizer)

        for form in forms():
            with suppress(TextError):
                for word in form.split():
                    self.tokenizer.encode(word)
                return form.split()
        return []

    def _flashlight_decoder(self) -> tuple[Any, Any]:
        flashlight = _flashlight()
        config, tokens = self.config, self.tokenizer.vocab_size
        weight = config.lm_weight * LOG10 if self.has_lm else 1.0
        # A weight of 0 would silence the hotwords too.
        lm = _biased(self, max(weight, 1e-3)) if self.hotwords else self.lm
        weight = max(weight, 1e-3) if self.hotwords else weight
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
        for label, spelling in enumerate(self.spellings):
            score = lm.score(start, label)[1]
            for way in self._ways(spelling):
                trie.insert(way, label, score)
        trie.smear(flashlight.SmearingMode.MAX)
        lexical = flashlight.LexiconDecoderOptions(
            **options, word_score=config.word_bonus, unk_score=-math.inf
        )
        return flashlight.LexiconDecoder(lexical, trie, lm, silence, BLANK, -1, [], False), (lm, trie)

    def _ways(self, spelling: list[int]) -> list[list[int]]:
        """Give the token sequences that stand for a word in the trie."""
        if self.separator is not None:
            return [[*spelling, self.separator]]
        until_blank = [*spelling, self.tokenizer.vocab_size]
        if len(spelling) > 1 and spelling[-1] == spelling[-2]:
            return [until_blank]  # flashlight would take one token for both
        return [spelling, until_blank]


def token_names(tokenizer: Tokenizer) -> list[str]:
    """Name the tokens for a language model over tokens: a space becomes "▁"."""
    return [token.replace(" ", "▁") for token in tokenizer.tokens]


def read_lexicon(path: str | Path) -> list[str]:
    """Read the first word of every line; what follows, such as a spelling, is left to the tokenizer.

    Raises DecodingError.
    """
    try:
        words = [line.split()[0] for line in Path(path).read_text("utf-8-sig").splitlines() if line.strip()]
    except FileNotFoundError:
        raise DecodingError(f"there is no lexicon {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DecodingError(f"the lexicon {path} cannot be read: {error}") from error
    if not words:
        raise DecodingError(f"the lexicon {path} is empty; expected a word a line")
    return words


def _flashlight() -> Any:
    try:
        from flashlight.lib.text import decoder
    except ImportError as error:
        raise missing_flashlight() from error
    return decoder


def _biased(search: BeamSearch, weight: float) -> Any:
    """Wrap a language model so that hotwords score higher; the bonus is divided by the weight it will meet."""
    base, inner = _flashlight().LM, search.lm

    class BiasedWords(base):
        """Over words: the bonus comes with the word."""

        def __init__(self, words: Mapping[str, str]):
            super().__init__()
            bonuses = [search.hotwords.get(word, 0.0) / weight for word in words.values()]
            self.bonus = {label: bonus for label, bonus in enumerate(bonuses) if bonus}

        def start(self, start_with_nothing: bool):
            return inner.start(start_with_nothing)

        def score(self, state, word: int):
            state, score = inner.score(state, word)
            return state, score + self.bonus.get(word, 0.0)

        def finish(self, state):
            return inner.finish(state)

    class BiasedTokens(base):
        """Over tokens: each state remembers the inner model's and the place in the tree of hotwords."""

        def __init__(self):
            super().__init__()
            self.tree = BiasTree(search.hotwords, search.tokenizer)
            self.places: dict[Any, tuple[Any, BiasNode | None]] = {}

        def start(self, start_with_nothing: bool):
            state = _flashlight().LMState()
            self.places = {state: (inner.start(start_with_nothing), self.tree.start)}
            return state

        def score(self, state, token: int):
            within, node = self.places[state]
            within, score = inner.score(within, token)
            node, change = self.tree.step(node, token)
            following = state.child(token)
            self.places[following] = within, node
            return following, score + change / weight

        def finish(self, state):
            within, node = self.places[state]
            within, score = inner.finish(within)
            following = state.child(-1)
            self.places[following] = within, None
            return following, score + self.tree.end(node) / weight

    return BiasedTokens() if search.words is None else BiasedWords(search.words)
