"""Begin from a trained model, also with another alphabet."""

import torch

from asr.errors import ConfigError
from asr.torch_bundle import TorchBundle


@torch.no_grad()
def warm_start(bundle: TorchBundle, trained: TorchBundle) -> str:
    """Give an untrained bundle the weights of a trained one; of the output those of tokens that both know.

    Tokens are matched by their spelling; the others keep their initial weights. Returns what was taken, in words.
    Raises ConfigError that names the shapes or features that differ.
    """
    if bundle.log_mel.config != trained.log_mel.config:
        raise ConfigError(
            f"run.warm_start: its features are {trained.log_mel.config}, those of this run {bundle.log_mel.config}"
        )
    new, old = bundle.model.state_dict(), trained.model.state_dict()
    output = [name for name in new if name.startswith("output.")]
    different = [
        name
        for name in new.keys() | old.keys()
        if name not in output and (name not in new or name not in old or new[name].shape != old[name].shape)
    ]
    if different:
        raise ConfigError(
            f"run.warm_start: its model differs in {min(different)}; expected the configuration "
            f"{trained.model.config}"
        )
    place = {token: index for index, token in enumerate(trained.tokenizer.tokens)}
    shared = [(i, place[token]) for i, token in enumerate(bundle.tokenizer.tokens) if token in place]
    ours, theirs = (list(indices) for indices in zip(*shared, strict=True))  # the blank at least
    for name in output:
        new[name][ours] = old[name][theirs]
    bundle.model.load_state_dict({name: new[name] if name in output else old[name] for name in new})
    bundle.log_mel.load_state_dict(trained.log_mel.state_dict())
    return f"begins from a trained model: {len(shared)} of {len(new[output[0]])} tokens are known to it"
