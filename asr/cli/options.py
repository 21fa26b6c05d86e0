"""Options that several commands share: the model, the device, how it decodes, and numbers."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.cli.console import note
from asr.version import __version__

if TYPE_CHECKING:
    from asr import Recognizer
    from asr.cli.plan import Shard

Container = argparse._ActionsContainer  # a parser, or a group of its arguments
ENGINES = ("auto", "onnx", "torch")
COMPUTE_TYPES = ("float32", "bfloat16", "int8")
# Options of `add_decoding` that `asr.load` takes under the same names.
DECODING = ("beam_size", "lm", "lexicon", "lm_weight", "word_bonus", "blank_penalty", "nbest", "hotwords")
RESCORING = (
    *("rescore_lm", "rescore_weight", "rescore_bonus", "fuse_lm", "fuse_weight", "fuse_bonus"),
    *("source_lm", "source_weight"),
)


def count(least: int = 0) -> Callable[[str], int]:
    """Return what reads a whole number of at least this much for an option.

    >>> count()("3")
    3
    """

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} was given; expected a whole number, {least} or more")
        return int(text)

    return read


def threads(text: str) -> int:
    """Read a number of CPU threads."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"{text!r} was given; expected a number of threads, or 0 for the engine's choice"
        )
    return int(text)


def shard(text: str) -> "Shard":
    """Read which part of how many is meant, such as 3/8."""
    from asr.cli.plan import Shard

    index, _, number = text.partition("/")
    if not (index.isdecimal() and number.isdecimal() and 1 <= int(index) <= int(number)):
        raise argparse.ArgumentTypeError(f"{text!r} was given; expected such as 3/8, the third part of eight")
    return Shard(int(index), int(number))


def batch_seconds(text: str) -> float | None:
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


def add_model(parser: argparse.ArgumentParser) -> None:
    """Declare the model's option; `model_folder` reads it."""
    parser.add_argument(
        "--model",
        metavar="BUNDLE",
        help="trained model: a folder, a name of `asr models`, or OWNER/NAME[@REVISION] of the Hugging Face hub "
        "(default: english, which comes with asr)",
    )


def add_device(parser: Container) -> None:
    """Declare the option of the device that computes."""
    parser.add_argument(
        "--device", default="auto", help="device: auto, cpu, cuda, cuda:1, ... (default: auto)"
    )


def add_engine(parser: Container) -> None:
    """Declare the option of the engine that computes."""
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="engine: onnx, which is light and computes on the CPU in float32, torch, which does all else, or auto "
        "(default: auto, the first of them that can)",
    )


def add_precision(parser: Container) -> None:
    """Declare the options of how the device computes."""
    add_engine(parser)
    parser.add_argument(
        "--compute-type",
        choices=COMPUTE_TYPES,
        default="float32",
        help="precision of the recurrent weights on a CPU, of the whole model on a GPU, which takes no int8; a lower "
        "one is faster for single files (default: float32)",
    )
    parser.add_argument(
        "--threads",
        type=threads,
        default=0,
        metavar="N",
        help="CPU threads (default: 0, the engine's choice)",
    )


