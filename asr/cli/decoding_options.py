"""The decoder's options, the same for every command that turns audio into text."""

import argparse
import math
import sys
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from asr.errors import DecodingError

if TYPE_CHECKING:
    from asr.bundle import Bundle
    from asr.transcribe import Decoder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the decoder's options."""
    group = parser.add_argument_group(
        "decoding",
        "greedy unless one of these is given; weights default to what `asr lm tune` stored in the model",
    )
    group.add_argument(
        "--beam-size", type=int, metavar="N", help="hypotheses kept by a beam search (default: 32)"
    )
    group.add_argument(
        "--lm", metavar="FILE", help="n-gram language model: ARPA, also compressed (.gz), or KenLM binary"
    )
    group.add_argument(
        "--lexicon",
        metavar="FILE",
        help="the only words to recognise, one a line (default: those of the language model); none: any word, with "
        "a language model over tokens",
    )
    group.add_argument(
        "--lm-weight", type=float, metavar="W", help="factor on the language model's log probability"
    )
    group.add_argument("--word-bonus", type=float, metavar="B", help="added to the log score for every word")
    group.add_argument(
        "--nbest", type=int, metavar="N", help="give the N best transcripts with their scores (json)"
    )
    group.add_argument(
        "--hotwords",
        metavar="FILE",
        help="words to prefer, one a line, with a bonus (log) behind it if not 4",
    )


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    """Declare the option of how much audio is computed together."""
    parser.add_argument(
        "--batch-size",
        "--batch-seconds",
        dest="batch_seconds",
        metavar="SECONDS",
        type=_batch_seconds,
        default="auto",
        help="seconds of audio computed together (default: auto, what is fast and fits the free memory)",
    )


def _batch_seconds(text: str) -> float | None:
    """Read a number of seconds; None for auto."""
    if text == "auto":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(
            f"{text!r} was given; expected seconds of audio, more than 0, or auto"
        )
    return seconds


def decoder_from(arguments: argparse.Namespace, bundle: "Bundle") -> "Decoder":
    """Make the decoder that the options ask for; greedy where they ask for nothing. Raises DecodingError."""
    from asr.decoding import BeamConfig, BeamSearch, ParallelBeamSearch, greedy, read_hotwords, usable_cores

    names = ("beam_size", "lm", "lexicon", "lm_weight", "word_bonus", "nbest", "hotwords")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if not given:
        return greedy
    if "lm_weight" in given and "lm" not in given:
        raise DecodingError("--lm-weight was given without --lm; name the language model that it is to weigh")
    known = {item.name for item in fields(BeamConfig)}
    tuned = {name: value for name, value in bundle.decoding.items() if name in known} if "lm" in given else {}
    search = BeamSearch(
        bundle.tokenizer,
        replace(BeamConfig(), **tuned | {name: value for name, value in given.items() if name in known}),
        lm=given.get("lm"),
        lexicon=given.get("lexicon"),
        hotwords=read_hotwords(given["hotwords"]) if "hotwords" in given else None,
        normaliser=bundle.normaliser,
    )
    if search.left_out:
        shown = ", ".join(search.left_out[:3])
        print(
            f"left out for letters that the model lacks: {len(search.left_out)} of the lexicon's words and hotwords, "
            f"such as {shown}",
            file=sys.stderr,
        )
    return ParallelBeamSearch(search, getattr(arguments, "threads", 0) or usable_cores())
