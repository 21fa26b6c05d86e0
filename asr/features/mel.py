"""Slaney's mel bands (Slaney 1998), as librosa has them: where they lie, and their filters."""

import functools
import math

import numpy as np


@functools.lru_cache(maxsize=16)
def mel_filters(sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float | None) -> np.ndarray:
    """Return triangles of equal area between each mel center's neighbors: (frequency, mel) float64, read-only.

    Arguments as in FeatureConfig; `frequency` counts the n_fft // 2 + 1 of a spectrum.
    """
    corners = _mel_corners(sample_rate, n_mels, f_min, f_max)
    low, center, high = corners[:-2], corners[1:-1], corners[2:]
    frequencies = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)[:, None]
    rising, falling = (frequencies - low) / (center - low), (high - frequencies) / (high - center)
    triangles = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    triangles.flags.writeable = False
    return triangles


def mel_centers(sample_rate: int, n_mels: int, f_min: float, f_max: float | None) -> np.ndarray:
    """Return the centers of the mel bands, (mel,) float64 in Hz; arguments as in FeatureConfig."""
    return _mel_corners(sample_rate, n_mels, f_min, f_max)[1:-1]


def _mel_corners(sample_rate: int, n_mels: int, f_min: float, f_max: float | None) -> np.ndarray:
    """Return where the bands begin, have their centers and end, evenly spaced in mel: (mel + 2,) Hz."""
    lowest, highest = _hertz_to_mel(f_min), _hertz_to_mel(sample_rate / 2 if f_max is None else f_max)
    return _mel_to_hertz(np.linspace(lowest, highest, n_mels + 2))


def _hertz_to_mel(hertz: float) -> float:
    """Slaney's scale: linear up to 1000 Hz, which are 15 mel, then 27 mel for each factor of 6.4."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000, 6.4)


def _mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
