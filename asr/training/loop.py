"""The training loop: epochs of steps, dev after each, and a checkpoint from which it goes on to the same weights.

All that chance decides in a step (dropout, zoneout) is drawn from the run's seed, the epoch and the batch's number, and
so are the data's order and augmentation. The place in the epoch is therefore all that resuming needs beside the
weights, the optimizer and the counters.
"""

import math
import signal
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from asr.ctc import ctc_loss, log_probs_of, unalignable
from asr.data import Batch, Loader
from asr.decoding import greedy
from asr.errors import AlignmentError, AsrError
from asr.model import AcousticModel
from asr.scoring import score
from asr.text import BLANK
from asr.torch_bundle import TorchBundle
from asr.training.checkpoint import write_checkpoint
from asr.training.config import TrainConfig
from asr.training.lexicon import Lexicon
from asr.training.optimizer import learning_rate, make_optimizer, moving_average
from asr.training.step import GradientMaker

SKIPS_IN_A_ROW = (
    10  # steps without finite gradients after which training stops: it will not recover by itself
)
SPIKE = 3.0  # times the median of the last losses,
LEAST_SPIKE = 1.0  # and so much above it, nats for a token: hard batches of a good model are within that,
SPIKE_DEVIATIONS = (
    3.0  # and so many deviations of their logarithms: losses of batches of few utterances differ much
)
STUCK_SHARE = 0.99  # of frames whose best token is blank, from which on a model says nothing
PATIENCE = 3  # epochs in which that is usual
NAMED = 4  # utterances of a step; further ones are counted


def spike_threshold(losses: Iterable[float]) -> float:
    """Give the loss from which a step stands out from the last ones' losses, all in nats for a token.

    The deviation is the median absolute one, as a normal distribution's (Hampel 1974), which spikes do not stretch.
    """
    usual = statistics.median(losses)
    logs = [math.log(max(loss, 1e-9)) for loss in losses]
    middle = statistics.median(logs)
    deviation = 1.4826 * statistics.median(abs(value - middle) for value in logs)
    return max(usual * max(SPIKE, math.exp(SPIKE_DEVIATIONS * deviation)), usual + LEAST_SPIKE)


class CommonError(AsrError):
    """What ends a run in all of its processes alike; the first one says it."""


class StoppedError(Exception):
    """Ctrl-C or SIGTERM, after the state was saved; carries the signal's number, and whether saving went well."""

    def __init__(self, signum: int, saved: bool = True):
        super().__init__(signum)
        self.signum, self.saved = signum, saved


