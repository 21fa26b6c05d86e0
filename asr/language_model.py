"""A recurrent language model at work: it scores texts, judges words in their context, and continues sentences."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr.bundle import CONFIG_FILE
from asr.engines.onnx_lm import OnnxLm, States
from asr.errors import TextError
from asr.lm.scored import ScoredSentence
from asr.lm.units import END, UNKNOWN, Encoded, TokenUnits
from asr.lm_bundle import LmBundle

# Tokens of sentences that are scored together, and of a beginning that are read at a time.
BATCH_TOKENS, CHUNK = 8192, 512
# Alternatives that are listed, hypotheses that search for them, and tokens of the longest.
EXPECTED, BEAM, LONGEST = 5, 8, 12


@dataclass(frozen=True)
class JudgedWord:
    """What a language model thinks of a word behind the words before it.

    Attributes:
        word: the word.
        log_prob: its natural log-probability; of a word that the model lacks, that of `<unk>`, or NaN.
        rank: how many words are at least as likely, itself included; of a model of characters or pieces, how many first
            tokens. 0 for a word that has none.
        expected: the likeliest words here with their probabilities.
        unknown: whether the model lacks the word.
    """

    word: str
    log_prob: float
    rank: int
    expected: tuple[tuple[str, float], ...]
    unknown: bool = False


class LanguageModel:
    """A recurrent language model; make one with `load_lm`.

    Attributes:
        bundle: the saved model.
        network: what computes it.
    """

    def __init__(self, bundle: LmBundle, threads: int = 1):
        self.bundle, self.units = bundle, bundle.units
        self.network = OnnxLm(bundle, threads)

    def score(self, texts: Iterable[str]) -> list[ScoredSentence]:
        """Score sentences, each read from its own start. Raises TextError for a word too long to be one."""
        words = [self.units.split(text) for text in texts]
        encoded = [self.units.encode(sentence) for sentence in words]
        scores: dict[int, np.ndarray] = {}
        for batch in _batches([sentence.ids for sentence in encoded]):
            rows = self.token_log_probs([encoded[i].ids for i in batch])
            scores.update(zip(batch, rows, strict=True))
        return [
            _scored(sentence, encoded[i], scores[i], isinstance(self.units, TokenUnits))
            for i, sentence in enumerate(words)
        ]

    def log_prob(self, texts: Iterable[str]) -> list[float]:
        """Return the natural log-probability of each sentence with its end."""
        return [sentence.total for sentence in self.score(texts)]

    def token_log_probs(self, sentences: Sequence[list[int]]) -> list[np.ndarray]:
        """Return the log-probabilities (token + 1,) of each sentence's tokens and its end.

        The sentences are read side by side, token by token, and a beginning that several share is read once: the best
        transcripts of a search differ in few words.
        """
        lengths = np.array([len(ids) + 1 for ids in sentences])
        targets = np.full((len(sentences), lengths.max()), END, np.int64)
        for row, ids in enumerate(sentences):
            targets[row, : len(ids)] = ids
        # The beginnings of a length: their last tokens, and the numbers of those that they continue.
        last, before = np.array([END]), np.array([0])
        states, own = self.network.start(1), np.zeros(len(sentences), np.int64)
        asked: list[tuple[np.ndarray, np.ndarray]] = []
        answers, count = np.zeros(targets.shape, np.int64), 0
        for place in range(targets.shape[1]):
            hidden, states = self._step(last, {name: value[:, before] for name, value in states.items()})
            rows = np.flatnonzero(lengths > place)
            pairs, which = np.unique(own[rows] * self.units.size + targets[rows, place], return_inverse=True)
            before, last = np.divmod(pairs, self.units.size)
            asked.append((hidden[before], last))
            answers[rows, place] = count + which
            count += len(pairs)
            goes_on = last != END
            own[rows] = (np.cumsum(goes_on) - 1)[which]
            before, last = before[goes_on], last[goes_on]
        behind, tokens = (np.concatenate(parts) for parts in zip(*asked, strict=True))
        log_probs = self.network.output.log_probs_of(behind, tokens).astype(np.float64)
        return [log_probs[row[:length]] for row, length in zip(answers, lengths, strict=True)]

    def judge(self, words: str | Sequence[str]) -> list[JudgedWord]:
        """Judge each word of a sentence by the words before it. Raises TextError for an empty sentence."""
        sentence = self.units.split(words if isinstance(words, str) else " ".join(words))
        if not sentence:
            raise TextError("there is no word to judge; expected a sentence")
        scored = self.score([" ".join(sentence)])[0]
        judged = []
        for place, word in enumerate(sentence):
            context = self.units.encode(sentence[:place])
            hidden, states = self._read(context.ids + self._separator(context))
            ahead = self.network.output.log_probs(hidden)[0]
            ids = self.units.encode([word]).ids
            rank = int((ahead >= ahead[ids[0]]).sum()) if ids else 0
            judged.append(
                JudgedWord(
                    word,
                    float(scored.log_probs[place]),
                    rank,
                    tuple(self._expected(ahead, states)),
                    bool(scored.unknown[place]),
                )
            )
        return judged

    def complete(
        self,
        text: str,
        count: int = 5,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        seed: int = 1,
        most_words: int = 20,
    ) -> list[str]:
        """Sample continuations of a sentence up to its end.

        Arguments: count, of continuations; temperature, by which log-probabilities are divided: below 1 likelier, above
        1 more daring; top_k, tokens that may come next, 0 for all; seed; most_words of a continuation.
        """
        generator = np.random.default_rng(seed)
        begun = self.units.encode(self.units.split(text))
        return [self._sample(begun, generator, temperature, top_k, most_words) for _ in range(count)]

    def _sample(
        self,
        begun: Encoded,
        generator: np.random.Generator,
        temperature: float,
        top_k: int,
        most_words: int,
    ) -> str:
        hidden, states = self._read(begun.ids + self._separator(begun))
        ids: list[int] = []
        while len(self._text(ids).split()) <= most_words and len(ids) < LONGEST * most_words:
            log_probs = self.network.output.log_probs(hidden)[0] / max(temperature, 1e-6)
            if self.units.kind == "words":
                log_probs[UNKNOWN] = -np.inf
            if 0 < top_k < len(log_probs):
                log_probs[log_probs < np.sort(log_probs)[-top_k]] = -np.inf
            shares = np.exp(log_probs - log_probs.max())
            token = int(generator.choice(len(shares), p=shares / shares.sum()))
            if token == END:
                break
            ids.append(token)
            hidden, states = self._step([token], states)
        return " ".join(self._text(ids).split()[:most_words])

    def _text(self, ids: list[int]) -> str:
        if isinstance(self.units, TokenUnits):
            return self.units.tokenizer.decode(ids)
        return " ".join(self.units.names[i] for i in ids)

    def _separator(self, context: Encoded) -> list[int]:
        """Return the space behind a context's last word, where the model has one."""
        space = self.units.space if isinstance(self.units, TokenUnits) else None
        return [space] if context.ids and space is not None else []

    def _read(self, ids: list[int]) -> tuple[np.ndarray, States]:
        """Read a sentence's beginning; return hidden (1, feature) behind it and the states (1, 1, size)."""
        states, hidden = self.network.start(1), np.zeros((1, 1, 1), np.float32)
        read = [END, *ids]
        for first in range(0, len(read), CHUNK):
            part = read[first : first + CHUNK]
            hidden, states = self.network.read(np.array([part]), np.array([len(part)]), states)
        return hidden[:, -1], states

    def _step(self, tokens: Sequence[int] | np.ndarray, states: States) -> tuple[np.ndarray, States]:
        """Read a token in each row; return hidden (batch, feature) and the states."""
        ids = np.asarray(tokens, np.int64)[:, None]
        hidden, states = self.network.read(ids, np.ones(len(ids), np.int64), states)
        return hidden[:, -1], states

    def _expected(self, ahead: np.ndarray, states: States) -> list[tuple[str, float]]:
        """Return the likeliest next words with their probabilities, of log-probabilities (token,) and states."""
        if isinstance(self.units, TokenUnits):
            return self._likely_words(ahead, states)
        best = np.argsort(-ahead, kind="stable")[: EXPECTED + 1]
        named = [(self.units.names[i], float(np.exp(ahead[i]))) for i in best if i != UNKNOWN]
        return named[:EXPECTED]

    def _likely_words(self, ahead: np.ndarray, states: States) -> list[tuple[str, float]]:
        """Search for likely words token by token with a small beam; a word ends where another or the end begins."""
        begins, firsts = self._begins_word()
        beam: list[tuple[float, list[int], np.ndarray, States]] = [(0.0, [], ahead, states)]
        words: dict[str, float] = {"</s>": float(np.exp(ahead[END]))}
        for _ in range(LONGEST):
            options = []
            for score, ids, log_probs, state in beam:
                if ids:  # the probability that the word ends here
                    ended = float(np.logaddexp.reduce(log_probs[begins]))
                    word = self._text(ids).strip()
                    words[word] = max(words.get(word, 0.0), math.exp(score + ended))
                inside = np.flatnonzero(~begins if ids else firsts)
                for token in inside[np.argsort(-log_probs[inside], kind="stable")[:BEAM]]:
                    options.append((score + float(log_probs[token]), [*ids, int(token)], state))
            options.sort(key=lambda option: -option[0])
            kept = options[:BEAM]
            if not kept or math.exp(kept[0][0]) < sorted(words.values())[-EXPECTED:][0]:
                break
            beam = self._advance(kept)
        ranked = sorted(words.items(), key=lambda item: (-item[1], item[0]))
        return ranked[:EXPECTED]

    def _advance(
        self, options: list[tuple[float, list[int], States]]
    ) -> list[tuple[float, list[int], np.ndarray, States]]:
        joined = {name: np.concatenate([state[name] for _, _, state in options], 1) for name in options[0][2]}
        hidden, states = self._step([ids[-1] for _, ids, _ in options], joined)
        log_probs = self.network.output.log_probs(hidden)
        return [
            (score, ids, log_probs[i], {name: value[:, i : i + 1] for name, value in states.items()})
            for i, (score, ids, _) in enumerate(options)
        ]

    def _begins_word(self) -> tuple[np.ndarray, np.ndarray]:
        """Return for each token whether it ends the word before it, and whether a word may begin with it: (token,)."""
        assert isinstance(self.units, TokenUnits)
        space = self.units.tokenizer.space
        parts = np.array([name.startswith(space) for name in self.units.names])
        ends = parts | (np.arange(len(parts)) == END)
        return ends, ~ends if self.units.space is not None else parts


