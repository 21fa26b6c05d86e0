"""From log probabilities to tokens: what a model heard, where, and how sure it is."""

from asr.decoding.alignment import align, word_edges
from asr.decoding.beam import BeamConfig, BeamSearch
from asr.decoding.greedy import Hypothesis, greedy
from asr.decoding.hotwords import read_hotwords

__all__ = ["BeamConfig", "BeamSearch", "Hypothesis", "align", "greedy", "read_hotwords", "word_edges"]
