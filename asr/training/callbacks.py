"""What happens around the training loop: progress people can read, the bundle, the time limit."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, TQDMProgressBar

from asr import __version__


class BundleWriter(Callback):
    """Saves the bundle whenever the dev WER is the best so far."""

    def __init__(self, folder: Path, training: Mapping[str, Any]):
        self.folder = folder
        self.training = training
        self.best = float("inf")
        self.began = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Compare, and save on the first process."""
        wer = float(trainer.callback_metrics["dev_wer"])
        if wer >= self.best:
            return
        self.best = wer
        if trainer.is_global_zero:
            summary = {
                **self.training,
                "dev_wer": round(wer, 5),
                "epoch": trainer.current_epoch + 1,
                "steps": trainer.global_step,
                "minutes": round((time.monotonic() - self.began) / 60, 2),
                "asr_version": __version__,
            }
            replace(pl_module.bundle, model=pl_module.evaluated_model, training=summary).save(self.folder)

    def state_dict(self) -> dict[str, Any]:
        """Remember the best WER across a resume."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best WER so far."""
        self.best = state_dict["best"]


class Speed:
    """Counts seconds of speech trained on a second."""

    def __init__(self):
        self.began = time.monotonic()
        self.seconds = 0.0

    def add(self, seconds: float) -> float:
        """Add a batch's seconds of speech; the mean speed since the start."""
        self.seconds += seconds
        return self.seconds / max(time.monotonic() - self.began, 1e-9)


class ProgressBar(TQDMProgressBar):
    """A bar on terminals: loss, dev WER, seconds of speech a second."""

    def __init__(self):
        super().__init__()
        self.speed = Speed()  # here too, since a run resumed in mid-epoch starts none
        self.rate = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, *arguments: Any) -> None:
        """Start counting the epoch's speed."""
        super().on_train_epoch_start(trainer, *arguments)
        self.speed = Speed()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch."""
        self.rate = self.speed.add(batch.seconds)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: L.Trainer, pl_module: Any) -> dict[str, Any]:
        """Choose what stands beside the bar."""
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if "dev_wer" in metrics:
            metrics["dev_wer"] = f"{100 * float(metrics['dev_wer']):.1f}%"
        return metrics | {"speech": f"{self.rate:.0f}x"}


class EpochLines(Callback):
    """One line an epoch, for logs and pipes."""

    def __init__(self):
        self.run_began = time.monotonic()
        self.speed = Speed()  # here too, since a run resumed in mid-epoch starts none
        self.rate = 0.0
        self.losses: list[Any] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Start counting the epoch's speed and loss."""
        self.speed = Speed()
        self.losses = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch."""
        self.rate = self.speed.add(batch.seconds)
        if outputs is not None:
            self.losses.append(outputs["loss"].detach())

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Print the epoch's line."""
        if not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        loss = sum(float(value) for value in self.losses) / max(len(self.losses), 1)
        dev_loss = metrics.get("dev_loss", float("nan"))
        minutes, seconds = divmod(int(time.monotonic() - self.run_began), 60)
        print(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  loss {loss:.3f}  dev loss {dev_loss:.3f}  "
            f"dev WER {100 * float(metrics['dev_wer']):.2f} %  {self.rate:.0f} s/s  {minutes}:{seconds:02}",
            flush=True,
        )


class TimeLimit(Callback):
    """Ends training after the epoch in which `minutes` have passed; 0 for no limit."""

    def __init__(self, minutes: float):
        self.minutes = minutes
        self.began = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Look at the clock."""
        if self.minutes and time.monotonic() - self.began > 60 * self.minutes:
            trainer.should_stop = True
