"""What a run tells: a bar or lines for people, metrics.csv and TensorBoard for curves."""

import csv
import sys
import time
from collections.abc import Mapping
from pathlib import Path


class Progress:
    """Shows and records a run's numbers. On a terminal a bar; a line an epoch everywhere.

    Arguments: folder of the logs; epochs and steps_per_epoch; log_every steps a record; step that the run goes on
    from, beyond which earlier records are dropped.
    """

    def __init__(self, folder: Path, epochs: int, steps_per_epoch: int, log_every: int, step: int = 0):
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "metrics.csv"
        self.rows = [row for row in read_metrics(self.path) if int(row["step"]) <= step] if step else []
        self.epochs, self.steps_per_epoch, self.log_every = epochs, steps_per_epoch, log_every
        self.board = SummaryWriter(str(folder), purge_step=step + 1 if step else None)
        self.began = self.epoch_began = time.monotonic()
        self.epoch_seconds = 0.0
        self._write()
        self.bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=steps_per_epoch, leave=False, dynamic_ncols=True)

    @property
    def speed(self) -> float:
        """Seconds of speech trained on a second, in this epoch."""
        return self.epoch_seconds / max(time.monotonic() - self.epoch_began, 1e-9)

    def step(self, numbers: Mapping[str, float]) -> None:
        """Take a step's numbers."""
        self.epoch_seconds += numbers["seconds"]
        if self.bar is not None:
            self.bar.set_description(f"epoch {int(numbers['epoch']) + 1}/{self.epochs}", refresh=False)
            self.bar.set_postfix(loss=f"{numbers['loss']:.3f}", speech=f"{self.speed:.0f}x", refresh=False)
            self.bar.update()
        if int(numbers["step"]) % self.log_every == 0:
            self._record({**numbers, "speed": self.speed})

    def epoch(self, numbers: Mapping[str, float]) -> None:
        """Take an epoch's numbers, and print its line."""
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        line = (
            f"epoch {int(numbers['epoch'])}/{self.epochs}  loss {numbers['loss']:.3f}  "
            f"dev loss {numbers['dev_loss']:.3f}  dev WER {100 * numbers['dev_wer']:.2f} %  "
            f"{self.speed:.0f} s/s  {minutes}:{seconds:02}"
        )
        if self.bar is not None:
            self.bar.reset()
            self.bar.write(line)
        else:
            print(line, flush=True)
        self._record({("epoch_loss" if name == "loss" else name): value for name, value in numbers.items()})
        self.epoch_began, self.epoch_seconds = time.monotonic(), 0.0

    def close(self) -> None:
        """End the bar and the files."""
        if self.bar is not None:
            self.bar.close()
        self.board.close()

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
