"""From log-probabilities to words: what was recognized, where, and how sure the model is. All of it is numpy."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from asr.decoding.alignment import HOP_SECONDS, align, loud_hops, word_edges
from asr.decoding.choice import (
    Decoder,
    DecodingOptions,
    RecognitionOptions,
    choose_decoder,
    decoder_of,
    reads_phones,
)
from asr.decoding.greedy import Hypothesis, concatenate, greedy
from asr.decoding.words import words_of

if TYPE_CHECKING:
    from asr.decoding.beam import BeamConfig, BeamSearch
    from asr.decoding.workers import ParallelBeamSearch

# Imported where they are asked for: greedy decoding needs neither language models nor processes.
_OF_BEAMS = {
    "BeamConfig": "asr.decoding.beam",
    "BeamSearch": "asr.decoding.beam",
    "ParallelBeamSearch": "asr.decoding.workers",
}
__all__ = [
    "HOP_SECONDS",
    "BeamConfig",
    "BeamSearch",
    "Decoder",
    "DecodingOptions",
    "Hypothesis",
    "ParallelBeamSearch",
    "RecognitionOptions",
    "align",
    "choose_decoder",
    "concatenate",
    "decoder_of",
    "greedy",
    "loud_hops",
    "reads_phones",
    "word_edges",
    "words_of",
]


def __getattr__(name: str) -> Any:
    if name not in _OF_BEAMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_OF_BEAMS[name]), name)
