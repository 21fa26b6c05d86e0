"""List the models that come with asr, those in the hub's cache, and those of the Hugging Face hub.

asr models                          names, for `--model NAME` and `asr.load("NAME")`
asr models --hub english            models of asr on the hub whose names hold a word
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--hub", nargs="?", const="", metavar="WORD", help="models on the hub, with their downloads"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print a line a model: its name, and what it is for or how often it was downloaded."""
    from asr import hub
    from asr.bundle import PURPOSES, SHIPPED, available_models, is_bundle

    if arguments.hub is not None:
        for name, downloads in hub.search(arguments.hub):
            print(f"{name}  {downloads} downloads")
        return 0
    names = available_models()
    width = max(map(len, names), default=0)
    for name in names:
        default = " (used where no model is named)" if name == SHIPPED.name else ""
        print(f"{name:{width}}  {PURPOSES.get(name, '')}{default}".rstrip())
    for name in hub.downloaded(is_bundle):
        print(f"{name}  downloaded")
    return 0
