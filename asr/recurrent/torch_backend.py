"""torch's own kernels (cuDNN, oneDNN and its loops) for the cells that torch has, over ragged batches.

What `auto` takes where there are no fused kernels, or none that were measured to win. The utterances' frames are laid
end to end step by step, as torch's kernels want ragged batches: the rows that are still running at step 0, then those
at step 1, ...; each direction then starts at the utterance's own end.
"""

import warnings

import torch
from torch import Tensor

from asr.recurrent.cells import Call, State

# cuDNN copies weights that do not lie side by side, little beside the recurrence, and advises to call a function that
# torch.nn.LSTM has.
warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")

KERNELS = {"lstm": torch._VF.lstm, "gru": torch._VF.gru, "rnn_tanh": torch._VF.rnn_tanh}


def refusal(call: Call) -> str | None:
    """Return why torch's kernels cannot run this layer, None if they can."""
    options = call.options
    if call.x.is_meta:
        return "torch's kernels want to know the lengths, which a meta tensor does not hold"
    if call.cell not in KERNELS or (call.cell == "gru" and options.reset != "after"):
        return f"torch has no kernels for cell {call.cell!r} with reset {options.reset!r}"
    if options.layer_norm or options.cell_clip or options.proj_clip:
        return "torch's kernels know neither layer normalization nor clipping"
    if any(isinstance(share, Tensor) or share for noise in call.noise for share in noise):
        return "torch's kernels know neither zoneout nor recurrent dropout"
    return None


def run(call: Call) -> tuple[Tensor, State]:
    """Run one layer, every direction; see `reference.run` for the shapes."""
    x, state, weights = call.x, call.state, call.weights
    y = x.new_zeros(*x.shape[:2], len(weights) * call.options.output_size)
    counts = call.lengths.cpu()
    order = counts.argsort(descending=True, stable=True)
    order = order[: int((counts > 0).sum())]  # torch's kernels take no empty utterances: their state stays
    if not len(order):
        return y, state
    running = (counts[order] > torch.arange(int(counts.max())).unsqueeze(1)).long()  # (frame, row)
    step, row = running.nonzero(as_tuple=True)
    place = order.to(x.device)[row.to(x.device)], step.to(x.device)
    rows = order.to(x.device)
    start = [part[:, rows].contiguous() for part in state]
    has_bias = weights[0].bias_ih is not None
    flat = [w for own in weights for w in (*own[: 4 if has_bias else 2], own.weight_hr) if w is not None]
    packed, *final = KERNELS[call.cell](
        x[place],
        running.sum(1),
        tuple(start) if call.cell == "lstm" else start[0],
        flat,
        has_bias,
        1,  # layer
        0.0,  # dropout between layers
        torch.is_grad_enabled(),
        len(weights) == 2,
    )
    y = y.to(packed.dtype).index_put(place, packed)
    return y, tuple(
        part.to(end.dtype).index_copy(1, rows, end) for part, end in zip(state, final, strict=True)
    )
