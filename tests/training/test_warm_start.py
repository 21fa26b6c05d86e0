"""What a model with phones takes from a trained one."""

from dataclasses import replace

import pytest
import torch
from helpers import SMALL_MODEL

from asr.features import FeatureConfig
from asr.features.log_mel import LogMel
from asr.model import AcousticModel
from asr.text import CharacterTokenizer
from asr.torch_bundle import TorchBundle
from asr.training.warm_start import warm_start

LETTERS = CharacterTokenizer(" abc")


def bundle_with(phones=(), tokenizer=LETTERS, seed=0):
    torch.manual_seed(seed)
    model = AcousticModel(replace(SMALL_MODEL, phones=phones), 20, tokenizer.vocab_size)
    return TorchBundle(model, LogMel(FeatureConfig(n_mels=20)), tokenizer, "basic")


def rows_of(bundle, output, names, wanted):
    """An output's rows of the tokens or phones wanted, with their biases."""
    places = [names.index(name) for name in wanted]
    weights = bundle.model.state_dict()
    return torch.cat([weights[f"{output}.weight"], weights[f"{output}.bias"][:, None]], 1)[places]


def test_phones_are_those_of_a_model_with_phones():
    """In whatever order; those that are new keep their initial weights."""
    trained = bundle_with(("B", "D", "K"), seed=1)
    bundle, untouched = (bundle_with(("AE", "K", "B"), seed=2) for _ in range(2))
    assert warm_start(bundle, trained) == "starts from a trained model, which knows 5 of 5 tokens"
    known, ours, theirs = ("", "B", "K"), ["", "AE", "K", "B"], ["", "B", "D", "K"]
    found, expected = (
        rows_of(bundle, "phone_output", ours, known),
        rows_of(trained, "phone_output", theirs, known),
    )
    assert torch.equal(found, expected)
    new = (rows_of(one, "phone_output", ours, ["AE"]) for one in (bundle, untouched))
    assert torch.equal(*new)
    old, weights = trained.model.state_dict(), bundle.model.state_dict()
    assert all(
        torch.equal(weights[name], old[name]) for name in weights if not name.startswith("phone_output")
    )


def test_phones_are_the_tokens_of_a_model_that_learned_phones_first():
    trained = bundle_with(tokenizer=CharacterTokenizer("KBD"), seed=1)
    bundle = bundle_with(("B", "D", "EH"), seed=2)
    assert "knows 1 of 5 tokens" in warm_start(bundle, trained)  # the blank
    blank = trained.tokenizer.tokens[0]
    found = rows_of(bundle, "phone_output", [blank, "B", "D", "EH"], (blank, "B", "D"))
    assert torch.equal(found, rows_of(trained, "output", trained.tokenizer.tokens, (blank, "B", "D")))


@pytest.mark.parametrize("phones", [(), ("K",)])
def test_a_model_without_phones_takes_the_rest(phones):
    trained, bundle = bundle_with(phones, seed=1), bundle_with(seed=2)
    warm_start(bundle, trained)
    old, weights = trained.model.state_dict(), bundle.model.state_dict()
    assert weights
    assert all(torch.equal(weights[name], old[name]) for name in weights)
