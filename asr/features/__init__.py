"""Samples to log-mel features: `config` and `mel` say what they are, `log_mel` and `spec_augment` compute with PyTorch."""

from asr.features.config import FeatureConfig, SpecAugmentConfig, frame_count

__all__ = ["FeatureConfig", "SpecAugmentConfig", "frame_count"]
