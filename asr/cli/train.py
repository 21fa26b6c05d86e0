"""Train a recognizer from a configuration.

  asr train --config recipes/an4/config.yaml
  asr train --config recipes/an4/config.yaml --model.hidden_size 512 --run.folder runs/wide
  asr train --config recipes/an4/config.yaml --resume        go on where the run stopped
  asr train --config recipes/an4/config.yaml --seeds 3       three runs, their mean and spread
  asr train --report runs/an4                                draw a run's report.html again

Every key of the configuration is also an option; `asr train --print-config` shows them all with their defaults.
"""

import argparse
import signal
import sys
from typing import Any

TAKES_CONFIGURATION = True  # what argparse does not know is the configuration's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is no part of the configuration."""
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the run folder's last checkpoint; a run without any begins",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="remove what the run folder holds and begin anew"
    )
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="train N times, from run.seed and the seeds after it, into RUN.FOLDER/seedN",
    )
    parser.add_argument("--report", metavar="RUN", help="draw report.html of a run's folder again and exit")
    parser.add_argument("--print-config", action="store_true", help="print every key in force and exit")


def run(arguments: argparse.Namespace) -> int:
    """Train; 1 if utterances were left out, 130 after Ctrl-C and 143 after SIGTERM."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(arguments)
    except KeyboardInterrupt as interruption:  # not between steps, where the state is saved first
        print("\nasr train: interrupted; the same command with --resume goes on", file=sys.stderr)
        return 128 + (interruption.args[0] if interruption.args else signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(signum: int, frame: Any) -> None:
    """Take SIGTERM as Python takes Ctrl-C."""
    raise KeyboardInterrupt(signum)


def _run(arguments: argparse.Namespace) -> int:
    from asr.training.config import config_text, read_config

    if arguments.report:
        from pathlib import Path

        from asr.training.report import write_report

        print(f"written: {write_report(Path(arguments.report))}")
        return 0
    config = read_config(arguments.configuration)
    if arguments.print_config:
        print(config_text(config), end="")
        return 0
    if arguments.seeds is not None:
        from asr.training.seeds import train_seeds

        return train_seeds(arguments.seeds, arguments.configuration, arguments.resume, arguments.overwrite)
    from asr.training.train import train

    return train(config, resume=arguments.resume, overwrite=arguments.overwrite)
