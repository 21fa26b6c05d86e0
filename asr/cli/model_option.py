"""The option `--model` of the commands that have a model of their own to fall back on."""

import argparse
import sys
from pathlib import Path


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Declare the option."""
    parser.add_argument(
        "--model",
        metavar="BUNDLE",
        help="folder of a trained model (default: the small one that comes with asr)",
    )


def model_folder(arguments: argparse.Namespace) -> Path:
    """Give the folder named; where none is, that of the model that comes with asr, saying what it can hear."""
    from asr.bundle import SHIPPED, SHIPPED_HEARS

    if arguments.model is not None:
        return Path(arguments.model)
    print(f"no --model: the small one that comes with asr hears {SHIPPED_HEARS}", file=sys.stderr)
    return SHIPPED
