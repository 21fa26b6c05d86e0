"""The same training from several seeds, one after the other: what a change of the configuration has to exceed."""

import json
import logging
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from asr.errors import ConfigError
from asr.training.config import CONFIG, TrainConfig
from asr.training.interrupts import on_signal
from asr.training.lm.config import LmConfig
from asr.training.read_config import different_keys, flat, parse_config, plain, read_config, read_yaml
from asr.training.run_folder import SUMMARY

SEEDS_FILE = "seeds.json"

log = logging.getLogger(__name__)

# What may differ among seeds: where and how they run, on which what they learn does not depend.
MAY_DIFFER = (
    *("run.folder", "run.seed", "run.accelerator", "run.devices", "run.nodes", "run.threads", "run.wandb"),
    *("run.log_every", "run.checkpoint_minutes", "run.checkpoint_activations", "data.workers"),
)


@dataclass(frozen=True)
class Series:
    """What is trained from several seeds, and by which number of a run's summary they are compared.

    Attributes:
        command: the arguments of `asr` that train.
        read: returns the configuration of a command line.
        measure: name of the number in summary.json.
        numbers: its name in seeds.json.
        title, unit, scale: how people read it.
    """

    command: tuple[str, ...]
    read: Callable[[Sequence[str]], TrainConfig | LmConfig]
    measure: str
    numbers: str
    title: str
    unit: str = ""
    scale: float = 1.0


RECOGNIZERS = Series(("train",), read_config, "dev_wer", "dev_wers", "dev WER", " %", 100.0)
LANGUAGE_MODELS = Series(
    ("lm", "train"),
    lambda arguments: parse_config(LmConfig, arguments)[0],
    *("dev_perplexity", "dev_perplexities", "dev perplexity"),
)


@dataclass(frozen=True)
class Spread:
    """Numbers of runs that differ in their seed only; `deviation` is that of a sample, 0 for one run."""

    series: Series
    seeds: tuple[int, ...]
    numbers: tuple[float, ...]
    minutes: tuple[float, ...]
    mean: float
    deviation: float

    def table(self) -> str:
        """Return lines of seed, number and minutes, and the mean with its spread."""
        title, unit, scale = self.series.title, self.series.unit, self.series.scale
        head = title + (f" ({unit.strip()})" if unit else "")
        lines = [
            f"{seed:>6}  {scale * number:{len(head)}.2f}  {minutes:7.1f}"
            for seed, number, minutes in zip(self.seeds, self.numbers, self.minutes, strict=True)
        ]
        ends = f"{scale * min(self.numbers):.2f} to {scale * max(self.numbers):.2f}{unit}"
        mean = f"mean {title} {scale * self.mean:.2f}{unit}, standard deviation {scale * self.deviation:.2f}, {ends}"
        return "\n".join([f"  seed  {head}  minutes", *lines, mean])

    def to_dict(self) -> dict[str, Any]:
        """Return the values for programs."""
        values = asdict(self)
        del values["series"]
        values[self.series.numbers] = values.pop("numbers")
        return values


def spread(summaries: dict[int, dict[str, Any]], series: Series = RECOGNIZERS) -> Spread:
    """Return mean and standard deviation of {seed: summary of its run}.

    >>> spread({1: {"dev_wer": 0.1, "minutes": 2.0}, 2: {"dev_wer": 0.2, "minutes": 2.0}}).table().splitlines()[-1]
    'mean dev WER 15.00 %, standard deviation 7.07, 10.00 to 20.00 %'
    """
    numbers = tuple(summary[series.measure] for summary in summaries.values())
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    minutes = tuple(summary["minutes"] for summary in summaries.values())
    return Spread(series, tuple(summaries), numbers, minutes, statistics.fmean(numbers), deviation)


def train_seeds(
    count: int,
    arguments: Sequence[str],
    resume: bool = False,
    overwrite: bool = False,
    series: Series = RECOGNIZERS,
) -> int:
    """Train with `run.seed` and the seeds after it, each a run of its own in `run.folder`/seedN.

    Reports the numbers on dev with mean and spread, and writes them to seeds.json. With `resume` a finished run stays
    as it is and an interrupted one continues. Returns 0, 1 if a run left utterances out, or the status of a run that
    failed, after which none is begun. Raises ConfigError where a run that has finished had another configuration.
    """
    if count < 1:
        raise ConfigError(f"--seeds is {count}; expected at least 1")
    config = series.read(arguments)
    folder, worst = Path(config.run.folder), 0
    summaries: dict[int, dict[str, Any]] = {}
    for seed in range(config.run.seed, config.run.seed + count):
        run = folder / f"seed{seed}"
        if resume and _is_finished(run, config.run.epochs):
            _refuse_another_configuration(config, run / CONFIG)
            log.info("seed %d: finished before, in %s", seed, run)
        else:
            flags = ["--resume"] if resume else ["--overwrite"] if overwrite else []
            log.info("seed %d: %s", seed, run)
            before = _written(run / SUMMARY)
            status = _run_child(
                [*series.command, *arguments, f"--run.seed={seed}", f"--run.folder={run}", *flags]
            )
            finished = _written(run / SUMMARY) != before and _is_finished(run, config.run.epochs)
            if status and not (status == 1 and finished):  # 1: some utterances were left out
                return status
            worst = max(worst, status)
        summaries[seed] = json.loads((run / SUMMARY).read_text("utf-8"))
    found = spread(summaries, series)
    log.info("%s", found.table())
    (folder / SEEDS_FILE).write_text(json.dumps(found.to_dict(), indent=2) + "\n", "utf-8")
    log.info("written: %s", folder / SEEDS_FILE)
    return worst


def _refuse_another_configuration(config: TrainConfig | LmConfig, trained_with: Path) -> None:
    before, now = flat(read_yaml(trained_with, type(config))), flat(plain(config))
    if different := [key for key in different_keys(before, now) if key not in MAY_DIFFER]:
        values = ", ".join(f"{key} {before[key]}, not {now[key]}" for key in different)
        raise ConfigError(
            f"a seed that has finished was trained with another configuration ({trained_with}): {values}. Seeds that "
            "are compared differ in nothing else: leave that as it was, or use another --run.folder"
        )


def _written(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


def _is_finished(run: Path, epochs: float) -> bool:
    summary = run / SUMMARY
    return summary.is_file() and json.loads(summary.read_text("utf-8")).get("epochs") == epochs


def _run_child(arguments: Sequence[str]) -> int:
    """Run `asr` in a process of its own, and pass Ctrl-C and SIGTERM on to it, which saves and ends."""
    child = subprocess.Popen([sys.executable, "-m", "asr", *arguments], process_group=0)
    with on_signal(child.send_signal):
        status = child.wait()
    return status if status >= 0 else 128 - status
