"""Log-mel spectrograms of a padded batch, and their normalization.

The spectrogram is librosa's: log(max(melspectrogram(...), FLOOR)) with a Hann window, centered frames, silence
beyond both ends, power spectrum and Slaney's mel filters. Each utterance of a batch gets the frames it would
get alone.
"""

import functools
import math
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.features.config import (
    FLOOR,
    LEAST_CONTRAST,
    LEVEL_TOLERANCE,
    LOUDEST_FRAMES,
    SAMPLE_STD_FLOOR,
    SPEECH_RANGE,
    STD_FLOOR,
    FeatureConfig,
    frame_count,
)
from asr.features.mel import mel_filters

# Frames transformed together: few enough for a processor's cache (twice as fast as whole batches), many
# enough to fill a GPU, and a bound on the memory that hours of audio take.
BLOCK_ON_CPU = 512
BLOCK_ON_GPU = 65536


def log_mel(
    samples: Tensor,
    lengths: Tensor | None = None,
    *,
    sample_rate: int = 16000,
    n_fft: int = 512,
    win_length: int = 400,
    hop_length: int = 160,
    n_mels: int = 80,
    f_min: float = 20.0,
    f_max: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute log-mel spectrograms, natural logarithm of power, on the device of `samples`.

    Computed in double precision: beside a loud voice, single precision is off by 1e-3 in quiet bands.

    Arguments: samples (batch, time) float; lengths (batch,) int64, each utterance's own samples, None for
    all; what lies past them is taken for silence. The rest as in FeatureConfig.
    Returns features (batch, frame, mel) of the samples' type, exactly 0 past each utterance's own frames, and
    their lengths (batch,) int64, by `frame_count`.

    >>> features, lengths = log_mel(torch.zeros(2, 16000), torch.tensor([16000, 8000]))
    >>> features.shape, lengths
    (torch.Size([2, 101, 80]), tensor([101,  51]))
    """
    if samples.ndim != 2 or not samples.is_floating_point():
        raise ValueError(f"expected float samples (batch, time), got {samples.dtype} {tuple(samples.shape)}")
    batch, time = samples.shape
    if lengths is None:
        lengths = torch.full((batch,), time, device=samples.device)
    elif lengths.shape != (batch,):
        raise ValueError(f"expected lengths ({batch},), got {tuple(lengths.shape)}")
    counts = frame_count(lengths, hop_length)
    if samples.numel() == 0:
        return samples.new_zeros(batch, 0, n_mels), counts
    window = _window(win_length, samples.device)
    filters = _filters(sample_rate, n_fft, n_mels, f_min, f_max, samples.device)
    # The window lies in the middle of the n_fft samples of which the middle one is sample frame * hop_length.
    before = n_fft // 2 - (n_fft - win_length) // 2
    silent_past = samples.where(_valid(lengths, time, samples.device), 0)
    windows = F.pad(silent_past, (before, win_length - before)).unfold(1, win_length, hop_length)
    windows = windows[:, : frame_count(time, hop_length)]
    block = BLOCK_ON_CPU if samples.device.type == "cpu" else BLOCK_ON_GPU
    mel = []
    for part in windows.split(max(1, block // batch), dim=1):
        spectrum = torch.fft.rfft(part * window, n_fft)
        mel.append((spectrum.real.square() + spectrum.imag.square()) @ filters)
    features = torch.cat(mel, 1).clamp(min=FLOOR).log().to(samples.dtype)
    return features.where(_valid(counts, features.shape[1], features.device).unsqueeze(-1), 0), counts


def standardized(samples: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Scale each utterance's samples to mean 0 and variance 1; twice is as once.

    Arguments: samples (batch, time) float; lengths (batch,) int64, None for all. Returns the same shape, 0 past them.

    >>> standardized(torch.tensor([[1.0, 3.0, 100.0], [0.0, 0.0, 0.0]]), torch.tensor([2, 3]))
    tensor([[-1.,  1.,  0.],
            [ 0.,  0.,  0.]])
    """
    batch, time = samples.shape
    lengths = torch.full((batch,), time) if lengths is None else lengths
    inside = _valid(lengths, time, samples.device)
    centered = (samples - _mean(samples, inside)[:, None]).where(inside, 0)
    deviation = _mean(centered.square(), inside).sqrt().clamp(min=SAMPLE_STD_FLOOR)
    return centered / deviation[:, None]


def _valid(lengths: Tensor, size: int, device: torch.device) -> Tensor:
    """Return whether a place is within its utterance's own length: (batch, size) bool."""
    return torch.arange(size, device=device) < lengths.to(device).unsqueeze(1)


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)  # a cached inference tensor could not take part in training
def _window(length: int, device: torch.device) -> Tensor:
    return torch.hann_window(length, dtype=torch.float64, device=device)


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)
def _filters(
    sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float | None, device: torch.device
) -> Tensor:
    return torch.tensor(mel_filters(sample_rate, n_fft, n_mels, f_min, f_max), device=device)