def load_lm(folder: str | Path, threads: int = 1) -> LanguageModel:
    """Load a recurrent language model: a bundle, or the folder of the run that wrote it (`asr lm train -o`).

    Raises BundleError for what is none.

    >>> load_lm("runs/lm").judge("the cats was full")[2].expected[0]  # doctest: +SKIP
    ('were', 0.31)
    """
    return LanguageModel(LmBundle.load(find_lm(folder)), threads)


def find_lm(folder: str | Path) -> Path:
    """Return the bundle that a folder is, or that a run's folder holds."""
    inside = Path(folder) / "bundle"
    return inside if (inside / CONFIG_FILE).is_file() else Path(folder)


def _batches(sentences: Sequence[list[int]]) -> Iterator[list[int]]:
    """Yield positions of sentences that are read together, neighbors in alphabetical order: they begin alike."""
    batch: list[int] = []
    tokens = 0
    for position in sorted(range(len(sentences)), key=sentences.__getitem__):
        length = len(sentences[position]) + 1
        if batch and tokens + length > BATCH_TOKENS:
            yield batch
            batch, tokens = [], 0
        batch.append(position)
        tokens += length
    if batch:
        yield batch


def _scored(words: list[str], encoded: Encoded, log_probs: np.ndarray, of_tokens: bool) -> ScoredSentence:
    """Sum tokens' log-probabilities (token + 1,) by words."""
    owners = [*encoded.words, len(words)]
    by_word = np.bincount(owners, log_probs, minlength=len(words) + 1)
    unknown = np.zeros(len(words), bool)
    unknown[list(encoded.unknown)] = True
    if of_tokens:
        by_word[:-1][unknown] = np.nan
    return ScoredSentence(words, by_word, unknown)
