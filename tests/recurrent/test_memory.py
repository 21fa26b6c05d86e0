"""Why gated cells exist: the adding problem over 400 steps (Hochreiter & Schmidhuber 1997)."""

import pytest
import torch
from torch import nn

from asr.recurrent import RecurrentLayer

FRAMES = 400


def adding_problem(batch, generator):
    """Two channels, numbers and marks; the target is the sum of the two marked numbers."""
    numbers = torch.rand(batch, FRAMES, generator=generator)
    marks = torch.zeros(batch, FRAMES)
    first = torch.randint(0, FRAMES // 2, (batch,), generator=generator)
    second = torch.randint(FRAMES // 2, FRAMES, (batch,), generator=generator)
    rows = torch.arange(batch)
    marks[rows, first] = marks[rows, second] = 1
    return torch.stack([numbers, marks], 2), numbers[rows, first] + numbers[rows, second]


def final_error(cell, steps, **options):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    layer = RecurrentLayer(cell, 2, 32, bidirectional=False, **options)
    head = nn.Linear(32, 1)
    parameters = [*layer.parameters(), *head.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=4e-3)
    errors = []
    for _ in range(steps):
        x, target = adding_problem(50, generator)
        y, _ = layer(x, torch.full((50,), FRAMES))
        error = (head(y[:, -1]).squeeze(1) - target).square().mean()
        optimiser.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        errors.append(error.item())
    return sum(errors[-50:]) / 50


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "peephole", "cifg", "gru"])
def test_gated_cells_remember_400_steps(cell):
    options = {} if cell == "gru" else {"forget_bias": 4.0}
    assert final_error(cell, 3000, **options) < 0.04  # guessing the mean errs by 1/6


@pytest.mark.slow
def test_the_simple_network_does_not():
    assert final_error("rnn_tanh", 3000) > 0.1
