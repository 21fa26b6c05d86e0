"""Why gated cells exist: the adding problem over 400 steps (Hochreiter & Schmidhuber 1997)."""

import pytest
import torch
from torch import nn

from asr.recurrent import CELLS, RecurrentLayer

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


@torch.no_grad()
def remember_from_the_start(layer):
    """Biases with which units forget within 1 to FRAMES steps (chrono initialization, Tallec & Ollivier 2018)."""
    size = layer.hidden_size
    span = torch.empty(size).uniform_(1, FRAMES - 1).log()
    layer.bias_ih_l0.zero_()
    layer.bias_hh_l0.zero_()
    for gate, bias in (("f", span), ("i", -span), ("z", span)):
        if gate in layer.cell.gates:
            start = layer.cell.gates.index(gate) * size
            layer.bias_ih_l0[start : start + size] = bias


def final_error(cell, steps):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    layer = RecurrentLayer(cell, 2, 32, bidirectional=False)
    remember_from_the_start(layer)
    head = nn.Linear(32, 1)
    parameters = [*layer.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=4e-3)
    errors = []
    for _ in range(steps):
        x, target = adding_problem(50, generator)
        y, _ = layer(x, torch.full((50,), FRAMES))
        error = (head(y[:, -1]).squeeze(1) - target).square().mean()
        optimizer.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        errors.append(error.item())
    return sum(errors[-50:]) / 50


@pytest.mark.slow
@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != "rnn_tanh"])
def test_gated_cells_remember_400_steps(cell):
    assert final_error(cell, 2000) < 0.02  # guessing the mean errs by 1/6


@pytest.mark.slow
def test_the_simple_network_does_not():
    assert final_error("rnn_tanh", 2000) > 0.1
