"""Begin from a trained model, also with another alphabet."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from asr.errors import TextError
from asr.text import BLANK, Tokenizer
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
    """Copy a trained bundle's weights into an untrained one; of the outputs those of tokens and phones that both have.

    They are matched by their spelling, a phone also with a token; the others keep their initial weights. Returns what
    was taken, in words. Raises ConfigError that names the keys that differ.
    """
    check_same(
        flat_sizes(bundle.log_mel.config, bundle.model.config),
        flat_sizes(trained.log_mel.config, trained.model.config),
        "its bundle",
    )
    new, old = bundle.model.state_dict(), trained.model.state_dict()
    tokens = trained.tokenizer.tokens
    known = _copy_rows(new, "output", bundle.tokenizer.tokens, old, "output", tokens)
    report = f"starts from a trained model, which knows {known} of {bundle.tokenizer.vocab_size} tokens"
    if phones := bundle.model.config.phones:
        _copy_rows(new, "phone_output", [tokens[BLANK], *phones], old, "output", tokens)
        _copy_rows(
            new, "phone_output", ["", *phones], old, "phone_output", ["", *trained.model.config.phones]
        )
    outputs = ("output.", "phone_output.")
    bundle.model.load_state_dict({name: new[name] if name.startswith(outputs) else old[name] for name in new})
    bundle.log_mel.load_state_dict(trained.log_mel.state_dict())
    return report


def _copy_rows(
    new: Mapping[str, Tensor],
    name: str,
    rows: Sequence[str],
    old: Mapping[str, Tensor],
    old_name: str,
    old_rows: Sequence[str],
) -> int:
    """Copy what both outputs name alike; returns how many rows that are."""
    place = {row: index for index, row in enumerate(old_rows)}
    shared = [(index, place[row]) for index, row in enumerate(rows) if row in place]
    ours, theirs = (list(indices) for indices in zip(*shared, strict=True))  # the blank at least
    for part in ("weight", "bias"):
        if f"{old_name}.{part}" in old:
            new[f"{name}.{part}"][ours] = old[f"{old_name}.{part}"][theirs]
    return len(shared)
