"""The training loop of a language model: truncated back-propagation through time (Williams & Peng 1990).

The text is read in `batch_size` places side by side, `chunk` tokens a step. The state is carried on from step to step,
without its gradient: the model remembers more than it learns through. All that chance decides in a step is drawn from
the run's seed and the step's number, so that a run which is resumed takes the steps that an uninterrupted one takes.
"""

import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from asr.errors import AsrError
from asr.training.checkpoint import write_checkpoint
from asr.training.interrupts import Interrupted, on_signal
from asr.training.lm.config import LmConfig, LmOptimizerConfig
from asr.training.lm.network import RecurrentLm, States
from asr.training.lm.text import Chunks, LmText
from asr.training.optimizer import learning_rate
from asr.training.watch import Watch

# What a checkpoint holds beside weights, optimizer and carried state.
COUNTERS = ("step", "minutes", "best", "losses", "history")
DEV_TOKENS = 2048  # of sentences that dev measures together, padding included


class LmTraining:
    """A run: everything that a checkpoint holds, and the loop that moves it on.

    Arguments: config; model; text; folder for checkpoints, None to write none. Observers: on_step(numbers) after a
    step, on_dev(training) after a look at dev, on_best(training) where that is the best so far, on_warning(message,
    step).

    Attributes: step, steps done in all. minutes, of training. best, the lowest perplexity of a word on dev. states,
    carried from chunk to chunk. losses, sum and number since the last look at dev. history, the numbers of each look.
    """

    def __init__(
        self,
        config: LmConfig,
        model: RecurrentLm,
        text: LmText,
        folder: Path | None = None,
        *,
        on_step: Callable[[dict[str, float]], None] = lambda numbers: None,
        on_dev: Callable[["LmTraining"], None] = lambda training: None,
        on_best: Callable[["LmTraining"], None] = lambda training: None,
        on_warning: Callable[[str, int], None] = lambda message, step: None,
    ):
        self.config, self.model, self.text, self.folder = config, model, text, folder
        self.on_step, self.on_dev, self.on_best = on_step, on_dev, on_best
        self.watch = Watch(lambda message: on_warning(message, self.step))
        self.optimizer = _optimizer(model, config.optimizer)
        self.steps_per_epoch = Chunks.count(text.train, config)
        self.total_steps = max(1, round(config.run.epochs * self.steps_per_epoch))
        self.steps_between_looks = -(-self.steps_per_epoch // config.run.dev_per_epoch)
        self.step, self.minutes, self.best = 0, 0.0, math.inf
        self.losses = [0.0, 0.0]
        self.history: list[dict[str, float]] = []
        self.states: States | None = None
        self._chunks: tuple[int, Chunks] | None = None
        self.received: int | None = None  # the number of a signal
        self.saved = self.began = time.monotonic()

    def fit(self) -> None:
        """Train from where the state is to the last step. Raises Interrupted after a signal, RunAborted."""
        with on_signal(self._receive, once=True):
            self.saved = self.began = time.monotonic()
            self.save()  # so that a run can be resumed from its first moment on
            while self.step < self.total_steps:
                self._stop_or_save()
                self._take_step()
                ended = self.step == self.total_steps or self._is_late()
                if ended or self.step % self.steps_between_looks == 0:
                    self._look_at_dev()
                    self.save()
                if ended:
                    break
            self.received = None  # a signal during the last save: nothing is left that it could stop

    def _take_step(self) -> None:
        """Read one chunk in all places, and update the weights by its gradient."""
        epoch, number = divmod(self.step, self.steps_per_epoch)
        if self._chunks is None or self._chunks[0] != epoch:
            self._chunks = (epoch, Chunks(self.text.train, self.config, epoch))
        inputs, targets = self._chunks[1][number]
        # A hash of numbers is the same in every process.
        torch.manual_seed(hash((self.config.run.seed, self.step)) % 2**63)
        rate = self._set_learning_rate()
        self.model.train()
        self.optimizer.zero_grad()
        hidden, states = self.model(inputs, self.states if number else None)
        mean = self.model.loss(hidden.flatten(0, 1), targets.flatten()).mean()
        mean.backward()
        loss = mean.item()
        clip = self.config.optimizer.gradient_clip or math.inf
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), clip))
        self.step += 1
        self._update(loss, norm, states)
        numbers = {"step": self.step, "epoch": epoch + 1, "loss": loss, "learning_rate": rate}
        self.on_step(numbers | {"gradient_norm": norm, "tokens": inputs.numel()})

    def _set_learning_rate(self) -> float:
        rate = learning_rate(self.config.optimizer, self.step, self.steps_per_epoch, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _update(self, loss: float, norm: float, states: States) -> None:
        """Update the weights and carry the state on, if the loss and the norm of its gradient are finite."""
        if not math.isfinite(loss) or not math.isfinite(norm):
            self.states = None  # it may be what is not finite
            self.watch.skipped(self.step, f"the loss is {loss}, its gradient's norm {norm}")
            return
        self.optimizer.step()
        self.states = [tuple(part.detach() for part in state) for state in states]
        self.losses = [self.losses[0] + loss, self.losses[1] + 1]
        if self.watch.is_spike(loss):
            self.watch.spike(self.step, loss, f"step {self.step}")
        self.watch.stepped(loss)

    def _look_at_dev(self) -> None:
        """Measure dev, and report it; the best model so far is the run's."""
        self._count_minutes()
        total = self.measure()
        corpus = self.text.dev
        numbers = {
            "epoch": self.step / self.steps_per_epoch,
            "step": self.step,
            "loss": self.losses[0] / max(self.losses[1], 1),
            "dev_loss": total / len(corpus.ids),
            "dev_perplexity": math.exp(min(total / (corpus.words + corpus.sentences), 700)),
            "minutes": self.minutes,
        }
        self.losses = [0.0, 0.0]
        self.history.append(numbers)
        self.on_dev(self)
        if numbers["dev_perplexity"] < self.best:
            self.best = numbers["dev_perplexity"]
            self.on_best(self)

    @torch.no_grad()
    def measure(self) -> float:
        """Return the negative log-probability of dev, in nats, each sentence read from its own start."""
        self.model.eval()
        total = 0.0
        for inputs, targets, lengths in self.text.dev.batches(DEV_TOKENS):
            hidden, _ = self.model(inputs, lengths=lengths)
            inside = torch.arange(inputs.shape[1]) < torch.tensor(lengths)[:, None]
            total += float(self.model.loss(hidden[inside], targets[inside]).double().sum())
            self._stop_if_signaled()
        return total

    def state(self) -> dict[str, Any]:
        """Return everything that resuming needs."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "states": self.states,
            **{name: getattr(self, name) for name in COUNTERS},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a state. Raises AsrError with the reason why it does not fit."""
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.states = state["states"]
            for name in COUNTERS:
                setattr(self, name, state[name])
        except (RuntimeError, ValueError, KeyError) as error:
            # Of torch's message the first line names a class, the second what does not fit.
            raise AsrError(str(error).splitlines()[:2][-1].strip()) from error

    def save(self) -> bool:
        """Write a checkpoint. Returns False where it could not be written, which has been reported."""
        self.saved = time.monotonic()
        self._count_minutes()
        return self.folder is None or write_checkpoint(self.folder, self.state())

    def _is_late(self) -> bool:
        self._count_minutes()
        limit = self.config.run.max_minutes
        return bool(limit) and self.minutes > limit

    def _count_minutes(self) -> None:
        now = time.monotonic()
        self.minutes, self.began = self.minutes + (now - self.began) / 60, now

    def _receive(self, signum: int) -> None:
        """Note Ctrl-C or SIGTERM, to save and stop between two steps."""
        self.received = signum

    def _stop_or_save(self) -> None:
        self._stop_if_signaled()
        if time.monotonic() - self.saved > 60 * self.config.run.checkpoint_minutes:
            self.save()

    def _stop_if_signaled(self) -> None:
        if self.received:
            raise Interrupted(self.received or signal.SIGTERM, self.save())


def _optimizer(model: RecurrentLm, config: LmOptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW with weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}]
    groups += [{"params": vectors, "weight_decay": 0.0}] if vectors else []
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)