class Training:
    """A run: everything that a checkpoint holds, and the loop that moves it on.

    Arguments: fabric, launched; config; bundle, whose model is trained; loaders of the training data and of dev;
    folder for checkpoints, None to write none; on_step(numbers) and on_epoch(training) are told what happened, and
    warn(message) what a person should know.
    """

    def __init__(
        self,
        fabric: Fabric,
        config: TrainConfig,
        bundle: TorchBundle,
        train: Loader,
        dev: Loader,
        folder: Path | None = None,
        on_step: Callable[[dict[str, float]], None] = lambda numbers: None,
        on_epoch: Callable[["Training"], None] = lambda training: None,
        warn: Callable[[str], None] = lambda message: print(message, file=sys.stderr),
    ):
        self.fabric, self.config, self.bundle = fabric, config, bundle
        self.train_loader, self.dev_loader, self.folder = train, dev, folder
        self.on_step, self.on_epoch = on_step, on_epoch
        self.warn = warn if fabric.is_global_zero else lambda message: None
        self.model: AcousticModel = bundle.model.to(fabric.device)
        self.model.checkpoint_activations = config.run.checkpoint_activations
        self.average = moving_average(self.model, config.optimizer.ema) if config.optimizer.ema else None
        self.optimizer = make_optimizer(self.model, config.optimizer)
        autocast = autocast_type(config)
        self.scaler = torch.amp.GradScaler(fabric.device.type, enabled=autocast == torch.float16)
        self.scaler.scale(
            torch.zeros((), device=fabric.device)
        )  # its scale is made by use, which a step may lack
        phones = None
        if config.loss.lexicon:
            phones = Lexicon.read(config.loss.lexicon).encoder(bundle.tokenizer)
        self.gradients = GradientMaker(self.model, config.loss, autocast, self.scaler, phones)
        self.epoch, self.batch, self.step = 0, 0, 0  # batches done in this epoch, steps in all
        self.seconds_seen, self.minutes, self.best = 0.0, 0.0, float("inf")
        self.skipped_in_a_row, self.epoch_loss, self.epoch_steps = 0, 0.0, 0
        self.history: list[dict[str, float]] = []
        self.dev_pairs: list[tuple[str, str, str]] = []
        self.received: int | None = None
        self.losses: deque[float] = deque(maxlen=100)
        self.jumped: set[str] = set()  # names of the batches with which the loss jumped

    @property
    def evaluated_model(self) -> AcousticModel:
        """The model that dev measures and the bundle saves: the moving average where there is one."""
        return self.model if self.average is None else self.average.module  # type: ignore[return-value]

    @property
    def left_out(self) -> dict[str, str]:
        """{utterance: reason} of everything that could not be used so far; of other processes, until the last save."""
        return self.train_loader.left_out | self.dev_loader.left_out | self.gradients.left_out

    def fit(self) -> None:
        """Train from where the state is to the last epoch. Raises StoppedError after a signal."""
        with self._signals():
            self.saved = self.began = time.monotonic()
            self.save()  # so that a run can be resumed from its first moment on
            limit = self.config.run.max_minutes
            # An epoch that was begun is ended, also where the limit was passed before it was interrupted.
            while self.epoch < self.config.run.epochs and (
                self.batch or not (limit and self.minutes > limit)
            ):
                self._train_epoch()
                self._validate()
                self.epoch, self.batch, self.epoch_loss, self.epoch_steps = self.epoch + 1, 0, 0.0, 0
                self.on_epoch(self)
                self.save()
            self.received = None  # a signal during the last save: nothing is left that it could stop

    def _train_epoch(self) -> None:
        self.model.train()
        self.train_loader.set_epoch(self.epoch, self.batch)
        if self.batch >= len(self.train_loader):  # only dev was left to do
            return
        batches = iter(self.train_loader)
        while group := list(islice(batches, self.config.optimizer.accumulate_batches)):
            overdue = time.monotonic() - self.saved > 60 * self.config.run.checkpoint_minutes
            stop, save = self._sum([float(self.received or 0), float(overdue and self.fabric.is_global_zero)])
            if stop:
                self._stop()
            if save:  # all of them, when it is time by the clock of the first
                self.save()
            self._step(group)
            self.batch += len(group)

    def _step(self, batches: list[Batch]) -> None:
        """Take one step with the gradients of these batches, of all processes together."""
        config, maker = self.config.optimizer, self.gradients
        rank = self.fabric.global_rank
        torch.manual_seed(
            hash((self.config.run.seed, self.epoch, self.batch, rank)) % 2**63
        )  # of numbers, which hash alike in every process
        rate = learning_rate(config, self.seconds_seen, self.train_loader.seconds, self.config.run.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        usable = [maker.usable(batch.to(self.fabric.device)) for batch in batches if batch.ids]
        tokens, seconds = self._sum(
            [sum(int(b.token_lengths.sum()) for b in usable), sum(b.seconds for b in batches)]
        )
        self.seconds_seen += seconds
        if not tokens:
            return
        self.step += 1
        self.optimizer.zero_grad()
        maker.faults.clear()
        loss, faulty = self._sum([sum(maker.add(batch, tokens) for batch in usable), len(maker.faults)])
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._sum_gradients(parameters)
        self.scaler.unscale_(self.optimizer)
        shown = self.step % self.config.run.log_every == 0
        layers = gradient_norms(self.model) if shown else {}  # before clipping hides what explodes
        norm = float(nn.utils.clip_grad_norm_(parameters, config.gradient_clip or float("inf")))
        if faulty or not torch.isfinite(torch.tensor([loss, norm])).all():
            faults = [fault for each in self._gather(maker.faults) for fault in each]
            self._skip("; ".join(faults) or f"the gradient's norm is {norm} for {self._names(usable)}")
        else:
            self.scaler.step(self.optimizer)
            self.skipped_in_a_row = 0
            self.epoch_loss, self.epoch_steps = self.epoch_loss + loss, self.epoch_steps + 1
            if self.average is not None:
                self.average.update_parameters(self.model)
            self._note_spike(loss, usable)
        self.scaler.update()  # halves the scale where float16 overflowed
        numbers = {"step": self.step, "epoch": self.epoch + 1, "loss": loss, "learning_rate": rate}
        numbers |= {"gradient_norm": norm, "seconds": seconds}
        self.on_step(numbers | layers)

    def _sum(self, numbers: list[float]) -> list[float]:
        """Add up numbers over all processes."""
        if self.fabric.world_size == 1:
            return numbers
        tensor = torch.tensor(numbers, dtype=torch.float64, device=self.fabric.device)
        torch.distributed.all_reduce(tensor)
        return tensor.tolist()

    def _gather(self, value: Any) -> list[Any]:
        """Give the values of all processes, in their order."""
        values = [value] * self.fabric.world_size
        if self.fabric.world_size > 1:
            torch.distributed.all_gather_object(values, value)
        return values

    def _names(self, batches: list[Batch]) -> str:
        """Name utterances of a step, of all processes."""
        gathered = self._gather([name for batch in batches for name in batch.ids])
        return name_some([name for names in gathered for name in names])

    def _sum_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Add up the gradients of all processes, which may have split their batches as their memory asks for."""
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.fabric.world_size > 1:
            joined = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
            torch.distributed.all_reduce(joined)
            for parameter, part in zip(
                parameters, joined.split([p.numel() for p in parameters]), strict=True
            ):
                parameter.grad = part.view_as(parameter)

    def _skip(self, message: str) -> None:
        self.skipped_in_a_row += 1
        self.warn(f"step {self.step} skipped: {message}")
        if self.skipped_in_a_row >= SKIPS_IN_A_ROW:
            raise CommonError(
                f"the loss or its gradient was not finite in {SKIPS_IN_A_ROW} steps in a row; a lower "
                f"optimizer.learning_rate or optimizer.gradient_clip usually helps. The last: {message}"
            )

    def _note_spike(self, loss: float, batches: list[Batch]) -> None:
        if len(self.losses) >= 20 and loss > spike_threshold(self.losses):
            usual = statistics.median(self.losses)
            names = self._names(batches)
            if names not in self.jumped:  # a batch that is hard in every epoch is told once
                self.warn(f"step {self.step}: the loss jumps from {usual:.2f} to {loss:.2f} with {names}")
            self.jumped.add(names)
        self.losses.append(loss)

    @torch.no_grad()
    def _validate(self) -> None:
        """Measure dev greedily, and put the epoch's numbers into the history."""
        model = self.evaluated_model
        model.eval()
        self._average_buffers(model)
        measured = self.measure(model)
        self._count_minutes()
        self.history.append(
            {
                "epoch": self.epoch + 1,
                "step": self.step,
                "loss": self.epoch_loss / self.epoch_steps if self.epoch_steps else float("nan"),
                "minutes": self.minutes,
                **measured,
            }
        )
        if measured["blank_share"] > STUCK_SHARE and self.epoch + 1 >= PATIENCE:
            self.warn(
                f"after {self.epoch + 1} epochs {100 * measured['blank_share']:.1f} % of the frames are blank (entropy "
                f"{measured['entropy']:.3f} nat): the model says nothing yet. If this lasts: see that transcripts "
                "belong to their audio (`asr check`), raise optimizer.learning_rate, or train on more epochs"
            )

    @torch.no_grad()
    def measure(self, model: AcousticModel) -> dict[str, float]:
        """Give dev's loss, WER, CER, share of blank frames and mean entropy of a frame, over all processes."""
        self.dev_pairs = []
        errors = words = wrong = characters = blanks = frames = entropy = loss = tokens = 0.0
        self.dev_loader.set_epoch(0)
        batches = iter(self.dev_loader)
        for _ in range(len(self.dev_loader)):  # as many in each process, though of some nothing can be read
            if self._sum([float(self.received or 0)])[0]:
                self._stop()
            if (batch := next(batches, None)) is None:
                continue
            batch = batch.to(self.fabric.device)
            logits, lengths = model(batch.features, batch.feature_lengths)
            hypotheses = [
                self.bundle.tokenizer.decode(h.tokens) for h in greedy(log_probs_of(logits, lengths))
            ]
            self.dev_pairs += zip(batch.ids, batch.texts, hypotheses, strict=True)
            report = score(batch.texts, hypotheses, bootstrap=0)
            errors += report.word_errors.errors
            words += report.words
            wrong += report.character_errors.errors
            characters += report.character_errors.length
            inside = torch.arange(logits.shape[1]) < lengths.cpu().unsqueeze(1)
            log_probs = logits.float().log_softmax(-1).cpu()[inside]
            blanks += int((log_probs.argmax(-1) == BLANK).sum())
            entropy -= float((log_probs.exp() * log_probs).sum())
            frames += len(log_probs)
            bad = unalignable(lengths, batch.tokens, batch.token_lengths)
            if good := [index for index in range(len(batch.ids)) if index not in bad]:
                counts = batch.token_lengths[good]
                tokens += float(counts.sum())
                try:
                    mean = ctc_loss(logits[good], lengths[good], batch.tokens[good], counts)
                    loss += float(counts.sum() * mean)
                except AlignmentError:  # of a model that diverged: training says so
                    loss = float("nan")
        errors, words, wrong, characters, blanks, frames, entropy, loss, tokens = self._sum(
            [errors, words, wrong, characters, blanks, frames, entropy, loss, tokens]
        )
        if not words:
            reasons = [item for each in self._gather(self.dev_loader.left_out) for item in each.items()]
            because = f", such as {reasons[0][0]}: {reasons[0][1]}" if reasons else ""
            raise CommonError(f"data.dev holds no word that can be measured on{because}; give other dev data")
        return {
            "dev_loss": loss / tokens if tokens else float("nan"),
            "dev_wer": errors / max(words, 1),
            "dev_cer": wrong / max(characters, 1),
            "blank_share": blanks / max(frames, 1),
            "entropy": entropy / max(frames, 1),
        }

    def _average_buffers(self, model: nn.Module) -> None:
        """Average batch normalization's running statistics, which each process has of its own batches."""
        if self.fabric.world_size > 1:
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    torch.distributed.all_reduce(buffer)
                    buffer /= self.fabric.world_size

    def state(self) -> dict[str, Any]:
        """Give everything that going on needs; all processes have to ask for it together."""
        return {
            "processes": self.fabric.world_size,
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "log_mel": self.bundle.log_mel.state_dict(),
            "buffers": self._gather({name: buffer.cpu() for name, buffer in self.model.named_buffers()}),
            "left_out": self.left_out,
            **{name: getattr(self, name) for name in COUNTERS},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state. Raises AsrError that says why it does not fit."""
        if state["batch"] and state["processes"] != self.fabric.world_size:
            raise AsrError(
                f"the checkpoint is of the middle of an epoch of {state['processes']} processes, which "
                f"{self.fabric.world_size} cannot go on with; resume with as many"
            )
        try:
            self.model.load_state_dict(state["model"])
            if (
                state["processes"] == self.fabric.world_size > 1
            ):  # the others have statistics of their own batches
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

        Returns False where it could not be written, which has been said.
        """
        self.saved = time.monotonic()
        self._count_minutes()
        for left_out in self._gather(self.left_out):
            self.gradients.left_out |= left_out
        state = self.state()
        if self.folder is not None and self.fabric.is_global_zero:
            return write_checkpoint(self.folder, state)
        return True

    def _count_minutes(self) -> None:
        """Add the time since this was last done, by the first process's clock, as it ends the run."""
        now = time.monotonic()
        self.minutes, self.began = self._gather(self.minutes + (now - self.began) / 60)[0], now

    def _stop(self) -> None:
        saved = self.save()
        raise StoppedError(self.received or signal.SIGTERM, saved)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Note Ctrl-C and SIGTERM, to save and stop between two steps; a second one acts at once."""

        def note(signum: int, frame: Any) -> None:
            self.received = signum
            for number, handler in before.items():
                signal.signal(number, handler)

        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


COUNTERS = (
    *("epoch", "batch", "step", "seconds_seen", "minutes", "best"),
    *("skipped_in_a_row", "epoch_loss", "epoch_steps", "history"),
)


def name_some(names: Sequence[str]) -> str:
    """List the first few of many names.

    >>> name_some(["a", "b", "c", "d", "e", "f"])
    'a, b, c, d and 2 more'
    """
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def autocast_type(config: TrainConfig, precision: str = "") -> torch.dtype | None:
    """Give the type that matrices are multiplied in, with `precision` instead of the configuration's; None: float32."""
    chosen = precision or config.run.precision
    if chosen == "auto":
        on_gpu = config.run.accelerator != "cpu" and torch.cuda.is_available()
        has_it = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        chosen = "bfloat16" if has_it else "float32"
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[chosen]


def gradient_norms(model: AcousticModel) -> dict[str, float]:
    """Give the norm of each layer's gradients, from the input to the output."""
    layers: dict[str, nn.Module] = {f"front_end.{i}": layer for i, layer in enumerate(model.front_end.layers)}
    layers |= {f"recurrent.{i}": layer for i, layer in enumerate(model.recurrent)}
    layers["output"] = model.output

    def norm(layer: nn.Module) -> float:
        gradients: list[Tensor] = [p.grad for p in layer.parameters() if p.grad is not None]
        return float(nn.utils.get_total_norm(gradients))

    return {f"gradient/{name}": norm(layer) for name, layer in layers.items()}
