"""The acoustic model, top to bottom: log-mel frames -> convolutions -> bidirectional recurrent stack -> logits.

Lengths travel beside every padded tensor, and everything past an utterance's own length is kept at zero, so that the
result for an utterance does not depend on what else is in its batch.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from asr.errors import ConfigError
from asr.model_config import FrontEndConfig, ModelConfig
from asr.recurrent import RecurrentLayer


def mask_padding(values: Tensor, lengths: Tensor) -> Tensor:
    """Set everything past each utterance's length to zero.

    Arguments: values (batch, ..., frame, feature) with frames on the last axis but one; lengths (batch,) int64.
    """
    inside = torch.arange(values.shape[-2], device=values.device) < lengths.to(values.device).unsqueeze(1)
    return values.masked_fill(~inside.reshape(len(lengths), *[1] * (values.dim() - 3), -1, 1), 0.0)


class UtteranceDropout(nn.Module):
    """Dropout with one mask an utterance, the same at every frame (Gal & Ghahramani 2016)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, frame, feature)."""
        if not self.training or not self.rate:
            return x
        return x * nn.functional.dropout(x.new_ones(x.shape[0], 1, x.shape[2]), self.rate)


class ConvLayer(nn.Module):
    """Convolution over time and mel, normalization, ReLU; padding stays zero before and after."""

    def __init__(
        self,
        channels_in: int,
        channels: int,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        mels: int,
        norm: str,
        dropout: float,
    ):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv = nn.Conv2d(channels_in, channels, kernel, stride, padding, bias=norm == "none")
        self.mels = (mels + 2 * padding[1] - kernel[1]) // stride[1] + 1
        self.batch_norm = nn.BatchNorm1d(channels) if norm == "batch" else None
        self.layer_norm = nn.LayerNorm([channels, self.mels]) if norm == "layer" else None
        self.dropout = nn.Dropout2d(dropout)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Return the frames after this convolution: ceil(lengths / time stride)."""
        return torch.div(lengths + self.stride[0] - 1, self.stride[0], rounding_mode="floor")

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """x (batch, channel, frame, mel), zero past lengths -> the same, subsampled."""
        lengths = self.output_lengths(lengths)
        if self.batch_norm is not None and self.batch_norm.training:
            # Channels last is the order in which the normalization goes through memory: twice as fast in all.
            x = self.conv(x.contiguous(memory_format=torch.channels_last))
            return self.dropout(self._rectify_normalized(x, lengths, self.batch_norm)), lengths
        if self.batch_norm is not None:
            x = self._convolve_normalized(x, self.batch_norm)
        elif self.layer_norm is not None:
            x = self.layer_norm(self.conv(x).transpose(1, 2)).transpose(1, 2)
        else:
            x = self.conv(x)
        return mask_padding(self.dropout(x.relu_()), lengths), lengths

    def _convolve_normalized(self, x: Tensor, norm: nn.BatchNorm1d) -> Tensor:
        """Convolve with weights that contain the normalization by the running statistics: one pass instead of three."""
        assert norm.running_mean is not None  # as BatchNorm1d keeps it by default
        assert norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight = self.conv.weight * scale[:, None, None, None]
        return nn.functional.conv2d(
            x, weight, norm.bias - norm.running_mean * scale, self.conv.stride, self.conv.padding
        )

    @staticmethod
    def _rectify_normalized(x: Tensor, lengths: Tensor, norm: nn.BatchNorm1d) -> Tensor:
        """Batch normalization (Ioffe & Szegedy 2015) whose statistics leave the padding out, and ReLU."""
        inside = torch.arange(x.shape[2], device=x.device) < lengths.to(x.device).unsqueeze(1)
        frames = x.permute(0, 2, 3, 1)  # (batch, frame, mel, channel)
        valid = frames[inside]  # (valid frame, mel, channel)
        rectified = torch.zeros_like(frames, memory_format=torch.contiguous_format)
        rectified[inside] = norm(valid.flatten(0, 1)).relu_().view_as(valid)
        return rectified.permute(0, 3, 1, 2)


class ConvFrontEnd(nn.Module):
    """Stack of ConvLayers: (batch, frame, mel) -> (batch, frame / subsampling, channel * mel)."""

    def __init__(self, config: FrontEndConfig, n_mels: int):
        super().__init__()
        self.layers = nn.ModuleList()
        channels_in, mels = 1, n_mels
        for channels, kernel, stride in zip(
            config.channels, config.kernel_sizes, config.strides, strict=True
        ):
            layer = ConvLayer(channels_in, channels, kernel, stride, mels, config.norm, config.dropout)
            self.layers.append(layer)
            channels_in, mels = channels, layer.mels
        self.output_size = channels_in * mels

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Return the frames that leave the front end for utterances of `lengths` frames, int64."""
        for layer in self.layers:
            lengths = layer.output_lengths(lengths)  # type: ignore[operator]
        return lengths

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (batch, frame, mel) -> (batch, frame', channel * mel) and their lengths."""
        x = mask_padding(features, lengths).unsqueeze(1)
        for layer in self.layers:
            x, lengths = layer(x, lengths)
        return x.transpose(1, 2).flatten(2), lengths


