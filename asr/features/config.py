"""What features are, and what SpecAugment hides: configurations that need no PyTorch."""

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from asr.errors import ConfigError, check_bounds
from asr.features.mel import mel_centers, mel_filters

# Lowest mel power, a quarter of what 16-bit quantization adds: only digital silence is touched by it.
FLOOR = 1e-10
# Least standard deviation to divide by, in nats. Speech varies by 1 to 4 in every band; what varies less than
# this is silence, whose rounding errors would otherwise be blown up into features.
STD_FLOOR = 0.1
# Least standard deviation of samples to divide by: only digital silence has less.
SAMPLE_STD_FLOOR = 1e-10
# The number of an utterance's loudest frames that give the level of its speech; a word has as many.
LOUDEST_FRAMES = 50
# In nats: frames within 20 dB of the loudest are taken for speech; what stands out from the quietest tenth by less than
# 10 dB is noise without speech.
SPEECH_RANGE, LEAST_CONTRAST = 4.6, 2.3
# Standard deviations of the training data's level that a recording may be off. At 1.5 AN4 dev keeps its WER, and 10 to
# 30 dB off it is 8 to 12 % where it was 15 to 99; 0.5 costs recordings of several speakers 1 to 2 %.
LEVEL_TOLERANCE = 1.5

Count = TypeVar("Count")


@dataclass(frozen=True)
class FeatureConfig:
    """How samples become features.

    Attributes:
        sample_rate: rate of the samples, in Hz.
        n_fft: length of the Fourier transform, in samples, even.
        win_length: length of the Hann window, in samples, at most n_fft.
        hop_length: samples from one frame to the next.
        n_mels: mel bands.
        f_min: lowest frequency of the bands, in Hz.
        f_max: highest frequency of the bands, in Hz; null for half the sample rate.
        normalize: normalization; "utterance" gives each band of each utterance mean 0 and variance 1; "global" uses
            the mean and variance of the training data, so that silence around the speech changes nothing, and what is
            transcribed is brought to the training data's level if it is far from it; "none" leaves the log power.
        samples: scale of the samples; "recorded" takes them as they are; "standardized" gives those of each utterance
            mean 0 and variance 1 first, as sherpa-onnx does, so that a model trained so computes there exactly what it
            computes here.
    """

    sample_rate: int = 16000
    n_fft: int = 512
    win_length: int = 400
    hop_length: int = 160
    n_mels: int = 80
    f_min: float = 20.0
    f_max: float | None = None
    normalize: Literal["utterance", "global", "none"] = "utterance"
    samples: Literal["recorded", "standardized"] = "recorded"

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
        if self.samples not in ("recorded", "standardized"):
            raise ConfigError(f"features.samples is {self.samples!r}; expected 'recorded' or 'standardized'")
        empty = int((self.mel_filters().sum(0) == 0).sum())
        if empty:
            raise ConfigError(
                f"features.n_mels is {self.n_mels}: {empty} of these bands are narrower than the steps of "
                f"n_fft {self.n_fft}; take fewer bands or a larger n_fft"
            )

    def mel_filters(self) -> np.ndarray:
        """Return the mel bands' filters, (frequency, mel) float64."""
        return mel_filters(self.sample_rate, self.n_fft, self.n_mels, self.f_min, self.f_max)

    def mel_centers(self) -> np.ndarray:
        """Return the centers of the mel bands, (mel,) float64 in Hz."""
        return mel_centers(self.sample_rate, self.n_mels, self.f_min, self.f_max)


def frame_count(samples: Count, hop_length: int) -> Count:
    """Count the frames of so many samples: one is centered on every `hop_length`-th, from the first on.

    Takes an int, or an int64 array or tensor of any shape.

    >>> frame_count(16000, 160), frame_count(159, 160), frame_count(0, 160)
    (101, 1, 0)
    """
    return (samples > 0) * (1 + samples // hop_length)  # type: ignore[operator]


@dataclass(frozen=True)
class SpecAugmentConfig:
    """What SpecAugment hides; the defaults are Park et al.'s policy LD with shorter utterances in mind.

    Attributes:
        frequency_masks: masks over mel bands, for each utterance.
        frequency_width: widest frequency mask, in bands.
        time_masks: masks over frames, for each utterance.
        time_width: widest time mask, in frames.
        time_share: widest time mask, as a share of the utterance's frames.
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
