import numpy as np
import pytest

from asr.scoring.snr import signal_to_noise

RATE = 16000


@pytest.fixture(scope="module")
def tone():
    time = np.arange(2 * RATE) / RATE
    return (0.3 * np.sin(2 * np.pi * 440 * time) * (time % 1 < 0.5)).astype(np.float32)


@pytest.mark.parametrize("ratio", [10, 30])
def test_signal_to_noise(tone, ratio):
    noise = np.random.default_rng(0).standard_normal(len(tone))
    noise *= 0.3 / np.sqrt(2) * 10 ** (-ratio / 20)
    assert signal_to_noise(tone + noise, RATE) == pytest.approx(ratio, abs=1.5)


def test_signal_to_noise_of_nothing():
    assert signal_to_noise(np.zeros(RATE, np.float32), RATE) is None
    assert signal_to_noise(np.ones(100, np.float32), RATE) is None
