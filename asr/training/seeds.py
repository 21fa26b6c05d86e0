"""The same training from several seeds, one after the other: what a change of the configuration has to exceed."""

import json
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from asr.errors import ConfigError
from asr.training.config import CONFIG, TrainConfig, different_keys, flat, plain, read_config, read_yaml

SEEDS_FILE = "seeds.json"
MAY_DIFFER = (  # among seeds: where and how they run, of which what they learn does not depend
    *("run.folder", "run.seed", "run.accelerator", "run.devices", "run.nodes", "run.threads", "run.wandb"),
    *("run.log_every", "run.checkpoint_minutes", "run.checkpoint_activations", "data.workers"),
)


@dataclass(frozen=True)
class Spread:
    """Dev WERs of runs that differ in their seed only; `deviation` is that of a sample, 0 for one run."""

    seeds: tuple[int, ...]
    dev_wers: tuple[float, ...]
    minutes: tuple[float, ...]
    mean: float
    deviation: float

    def table(self) -> str:
        """Give lines of seed, dev WER and minutes, and the mean with its spread."""
        lines = [
            f"{seed:>6}  {100 * wer:11.2f}  {minutes:7.1f}"
            for seed, wer, minutes in zip(self.seeds, self.dev_wers, self.minutes, strict=True)
        ]
        ends = f"{100 * min(self.dev_wers):.2f} to {100 * max(self.dev_wers):.2f} %"
        mean = f"mean dev WER {100 * self.mean:.2f} %, standard deviation {100 * self.deviation:.2f}, {ends}"
        return "\n".join(["  seed  dev WER (%)  minutes", *lines, mean])


def spread(summaries: dict[int, dict[str, Any]]) -> Spread:
    """Take mean and standard deviation of {seed: summary of its run}.

    >>> spread({1: {"dev_wer": 0.1, "minutes": 2.0}, 2: {"dev_wer": 0.2, "minutes": 2.0}}).table().splitlines()[-1]
    'mean dev WER 15.00 %, standard deviation 7.07, 10.00 to 20.00 %'
    """
    wers = tuple(summary["dev_wer"] for summary in summaries.values())
    deviation = statistics.stdev(wers) if len(wers) > 1 else 0.0
    minutes = tuple(summary["minutes"] for summary in summaries.values())
    return Spread(tuple(summaries), wers, minutes, statistics.fmean(wers), deviation)


def train_seeds(count: int, arguments: Sequence[str], resume: bool = False, overwrite: bool = False) -> int:
    """Train with `run.seed` and the seeds after it, each a run of its own in `run.folder`/seedN.

    Prints the dev WERs with mean and spread, and writes them to seeds.json. With `resume` a finished run stays as it
    is and an interrupted one goes on. Returns 0, 1 if a run left utterances out, or the status of a run that failed,
    after which none is begun. Raises ConfigError where a run that has finished had another configuration.
    """
    if count < 1:
        raise ConfigError(f"--seeds is {count}; expected at least 1")
    config = read_config(arguments)
    folder, worst = Path(config.run.folder), 0
    summaries: dict[int, dict[str, Any]] = {}
    for seed in range(config.run.seed, config.run.seed + count):
        run = folder / f"seed{seed}"
        summary = run / "summary.json"
        if resume and _is_finished(summary, config.run.epochs):
            _refuse_another_configuration(config, run / CONFIG)
            print(f"seed {seed}: finished before, in {run}", flush=True)
        else:
            more = ["--resume"] if resume else ["--overwrite"] if overwrite else []
            print(f"seed {seed}: {run}", flush=True)
            before = _written(summary)
            status = _run_child([*arguments, f"--run.seed={seed}", f"--run.folder={run}", *more])
            left_out = (
                status == 1 and _written(summary) != before and _is_finished(summary, config.run.epochs)
            )
            if status and not left_out:
                return status
            worst = max(worst, status)
        summaries[seed] = json.loads(summary.read_text("utf-8"))
    found = spread(summaries)
    print(found.table())
    (folder / SEEDS_FILE).write_text(json.dumps(asdict(found), indent=2) + "\n", "utf-8")
    print(f"written: {folder / SEEDS_FILE}")
    return worst


def _refuse_another_configuration(config: TrainConfig, trained_with: Path) -> None:
    before, now = flat(read_yaml(trained_with)), flat(plain(config))
    if different := [key for key in different_keys(before, now) if key not in MAY_DIFFER]:
        values = ", ".join(f"{key} {before[key]}, not {now[key]}" for key in different)
        raise ConfigError(
            f"a seed that has finished was trained with another configuration ({trained_with}): {values}. Seeds that "
            "are compared differ in nothing else: leave that as it was, or begin anew in another --run.folder"
        )


def _written(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


def _is_finished(summary: Path, epochs: int) -> bool:
    return summary.is_file() and json.loads(summary.read_text("utf-8")).get("epochs") == epochs


def _run_child(arguments: Sequence[str]) -> int:
    """Run `asr train` in a process of its own, and hand Ctrl-C and SIGTERM on to it, which saves and ends."""
    child = subprocess.Popen([sys.executable, "-m", "asr", "train", *arguments], process_group=0)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda received, frame: child.send_signal(received))
    try:
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status
