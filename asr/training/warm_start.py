"""Begin from a trained model, also with another alphabet."""

from collections.abc import Sequence

import torch

from asr.errors import TextError
from asr.text import Tokenizer
from asr.torch_bundle import TorchBundle
from asr.training.begun_from import check_same, flat_sizes


def can_spell(tokenizer: Tokenizer, texts: Sequence[str]) -> bool:
    """Return whether a tokenizer has all letters of normalized texts."""
    letters = set[str]().union(*texts)
    try:
        for letter in letters:
            tokenizer.encode(letter)
    except TextError:
        return False
    return True


@torch.no_grad()
def warm_start(bundle: TorchBundle, trained: TorchBundle) -> str:
    """Copy a trained bundle's weights into an untrained one; of the output those of tokens that both have.

    Tokens are matched by their spelling; the others keep their initial weights. Returns what was taken, in words.
    Raises ConfigError that names the keys that differ.
    """
    check_same(
        flat_sizes(bundle.log_mel.config, bundle.model.config),
        flat_sizes(trained.log_mel.config, trained.model.config),
        "its bundle",
    )
    new, old = bundle.model.state_dict(), trained.model.state_dict()
    output = [name for name in new if name.startswith("output.")]
    place = {token: index for index, token in enumerate(trained.tokenizer.tokens)}
    shared = [(i, place[token]) for i, token in enumerate(bundle.tokenizer.tokens) if token in place]
    ours, theirs = (list(indices) for indices in zip(*shared, strict=True))  # the blank at least
    for name in output:
        new[name][ours] = old[name][theirs]
    bundle.model.load_state_dict({name: new[name] if name in output else old[name] for name in new})
    bundle.log_mel.load_state_dict(trained.log_mel.state_dict())
    return f"starts from a trained model, which knows {len(shared)} of {len(new[output[0]])} tokens"
