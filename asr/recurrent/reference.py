"""Run a cell over a ragged batch in plain PyTorch: any device and dtype, differentiable twice, slow.

This loop and the equations in cells.py are what the fused backends must reproduce.
"""

import torch
from torch import Tensor

from asr.recurrent.cells import (
    CELLS,
    Cell,
    CellOptions,
    Noise,
    State,
    Weights,
    input_gates,
)


def run(
    cell_name: str,
    options: CellOptions,
    x: Tensor,
    lengths: Tensor,
    state: State,
    weights: list[Weights],
    noise: list[Noise],
) -> tuple[Tensor, State]:
    """Run every direction of one layer: the boundary that each backend has.

    Arguments: x (batch, frame, input); lengths (batch,) int64; state: h (direction, batch, output) and, for the LSTM
    family, c (direction, batch, hidden); weights and noise: one item a direction, the second one read in reverse.
    Returns y (batch, frame, direction * output), zero past each length, and the final state shaped as `state`.
    """
    padding = torch.arange(x.shape[1], device=x.device) >= lengths.to(x.device).unsqueeze(1)
    x = x.masked_fill(
        padding.unsqueeze(2), 0
    )  # or what is not finite there would reach the weights' gradients
    outputs, finals = [], []
    for direction, (own_weights, own_noise) in enumerate(zip(weights, noise, strict=True)):
        own_state = tuple(part[direction] for part in state)
        y, final = run_direction(
            CELLS[cell_name],
            options,
            x,
            lengths,
            own_state,
            own_weights,
            own_noise,
            reverse=direction == 1,
        )
        outputs.append(y)
        finals.append(final)
    return torch.cat(outputs, -1), tuple(torch.stack(parts) for parts in zip(*finals, strict=True))


def reverse_within_lengths(x: Tensor, lengths: Tensor) -> Tensor:
    """Reverse each utterance's own frames and leave its padding where it is.

    Arguments: x (batch, frame, ...), lengths (batch,) int64. The operation is its own inverse.
    """
    frame = torch.arange(x.shape[1], device=x.device)
    mirrored = lengths.to(x.device).unsqueeze(1) - 1 - frame
    index = torch.where(mirrored >= 0, mirrored, frame)
    return x.gather(1, index.reshape(*index.shape, *[1] * (x.dim() - 2)).expand_as(x))


def run_direction(
    cell: Cell,
    options: CellOptions,
    x: Tensor,
    lengths: Tensor,
    state: State,
    weights: Weights,
    noise: Noise,
    reverse: bool,
) -> tuple[Tensor, State]:
    """Run one direction of one layer.

    Arguments: x (batch, frame, input); lengths (batch,) int64, zero allowed; state: h (batch, output) and, for the
    LSTM family, c (batch, hidden). With `reverse` each utterance is read from its own last frame.
    Returns y (batch, frame, output), zero past each length, and the state after each utterance's last step.
    """
    if reverse:
        x = reverse_within_lengths(x, lengths)
    gates_x = input_gates(x, weights, options)
    lengths = lengths.to(x.device)
    outputs = []
    for t in range(x.shape[1]):
        inside = (t < lengths).unsqueeze(1)
        new = cell.step(gates_x[:, t], state, weights, options, noise.recurrent)
        new = tuple(
            _zoneout(share, t, old, value)
            for share, old, value in zip((noise.zoneout_hidden, noise.zoneout_cell), state, new, strict=False)
        )
        state = tuple(torch.where(inside, value, old) for value, old in zip(new, state, strict=True))
        outputs.append(torch.where(inside, state[0], 0.0))
    y = torch.stack(outputs, 1) if outputs else x.new_zeros(x.shape[0], 0, options.output_size)
    return (reverse_within_lengths(y, lengths) if reverse else y), state


def _zoneout(share: Tensor | float, t: int, old: Tensor, new: Tensor) -> Tensor:
    """Keep `share` of the previous state (Krueger et al. 2017)."""
    if not isinstance(share, Tensor):
        return new if share == 0.0 else share * old + (1 - share) * new
    return torch.where(share[:, t].bool(), old, new)
