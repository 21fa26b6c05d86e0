"""The gradients of a batch: the loss, and what to do with faulty utterances and full memory."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.ctc import ctc_loss, unalignable
from asr.data import Batch
from asr.errors import AlignmentError, ConfigError
from asr.memory import is_out_of_memory
from asr.model import AcousticModel
from asr.training.config import LossConfig, RunConfig


def autocast_type(run: RunConfig, precision: str = "") -> torch.dtype | None:
    """Return the type that matrices are multiplied in, None for float32; `precision` replaces the configuration's."""
    chosen = precision or run.precision
    if chosen == "auto":
        on_gpu = run.accelerator != "cpu" and torch.cuda.is_available()
        has_it = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        chosen = "bfloat16" if has_it else "float32"
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[chosen]


class GradientMaker:
    """Adds a batch's gradients to the model's parameters.

    Arguments: model; config of the loss; autocast, the type that matrices are multiplied in, None for float32; scaler
    of the loss for float16; phones(text), what the model's output of phones is to recognize at the intermediate layers
    instead of the text's tokens, None for a text with a word whose pronunciation is unknown. `left_out` collects
    {utterance: reason} of what cannot be learned from, `faults` the reasons for which the step has to be skipped.
    """

    def __init__(
        self,
        model: AcousticModel,
        config: LossConfig,
        autocast: torch.dtype | None = None,
        scaler: torch.amp.GradScaler | None = None,
        phones: Callable[[str], list[int] | None] | None = None,
    ):
        last = len(model.recurrent) if phones else len(model.recurrent) - 1
        if wrong := [layer for layer in config.intermediate_layers if not 1 <= layer <= last]:
            raise ConfigError(
                f"loss.intermediate_layers names layer {wrong[0]}; expected layers from 1 to {last} of the model's "
                f"{len(model.recurrent)}; the last recognizes phones too where loss.lexicon is set"
            )
        self.model, self.config = model, config
        self.autocast, self.scaler, self.phones = autocast, scaler, phones
        self.left_out: dict[str, str] = {}
        self.faults: list[str] = []

    def usable(self, batch: Batch) -> Batch:
        """Leave out, and remember, utterances that CTC cannot align and those with non-finite features."""
        frames = self.model.output_lengths(batch.feature_lengths)
        reasons = unalignable(frames, batch.tokens, batch.token_lengths)
        finite = batch.features.isfinite().flatten(1).all(1).tolist()
        reasons |= {i: "its features are not finite" for i, good in enumerate(finite) if not good}
        if not reasons:
            return batch
        self.left_out |= {batch.ids[index]: reason for index, reason in reasons.items()}
        faulty = {index // batch.views for index in reasons}  # a mask may hide the fault from one view
        return batch.select([index for index in range(len(batch.ids)) if index // batch.views not in faulty])

    def add(self, batch: Batch, tokens: float) -> float:
        """Add the gradients of the batch's summed loss divided by `tokens`, those of the step; returns that share.

        A batch that does not fit into memory is halved, and an utterance that does not fit alone is left out: the
        gradients are taken apart from the parameters' own, so that a batch that fails leaves nothing behind.
        """
        if not batch.ids:
            return 0.0
        parameters: list[Tensor] = [p for p in self.model.parameters() if p.requires_grad]
        try:
            loss, gradients = self._gradients(batch, tokens, parameters)
        except AlignmentError as error:
            self.faults.append(str(error))
            return float("nan")
        except (MemoryError, RuntimeError) as error:
            if not (isinstance(error, torch.OutOfMemoryError) or is_out_of_memory(error)):
                raise
        else:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is None:
                    continue
                if gradient.stride() != parameter.stride():
                    # As backward() does: the fused AdamW pairs elements by their place in memory.
                    gradient = torch.empty_like(parameter).copy_(gradient)
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
            return loss
        torch.cuda.empty_cache()  # out of the except clause, whose traceback holds the activations
        if len(batch.ids) == batch.views:
            self.left_out[batch.ids[0]] = f"its {batch.seconds:.1f} s do not fit into memory"
            return 0.0
        half = len(batch.ids) // batch.views // 2 * batch.views
        parts = (range(half), range(half, len(batch.ids)))
        return sum(self.add(batch.select(part), tokens) for part in parts)

    def _gradients(
        self, batch: Batch, tokens: float, parameters: list[Tensor]
    ) -> tuple[float, Sequence[Tensor | None]]:
        """Return the batch's share of the loss, and its gradients; the graph ends with this call, however it ends."""
        loss = self.loss(batch) * (batch.token_lengths.sum() / tokens)
        scaled = loss if self.scaler is None else self.scaler.scale(loss)
        gradients = torch.autograd.grad(scaled, parameters, allow_unused=True)
        return float(loss.detach()), gradients

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss for a target token: CTC's, in float32, and what the configuration adds."""
        config, between = self.config, []

        def keep(module: Any, inputs: Any, output: Any) -> None:
            between.append(output[0])

        with ExitStack() as hooks:
            for layer in config.intermediate_layers:
                handle = self.model.recurrent[layer - 1].register_forward_hook(keep)
                hooks.callback(handle.remove)
            with torch.autocast(batch.features.device.type, self.autocast, enabled=self.autocast is not None):
                logits, lengths = self.model(batch.features, batch.feature_lengths)
                score = self.model.score if self.phones is None else self.model.score_phones
                inner = [score(hidden) for hidden in between[: len(config.intermediate_layers)]]
        loss = ctc_loss(logits, lengths, batch.tokens, batch.token_lengths, batch.ids)
        if inner:
            mean = torch.stack([self._intermediate_loss(part, lengths, batch) for part in inner]).mean()
            loss = (1 - config.intermediate_weight) * loss + config.intermediate_weight * mean
        if config.label_smoothing:
            smooth = distance_from_uniform(logits, lengths) / batch.token_lengths.sum()
            loss = (1 - config.label_smoothing) * loss + config.label_smoothing * smooth
        if config.consistency and batch.views == 2:
            apart = divergence_of_views(logits, lengths) / batch.token_lengths.sum()
            loss = loss + config.consistency * apart
        return loss

    def _intermediate_loss(self, logits: Tensor, lengths: Tensor, batch: Batch) -> Tensor:
        """Compute an intermediate layer's CTC loss, of phones where there is a lexicon, as a sum for a word piece."""
        if self.phones is None:
            return ctc_loss(logits, lengths, batch.tokens, batch.token_lengths, batch.ids)
        targets = [torch.tensor(self.phones(text) or [], dtype=torch.int64) for text in batch.texts]
        counts = torch.tensor([len(target) for target in targets])
        tokens = pad_sequence(targets, batch_first=True).to(logits.device)
        bad = unalignable(lengths.cpu(), tokens.cpu(), counts)
        good = [index for index in range(len(targets)) if index not in bad]
        if not good:
            return logits.sum() * 0.0
        counts = counts[good].to(logits.device)
        mean = ctc_loss(
            logits[good], lengths[good], tokens[good], counts, [batch.ids[index] for index in good]
        )
        return mean * counts.sum() / batch.token_lengths.sum()


def distance_from_uniform(logits: Tensor, lengths: Tensor) -> Tensor:
    """Sum over all frames the divergence KL(uniform || p) of logits (batch, frame, token) with lengths (batch,).

    >>> round(float(distance_from_uniform(torch.zeros(2, 5, 3), torch.tensor([5, 2]))), 6)
    0.0
    """
    log_probs = logits.float().log_softmax(-1)
    return _sum_of_frames(-log_probs.mean(-1) - torch.tensor(float(logits.shape[-1])).log(), lengths)


def divergence_of_views(logits: Tensor, lengths: Tensor) -> Tensor:
    """Sum over all frames the divergence of each view's outputs from its sister's, which stand still as its target.

    Arguments: logits (batch, frame, token), the two views of an utterance one after the other; lengths (batch,).

    >>> twins = torch.randn(1, 5, 3).repeat(2, 1, 1)
    >>> abs(round(float(divergence_of_views(twins, torch.tensor([5, 5]))), 6))
    0.0
    """
    log_probs = logits.float().log_softmax(-1)
    targets = log_probs.detach().unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    return _sum_of_frames((targets.exp() * (targets - log_probs)).sum(-1), lengths)


def _sum_of_frames(values: Tensor, lengths: Tensor) -> Tensor:
    """Sum values (batch, frame) over the frames inside lengths (batch,)."""
    inside = torch.arange(values.shape[1], device=values.device) < lengths.to(values.device).unsqueeze(1)
    return values.masked_fill(~inside, 0.0).sum()
