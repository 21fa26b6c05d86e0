"""Sizes of the acoustic model: configurations that need no PyTorch."""

import math
from dataclasses import dataclass, field
from typing import Literal

from asr.errors import ConfigError, check_bounds

MOST_LAYERS, MOST_UNITS = 1000, 100_000


@dataclass(frozen=True)
class FrontEndConfig:
    """Convolutions over time and mel, one entry a layer.

    Attributes:
        channels: output channels.
        kernel_sizes: (time, mel) extent of the kernels in frames and mel bands, odd.
        strides: (time, mel) steps; the product of the time steps is the subsampling, 2 or 4 as a rule.
        norm: "batch" normalizes a channel over the batch's valid frames (its running mean when evaluating),
            "layer" each frame over channels and mel bands, "none" leaves them.
        dropout: share of whole channels dropped after each layer.
    """

    channels: tuple[int, ...] = (32, 32)
    kernel_sizes: tuple[tuple[int, int], ...] = ((3, 3), (3, 3))
    strides: tuple[tuple[int, int], ...] = ((2, 2), (2, 2))
    norm: Literal["batch", "layer", "none"] = "batch"
    dropout: float = 0.0

    def __post_init__(self):
        if not len(self.channels) == len(self.kernel_sizes) == len(self.strides):
            raise ConfigError(
                f"model.front_end has {len(self.channels)} channels, {len(self.kernel_sizes)} kernel_sizes and "
                f"{len(self.strides)} strides; give one of each for every convolution"
            )
        if any(size < 1 or size % 2 == 0 for kernel in self.kernel_sizes for size in kernel):
            raise ConfigError(f"model.front_end.kernel_sizes is {self.kernel_sizes}; expected odd numbers")
        if any(step < 1 for steps in self.strides for step in steps):
            raise ConfigError(f"model.front_end.strides is {self.strides}; expected 1 or more")
        check_bounds("model.front_end", self, "channels", least=1, most=MOST_UNITS)
        check_bounds("model.front_end", self, "dropout", least=0, below=1)

    @property
    def subsampling(self) -> int:
        """Return the feature frames for one frame of logits."""
        return math.prod(time for time, _ in self.strides)

    @property
    def reach(self) -> int:
        """Return the feature frames that a frame of the output sees to either side."""
        reach, step = 0, 1
        for (kernel, _), (stride, _) in zip(self.kernel_sizes, self.strides, strict=True):
            reach += kernel // 2 * step
            step *= stride
        return reach

    def output_frames(self, frames: int) -> int:
        """Return the frames of logits for an utterance of so many feature frames.

        >>> FrontEndConfig().output_frames(101)
        26
        """
        for time, _ in self.strides:
            frames = -(-frames // time)
        return frames


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the acoustic model.

    Attributes:
        front_end: the convolutions.
        cell: recurrent cell: lstm, peephole, cifg, cifg_peephole, gru or rnn_tanh.
        layers: recurrent layers.
        hidden_size: units of a layer in each direction.
        proj_size: width each direction's output is projected to, 0 for none (LSTM family).
        bidirectional: reading of each utterance in both directions; false for streaming models.
        layer_norm: layer normalization inside the cell (LSTM family without peepholes).
        norm: normalization before each recurrent layer and before the output: "layer" or "none".
        dropout: dropout before each recurrent layer and before the output, one mask an utterance.
        recurrent_dropout: variational dropout on the recurrent connections, one mask an utterance.
        weight_dropout: DropConnect on the recurrent weights.
        zoneout: probability that a unit keeps its hidden and cell state.
        init: initialization of the recurrent layers, "torch" (uniform) or "orthogonal" (recurrent and projection;
            input Xavier).
        forget_bias: initial value of the forget gates' bias; None leaves the initialization's.
        backend: what computes the recurrent layers: "fused" kernels, or the "reference" in plain PyTorch.
        phones: what an output of its own recognizes beside the tokens; training takes them from loss.lexicon.
    """

    front_end: FrontEndConfig = field(default_factory=FrontEndConfig)
    cell: str = "lstm"
    layers: int = 3
    hidden_size: int = 320
    proj_size: int = 0
    bidirectional: bool = True
    layer_norm: bool = False
    norm: Literal["layer", "none"] = "layer"
    dropout: float = 0.1
    recurrent_dropout: float = 0.0
    weight_dropout: float = 0.0
    zoneout: float = 0.0
    init: Literal["torch", "orthogonal"] = "torch"
    forget_bias: float | None = None
    backend: Literal["auto", "reference", "fused"] = "auto"
    phones: tuple[str, ...] = ()

    def __post_init__(self):
        # A model file of any larger size is damaged, or made to exhaust the memory.
        check_bounds("model", self, "layers", least=1, most=MOST_LAYERS)
        check_bounds("model", self, "hidden_size", least=1, most=MOST_UNITS)
        check_bounds("model", self, "proj_size", least=0, most=MOST_UNITS)
        check_bounds(
            "model", self, "dropout", "recurrent_dropout", "weight_dropout", "zoneout", least=0, below=1
        )
