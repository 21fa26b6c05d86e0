"""Upload a model to the Hugging Face hub, with a generated model card.

  asr push runs/mine/bundle OWNER/NAME --evaluation test.json --license apache-2.0
  asr push runs/mine/bundle OWNER/NAME --dry-run            print the card, upload nothing

The model then loads anywhere as `--model OWNER/NAME` and `asr.load("OWNER/NAME")`, a revision of it as
OWNER/NAME@REVISION. `hf auth login` logs in.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "model", metavar="BUNDLE", help="folder of a trained model, or a name of `asr models`"
    )
    parser.add_argument(
        "name", metavar="OWNER/NAME", help="place on the hub; @BRANCH behind it names a branch"
    )
    parser.add_argument(
        "--evaluation",
        nargs="+",
        default=[],
        metavar="FILE",
        help="results for the card, as `asr evaluate --json` writes them",
    )
    parser.add_argument(
        "--license", default="", metavar="ID", help="license as the hub names it: apache-2.0, ..."
    )
    parser.add_argument("--data", default="", metavar="TEXT", help="sentence about the training data")
    parser.add_argument(
        "--limits", default="", metavar="TEXT", help="sentence about what the model is not good at"
    )
    parser.add_argument("--card", metavar="FILE", help="model card in place of the generated one")
    parser.add_argument("--message", default="Upload a model", metavar="TEXT", help="message of the commit")
    parser.add_argument("--private", action="store_true", help="new repositories are private")
    parser.add_argument("--dry-run", action="store_true", help="print the card and upload nothing")


def run(arguments: argparse.Namespace) -> int:
    """Upload, and print the commit's address. Raises BundleError where something is wrong."""
    from pathlib import Path

    from asr import hub
    from asr.bundle import BUNDLE_FILES, Bundle, find_bundle
    from asr.errors import BundleError
    from asr.export.card import model_card, read_evaluations

    folder = find_bundle(arguments.model)
    bundle = Bundle.load(folder)
    if arguments.card:
        try:
            card = Path(arguments.card).read_text("utf-8")
        except (OSError, ValueError) as error:
            raise BundleError(f"the card {arguments.card} cannot be read: {error}") from error
    else:
        card = model_card(
            bundle,
            arguments.name.partition("@")[0],
            read_evaluations(arguments.evaluation),
            license_id=arguments.license,
            data=arguments.data,
            limits=arguments.limits,
        )
    if arguments.dry_run:
        print(card, end="")
        return 0
    print(
        hub.upload(folder, BUNDLE_FILES, arguments.name, card, arguments.message, private=arguments.private)
    )
    return 0
