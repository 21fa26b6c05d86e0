"""Shallow fusion: the prefix beam search with a language model, against all sequences written out."""

from functools import cache
from itertools import groupby, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_lms import random_lm

from asr.decoding import align, greedy
from asr.errors import DecodingError
from asr.fusion import FusionSearch
from asr.language_model import LanguageModel
from asr.lm.network import NetworkConfig
from asr.lm.units import TokenUnits
from asr.lm_bundle import LmBundle
from asr.text import CharacterTokenizer
from asr.training.lm.network import RecurrentLm

TOKENIZER = CharacterTokenizer(" ab")


@cache
def small_lm(seed: int = 5) -> LanguageModel:
    import torch

    torch.manual_seed(seed)
    model = RecurrentLm(NetworkConfig(hidden_size=8, embedding_size=4), TOKENIZER.vocab_size)
    weights = {name: 4 * value.detach().numpy() for name, value in model.state_dict().items()}
    return LanguageModel(LmBundle(model.config, TokenUnits(TOKENIZER), weights))


def lm_log_prob(lm: LanguageModel, tokens: tuple[int, ...]) -> float:
    """Give the log-probability of tokens and the end, read as one sentence."""
    ids = np.array([[0, *tokens]])
    hidden, _ = lm.network.read(ids, np.array([len(tokens) + 1]), lm.network.start(1))
    return float(lm.network.output.log_probs_of(hidden[0], np.array([*tokens, 0])).sum())


def exhaustive(log_probs: np.ndarray, weight: float, bonus: float, source_weight: float) -> dict:
    """Give {tokens: score} of every sequence, its paths summed one by one."""
    lm, source = small_lm(), small_lm(6)
    totals: dict[tuple[int, ...], float] = {}
    frames, tokens = log_probs.shape
    for path in product(range(tokens), repeat=frames):
        collapsed = tuple(token for token, _ in groupby(path) if token)
        score = float(sum(log_probs[frame, token] for frame, token in enumerate(path)))
        totals[collapsed] = np.logaddexp(totals.get(collapsed, -np.inf), score)
    return {
        sequence: total
        + weight * lm_log_prob(lm, sequence)
        - source_weight * lm_log_prob(source, sequence)
        + bonus * len(sequence)
        for sequence, total in totals.items()
    }


@settings(deadline=None, max_examples=12)
@given(
    st.integers(0, 10_000),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.5, 2.0]),
    st.sampled_from([0.0, 0.7]),
    st.sampled_from([None, 0.0, 0.3, 1.5]),
    st.sampled_from([0.0, 2.0]),
)
def test_a_wide_beam_finds_what_rescoring_everything_finds(
    seed, frames, weight, bonus, source_weight, penalty
):
    logits = 2 * np.random.default_rng(seed).standard_normal((frames, TOKENIZER.vocab_size))
    log_probs = logits - np.logaddexp.reduce(logits, 1, keepdims=True)
    penalized = log_probs - penalty * (np.arange(TOKENIZER.vocab_size) == 0)
    expected = exhaustive(penalized, weight, bonus, weight if source_weight is None else source_weight)
    options = {"source_lm": small_lm(6), "source_weight": source_weight, "blank_penalty": penalty}
    search = FusionSearch(TOKENIZER, small_lm(), weight, bonus, beam_size=1000, nbest=5, **options)
    (found,) = search([log_probs])
    ranked = sorted(expected, key=lambda sequence: -expected[sequence])[:5]
    listed = [found, *found.alternatives]
    assert [h.score for h in listed] == pytest.approx([expected[s] for s in ranked], abs=1e-3)
    for hypothesis in listed:
        assert hypothesis.score == pytest.approx(expected[tuple(hypothesis.tokens)], abs=1e-3)
        assert hypothesis.lm_score == pytest.approx(
            lm_log_prob(small_lm(), tuple(hypothesis.tokens)), abs=1e-3
        )


def test_without_weight_sure_outputs_are_greedy_ones():
    path = np.array([2, 2, 0, 2, 1, 3, 0])
    log_probs = np.log(np.eye(4)[path] * 0.96 + 0.01)
    (found,) = FusionSearch(TOKENIZER, small_lm(), weight=0.0, beam_size=4)([log_probs])
    (best,) = greedy([log_probs.astype(np.float32)])
    assert found.tokens == best.tokens
    assert found.frames == align(log_probs.astype(np.float32), best.tokens).frames


def test_what_is_no_blank_penalty():
    with pytest.raises(DecodingError, match=r"a blank penalty of -1 was asked for"):
        FusionSearch(TOKENIZER, small_lm(), blank_penalty=-1)


def test_no_frames():
    (found,) = FusionSearch(TOKENIZER, small_lm())([np.zeros((0, 4))])
    assert found.tokens == []


@pytest.mark.parametrize("kind", ["words", "characters"])
def test_a_language_model_over_other_tokens(kind):
    _, lm = random_lm(kind)
    with pytest.raises(DecodingError, match="is not over the recognizer's tokens; expected one that"):
        FusionSearch(TOKENIZER, lm)
