"""Transcripts to score: real ones misheard at random, and sentences of few words, full of ties."""

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
def real(shared_data) -> tuple[list[str], list[str]]:
    """AN4's transcripts, and what a poor recogniser might have heard."""
    lines = (shared_data / "an4/etc/an4_train.transcription").read_text().splitlines()
    references = [
        line.rsplit("(", 1)[0].replace("<s>", "").replace("</s>", "").strip().lower() for line in lines
    ]
    return references, mishear(references, 0.15, seed=2)
