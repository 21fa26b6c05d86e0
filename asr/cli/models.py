"""List the models that come with asr.

asr models                          names, for `--model NAME` and `asr.load("NAME")`
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare nothing: the command has no arguments of its own."""


def run(arguments: argparse.Namespace) -> int:
    """Print a line a model: its name, and what it recognizes."""
    from asr.bundle import SHIPPED, SHIPPED_HEARS, available_models

    for name in available_models():
        print(f"{name}  {SHIPPED_HEARS}" if name == SHIPPED.name else name)
    return 0
