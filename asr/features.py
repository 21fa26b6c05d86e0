"""Log-mel spectrograms of a padded batch, their normalization, and SpecAugment.

The spectrogram is librosa's: log(max(melspectrogram(...), FLOOR)) with a Hann window, centered frames, silence
beyond both ends, power spectrum and Slaney's mel filters. Each utterance of a batch gets the frames it would
get alone.
"""

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.errors import ConfigError, check_bounds

# Lowest mel power, a quarter of what 16-bit quantization adds: only digital silence is touched by it.
FLOOR = 1e-10
# Least standard deviation to divide by, in nats. Speech varies by 1 to 4 in every band; what varies less than
# this is silence, whose rounding errors would otherwise be blown up into features.
STD_FLOOR = 0.1
# An utterance's loudest frames, so many of them, say how loud its speech is; a word has them.
LOUDEST_FRAMES = 50
# In nats: frames within 20 dB of the loudest are taken for speech; what stands out from the quietest tenth by less than
# 10 dB is noise without speech.
SPEECH_RANGE, LEAST_CONTRAST = 4.6, 2.3
# Standard deviations of the training data's level that a recording may be off. At 1.5 AN4 dev keeps its WER, and 10 to
# 30 dB off it is 8 to 12 % where it was 15 to 99; 0.5 costs recordings of several speakers 1 to 2 %.
LEVEL_TOLERANCE = 1.5
# Frames transformed together: few enough for a processor's cache (twice as fast as whole batches), many
# enough to fill a GPU, and a bound on the memory that hours of audio take.
BLOCK_ON_CPU = 512
BLOCK_ON_GPU = 65536

Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True)
class FeatureConfig:
    """How samples become features.

    Attributes:
        sample_rate: of the samples, in Hz.
        n_fft: length of the Fourier transform, in samples, even.
        win_length: length of the Hann window, in samples, at most n_fft.
        hop_length: samples from one frame to the next.
        n_mels: mel bands.
        f_min, f_max: lowest and highest frequency of the bands in Hz; f_max None is half the sample rate.
        normalize: "utterance" gives each band of each utterance mean 0 and variance 1; "global" uses the mean and
            variance of the training data, so that silence around the speech changes nothing, and what is transcribed
            is brought to the training data's level if it is far from it; "none" leaves the log power.
    """

    sample_rate: int = 16000
    n_fft: int = 512
    win_length: int = 400
    hop_length: int = 160
    n_mels: int = 80
    f_min: float = 20.0
    f_max: float | None = None
    normalize: Literal["utterance", "global", "none"] = "utterance"

    def __post_init__(self):
        check_bounds("features", self, "sample_rate", "n_fft", "win_length", "hop_length", "n_mels", least=1)
        if self.win_length > self.n_fft or self.n_fft % 2:
            raise ConfigError(
                f"features.n_fft is {self.n_fft} samples; expected an even number, at least win_length, "
                f"{self.win_length}"
            )
        f_max = self.sample_rate / 2 if self.f_max is None else self.f_max
        if not 0 <= self.f_min < f_max <= self.sample_rate / 2:
            raise ConfigError(
                f"features.f_min and f_max are {self.f_min} and {f_max} Hz; expected 0 <= f_min < f_max <= "
                f"{self.sample_rate / 2}, half the sample rate"
            )
        if self.normalize not in ("utterance", "global", "none"):
            raise ConfigError(
                f"features.normalize is {self.normalize!r}; expected 'utterance', 'global' or 'none'"
            )
        filters = _mel_filters(
            self.sample_rate, self.n_fft, self.n_mels, self.f_min, self.f_max, torch.device("cpu")
        )
        empty = int((filters.sum(0) == 0).sum())
        if empty:
            raise ConfigError(
                f"features.n_mels is {self.n_mels}: {empty} of these bands are narrower than the steps of "
                f"n_fft {self.n_fft}; take fewer bands or a larger n_fft"
            )


