"""Transcripts: normalizers, which references and hypotheses pass alike, and tokenizers with blank as token 0.

A model's bundle names the normalizer and holds the tokenizer, so that whoever scores the model writes words as it does.
"""

from asr.text.normalize import NORMALIZERS, normalize, normalizer_version
from asr.text.tokenizers import (
    BLANK,
    BLANK_TOKEN,
    SENTENCEPIECE_SPACE,
    TOKENIZER_FILES,
    BpeTokenizer,
    CharacterTokenizer,
    Tokenizer,
    load_tokenizer,
)

__all__ = [
    "BLANK",
    "BLANK_TOKEN",
    "NORMALIZERS",
    "SENTENCEPIECE_SPACE",
    "TOKENIZER_FILES",
    "BpeTokenizer",
    "CharacterTokenizer",
    "Tokenizer",
    "load_tokenizer",
    "normalize",
    "normalizer_version",
]
