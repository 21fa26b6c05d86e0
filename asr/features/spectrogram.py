"""The log-mel spectrogram of one recording in numpy, for pictures; `log_mel` computes a model's features."""

import numpy as np

from asr.features.config import FLOOR, FeatureConfig, frame_count


def spectrogram(samples: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Return log-mel features (frame, mel) float32 of samples (time,), natural logarithm of power, not normalized.

    >>> spectrogram(np.zeros(16000, np.float32), FeatureConfig(n_mels=40)).shape
    (101, 40)
    """
    frames = frame_count(len(samples), config.hop_length)
    if not frames:
        return np.zeros((0, config.n_mels), np.float32)
    padded = np.pad(samples.astype(np.float64), config.n_fft // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, config.n_fft)[:: config.hop_length][:frames]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.win_length) / config.win_length)
    before = (config.n_fft - config.win_length) // 2
    hann = np.pad(hann, (before, config.n_fft - config.win_length - before))
    power = np.square(np.abs(np.fft.rfft(windows * hann)))
    return np.log(np.maximum(power @ config.mel_filters(), FLOOR)).astype(np.float32)
