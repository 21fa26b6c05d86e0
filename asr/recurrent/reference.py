"""Run a cell over a ragged batch in plain PyTorch: any device and dtype, differentiable twice, slow.

This loop and the equations in cells.py are what the fused backends must reproduce.
"""

import torch
from torch import Tensor

from asr.recurrent.cells import CELLS, Call, State, input_gates


def refusal(call: Call) -> str | None:
    """Return None: these loops run every layer."""


def run(call: Call) -> tuple[Tensor, State]:
    """Run every direction of a layer.

    Returns y (batch, frame, direction * output), zero past each length, and the final state shaped as `call.state`.
    """
    # What padding holds may not be finite, and would reach the weights' gradients.
    padding = torch.arange(call.x.shape[1], device=call.x.device) >= call.lengths.to(call.x.device).unsqueeze(
        1
    )
    call = call._replace(x=call.x.masked_fill(padding.unsqueeze(2), 0))
    outputs, finals = zip(
        *(run_direction(call, direction) for direction in range(len(call.weights))), strict=True
    )
    return torch.cat(outputs, -1), tuple(torch.stack(parts) for parts in zip(*finals, strict=True))


def reverse_within_lengths(x: Tensor, lengths: Tensor) -> Tensor:
    """Reverse each utterance's own frames and leave its padding where it is.

    Arguments: x (batch, frame, ...), lengths (batch,) int64. The operation is its own inverse.
    """
    frame = torch.arange(x.shape[1], device=x.device)
    mirrored = lengths.to(x.device).unsqueeze(1) - 1 - frame
    index = torch.where(mirrored >= 0, mirrored, frame)
    return x.gather(1, index.reshape(*index.shape, *[1] * (x.dim() - 2)).expand_as(x))


def run_direction(call: Call, direction: int) -> tuple[Tensor, State]:
    """Run one direction of a layer, the second one from each utterance's own last frame.

    Returns y (batch, frame, output), zero past each length, and the state after each utterance's last step:
    h (batch, output) and, for the LSTM family, c (batch, hidden).
    """
    weights, noise, options = call.weights[direction], call.noise[direction], call.options
    lengths = call.lengths.to(call.x.device)
    x = reverse_within_lengths(call.x, lengths) if direction else call.x
    state = tuple(part[direction] for part in call.state)
    step = CELLS[call.cell].step
    gates_x = input_gates(x, weights, options)
    outputs = []
    for t in range(x.shape[1]):
        inside = (t < lengths).unsqueeze(1)
        new = step(gates_x[:, t], state, weights, options, noise.recurrent)
        new = tuple(
            _zoneout(share, t, old, value)
            for share, old, value in zip((noise.zoneout_hidden, noise.zoneout_cell), state, new, strict=False)
        )
        state = tuple(torch.where(inside, value, old) for value, old in zip(new, state, strict=True))
        outputs.append(torch.where(inside, state[0], 0.0))
    y = torch.stack(outputs, 1) if outputs else x.new_zeros(x.shape[0], 0, options.output_size)
    return (reverse_within_lengths(y, lengths) if direction else y), state


def _zoneout(share: Tensor | float, t: int, old: Tensor, new: Tensor) -> Tensor:
    """Keep `share` of the previous state (Krueger et al. 2017)."""
    if not isinstance(share, Tensor):
        return new if share == 0.0 else share * old + (1 - share) * new
    return torch.where(share[:, t].bool(), old, new)