def frame_count(samples: Count, hop_length: int) -> Count:
    """Count the frames of so many samples: one is centered on every `hop_length`-th, from the first on.

    Takes an int, or int64 of any shape.

    >>> frame_count(16000, 160), frame_count(159, 160), frame_count(0, 160)
    (101, 1, 0)
    """
    return (samples > 0) * (1 + samples // hop_length)


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
    filters = _mel_filters(sample_rate, n_fft, n_mels, f_min, f_max, samples.device)
    # The window lies in the middle of the n_fft samples of which the middle one is sample frame * hop_length.
    before = n_fft // 2 - (n_fft - win_length) // 2
    silent_past = samples.where(_valid(lengths, time, samples.device), 0)
    windows = F.pad(silent_past, (before, win_length - before)).unfold(1, win_length, hop_length)
    windows = windows[:, : frame_count(time, hop_length)]
    block = BLOCK_ON_CPU if samples.device.type == "cpu" else BLOCK_ON_GPU
    mel = []
    for some in windows.split(max(1, block // batch), dim=1):
        spectrum = torch.fft.rfft(some * window, n_fft)
        mel.append((spectrum.real.square() + spectrum.imag.square()) @ filters)
    features = torch.cat(mel, 1).clamp(min=FLOOR).log().to(samples.dtype)
    return features.where(_valid(counts, features.shape[1], features.device).unsqueeze(-1), 0), counts


def _valid(lengths: Tensor, size: int, device: torch.device) -> Tensor:
    """Whether a place is within its utterance's own length: (batch, size) bool."""
    return torch.arange(size, device=device) < lengths.to(device).unsqueeze(1)


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)  # a cached inference tensor could not take part in training
def _window(length: int, device: torch.device) -> Tensor:
    return torch.hann_window(length, dtype=torch.float64, device=device)


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)
def _mel_filters(
    sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float | None, device: torch.device
) -> Tensor:
    """Triangles of equal area between each mel center's neighbors (Slaney 1998): (frequency, mel)."""
    corners = _mel_corners(sample_rate, n_mels, f_min, f_max)
    low, center, high = corners[:-2], corners[1:-1], corners[2:]
    frequencies = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)[:, None]
    rising, falling = (frequencies - low) / (center - low), (high - frequencies) / (high - center)
    triangles = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return torch.from_numpy(triangles).to(device)


def _mel_corners(sample_rate: int, n_mels: int, f_min: float, f_max: float | None) -> np.ndarray:
    """Where the bands begin, have their centers and end, evenly spaced in mel: (mel + 2,) Hz."""
    lowest, highest = _hertz_to_mel(f_min), _hertz_to_mel(sample_rate / 2 if f_max is None else f_max)
    return _mel_to_hertz(np.linspace(lowest, highest, n_mels + 2))


def mel_centers(config: FeatureConfig) -> Tensor:
    """Give the centers of the mel bands, (mel,) float64 in Hz."""
    corners = _mel_corners(config.sample_rate, config.n_mels, config.f_min, config.f_max)
    return torch.from_numpy(corners[1:-1])


def _hertz_to_mel(hertz: float) -> float:
    """Slaney's scale: linear up to 1000 Hz, which are 15 mel, then 27 mel for each factor of 6.4."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000, 6.4)


def _mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def level_of(features: Tensor, frames: Tensor) -> Tensor:
    """Mean log power over all bands of each utterance's speech: its level, whatever silence is around it.

    Speech are the frames within 20 dB of the loudest half second.

    Arguments: features (batch, frame, mel) log power; frames (batch,) int64 of each utterance. Gives (batch,), 0 for
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
    """Mean along the second axis of the values that count, 0 where none do."""
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
        """How far each utterance's level is off where that is too far, else 0: (batch, 1, 1) nats."""
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


@dataclass(frozen=True)
class SpecAugmentConfig:
    """What SpecAugment hides; the defaults are Park et al.'s policy LD with shorter utterances in mind.

    Attributes:
        frequency_masks: masks over mel bands, for each utterance.
        frequency_width: widest of them, in bands.
        time_masks: masks over frames, for each utterance.
        time_width: widest of them, in frames.
        time_share: widest of them, as a share of the utterance's own frames.
        frequency_warp: most by which an utterance's frequencies are raised or lowered, as a share of them: another
            speaker's vocal tract (Jaitly & Hinton 2013); 0.1 as a rule.
    """

    frequency_masks: int = 2
    frequency_width: int = 27
    time_masks: int = 2
    time_width: int = 100
    time_share: float = 0.2
    frequency_warp: float = 0.0

    def __post_init__(self):
        masks = ("frequency_masks", "frequency_width", "time_masks", "time_width")
        check_bounds("spec_augment", self, *masks, least=0)
        check_bounds("spec_augment", self, "frequency_warp", least=0, below=1)
        check_bounds("spec_augment", self, "time_share", least=0, most=1)


