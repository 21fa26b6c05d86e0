"""The Lightning module: one training step, one pass over dev, the optimiser and its schedule."""

import math
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from asr.bundle import Bundle
from asr.ctc import ctc_loss, unalignable
from asr.data import Batch
from asr.decoding import greedy
from asr.errors import AlignmentError, AsrError
from asr.scoring import score
from asr.training.config import OptimizerConfig

SKIPS_IN_A_ROW = 10  # non-finite batches after which training stops: it will not recover by itself


class RecogniserTraining(L.LightningModule):
    """Trains the model of a bundle.

    Arguments: bundle, whose model is trained; optimizer; seconds_per_epoch of training speech and epochs, which
    together place each step in the schedule. `left_out` collects {utterance: reason} of what CTC cannot align.
    """

    def __init__(self, bundle: Bundle, optimizer: OptimizerConfig, seconds_per_epoch: float, epochs: int):
        super().__init__()
        self.bundle = bundle
        self.model = bundle.model
        self.optimizer_config = optimizer
        self.seconds_per_epoch = seconds_per_epoch
        self.seconds_in_all = seconds_per_epoch * epochs
        self.seconds_seen = 0.0
        self.skipped_in_a_row = 0
        self.left_out: dict[str, str] = {}
        self.average = _exponential_average(self.model, optimizer.ema) if optimizer.ema else None
        self.dev_pairs: list[tuple[str, str, str]] = []

    @property
    def evaluated_model(self) -> nn.Module:
        """The model that dev measures and the bundle saves: the moving average where there is one."""
        return self.model if self.average is None else self.average.module

    def training_step(self, batch: Batch, index: int) -> Tensor | None:
        """CTC loss of a batch; None, which skips the step, when it is not finite or nothing can be aligned."""
        self.seconds_seen += batch.seconds
        batch = self._without_unalignable(batch)
        if not batch.ids:
            return None
        logits, lengths = self.model(batch.features, batch.feature_lengths)
        try:
            loss = ctc_loss(logits, lengths, batch.tokens, batch.token_lengths, batch.ids)
        except AlignmentError as error:
            self._skip(str(error))
            return None
        self.skipped_in_a_row = 0
        self.log("loss", loss, prog_bar=True, batch_size=len(batch.ids))
        return loss

    def _without_unalignable(self, batch: Batch) -> Batch:
        """Leave out, and remember, utterances whose transcripts are longer than their audio allows."""
        frames = self.model.output_lengths(batch.feature_lengths)
        reasons = unalignable(frames, batch.tokens, batch.token_lengths)
        if not reasons:
            return batch
        self.left_out |= {batch.ids[index]: reason for index, reason in reasons.items()}
        return batch.select([index for index in range(len(batch.ids)) if index not in reasons])

    def _skip(self, message: str) -> None:
        self.skipped_in_a_row += 1
        self.print(f"step {self.global_step} skipped: {message}")
        if self.skipped_in_a_row >= SKIPS_IN_A_ROW:
            raise AsrError(
                f"the loss was not finite in {SKIPS_IN_A_ROW} batches in a row; a lower optimizer.learning_rate or "
                f"optimizer.gradient_clip usually helps. The last: {message}"
            )

    def on_train_batch_start(self, batch: Batch, index: int) -> None:
        """Set the learning rate by the share of the training's speech that was seen."""
        rate = self.learning_rate()
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = rate
        self.log("learning_rate", rate)

    def learning_rate(self) -> float:
        """Rise linearly for `warmup_epochs`, then follow the schedule down to `final_share`."""
        config = self.optimizer_config
        warmup = config.warmup_epochs * self.seconds_per_epoch
        if self.seconds_seen < warmup:
            return config.learning_rate * (self.seconds_seen + 1.0) / (warmup + 1.0)
        done = min(1.0, (self.seconds_seen - warmup) / max(self.seconds_in_all - warmup, 1.0))
        share = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[
            config.schedule
        ]
        return config.learning_rate * (config.final_share + (1 - config.final_share) * share)

    def on_train_batch_end(self, outputs: Any, batch: Batch, index: int) -> None:
        """Follow the weights with their moving average."""
        if self.average is not None:
            self.average.update_parameters(self.model)

    def on_validation_epoch_start(self) -> None:
        """Forget the last epoch's transcripts."""
        self.dev_pairs = []
        self.evaluated_model.eval()

    def validation_step(self, batch: Batch, index: int) -> None:
        """Transcribe a batch of dev greedily."""
        logits, lengths = self.evaluated_model(batch.features, batch.feature_lengths)
        for name, reference, hypothesis in zip(batch.ids, batch.texts, greedy(logits, lengths), strict=True):
            self.dev_pairs.append((name, reference, self.bundle.tokenizer.decode(hypothesis.tokens)))
        if not unalignable(lengths, batch.tokens, batch.token_lengths):
            loss = ctc_loss(logits, lengths, batch.tokens, batch.token_lengths, batch.ids)
            self.log("dev_loss", loss, batch_size=len(batch.ids), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log the dev WER over all processes."""
        errors, words = _count_errors([r for _, r, _ in self.dev_pairs], [h for _, _, h in self.dev_pairs])
        counts = self.all_gather(torch.tensor([errors, words], device=self.device, dtype=torch.float64))
        errors, words = counts.reshape(-1, 2).sum(0).tolist()  # type: ignore[union-attr]
        self.log("dev_wer", errors / max(words, 1), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; weight decay on matrices only."""
        config = self.optimizer_config
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        return torch.optim.AdamW(
            [
                {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
                {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=config.betas,
            fused=self.device.type == "cuda" or None,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the place in the schedule."""
        checkpoint["seconds_seen"] = self.seconds_seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from where the checkpoint was."""
        self.seconds_seen = checkpoint["seconds_seen"]


def _exponential_average(model: nn.Module, decay: float) -> AveragedModel:
    """Average the weights exponentially (Polyak & Juditsky 1992), following faster at the start."""

    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], steps: Tensor | int) -> None:
        n = float(steps)
        for mean, value in zip(averaged, current, strict=True):
            mean.lerp_(value, 1 - min(decay, (1 + n) / (10 + n)))

    return AveragedModel(model, multi_avg_fn=update)


def _count_errors(references: list[str], hypotheses: list[str]) -> tuple[int, int]:
    """Word errors and reference words."""
    if not references:
        return 0, 0
    report = score(references, hypotheses, bootstrap=0)
    return report.substitutions + report.deletions + report.insertions, report.words
