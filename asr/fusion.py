"""Shallow fusion: a CTC prefix beam search in which a recurrent language model scores every token as it is appended."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from asr.decoding import Hypothesis, align
from asr.decoding.beam import check_blank_penalty, penalize_blank
from asr.engines.onnx_lm import States
from asr.errors import DecodingError
from asr.language_model import LanguageModel
from asr.lm.units import END, TokenUnits
from asr.text import BLANK, Tokenizer

NEVER = -math.inf


@dataclass
class _Beam:
    """Prefixes, a row each.

    Attributes:
        prefixes: token ids.
        blank, token: log-probability of all paths to the prefix that end with a blank, and with its last token.
        lm: what the language models add to the prefix's score.
        ahead: (row, token) what they add for each token that may follow.
        states: of each language model, (1, row, size) each.
    """

    prefixes: list[tuple[int, ...]]
    blank: np.ndarray
    token: np.ndarray
    lm: np.ndarray
    ahead: np.ndarray
    states: list[States]


class FusionSearch:
    """Decodes with a beam of prefixes (Hannun et al. 2014): call it with log-probabilities as `greedy`.

    A prefix's score is the log-probability of all its paths, `weight` times the language model's, and `bonus` for each
    token; at the end the language model adds that of the sentence's end. The result is deterministic.

    A source_lm of the recognizer's training transcripts corrects for the language that the recognizer has learned with
    them: source_weight times its log-probability is subtracted (density ratio, McDermott et al. 2019).

    Arguments: tokenizer of the recognizer; lm over the same tokens (`asr lm train --model BUNDLE --text.units pieces`);
    weight; bonus; beam_size, prefixes kept after each frame; frame_tokens, best tokens of a frame that are tried; nbest
    to return; source_lm over the same tokens; source_weight, None for `weight`; blank_penalty, as in `BeamConfig`.
    Raises DecodingError for a language model over other tokens.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        lm: LanguageModel,
        weight: float = 0.3,
        bonus: float = 0.0,
        beam_size: int = 16,
        frame_tokens: int = 20,
        nbest: int = 1,
        source_lm: LanguageModel | None = None,
        source_weight: float | None = None,
        blank_penalty: float = 0.0,
    ):
        check_blank_penalty(blank_penalty)
        self.lm, self.bonus = lm, bonus
        self.weighted = [(lm, weight)]
        if source_lm is not None:
            self.weighted.append((source_lm, -(weight if source_weight is None else source_weight)))
        for model, _ in self.weighted:
            _check_tokens(model, tokenizer)
        self.beam_size, self.frame_tokens, self.nbest = beam_size, frame_tokens, nbest
        self.blank_penalty = blank_penalty

    def __call__(self, log_probs: Sequence[np.ndarray]) -> list[Hypothesis]:
        """Decode utterances: log_probs (frame, token) float32 of each, blank at 0."""
        return [self._decode(np.asarray(utterance, np.float64)) for utterance in log_probs]

    def _decode(self, log_probs: np.ndarray) -> Hypothesis:
        beam = self._start()
        for frame in penalize_blank(log_probs, self.blank_penalty):
            beam = self._advance(beam, frame)
        scores = self._scores(beam) + beam.ahead[:, END]
        order = np.argsort(-scores, kind="stable")[: self.nbest].tolist()
        texts = [list(beam.prefixes[row]) for row in order]
        found = []
        for row, tokens, own in zip(order, texts, self.lm.token_log_probs(texts), strict=True):
            aligned = align(log_probs.astype(np.float32), tokens) if tokens else Hypothesis([], [], [], 0.0)
            found.append(replace(aligned, score=float(scores[row]), lm_score=float(own.sum())))
        return replace(found[0], alternatives=tuple(found[1:]))

    def _start(self) -> _Beam:
        ahead, states = self._read([END], [model.network.start(1) for model, _ in self.weighted])
        return _Beam([()], np.zeros(1), np.full(1, NEVER), np.zeros(1), ahead, states)

    def _read(self, tokens: Sequence[int], states: list[States]) -> tuple[np.ndarray, list[States]]:
        """Let the language models read a token in each row; return what they add ahead, and their states."""
        ids, ahead, after = np.array(tokens, np.int64)[:, None], np.zeros(1), []
        for (model, weight), state in zip(self.weighted, states, strict=True):
            hidden, state = model.network.read(ids, np.ones(len(ids), np.int64), state)
            ahead = ahead + weight * model.network.output.log_probs(hidden[:, -1]).astype(np.float64)
            after.append(state)
        return ahead, after

    def _scores(self, beam: _Beam) -> np.ndarray:
        lengths = np.array([len(prefix) for prefix in beam.prefixes])
        return np.logaddexp(beam.blank, beam.token) + beam.lm + self.bonus * lengths

    def _advance(self, beam: _Beam, frame: np.ndarray) -> _Beam:
        """Read a frame (token,): prefixes stay, or grow by a token; the best are kept."""
        tried = np.argsort(-frame[1:], kind="stable")[: self.frame_tokens] + 1
        last = np.array([prefix[-1] if prefix else BLANK for prefix in beam.prefixes])
        whole = np.logaddexp(beam.blank, beam.token)
        blank = whole + frame[BLANK]
        token = np.where(last == BLANK, NEVER, beam.token + frame[last])
        # A token that repeats the last one is a new one only behind a blank.
        grown = np.where(last[:, None] == tried, beam.blank[:, None], whole[:, None]) + frame[tried]
        self._join(beam, tried, grown, token)
        lengths = np.array([len(prefix) for prefix in beam.prefixes])
        stay = np.logaddexp(blank, token) + beam.lm + self.bonus * lengths
        lm = beam.lm[:, None] + beam.ahead[:, tried]
        grow = grown + lm + self.bonus * (lengths[:, None] + 1)
        scores = np.concatenate([stay, grow.ravel()])
        kept = np.argsort(-scores, kind="stable")[: self.beam_size]
        kept = kept[scores[kept] > NEVER]
        stays = kept[kept < len(stay)]
        rows, columns = np.divmod(kept[kept >= len(stay)] - len(stay), len(tried))
        appended = tried[columns]
        prefixes = [beam.prefixes[row] for row in stays]
        prefixes += [(*beam.prefixes[row], int(c)) for row, c in zip(rows, appended, strict=True)]
        ahead, states = beam.ahead[stays], _rows(beam.states, stays)
        if len(rows):
            new, read = self._read(appended.tolist(), _rows(beam.states, rows))
            ahead = np.concatenate([ahead, new])
            states = [
                {name: np.concatenate([old[name], after[name]], 1) for name in old}
                for old, after in zip(states, read, strict=True)
            ]
        return _Beam(
            prefixes,
            np.concatenate([blank[stays], np.full(len(rows), NEVER)]),
            np.concatenate([token[stays], grown[rows, columns]]),
            np.concatenate([beam.lm[stays], lm[rows, columns]]),
            ahead,
            states,
        )

    @staticmethod
    def _join(beam: _Beam, tried: np.ndarray, grown: np.ndarray, token: np.ndarray) -> None:
        """Add what grows to a prefix that is in the beam already to that prefix, in place."""
        row_of = {prefix: row for row, prefix in enumerate(beam.prefixes)}
        column_of = {token_id: column for column, token_id in enumerate(tried.tolist())}
        for row, prefix in enumerate(beam.prefixes):
            parent = row_of.get(prefix[:-1]) if prefix else None
            column = column_of.get(prefix[-1]) if prefix else None
            if parent is not None and column is not None:
                token[row] = np.logaddexp(token[row], grown[parent, column])
                grown[parent, column] = NEVER


def _rows(states: list[States], rows: np.ndarray) -> list[States]:
    return [{name: value[:, rows] for name, value in state.items()} for state in states]


def _check_tokens(lm: LanguageModel, tokenizer: Tokenizer) -> None:
    if not isinstance(lm.units, TokenUnits) or lm.units.names[1:] != tokenizer.tokens[1:]:
        raise DecodingError(
            f"the language model {lm.bundle.folder} is not over the recognizer's tokens; expected one that "
            "`asr lm train --model BUNDLE --text.units pieces` made, or use it with --rescore-lm"
        )
