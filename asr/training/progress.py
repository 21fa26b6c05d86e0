"""What a run reports: a bar or lines for people; metrics.csv, TensorBoard and Weights & Biases for curves."""

import csv
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asr.errors import ConfigError
from asr.version import install_hint

METRICS, SAMPLES, WARNINGS = "metrics.csv", "samples.jsonl", "warnings.jsonl"
SAMPLED = 4  # dev utterances whose transcripts are kept epoch by epoch

log = logging.getLogger(__name__)


class Progress:
    """Shows and records a run's numbers, once `begin` was called. On a terminal a bar; a line an epoch everywhere.

    Arguments: folder of the logs; epochs of the run; log_every steps a record.

    Attributes: amount, the number of a step whose sum by the time is the speed.
    """

    amount = "seconds"

    def __init__(self, folder: Path, epochs: float, log_every: int):
        self.folder, self.path = folder, folder / METRICS
        self.epochs, self.log_every = epochs, log_every
        self.board: Any = None
        self.wandb: Any = None
        self.bar: Any = None

    def begin(self, step: int, steps_per_epoch: int, wandb: Any = None) -> None:
        """Open the logs of a run that continues from a step, beyond which earlier records are dropped.

        `wandb` is a run of Weights & Biases.
        """
        from torch.utils.tensorboard import SummaryWriter

        self.folder.mkdir(parents=True, exist_ok=True)
        self.wandb = wandb
        self.rows = [row for row in read_metrics(self.path) if int(row["step"]) <= step] if step else []
        self.board = SummaryWriter(str(self.folder), purge_step=step + 1 if step else None)
        self.began = self.epoch_began = time.monotonic()
        self.epoch_amount = 0.0
        self._write()
        for name in (SAMPLES, WARNINGS):
            kept = [line for line in read_lines(self.folder / name) if step and line["step"] <= step]
            (self.folder / name).write_text("".join(map(_json_line, kept)), "utf-8")
        self.last_step = step
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=steps_per_epoch, leave=False, dynamic_ncols=True)

    @property
    def speed(self) -> float:
        """The amount (seconds of speech) that a second trains on, in this epoch."""
        return self.epoch_amount / max(time.monotonic() - self.epoch_began, 1e-9)

    def step(self, numbers: Mapping[str, float]) -> None:
        """Take a step's numbers."""
        self.last_step = int(numbers["step"])
        self.epoch_amount += numbers[self.amount]
        if self.bar is not None:
            self.bar.set_description(f"epoch {int(numbers['epoch'])}/{self.epochs}", refresh=False)
            self.bar.set_postfix(
                loss=f"{numbers['loss']:.3f}", speed=f"{self.speed:.0f} {self.amount}/s", refresh=False
            )
            self.bar.update()
        if int(numbers["step"]) % self.log_every == 0:
            self._record({**numbers, "speed": self.speed})

    def warn(self, message: str, step: int) -> None:
        """Report what a person should know of a step, and keep it for the report."""
        log.warning("%s", message)
        self._append(WARNINGS, {"step": step, "message": message})

    def epoch(self, numbers: Mapping[str, float], pairs: Sequence[tuple[str, str, str]] = ()) -> None:
        """Take an epoch's numbers, and report them; of dev's (id, reference, hypothesis) some are kept."""
        if self.bar is not None:
            self.bar.reset()
        log.info("%s", self._line(numbers), extra={"event": {"event": "epoch", **numbers}})
        self._record({("epoch_loss" if name == "loss" else name): value for name, value in numbers.items()})
        for name, reference, hypothesis in pairs[:: -(-len(pairs) // SAMPLED) or 1]:
            sample = {"id": name, "reference": reference, "hypothesis": hypothesis}
            self._append(SAMPLES, {"step": self.last_step, "epoch": int(numbers["epoch"]), **sample})
        self.epoch_began, self.epoch_amount = time.monotonic(), 0.0

    def _line(self, numbers: Mapping[str, float]) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        corpora = {
            name.removeprefix("dev_wer/"): value
            for name, value in numbers.items()
            if name.startswith("dev_wer/")
        }
        of_corpora = ", ".join(f"{name} {100 * value:.2f}" for name, value in corpora.items())
        return (
            f"epoch {int(numbers['epoch'])}/{self.epochs}  loss {numbers['loss']:.3f}  "
            f"dev loss {numbers['dev_loss']:.3f}  dev WER {100 * numbers['dev_wer']:.2f} %  "
            f"{f'({of_corpora})  ' if of_corpora else ''}{self.speed:.0f} s/s  {minutes}:{seconds:02}"
        )

    def close(self, finished: bool = True) -> None:
        """End the bar and the files; W&B is told whether the run came to its end."""
        if self.bar is not None:
            self.bar.close()
        if self.board is not None:
            self.board.close()
        if self.wandb is not None:
            self.wandb.finish(exit_code=0 if finished else 1)

    def _append(self, name: str, values: Mapping[str, Any]) -> None:
        with (self.folder / name).open("a", encoding="utf-8") as file:
            file.write(_json_line(values))

    def _record(self, numbers: Mapping[str, float]) -> None:
        new = [name for name in numbers if name not in self._columns()]
        row = {name: f"{value:.7g}" for name, value in numbers.items()}
        self.rows.append(row)
        if new:
            self._write()
        else:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns()).writerow(row)
        for name, value in numbers.items():
            if name != "step":
                self.board.add_scalar(name, value, int(numbers["step"]))
        if self.wandb is not None:
            self.wandb.log(dict(numbers))

    def _columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row if row[name] != ""))

    def _write(self) -> None:
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns(), extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.rows)


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Read a metrics.csv; a last line that was cut off is dropped."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if row["step"].isdecimal() and None not in row.values()]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object a line; a last line that was cut off is dropped."""
    if not path.is_file():
        return []
    whole = path.read_text("utf-8").rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def _json_line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"


def start_wandb(project: str, run: Path, config: Mapping[str, Any]) -> Any:
    """Begin, or continue, the Weights & Biases run that is called as the run's folder; None without a project.

    Steps are an axis of its own, as a resumed run logs some of them again. Raises ConfigError where the package is
    absent, or refuses to begin.
    """
    if not project:
        return None
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            "run.wandb needs the package wandb, which is not installed; "
            f"{install_hint('wandb')}, or leave run.wandb empty"
        ) from error
    note = run / "logs" / "wandb_id"
    note.parent.mkdir(parents=True, exist_ok=True)
    try:
        begun = wandb.init(
            project=project,
            name=run.name,
            dir=str(run / "logs"),
            config=dict(config),
            id=note.read_text("utf-8") if note.is_file() else None,
            resume="allow",
        )
    except wandb.Error as error:
        raise ConfigError(
            f"run.wandb: Weights & Biases cannot begin ({' '.join(str(error).split())}); `wandb login`, or set "
            "WANDB_MODE=offline and send the run later with `wandb sync`"
        ) from error
    note.write_text(begun.id, "utf-8")
    begun.define_metric("step")
    begun.define_metric("*", step_metric="step")
    return begun
