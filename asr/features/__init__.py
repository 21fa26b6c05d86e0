"""Samples to log-mel features: `config` and `mel` need no PyTorch, `log_mel` and `spec_augment` compute with it."""

from asr.features.config import FeatureConfig, SpecAugmentConfig, frame_count

__all__ = ["FeatureConfig", "SpecAugmentConfig", "frame_count"]