def level_of(features: Tensor, frames: Tensor) -> Tensor:
    """Return the mean log power over all bands of each utterance's speech: its level, whatever silence is around it.

    Speech are the frames within 20 dB of the loudest half second.

    Arguments: features (batch, frame, mel) log power; frames (batch,) int64 of each utterance. Returns (batch,), 0 for
    utterances without frames.

    >>> speech, silence = torch.zeros(1, 80, 40), torch.full((1, 500, 40), -20.0)
    >>> levels = [level_of(x, torch.tensor([x.shape[1]])) for x in (speech, torch.cat([silence, speech], 1))]
    >>> [round(float(level), 4) for level in levels]  # the logarithm of 40 bands
    [3.6889, 3.6889]
    """
    power = features.logsumexp(-1)
    inside = _valid(frames, features.shape[1], features.device)
    loudest = power.masked_fill(~inside, -math.inf).topk(min(LOUDEST_FRAMES, power.shape[1]), 1).values
    speech = inside & (power > _mean(loudest, loudest.isfinite())[:, None] - SPEECH_RANGE)
    return _mean(power, speech)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Return the mean along the second axis of the values that count, 0 where none do."""
    return values.where(counted, 0).sum(1) / counted.sum(1).clamp(min=1)


class LogMel(nn.Module):
    """Samples to normalized log-mel features.

    With normalize="global" the buffers `mean` and `std` (mel,) hold the training data's statistics, `level` and
    `level_std` () those of its utterances' levels. They are NaN until `fit_statistics` or a state dict fills them, so
    that forgetting it cannot pass unseen.

    >>> log_mel = LogMel(FeatureConfig(n_mels=40))
    >>> features, lengths = log_mel(torch.randn(2, 16000), torch.tensor([16000, 8000]))
    >>> features.shape, bool(features[1, 51:].any())
    (torch.Size([2, 101, 40]), False)
    """

    mean: Tensor
    std: Tensor
    level: Tensor
    level_std: Tensor

    def __init__(self, config: FeatureConfig):
        super().__init__()
        self.config = config
        if config.normalize == "global":
            self.register_buffer("mean", torch.full((config.n_mels,), torch.nan))
            self.register_buffer("std", torch.full((config.n_mels,), torch.nan))
            self.register_buffer("level", torch.tensor(torch.nan))
            self.register_buffer("level_std", torch.tensor(torch.nan))

    def forward(
        self, samples: Tensor, lengths: Tensor | None = None, leveled: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Compute features (batch, frame, mel), exactly 0 past each utterance's frames, and their lengths.

        Arguments: samples (batch, time) float; lengths (batch,) int64, None for all; leveled, with
        normalize="global", brings utterances that are far louder or quieter than the training data to its level.
        """
        features, frames = self._log_mel(samples, lengths)
        valid = _valid(frames, features.shape[1], features.device).unsqueeze(-1)
        if self.config.normalize == "utterance":
            count = valid.sum(1, keepdim=True).clamp(min=1)
            centered = (features - features.sum(1, keepdim=True) / count).where(valid, 0)
            variance = centered.square().sum(1, keepdim=True) / count
            features = centered / variance.sqrt().clamp(min=STD_FLOOR)
        elif self.config.normalize == "global":
            if leveled:
                features = features - self._excess(features, frames)
            features = ((features - self.mean) / self.std).where(valid, 0)
        return features, frames

    def _excess(self, features: Tensor, frames: Tensor) -> Tensor:
        """Return by how much each utterance's level is off where that is too far, else 0: (batch, 1, 1) nats."""
        power = features.logsumexp(-1)
        inside = _valid(frames, features.shape[1], features.device)
        quiet = power.masked_fill(~inside, torch.nan).nanquantile(0.1, 1)
        level = level_of(features, frames)
        off = level - self.level
        far = (off.abs() > LEVEL_TOLERANCE * self.level_std) & (level - quiet > LEAST_CONTRAST)
        return off.where(far, 0)[:, None, None]

    @torch.no_grad()
    def fit_statistics(self, utterances: Iterable[Tensor | np.ndarray]) -> None:
        """Set `mean` and `std` to those of all frames of these utterances' samples, (time,) float each.

        Raises ValueError where there is nothing to fit them to, or nothing that uses them.
        """
        if self.config.normalize != "global":
            raise ValueError(f"normalize={self.config.normalize!r} uses no statistics of the training data")
        count, total, squares, levels = 0, torch.zeros(()), torch.zeros(()), []
        for samples in utterances:
            features, frames = self._log_mel(torch.as_tensor(samples, device=self.mean.device).unsqueeze(0))
            levels.append(level_of(features, frames))
            features = features[0].double()
            count += len(features)
            total, squares = total + features.sum(0), squares + features.square().sum(0)
        if count == 0:
            raise ValueError("no frames to compute statistics of")
        mean = total / count
        of_utterances = torch.cat(levels)
        self.level.copy_(of_utterances.mean())
        self.level_std.copy_(of_utterances.std(correction=0).clamp(min=STD_FLOOR))
        self.mean.copy_(mean)
        self.std.copy_((squares / count - mean.square()).clamp(min=STD_FLOOR**2).sqrt())

    def _log_mel(self, samples: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        config = self.config
        if config.samples == "standardized":
            samples = standardized(samples, lengths)
        return log_mel(
            samples,
            lengths,
            sample_rate=config.sample_rate,
            n_fft=config.n_fft,
            win_length=config.win_length,
            hop_length=config.hop_length,
            n_mels=config.n_mels,
            f_min=config.f_min,
            f_max=config.f_max,
        )
