"""The decoder that options ask for: the same names in Python and, with dashes, on the command line."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from asr.decoding.greedy import Hypothesis, greedy
from asr.errors import DecodingError
from asr.text import Tokenizer

# In place of a language model, not even the model's own, or of a lexicon.
NONE = "none"
logger = logging.getLogger(__name__)

# Of log-probabilities (frame, token) float32 of each utterance.
Decoder = Callable[[Sequence[np.ndarray]], list[Hypothesis]]


def reads_phones(decoder: Decoder) -> bool:
    """Return whether a decoder wants the log-probabilities of phones behind those of the tokens."""
    return getattr(decoder, "reads_phones", False)


class DecodingOptions(TypedDict, total=False):
    """Options of a beam search; see BeamConfig and BeamSearch.

    `lm` is the model's own where it has one, "none" leaves that out; `hotwords` may also be the path of a file of
    them, `processes` is how many decode (default: as many as there are cores). None means the default.
    """

    beam_size: int | None
    lm: str | Path | None
    lexicon: str | Path | None
    lm_weight: float | None
    word_bonus: float | None
    blank_penalty: float | None
    nbest: int | None
    hotwords: str | Path | Mapping[str, float] | None
    processes: int | None


class RecognitionOptions(DecodingOptions, total=False):
    """Options of a beam search whose n best a recurrent language model ranks anew; see `asr.rescoring`.

    `rescore_lm` is its folder, the next two weigh it. `fuse_lm` is the folder of one over the recognizer's tokens that
    takes part in the search instead (`asr.fusion`). `source_lm` is the folder of one of the recognizer's training
    transcripts, which is taken from the score. None means the default.
    """

    rescore_lm: str | Path | None
    rescore_weight: float | None
    rescore_bonus: float | None
    fuse_lm: str | Path | None
    fuse_weight: float | None
    fuse_bonus: float | None
    source_lm: str | Path | None
    source_weight: float | None


def _language_model(
    named: str | Path | None, own: Path | None, lexicon: str | Path | None
) -> str | Path | None:
    """Return the language model that a search uses, if any."""
    if str(named) == NONE:
        return None
    return own if named is None and str(lexicon) != NONE and find_spec("flashlight") else named


def choose_decoder(
    tokenizer: Tokenizer,
    normalizer: str = "none",
    tuned: Mapping[str, Any] | None = None,
    own_lm: Path | None = None,
    *,
    phones: Sequence[str] = (),
    own_lexicon: Path | None = None,
    beam_size: int | None = None,
    lm: str | Path | None = None,
    lexicon: str | Path | None = None,
    lm_weight: float | None = None,
    word_bonus: float | None = None,
    blank_penalty: float | None = None,
    nbest: int | None = None,
    hotwords: str | Path | Mapping[str, float] | None = None,
    processes: int | None = None,
) -> Decoder:
    """Make a beam search with the options of DecodingOptions; greedy where there is neither one nor a language model.

    Arguments: tokenizer and normalizer, the model's; tuned, what `asr lm tune` stored with it, which is taken for the
    weights that are not given where there is a language model; own_lm, the model's, which is taken where no other is
    named, the lexicon is not "none", and flashlight-text is installed; phones that the model recognizes, and its
    own_lexicon, which goes with its own language model. Such a model's search goes by the phones of a lexicon, too.
    Raises DecodingError.

    >>> from asr.text import CharacterTokenizer
    >>> choose_decoder(CharacterTokenizer(" ab")) is greedy
    True
    >>> choose_decoder(CharacterTokenizer(" ab"), hotwords={"abba": 4.0}, nbest=3).search.config.nbest
    3
    """
    numbers: dict[str, Any] = {
        "beam_size": beam_size,
        "lm_weight": lm_weight,
        "word_bonus": word_bonus,
        "blank_penalty": blank_penalty,
        "nbest": nbest,
    }
    lm, named = _language_model(lm, own_lm, lexicon), lm
    given = {name: value for name, value in numbers.items() if value is not None}
    if not given and lm is None and lexicon is None and hotwords is None:
        return greedy
    from asr.decoding.beam import BeamConfig
    from asr.decoding.hotwords import read_hotwords
    from asr.decoding.pronouncing import search_of
    from asr.decoding.workers import ParallelBeamSearch, usable_cores

    if lm is None:
        tuned = {}
        if lm_weight is not None:
            raise DecodingError(
                f"the LM weight {lm_weight} was given without a language model; name the one that it is to weigh"
            )
    names = {item.name for item in fields(BeamConfig)}
    weights = {name: value for name, value in (tuned or {}).items() if name in names}
    if lexicon is None and named is None and lm is not None and hotwords is None:
        lexicon = own_lexicon
    beam = search_of(
        tokenizer,
        BeamConfig(**weights | given),
        phones=phones,
        lm=lm,
        lexicon=lexicon,
        hotwords=read_hotwords(hotwords) if isinstance(hotwords, str | Path) else hotwords,
        normalizer=normalizer,
    )
    if beam.left_out:
        logger.warning(beam.describe_left_out())
    return ParallelBeamSearch(beam, processes or usable_cores())


def decoder_of(bundle: Any, **options: Any) -> Decoder:
    """Return the decoder that options of `choose_decoder` ask for, with what a Bundle holds for it."""
    return choose_decoder(
        bundle.tokenizer,
        bundle.normalizer,
        bundle.decoding,
        bundle.lm,
        phones=bundle.model.phones,
        own_lexicon=bundle.lexicon,
        **options,
    )
