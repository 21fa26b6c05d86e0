"""Transcripts to score: sentences misheard at random, and sentences of few words, full of ties."""

import random

import pytest
from systems import mishear


@pytest.fixture(scope="session")
def ties() -> tuple[list[str], list[str]]:
    """Unrelated sentences of two to six words' vocabulary, empty ones among them."""
    rng = random.Random(1)
    sizes = [rng.randint(2, 6) for _ in range(1500)]
    lexicon = ["ab", "bc", "cd", "de", "ef", "fg"]
    sides = ([rng.choices(lexicon[:size], k=rng.randint(0, 14)) for size in sizes] for _ in range(2))
    references, hypotheses = ([" ".join(words) for words in side] for side in sides)
    return references, hypotheses


@pytest.fixture(scope="session")
def sentences() -> tuple[list[str], list[str]]:
    """As many sentences as AN4's training half has, of as many words, and what a poor recognizer might have heard."""
    rng = random.Random(3)
    lexicon = ["rubout", *("".join(rng.choices("abcdeinorst", k=rng.randint(1, 6))) for _ in range(98))]
    references = [" ".join(rng.choices(lexicon, k=rng.randint(1, 12))) for _ in range(948)]
    return references, mishear(references, 0.15, seed=2)
