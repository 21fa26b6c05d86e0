"""Small recurrent language models that tests make themselves."""

import numpy as np
import torch

from asr.language_model import LanguageModel
from asr.lm.network import NetworkConfig
from asr.lm.units import TokenUnits, Units, WordUnits
from asr.lm_bundle import LmBundle
from asr.text import BpeTokenizer, CharacterTokenizer
from asr.training.lm.network import RecurrentLm

SENTENCES = ["the cat was full", "the cats were full", "a dog was red", "the dogs were here"] * 5
SMALL = {"hidden_size": 12, "embedding_size": 6, "layers": 2}


def units_of(kind: str) -> Units:
    if kind == "words":
        return WordUnits.from_texts(map(str.split, SENTENCES), 100, normalizer="basic")
    if kind == "characters":
        return TokenUnits(CharacterTokenizer.from_texts(SENTENCES), "basic")
    return TokenUnits(BpeTokenizer.train(SENTENCES, 30), "basic")


def random_lm(kind: str = "words", **options) -> tuple[RecurrentLm, LanguageModel]:
    """Give a network of random weights, in PyTorch and as it runs without."""
    torch.manual_seed(7)
    units = units_of(kind)
    network = NetworkConfig(**SMALL | options)
    model = RecurrentLm(network, units.size).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)  # so that states and probabilities differ
    weights = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    return model, LanguageModel(LmBundle(network, units, weights))


def token_log_probs(model: RecurrentLm, ids: list[int]) -> np.ndarray:
    """Give the log-probabilities (token + 1,) of a sentence's tokens and its end, by PyTorch."""
    with torch.no_grad():
        hidden, _ = model(torch.tensor([[0, *ids]]))
        return model.log_probs(hidden)[0].numpy()[np.arange(len(ids) + 1), [*ids, 0]]
