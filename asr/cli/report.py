"""Draw a training run's report.html again.

asr report runs/an4              also of a run that still trains
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the run's folder."""
    parser.add_argument("run", metavar="RUN", help="folder of a run, as `asr train` writes it")


def run(arguments: argparse.Namespace) -> int:
    """Draw the report. Raises AsrError."""
    from asr.training.report import write_report

    print(f"written: {write_report(Path(arguments.run))}")
    return 0
