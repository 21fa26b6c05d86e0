"""The decoder that options ask for: the same names in Python and, with dashes, on the command line."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TypedDict, Unpack

from torch import Tensor

from asr.decoding.beam import BeamConfig, BeamSearch
from asr.decoding.greedy import Hypothesis, greedy
from asr.decoding.hotwords import read_hotwords
from asr.decoding.workers import ParallelBeamSearch, usable_cores
from asr.errors import DecodingError
from asr.text import Tokenizer

Decoder = Callable[[Tensor, Tensor], list[Hypothesis]]  # of logits (batch, frame, token) and lengths (batch,)


class Search(TypedDict, total=False):
    """Options of a beam search; see BeamConfig and BeamSearch.

    `hotwords` may also be the path of a file of them, `processes` says how many decode (default: as many as there are
    cores). None is as good as not given.
    """

    beam_size: int | None
    lm: str | Path | None
    lexicon: str | Path | None
    lm_weight: float | None
    word_bonus: float | None
    nbest: int | None
    hotwords: str | Path | Mapping[str, float] | None
    processes: int | None


def choose_decoder(
    tokenizer: Tokenizer,
    normaliser: str = "none",
    tuned: Mapping[str, float] | None = None,
    **search: Unpack[Search],
) -> Decoder:
    """Make a beam search with the options given; greedy where there are none but `processes`.

    Arguments: tokenizer and normaliser, the model's; tuned, what `asr lm tune` stored with it, which is taken for the
    weights that are not given where there is a language model. Raises DecodingError.

    >>> from asr.text import CharacterTokenizer
    >>> choose_decoder(CharacterTokenizer(" ab")) is greedy
    True
    >>> choose_decoder(CharacterTokenizer(" ab"), hotwords={"abba": 4.0}, nbest=3).search.config.nbest
    3
    """
    given = {name: value for name, value in search.items() if value is not None}
    processes = given.pop("processes", None)
    if not given:
        return greedy
    lm, lexicon, hotwords = (given.pop(name, None) for name in ("lm", "lexicon", "hotwords"))
    if "lm_weight" in given and lm is None:
        raise DecodingError(
            f"the LM weight {given['lm_weight']} was given without a language model; name the one that it is to weigh"
        )
    known = {item.name for item in fields(BeamConfig)}
    weights = {name: value for name, value in (tuned or {}).items() if name in known and lm is not None}
    beam = BeamSearch(
        tokenizer,
        replace(BeamConfig(), **weights | given),  # type: ignore[arg-type]
        lm=lm,  # type: ignore[arg-type]
        lexicon=lexicon,  # type: ignore[arg-type]
        hotwords=read_hotwords(hotwords) if isinstance(hotwords, str | Path) else hotwords,  # type: ignore[arg-type]
        normaliser=normaliser,
    )
    return ParallelBeamSearch(beam, processes or usable_cores())  # type: ignore[arg-type]
