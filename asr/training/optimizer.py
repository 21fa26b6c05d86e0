"""The optimizer, its learning rate, and the moving average of the weights."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from asr.model import AcousticModel
from asr.training.config import OptimizerConfig

if TYPE_CHECKING:
    from asr.training.lm.config import LmOptimizerConfig


def make_optimizer(model: AcousticModel, config: OptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW over a model's parameters; weight decay on matrices only, which a normalization's gains are not.

    Each group carries `scale`, its share of the learning rate: `layer_decay` to the power of its distance from the
    output, so that fine-tuning changes the general layers below less than the ones above.
    """
    layers = [model.front_end, *model.recurrent, model.output]
    depth = {id(p): len(layers) - 1 - i for i, layer in enumerate(layers) for p in layer.parameters()}
    gains = {
        id(p) for module in model.modules() if isinstance(module, nn.LayerNorm) for p in module.parameters()
    }
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:  # normalizations between the layers count to the output
            is_matrix = parameter.dim() > 1 and id(parameter) not in gains
            groups.setdefault((depth.get(id(parameter), 0), is_matrix), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": config.weight_decay if is_matrix else 0.0,
                "scale": config.layer_decay**distance,
            }
            for (distance, is_matrix), parameters in groups.items()
        ],
        lr=config.learning_rate,
        betas=config.betas,
        fused=True,
    )


def learning_rate(
    config: "OptimizerConfig | LmOptimizerConfig",
    seconds_seen: float,
    seconds_per_epoch: float,
    total_seconds: float,
) -> float:
    """Rise linearly for `warmup_epochs`, then follow the schedule down to `final_share`.

    The place in the schedule is the seconds of speech seen (of a language model: the tokens), so that batches of any
    size follow the same course.

    >>> config = OptimizerConfig(learning_rate=0.1, warmup_epochs=1.0, final_share=0.0)
    >>> [round(learning_rate(config, seen, 3600.0, 5 * 3600.0), 3) for seen in (0.0, 3600.0, 10800.0, 18000.0)]
    [0.0, 0.1, 0.05, 0.0]
    """
    warmup = config.warmup_epochs * seconds_per_epoch
    if seconds_seen < warmup:
        return config.learning_rate * (seconds_seen + 1.0) / (warmup + 1.0)
    done = min(1.0, (seconds_seen - warmup) / max(total_seconds - warmup, 1.0))
    share = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[
        config.schedule
    ]
    return config.learning_rate * (config.final_share + (1 - config.final_share) * share)


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """Average the weights exponentially (Polyak & Juditsky 1992), following faster at the start."""

    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], steps: Tensor | int) -> None:
        n = float(steps)
        for mean, value in zip(averaged, current, strict=True):
            mean.lerp_(value, 1 - min(decay, (1 + n) / (10 + n)))

    return AveragedModel(model, multi_avg_fn=update)


def gradient_norms(model: AcousticModel) -> dict[str, float]:
    """Return the norm of each layer's gradients, from the input to the output, as `gradient/LAYER`."""
    layers: dict[str, nn.Module] = {f"front_end.{i}": layer for i, layer in enumerate(model.front_end.layers)}
    layers |= {f"recurrent.{i}": layer for i, layer in enumerate(model.recurrent)}
    layers["output"] = model.output

    def norm(layer: nn.Module) -> float:
        gradients: list[Tensor] = [p.grad for p in layer.parameters() if p.grad is not None]
        return float(nn.utils.get_total_norm(gradients))

    return {f"gradient/{name}": norm(layer) for name, layer in layers.items()}
