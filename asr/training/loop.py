"""The training loop: epochs of steps, dev after each, and a checkpoint from which it continues to the same weights.

All that chance decides in a step (dropout, zoneout) is drawn from the run's seed, the epoch and the batch's number, and
so are the data's order and augmentation. The place in the epoch is therefore all that resuming needs beside the
weights, the optimizer and the counters.
"""

import signal
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from asr.data import Batch
from asr.errors import AsrError
from asr.model import AcousticModel
from asr.text.lexicon import Lexicon
from asr.torch_bundle import TorchBundle
from asr.training.averaging import BestEpochs, rank
from asr.training.checkpoint import write_checkpoint
from asr.training.config import TrainConfig
from asr.training.data import SpeechData
from asr.training.distributed import (
    average_buffers,
    gather,
    gather_dicts,
    gather_lists,
    sum_gradients,
    total,
)
from asr.training.interrupts import Interrupted, on_signal
from asr.training.optimizer import gradient_norms, learning_rate, make_optimizer, moving_average
from asr.training.step import GradientMaker, autocast_type
from asr.training.validate import Pairs, Validation
from asr.training.watch import RunAborted, Watch
from asr.wording import some

# What a checkpoint holds beside the weights: the run's place, and what came of it so far.
COUNTERS = (
    *("epoch", "batch", "step", "seconds_seen", "minutes", "best"),
    *("skipped_in_a_row", "epoch_loss", "epoch_steps", "history"),
)