class SpecAugment(nn.Module):
    """Hide random mel bands and stretches of time while training (Park et al. 2019, without the time warp).

    Hidden features become 0, the mean of normalized ones. Widths are uniform from 0 to the configured width,
    time masks no wider than their share of the utterance, and starts uniform where the mask fits. Before that,
    frequencies are warped by a factor that is uniform around 1. In evaluation mode features pass unchanged.

    Arguments: config; centers (mel,), the bands' frequencies in Hz, ascending, which warping needs.
    """

    def __init__(self, config: SpecAugmentConfig, centers: Tensor | None = None):
        super().__init__()
        if config.frequency_warp and centers is None:
            raise ValueError("frequency_warp needs the centers of the mel bands; see mel_centers()")
        self.config = config
        self.centers = centers

    def forward(self, features: Tensor, lengths: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Mask a copy of features (batch, frame, mel) with lengths (batch,), drawing from `generator`.

        >>> augment = SpecAugment(SpecAugmentConfig(time_masks=0, frequency_masks=1, frequency_width=5))
        >>> masked = augment(torch.ones(1, 9, 80), torch.tensor([9]), torch.Generator().manual_seed(2))
        >>> masked.shape, bool((masked == 0).any())
        (torch.Size([1, 9, 80]), True)
        """
        if not self.training:
            return features
        _, frames, mels = features.shape
        config = self.config
        own = lengths.to(features.device, torch.float64).unsqueeze(1)
        bands = torch.full_like(own, mels)
        if config.frequency_warp and self.centers is not None:
            device = None if generator is None else generator.device
            draws = torch.rand(
                len(features), 1, dtype=torch.float64, device=device, generator=generator
            ).cpu()
            features = _warped(features, self.centers, 1 + config.frequency_warp * (2 * draws - 1))
        time_width = (config.time_share * own).floor().clamp(max=config.time_width)
        frequency_width = bands.clamp(max=config.frequency_width)
        hidden_times = _masks(config.time_masks, time_width, own, frames, generator)
        hidden_bands = _masks(config.frequency_masks, frequency_width, bands, mels, generator)
        return features.masked_fill(hidden_times.unsqueeze(2) | hidden_bands.unsqueeze(1), 0.0)


def _warped(features: Tensor, centers: Tensor, factors: Tensor) -> Tensor:
    """Give each band the features at `factors` times its frequency, interpolated between the nearest two bands.

    Arguments: features (batch, frame, mel); centers (mel,) in Hz; factors (batch, 1). Beyond the outer bands' centers
    lie those bands.
    """
    wanted = (centers * factors).clamp(centers[0], centers[-1])
    above = torch.searchsorted(centers, wanted).clamp(min=1)
    share = (wanted - centers[above - 1]) / (centers[above] - centers[above - 1])
    share = share.to(features).unsqueeze(1)
    low, high = (
        features.gather(2, band.to(features.device).unsqueeze(1).expand_as(features))
        for band in (above - 1, above)
    )
    return (1 - share) * low + share * high


def _masks(count: int, width: Tensor, extent: Tensor, size: int, generator: torch.Generator | None) -> Tensor:
    """Draw `count` masks a row, up to `width` wide within `extent`, both (batch, 1).

    Returns (batch, size) bool, True where hidden.
    """
    device = width.device if generator is None else generator.device
    draws = torch.rand(2, len(width), count, dtype=torch.float64, device=device, generator=generator)
    draws = draws.to(width.device)
    widths = (draws[0] * (width + 1)).floor()
    starts = (draws[1] * (extent - widths + 1)).floor()
    places = torch.arange(size, device=width.device)
    hidden = (places >= starts.unsqueeze(-1)) & (places < (starts + widths).unsqueeze(-1))
    return hidden.any(1)
