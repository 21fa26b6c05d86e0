"""Train a recognizer from a configuration.

  asr train --config recipes/an4/config.yaml
  asr train --config recipes/an4/config.yaml --model.hidden_size 512 --run.folder runs/wide
  asr train --config recipes/an4/config.yaml --resume        continue where the run stopped
  asr train --config recipes/an4/config.yaml --seeds 3       three runs, their mean and spread
  asr train --warm-start an4 --data.train cuts/cuts_train.jsonl.gz --data.dev cuts/cuts_dev.jsonl.gz
                                                             fine-tune the model that comes with asr

Every key of the configuration is also an option, listed below; options override the files of --config.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from asr.cli.trainings import run_training
from asr.data.cuts import no_manifest

TAKES_CONFIGURATION = True  # what argparse does not know is the configuration's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is no part of the configuration; the help lists that too."""
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="YAML file of the configuration; later ones override earlier ones",
    )
    parser.add_argument(
        "--warm-start",
        metavar="BUNDLE",
        help="model to fine-tune, a folder or a name such as an4 (run.warm_start): its features, sizes and text "
        "settings are used unless set",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the run folder's last checkpoint; a run without any starts from the beginning",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the run that the run folder holds")
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="number of runs, from run.seed and the seeds after it, into RUN.FOLDER/seedN",
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print every key in force, explained, and exit"
    )
    format_help = parser.format_help

    def with_keys() -> str:
        from asr.training.read_config import configuration_help

        return f"{format_help()}\n{configuration_help()}"

    parser.format_help = with_keys  # type: ignore[method-assign]


def run(arguments: argparse.Namespace) -> int:
    """Train; 1 if utterances were left out, 130 after Ctrl-C and 143 after SIGTERM."""
    return run_training("asr train", lambda: _run(arguments))


def _listed(names: str | Sequence[str]) -> Sequence[str]:
    return [names] if isinstance(names, str) else names


def _run(arguments: argparse.Namespace) -> int:
    from asr.training.read_config import explained_config, read_config

    given = [f"--config={path}" for path in arguments.config] + arguments.configuration
    if arguments.warm_start is not None:
        given.append(f"--run.warm_start={arguments.warm_start}")
    config = read_config(given)
    if arguments.print_config:
        print(explained_config(config), end="")
        return 0
    if arguments.seeds is not None:
        from asr.training.seeds import train_seeds

        return train_seeds(arguments.seeds, given, arguments.resume, arguments.overwrite)
    # Before the seconds that importing torch takes; a run that goes on first looks at what it was begun with.
    for manifest in [] if arguments.resume else [*_listed(config.data.train), *_listed(config.data.dev)]:
        if "://" not in manifest and not Path(manifest).exists():
            raise no_manifest(manifest)
    from asr.training.train import train

    return train(config, resume=arguments.resume, overwrite=arguments.overwrite)
