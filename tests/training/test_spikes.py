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
    run = SimpleNamespace(losses=deque([usual] * 20), step=7, warn=said.append)
    Training._note_spike(run, loss, "one and two")
    assert bool(said) == told
    Training._note_spike(SimpleNamespace(losses=deque([usual] * 5), step=7, warn=said.append), 99.0, "early")
    assert len(said) == told
