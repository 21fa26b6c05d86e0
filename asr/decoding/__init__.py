"""From log probabilities to tokens: what a model heard, where, and how sure it is."""

from asr.decoding.alignment import HOP_SECONDS, align, loud_hops, word_edges
from asr.decoding.beam import BeamConfig, BeamSearch
from asr.decoding.greedy import Hypothesis, concatenate, greedy
from asr.decoding.hotwords import read_hotwords
from asr.decoding.words import Character, Word, share_out
from asr.decoding.workers import ParallelBeamSearch, usable_cores

__all__ = [
    "HOP_SECONDS",
    "BeamConfig",
    "BeamSearch",
    "Character",
    "Hypothesis",
    "ParallelBeamSearch",
    "Word",
    "align",
    "concatenate",
    "greedy",
    "loud_hops",
    "read_hotwords",
    "share_out",
    "usable_cores",
    "word_edges",
]
