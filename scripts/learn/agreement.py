"""Train each cell as a language model in which a verb agrees with a distant noun, and measure over growing distance.

`python scripts/learn/agreement.py` prints a table: how often a trained model gives the right one of "was" and
"were" more probability, by the number of words between the noun and the verb (after Linzen et al. 2016). Sentences are
"the cats ... were", where the words between are drawn at random, other nouns among them, which the verb must ignore.
Guessing is right in half of them.
"""

import random

import torch

from asr.lm.network import NetworkConfig
from asr.training.lm.network import RecurrentLm

CELLS: dict[str, dict] = {
    "simple RNN": {"cell": "rnn_tanh"},
    "GRU": {"cell": "gru"},
    "LSTM": {"cell": "lstm"},
    "LSTM, forget bias 1": {"cell": "lstm", "forget_bias": 1.0},
    "peepholes, forget bias 1": {"cell": "peephole", "forget_bias": 1.0},
}
NOUNS = [f"{name}{ending}" for name in "cat dog bird king ship tree".split() for ending in ("", "s")]
FILLERS = "which already ate in a red house by some old sea near that long road".split()
WORDS = ["</s>", "the", "was", "were", *NOUNS, *FILLERS]
DISTANCES = (0, 1, 2, 4, 8, 16, 24, 32)
LONGEST_TRAINED = 24
ATTRACTORS = 0.3  # share of other nouns among the words between
STEPS, BATCH, UNITS = 500, 32, 24


def sentence(generator: random.Random, distance: int) -> list[int]:
    """Return the ids of </s>, the, a noun, so many words, and the verb that agrees with the noun."""
    noun = generator.choice(NOUNS)
    between = [
        generator.choice(NOUNS if generator.random() < ATTRACTORS else FILLERS) for _ in range(distance)
    ]
    verb = "were" if noun.endswith("s") else "was"
    return [WORDS.index(word) for word in ("</s>", "the", noun, *between, verb)]


def train(options: dict, seed: int) -> RecurrentLm:
    """Return a language model trained on sentences of all distances up to LONGEST_TRAINED."""
    torch.manual_seed(seed)
    generator = random.Random(seed)
    config = NetworkConfig(hidden_size=UNITS, embedding_size=12, dropout=0.0, **options)
    model = RecurrentLm(config, len(WORDS))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(STEPS):
        distance = generator.randint(0, LONGEST_TRAINED)
        ids = torch.tensor([sentence(generator, distance) for _ in range(BATCH)])
        hidden, _ = model(ids[:, :-1])
        loss = model.loss(hidden.flatten(0, 1), ids[:, 1:].flatten()).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: RecurrentLm, distance: int, count: int = 400) -> float:
    """Return how often the verb that agrees is the more probable one."""
    generator = random.Random(99)
    ids = torch.tensor([sentence(generator, distance) for _ in range(count)])
    scores = model.log_probs(model(ids[:, :-1])[0][:, -1:])[:, 0]
    was, were = WORDS.index("was"), WORDS.index("were")
    return ((scores[:, were] > scores[:, was]) == (ids[:, -1] == were)).float().mean().item()


if __name__ == "__main__":
    print("| cell | " + " | ".join(f"{distance} words" for distance in DISTANCES) + " |")
    print("|---" * (len(DISTANCES) + 1) + "|")
    for name, options in CELLS.items():
        models = [train(options, seed) for seed in (1, 2)]
        shares = [
            100 * sum(accuracy(model, distance) for model in models) / len(models) for distance in DISTANCES
        ]
        print(f"| {name} | " + " | ".join(f"{share:.0f} %" for share in shares) + " |", flush=True)
