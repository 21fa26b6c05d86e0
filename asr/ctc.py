"""Connectionist temporal classification (Graves et al. 2006), with the checks that keep infinities out of training."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from asr.errors import AlignmentError
from asr.text import BLANK


def frames_needed(tokens: Tensor, token_lengths: Tensor) -> Tensor:
    """Return the fewest frames that can spell each target: its tokens, and a blank between equal neighbors.

    Arguments: tokens (batch, token) int64; token_lengths (batch,) int64. Returns (batch,) int64.

    >>> frames_needed(torch.tensor([[3, 3, 4], [5, 0, 0]]), torch.tensor([3, 1]))
    tensor([4, 1])
    """
    position = torch.arange(tokens.shape[1], device=tokens.device)[1:]
    repeated = (tokens[:, 1:] == tokens[:, :-1]) & (position < token_lengths.unsqueeze(1))
    return token_lengths + repeated.sum(1)


def unalignable(lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> dict[int, str]:
    """Return which utterances of a batch CTC cannot learn from, and why.

    Arguments: lengths (batch,) frames of logits; tokens (batch, token) and token_lengths (batch,), all int64.
    Returns {index in the batch: reason}, empty when all is well.
    """
    needed = frames_needed(tokens, token_lengths).tolist()
    reasons = {}
    for index, (frames, count, least) in enumerate(
        zip(lengths.tolist(), token_lengths.tolist(), needed, strict=True)
    ):
        if count == 0:
            reasons[index] = "its transcript is empty"
        elif least > frames:
            reasons[index] = (
                f"its {count} tokens need at least {least} frames of logits but its audio gives {frames}"
            )
    return reasons


def ctc_loss(
    logits: Tensor,
    lengths: Tensor,
    tokens: Tensor,
    token_lengths: Tensor,
    ids: Sequence[str] | None = None,
) -> Tensor:
    """Return the CTC loss of a batch in float32: the sum over utterances, divided by the number of target tokens.

    Arguments: logits (batch, frame, token), unnormalized, blank at 0; lengths (batch,) frames of each utterance;
    tokens (batch, token) int64; token_lengths (batch,); ids name the utterances in errors.
    Raises AlignmentError that names each utterance with an empty target, with a target longer than its frames allow
    (repeated tokens need a blank between them), or with non-finite logits or loss; ValueError for targets that are no
    tokens of these logits.
    """
    inside = torch.arange(tokens.shape[1], device=tokens.device) < token_lengths.unsqueeze(1)
    # Of others, torch would read past the logits.
    if not ((tokens > BLANK) & (tokens < logits.shape[-1]) | ~inside).all():
        raise ValueError(
            f"targets must be tokens from 1 to {logits.shape[-1] - 1}, got {tokens[inside].tolist()}"
        )
    names = (
        list(ids) if ids is not None else [f"utterance {index} of the batch" for index in range(len(lengths))]
    )
    reasons = unalignable(lengths, tokens, token_lengths)
    if reasons:
        raise AlignmentError(_name_each("CTC cannot align", names, reasons))
    log_probs = logits.float().log_softmax(-1)
    # CUDA's gradient sums in no fixed order, and refuses then.
    if torch.are_deterministic_algorithms_enabled():
        log_probs, tokens, lengths, token_lengths = (
            tensor.cpu() for tensor in (log_probs, tokens, lengths, token_lengths)
        )
    losses = F.ctc_loss(
        log_probs.transpose(0, 1), tokens, lengths, token_lengths, blank=BLANK, reduction="none"
    )
    total = losses.sum()
    if not torch.isfinite(total):
        faulty = (~torch.isfinite(losses)).nonzero().flatten().tolist()
        reasons = {index: f"its loss is {losses[index].item()}" for index in faulty}
        raise AlignmentError(_name_each("the CTC loss is not finite", names, reasons))
    return (total / token_lengths.sum()).to(logits.device)


def log_probs_of(logits: Tensor, lengths: Tensor) -> list[np.ndarray]:
    """Return the log-probabilities (frame, token) float32 of each utterance of a batch, as decoders take them.

    Arguments: logits (batch, frame, token), unnormalized; lengths (batch,) frames of each utterance.

    >>> [part.shape for part in log_probs_of(torch.zeros(2, 5, 3), torch.tensor([5, 2]))]
    [(5, 3), (2, 3)]
    """
    log_probs = logits.detach().float().log_softmax(-1).cpu().numpy()
    return [utterance[:count] for utterance, count in zip(log_probs, lengths.tolist(), strict=True)]


def _name_each(what: str, names: list[str], reasons: dict[int, str]) -> str:
    return f"{what}: " + "; ".join(f"{names[index]}: {reason}" for index, reason in reasons.items())
