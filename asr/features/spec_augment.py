"""SpecAugment: mel bands and stretches of time hidden while training, and frequencies warped."""

import numpy as np
import torch
from torch import Tensor, nn

from asr.features.config import SpecAugmentConfig


class SpecAugment(nn.Module):
    """Hides random mel bands and stretches of time while training (Park et al. 2019, without the time warp).

    Hidden features become 0, the mean of normalized ones. Widths are uniform from 0 to the configured width,
    time masks no wider than their share of the utterance, and starts uniform where the mask fits. Before that,
    frequencies are warped by a factor that is uniform around 1. In evaluation mode features pass unchanged.

    Arguments: config; centers (mel,) float64, the bands' frequencies in Hz, ascending, which warping needs.
    """

    def __init__(self, config: SpecAugmentConfig, centers: np.ndarray | None = None):
        super().__init__()
        if config.frequency_warp and centers is None:
            raise ValueError(
                "frequency_warp needs the centers of the mel bands; see FeatureConfig.mel_centers"
            )
        self.config = config
        self.centers = None if centers is None else torch.tensor(centers)

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
        extents = lengths.to(features.device, torch.float64).unsqueeze(1)
        bands = torch.full_like(extents, mels)
        if config.frequency_warp and self.centers is not None:
            device = None if generator is None else generator.device
            draws = torch.rand(
                len(features), 1, dtype=torch.float64, device=device, generator=generator
            ).cpu()
            features = _warped(features, self.centers, 1 + config.frequency_warp * (2 * draws - 1))
        time_width = (config.time_share * extents).floor().clamp(max=config.time_width)
        frequency_width = bands.clamp(max=config.frequency_width)
        hidden_times = _masks(config.time_masks, time_width, extents, frames, generator)
        hidden_bands = _masks(config.frequency_masks, frequency_width, bands, mels, generator)
        return features.masked_fill(hidden_times.unsqueeze(2) | hidden_bands.unsqueeze(1), 0.0)


def _warped(features: Tensor, centers: Tensor, factors: Tensor) -> Tensor:
    """Return for each band the features at `factors` times its frequency, interpolated between the nearest two bands.

    Arguments: features (batch, frame, mel); centers (mel,) in Hz; factors (batch, 1). Beyond the outer bands' centers
    lie those bands.
    """
    frequencies = (centers * factors).clamp(centers[0], centers[-1])
    above = torch.searchsorted(centers, frequencies).clamp(min=1)
    share = (frequencies - centers[above - 1]) / (centers[above] - centers[above - 1])
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
