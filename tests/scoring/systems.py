"""Recognizers that never were."""

import random


def mishear(references: list[str], rate: float, seed: int) -> list[str]:
    """Substitute, drop and add words at random."""
    rng = random.Random(seed)
    lexicon = sorted({word for text in references for word in text.split()})
    hypotheses = []
    for text in references:
        heard = []
        for word in text.split():
            chance = rng.random() / rate
            if chance < 0.5:
                heard.append(rng.choice(lexicon))
            elif chance > 0.75:
                heard += [word] if chance > 1 else [word, rng.choice(lexicon)]
        hypotheses.append(" ".join(heard))
    return hypotheses
