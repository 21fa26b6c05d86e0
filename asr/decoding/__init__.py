"""From log probabilities to tokens: what a model heard, where, and how sure it is."""

from asr.decoding.alignment import HOP_SECONDS, align, loud_hops, word_edges
from asr.decoding.beam import BeamConfig, BeamSearch
from asr.decoding.choice import Decoder, Search, choose_decoder
from asr.decoding.greedy import Hypothesis, concatenate, greedy
from asr.decoding.words import Character, Word, share_out
from asr.decoding.workers import ParallelBeamSearch

__all__ = [
    "HOP_SECONDS",
    "BeamConfig",
    "BeamSearch",
    "Character",
    "Decoder",
    "Hypothesis",
    "ParallelBeamSearch",
    "Search",
    "Word",
    "align",
    "choose_decoder",
    "concatenate",
    "greedy",
    "loud_hops",
    "share_out",
    "word_edges",
]
