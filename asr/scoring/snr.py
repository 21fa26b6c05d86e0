"""The signal-to-noise ratio of a recording, estimated from the levels of its parts."""

import numpy as np

LEVEL_SECONDS = 0.02  # of audio whose level is taken together
NOISE, SPEECH = 0.1, 0.95  # quantiles of the levels


def signal_to_noise(samples: np.ndarray, sample_rate: int) -> float | None:
    """Return the signal-to-noise ratio, in dB, of samples (time,): the loud parts' level above the quiet parts'.

    The 95th less the 10th percentile of the levels of 20 ms each, as NIST's STNR takes speech and noise from
    their histogram. None for digital silence and for less than ten such parts.

    >>> time = np.arange(16000) / 16000
    >>> tone = np.where(time < 0.5, np.sin(2 * np.pi * 440 * time), 0)
    >>> round(signal_to_noise(tone + 0.01 * np.random.default_rng(0).standard_normal(16000), 16000))
    37
    """
    width = round(LEVEL_SECONDS * sample_rate)
    count = len(samples) // width
    power = np.square(samples[: count * width], dtype=np.float64).reshape(count, width).mean(axis=1)
    power = power[power > 0]
    if len(power) < 10:
        return None
    noise, speech = np.quantile(10 * np.log10(power), [NOISE, SPEECH])
    return round(float(speech - noise), 1)
