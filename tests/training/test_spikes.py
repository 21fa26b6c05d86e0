"""A jump of the loss is told; the ups and downs of batches are not."""

from collections import deque
from types import SimpleNamespace

import pytest

from asr.training.loop import Training


@pytest.mark.parametrize(
    ("usual", "loss", "told"), [(0.1, 0.5, False), (0.1, 1.2, True), (2.0, 5.0, False), (2.0, 7.0, True)]
)
def test_jumps_beyond_what_batches_differ_by_are_told(usual, loss, told):
    said = []
    run = run_after([usual] * 20, said)
    Training._note_spike(run, loss, ["one"])
    Training._note_spike(run, loss, ["one"])
    assert len(said) == told  # once for a batch
    Training._note_spike(run_after([usual] * 5, said), 99.0, ["early"])
    assert len(said) == told


@pytest.mark.parametrize(("spread", "told"), [(1.0, True), (3.0, False)])
def test_batches_of_few_utterances_differ_more(spread, told):
    """Of losses between 1 / spread and spread, 1 usual, 4 stands out only where they hardly differ."""
    said = []
    losses = [spread ** (step / 10 - 1) for step in range(21)]
    Training._note_spike(run_after(losses, said), 4.0, ["one"])
    assert len(said) == told


def run_after(losses, said):
    """A run as far as its losses: gives what `_note_spike` asks for."""
    return SimpleNamespace(losses=deque(losses), jumped=set(), step=7, warn=said.append, _names="".join)
