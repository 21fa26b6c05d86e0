"""From log probabilities to tokens: what a model heard, where, and how sure it is."""

from asr.decoding.greedy import Hypothesis, greedy

__all__ = ["Hypothesis", "greedy"]