def recurrent_layer(config: ModelConfig, input_size: int) -> RecurrentLayer:
    """Make one of the model's recurrent layers; raises ConfigError for one that cannot be as configured."""
    try:
        return RecurrentLayer(
            config.cell,
            input_size,
            config.hidden_size,
            proj_size=config.proj_size,
            bidirectional=config.bidirectional,
            layer_norm=config.layer_norm,
            recurrent_dropout=config.recurrent_dropout,
            weight_dropout=config.weight_dropout,
            zoneout_hidden=config.zoneout,
            zoneout_cell=config.zoneout if config.cell not in ("gru", "rnn_tanh") else 0.0,
            forget_bias=config.forget_bias,
            init=config.init,
            backend=config.backend,
        )
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error


class AcousticModel(nn.Module):
    """Convolutional front end, recurrent stack and linear output over the tokens; blank is token 0.

    Arguments: config; n_mels mel bands a frame; vocab_size tokens, blank included. Raises ConfigError for recurrent
    layers that cannot be as configured.

    >>> model = AcousticModel(ModelConfig(layers=2, hidden_size=16), n_mels=80, vocab_size=29)
    >>> logits, lengths = model(torch.randn(2, 100, 80), torch.tensor([100, 61]))
    >>> logits.shape, lengths
    (torch.Size([2, 25, 29]), tensor([25, 16]))
    """

    def __init__(self, config: ModelConfig, n_mels: int, vocab_size: int):
        super().__init__()
        self.config = config
        # Compute each recurrent layer again in the backward pass rather than keep its activations (Chen et al. 2016).
        self.checkpoint_activations = False
        self.front_end = ConvFrontEnd(config.front_end, n_mels)
        self.norms = nn.ModuleList()
        self.recurrent = nn.ModuleList()
        size = self.front_end.output_size
        for _ in range(config.layers):
            self.norms.append(nn.LayerNorm(size) if config.norm == "layer" else nn.Identity())
            layer = recurrent_layer(config, size)
            self.recurrent.append(layer)
            size = layer.output_size * (2 if config.bidirectional else 1)
        self.norms.append(nn.LayerNorm(size) if config.norm == "layer" else nn.Identity())
        self.dropout = UtteranceDropout(config.dropout)
        self.output = nn.Linear(size, vocab_size)
        self.phone_output = nn.Linear(size, 1 + len(config.phones)) if config.phones else None  # blank at 0

    @property
    def subsampling(self) -> int:
        """Return the feature frames for one frame of logits."""
        return self.config.front_end.subsampling

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Return the frames of logits for utterances of `lengths` feature frames, int64."""
        return self.front_end.output_lengths(lengths)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Score every token at every frame.

        Arguments: features (batch, frame, mel) float32; lengths (batch,) int64, frames of each utterance.
        Returns logits (batch, frame', token) and their lengths; logits past a length mean nothing.
        """
        hidden, lengths = self.encode(features, lengths)
        return self.score(hidden), lengths

    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last recurrent layer's output (batch, frame', feature) and its lengths; see `forward`."""
        x, lengths = self.front_end(features, lengths)
        for norm, layer in zip(self.norms, self.recurrent, strict=False):
            x = self._recur(layer, self.dropout(norm(x)), lengths)
        return x, lengths

    def score(self, hidden: Tensor) -> Tensor:
        """Return the logits (batch, frame, token) of a recurrent layer's output (batch, frame, feature)."""
        return self.output(self.dropout(self.norms[-1](hidden)))

    def score_phones(self, hidden: Tensor) -> Tensor:
        """Return the logits (batch, frame, 1 + phone), blank at 0, of a recurrent layer's output."""
        assert self.phone_output is not None  # asked of models with phones
        return self.phone_output(self.dropout(self.norms[-1](hidden)))

    def _recur(self, layer: nn.Module, x: Tensor, lengths: Tensor) -> Tensor:
        if self.checkpoint_activations and torch.is_grad_enabled():
            return checkpoint(layer, x, lengths, use_reentrant=False)[0]  # type: ignore[index]
        return layer(x, lengths)[0]