class Training:
    """A run: everything that a checkpoint holds, and the loop that moves it on.

    Arguments: fabric, launched; config; bundle, whose model is trained; data; folder for checkpoints, None to write
    none. Observers: on_step(numbers) after a step, on_epoch(training) after an epoch, on_best(training) where it, or
    the average of the best epochs, has the best dev WER so far, and on_warning(message, step), what a person should
    know.

    Attributes: epoch, batch, step: epochs done, batches done in this one, steps in all. seconds_seen, of speech.
    minutes, of training. best: the lowest dev WER. history: an epoch's numbers each.
    """

    def __init__(
        self,
        fabric: Fabric,
        config: TrainConfig,
        bundle: TorchBundle,
        data: SpeechData,
        folder: Path | None = None,
        *,
        on_step: Callable[[dict[str, float]], None] = lambda numbers: None,
        on_epoch: Callable[["Training"], None] = lambda training: None,
        on_best: Callable[["Training"], None] = lambda training: None,
        on_warning: Callable[[str, int], None] = lambda message, step: None,
    ):
        self.fabric, self.config, self.bundle, self.data, self.folder = fabric, config, bundle, data, folder
        self.on_step, self.on_epoch, self.on_best = on_step, on_epoch, on_best
        self.watch = Watch(lambda message: on_warning(message, self.step))
        self.model: AcousticModel = bundle.model.to(fabric.device)
        self.model.checkpoint_activations = config.run.checkpoint_activations
        self.average = moving_average(self.model, config.optimizer.ema) if config.optimizer.ema else None
        self.optimizer = make_optimizer(self.model, config.optimizer)
        autocast = autocast_type(config.run)
        self.scaler = torch.amp.GradScaler(fabric.device.type, enabled=autocast == torch.float16)
        # The scaler makes its scale when it is first used, which a step may never do.
        self.scaler.scale(torch.zeros((), device=fabric.device))
        phones = None
        if config.loss.lexicon:
            phones = Lexicon.read(config.loss.lexicon).encoder(self.model.config.phones)
        self.gradients = GradientMaker(self.model, config.loss, autocast, self.scaler, phones)
        self.validation = Validation(
            fabric, bundle, data.dev_loader, data.dev_corpora, self._stop_if_signaled
        )
        self.best_epochs = BestEpochs(folder, config.optimizer.average_checkpoints)
        self.epoch, self.batch, self.step = 0, 0, 0
        self.seconds_seen, self.minutes, self.best = 0.0, 0.0, float("inf")
        self.epoch_loss, self.epoch_steps = 0.0, 0
        self.history: list[dict[str, float]] = []
        self.received: int | None = None  # the number of a signal
        self.saved = self.began = time.monotonic()

    def fit(self) -> None:
        """Train from where the state is to the last epoch. Raises Interrupted after a signal, RunAborted."""
        with on_signal(self._receive, once=True):
            self.saved = self.began = time.monotonic()
            self.save()  # so that a run can be resumed from its first moment on
            while not self._is_over():
                for batches in self._steps_of_epoch():
                    self._stop_or_save()
                    self._step(batches)
                    self.batch += len(batches)
                self._validate()
                self._end_epoch()
                self.save()
            self.received = None  # a signal during the last save: nothing is left that it could stop
        self._try_average()

    def _is_over(self) -> bool:
        """Whether all epochs are done, or their time is. An epoch that was begun is ended also if its time is over."""
        limit = self.config.run.max_minutes
        timed_out = bool(limit) and self.minutes > limit and not self.batch
        return self.epoch >= self.config.run.epochs or timed_out

    def _steps_of_epoch(self) -> Iterator[list[Batch]]:
        """Yield the batches of each step that is left of the epoch."""
        self.model.train()
        loader = self.data.train_loader
        loader.set_epoch(self.epoch, self.batch)
        if self.batch >= len(loader):  # only dev was left to do
            return
        batches = iter(loader)
        while group := list(islice(batches, self.config.optimizer.accumulate_batches)):
            yield group

    def _step(self, batches: list[Batch]) -> None:
        """Take one step with the gradients of these batches, of all processes together."""
        # A hash of numbers is the same in every process.
        torch.manual_seed(
            hash((self.config.run.seed, self.epoch, self.batch, self.fabric.global_rank)) % 2**63
        )
        rate = self._set_learning_rate()
        usable = [self.gradients.usable(batch.to(self.fabric.device)) for batch in batches if batch.ids]
        tokens, seconds = total(
            self.fabric,
            [sum(int(b.token_lengths.sum()) for b in usable), sum(b.seconds for b in batches)],
        )
        self.seconds_seen += seconds
        if not tokens:
            return
        self.step += 1
        loss = self._compute_gradients(usable, tokens)
        parameters = self._parameters()
        shown = self.step % self.config.run.log_every == 0
        layers = gradient_norms(self.model) if shown else {}  # before clipping hides what explodes
        norm = float(
            nn.utils.clip_grad_norm_(parameters, self.config.optimizer.gradient_clip or float("inf"))
        )
        self._update(loss, norm, usable)
        self.scaler.update()  # halves the scale where float16 overflowed
        numbers = {"step": self.step, "epoch": self.epoch + 1, "loss": loss, "learning_rate": rate}
        self.on_step(numbers | {"gradient_norm": norm, "seconds": seconds} | layers)

    def _set_learning_rate(self) -> float:
        config, loader = self.config, self.data.train_loader
        rate = learning_rate(config.optimizer, self.seconds_seen, loader.seconds, self.data.total_seconds)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        return rate

    def _parameters(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def _compute_gradients(self, batches: list[Batch], tokens: float) -> float:
        """Compute the gradients of a step; return its loss per token, NaN where a batch has none."""
        self.optimizer.zero_grad()
        self.gradients.faults.clear()
        shares = sum(self.gradients.add(batch, tokens) for batch in batches)
        loss, faults = total(self.fabric, [shares, len(self.gradients.faults)])
        sum_gradients(self.fabric, self._parameters())
        self.scaler.unscale_(self.optimizer)
        return float("nan") if faults else loss

    def _update(self, loss: float, norm: float, batches: list[Batch]) -> None:
        """Update the weights, if the loss and the norm of its gradient are finite."""
        if not torch.isfinite(torch.tensor([loss, norm])).all():
            faults = gather_lists(self.fabric, self.gradients.faults)
            reason = "; ".join(faults) or f"the gradient's norm is {norm} for {self._names(batches)}"
            self.watch.skipped(self.step, reason)
            return
        self.scaler.step(self.optimizer)
        self.epoch_loss, self.epoch_steps = self.epoch_loss + loss, self.epoch_steps + 1
        if self.average is not None:
            self.average.update_parameters(self.model)
        if self.watch.is_spike(loss):
            self.watch.spike(self.step, loss, self._names(batches))
        self.watch.stepped(loss)

    def _names(self, batches: list[Batch]) -> str:
        """Name utterances of a step, of all processes."""
        return some(gather_lists(self.fabric, [name for batch in batches for name in batch.ids]))

    @torch.no_grad()
    def _validate(self) -> None:
        """Measure dev greedily, and add the epoch's numbers to the history."""
        if not self.step:
            self._refuse_data()
        model = self.evaluated_model
        model.eval()
        average_buffers(self.fabric, model)
        measured = self.measure(model)
        self._count_minutes()
        loss = self.epoch_loss / self.epoch_steps if self.epoch_steps else float("nan")
        numbers = {"epoch": self.epoch + 1, "step": self.step, "loss": loss, "minutes": self.minutes}
        self.history.append(numbers | measured)
        self.watch.epoch(self.epoch + 1, measured["blank_share"], measured["entropy"])

    def measure(self, model: AcousticModel) -> dict[str, float]:
        """Return dev's measures of a model, over all processes."""
        return self.validation.measure(model)

    def _refuse_data(self) -> None:
        """End a run without a single step: nothing that it was given can be learned from."""
        reasons = list(gather_dicts(self.fabric, self.left_out).items())
        because = f": {some([f'{name} ({reason})' for name, reason in reasons], 2)}" if reasons else ""
        raise RunAborted(
            f"none of the {self.data.train_loader.utterances} training utterances can be used{because}. `asr check` "
            "lists what is wrong with each"
        )

    def _end_epoch(self) -> None:
        self.epoch, self.batch, self.epoch_loss, self.epoch_steps = self.epoch + 1, 0, 0.0, 0
        self.on_epoch(self)
        if self.fabric.is_global_zero:
            self.best_epochs.keep(self.history, self.evaluated_model)
        if min(self.history, key=rank) is self.history[-1]:
            self.best = self.history[-1]["dev_wer"]
            self.on_best(self)

    def _try_average(self) -> None:
        """Average the weights of the best epochs, and keep the average if its dev WER is lower."""
        if not self.config.optimizer.average_checkpoints:
            return
        weights = self.best_epochs.average(self.fabric, self.history)
        if weights is None:
            return
        model = self.evaluated_model
        model.load_state_dict(weights)
        model.eval()
        wer = self.measure(model)["dev_wer"]
        if wer < self.best:
            self.best = wer
            self.on_best(self)

    @property
    def evaluated_model(self) -> AcousticModel:
        """The model that dev measures and the bundle saves: the moving average where there is one."""
        return self.model if self.average is None else self.average.module  # type: ignore[return-value]

    @property
    def dev_pairs(self) -> Pairs:
        """What this process recognized of dev the last time: (id, reference, hypothesis) each."""
        return self.validation.pairs

    @property
    def left_out(self) -> dict[str, str]:
        """{utterance: reason} of everything that could not be used so far; of other processes, until the last save."""
        return self.data.train_loader.left_out | self.data.dev_loader.left_out | self.gradients.left_out

    @property
    def skipped_in_a_row(self) -> int:
        """Steps without finite gradients since the last one with them."""
        return self.watch.skipped_in_a_row

    @skipped_in_a_row.setter
    def skipped_in_a_row(self, count: int) -> None:
        self.watch.skipped_in_a_row = count

    def state(self) -> dict[str, Any]:
        """Return everything that resuming needs; all processes have to ask for it together."""
        buffers = {name: buffer.cpu() for name, buffer in self.model.named_buffers()}
        return {
            "processes": self.fabric.world_size,
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "log_mel": self.bundle.log_mel.state_dict(),
            "phones": list(self.model.config.phones),
            "buffers": gather(self.fabric, buffers),
            "left_out": self.left_out,
            **{name: getattr(self, name) for name in COUNTERS},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a state. Raises AsrError with the reason why it does not fit."""
        processes = self.fabric.world_size
        if state["batch"] and state["processes"] != processes:
            raise AsrError(
                f"the checkpoint is of the middle of an epoch of {state['processes']} processes, with which "
                f"{processes} cannot continue; resume with as many"
            )
        try:
            self.model.load_state_dict(state["model"])
            if state["processes"] == processes > 1:  # the others have statistics of their own batches
                self.model.load_state_dict(state["buffers"][self.fabric.global_rank], strict=False)
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, ValueError, AttributeError, TypeError) as error:
            raise AsrError(str(error).splitlines()[0]) from error
        self.gradients.left_out = dict(state["left_out"])
        for name in COUNTERS:
            setattr(self, name, state[name])

    def save(self) -> bool:
        """Write a checkpoint, in the first process, of what all know; they have to call this together.

        Returns False where it could not be written, which has been reported.
        """
        self.saved = time.monotonic()
        self._count_minutes()
        self.gradients.left_out |= gather_dicts(self.fabric, self.left_out)
        state = self.state()
        if self.folder is not None and self.fabric.is_global_zero:
            return write_checkpoint(self.folder, state)
        return True

    def _count_minutes(self) -> None:
        """Add the time since this was last done, by the first process's clock, as it ends the run."""
        now = time.monotonic()
        self.minutes, self.began = gather(self.fabric, self.minutes + (now - self.began) / 60)[0], now

    def _stop_or_save(self) -> None:
        """Stop after a signal to any process; save when it is time by the clock of the first."""
        overdue = time.monotonic() - self.saved > 60 * self.config.run.checkpoint_minutes
        stop, save = total(
            self.fabric, [float(self.received or 0), float(overdue and self.fabric.is_global_zero)]
        )
        if stop:
            self._stop()
        if save:
            self.save()

    def _receive(self, signum: int) -> None:
        """Note Ctrl-C or SIGTERM, to save and stop between two steps."""
        self.received = signum

    def _stop_if_signaled(self) -> None:
        if total(self.fabric, [float(self.received or 0)])[0]:
            self._stop()

    def _stop(self) -> None:
        """Save, and raise Interrupted; all processes do together."""
        saved = self.save()
        raise Interrupted(self.received or signal.SIGTERM, saved)