def add_computing(parser: argparse.ArgumentParser) -> None:
    """Declare the options of how a model is computed: device, precision, threads, batches, progress."""
    group = parser.add_argument_group("computing")
    add_device(group)
    add_precision(group)
    group.add_argument(
        "--batch-size",
        "--batch-seconds",
        dest="batch_seconds",
        metavar="SECONDS",
        type=batch_seconds,
        default="auto",
        help="seconds of audio computed together (default: auto, as many as are fast and fit the free memory)",
    )
    group.add_argument("--quiet", action="store_true", help="no progress bar")


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """Declare the decoder's options."""
    group = parser.add_argument_group(
        "decoding",
        "a beam search where one of these is given or the model's folder holds a language model, lm.bin; else greedy. "
        "Weights default to what `asr lm tune` stored in the model",
    )
    group.add_argument(
        "--beam-size", type=int, metavar="N", help="hypotheses kept by a beam search (default: 32)"
    )
    group.add_argument(
        "--lm",
        metavar="FILE",
        help="n-gram language model: ARPA, also compressed (.gz), or KenLM binary; none: without the model's own "
        "(default: the model's own, if it has one)",
    )
    group.add_argument(
        "--no-lm", dest="lm", action="store_const", const="none", help="language model: none, as --lm none"
    )
    group.add_argument(
        "--lexicon",
        metavar="FILE",
        help="words that may be recognized, one a line (default: those of the language model), or, for a model with "
        "phones, a pronouncing dictionary (default: the model's own, beside its own language model); none: any word, "
        "with a language model over tokens",
    )
    group.add_argument(
        "--lm-weight", type=float, metavar="W", help="factor on the language model's log probability"
    )
    group.add_argument("--word-bonus", type=float, metavar="B", help="bonus on the log score for each word")
    group.add_argument(
        "--blank-penalty",
        type=float,
        metavar="P",
        help="number subtracted from the blank's log probability in every frame, against deleted letters",
    )
    group.add_argument(
        "--nbest", type=int, metavar="N", help="number of best transcripts to list, with scores (json)"
    )
    group.add_argument(
        "--hotwords",
        metavar="FILE",
        help="words to prefer, one a line, each with its bonus on the log score behind it (default: 4)",
    )
    group.add_argument(
        "--rescore-lm",
        metavar="DIR",
        help="recurrent language model that ranks the best transcripts of the search anew",
    )
    group.add_argument(
        "--rescore-weight", type=float, metavar="W", help="factor on its log probability (default: 0.5)"
    )
    group.add_argument(
        "--rescore-bonus", type=float, metavar="B", help="its bonus for each word (default: 0)"
    )
    group.add_argument(
        "--fuse-lm",
        metavar="DIR",
        help="recurrent language model over the recognizer's tokens that takes part in a search without --lm",
    )
    group.add_argument(
        "--fuse-weight", type=float, metavar="W", help="factor on its log probability (default: 0.3)"
    )
    group.add_argument("--fuse-bonus", type=float, metavar="B", help="its bonus for each token (default: 0)")
    group.add_argument(
        "--source-lm",
        metavar="DIR",
        help="recurrent language model of the recognizer's training transcripts, which takes from --rescore-lm and "
        "--fuse-lm what the recognizer has learned of language (density ratio)",
    )
    group.add_argument(
        "--source-weight",
        type=float,
        metavar="W",
        help="factor on its log probability (default: the other's)",
    )


def model_folder(arguments: argparse.Namespace) -> Path:
    """Return the folder (or name) of --model; without it asr's own model, and a note of what it is for."""
    from asr.bundle import PURPOSES, SHIPPED

    if arguments.model is not None:
        return Path(arguments.model)
    note(f"no --model was given: {SHIPPED.name}, which comes with asr, is for {PURPOSES[SHIPPED.name]}")
    return SHIPPED


def decoding(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the decoder's options that were given, by the names that `asr.load` has for them."""
    return {
        name: value for name in DECODING + RESCORING if (value := getattr(arguments, name, None)) is not None
    }


def facts(arguments: argparse.Namespace) -> dict[str, str]:
    """Return what JSON outputs name of the run: the model and the version of asr."""
    from asr.bundle import SHIPPED

    return {"model": arguments.model or SHIPPED.name, "asr_version": __version__}


def load_recognizer(arguments: argparse.Namespace) -> "Recognizer":
    """Load the model that the options name, on their device, with their decoder. Raises AsrError.

    Commands without the decoder's options take the network's output, or decode it greedily.
    """
    import asr

    search: dict[str, Any] = decoding(arguments) if hasattr(arguments, "lm") else {"lm": "none"}
    if arguments.threads:
        search["processes"] = arguments.threads
    return asr.load(
        model_folder(arguments),
        arguments.device,
        engine=arguments.engine,
        compute_type=arguments.compute_type,
        threads=arguments.threads or None,
        **search,
    )
