"""From log-probabilities to words: what was recognized, where, and how sure the model is. All of it is numpy."""

from asr.decoding.alignment import HOP_SECONDS, align, loud_hops, word_edges
from asr.decoding.beam import BeamConfig, BeamSearch
from asr.decoding.choice import Decoder, DecodingOptions, choose_decoder
from asr.decoding.greedy import Hypothesis, concatenate, greedy
from asr.decoding.words import words_of
from asr.decoding.workers import ParallelBeamSearch

__all__ = [
    "HOP_SECONDS",
    "BeamConfig",
    "BeamSearch",
    "Decoder",
    "DecodingOptions",
    "Hypothesis",
    "ParallelBeamSearch",
    "align",
    "choose_decoder",
    "concatenate",
    "greedy",
    "loud_hops",
    "word_edges",
    "words_of",
]
