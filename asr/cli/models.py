"""List the models that come with asr.

asr models                          names, for `--model NAME` and `asr.load("NAME")`
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare nothing: the command has no arguments of its own."""


def run(arguments: argparse.Namespace) -> int:
    """Print a line a model: its name, and what it is for."""
    from asr.bundle import PURPOSES, SHIPPED, available_models

    names = available_models()
    width = max(map(len, names), default=0)
    for name in names:
        default = " (used where no model is named)" if name == SHIPPED.name else ""
        print(f"{name:{width}}  {PURPOSES.get(name, '')}{default}".rstrip())
    return 0
