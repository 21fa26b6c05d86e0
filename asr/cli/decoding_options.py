"""The decoder's options, the same for every command that turns audio into text."""

import argparse
import math
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asr.bundle import Bundle
    from asr.decoding import Decoder


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
        help="the only words to recognize, one a line (default: those of the language model); none: any word, with "
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
    from asr.decoding import ParallelBeamSearch, Search, choose_decoder

    options = {name: getattr(arguments, name) for name in Search.__annotations__ if name != "processes"}
    threads = getattr(arguments, "threads", 0) or None
    decoder = choose_decoder(
        bundle.tokenizer, bundle.normalizer, bundle.decoding, **options, processes=threads
    )
    if isinstance(decoder, ParallelBeamSearch) and decoder.search.left_out:
        print(decoder.search.what_is_left_out(), file=sys.stderr)
    return decoder
