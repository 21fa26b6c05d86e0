"""How the parameters begin."""

import math

import pytest
import torch

from asr.recurrent import RecurrentLayer


def test_recurrent_weights_and_projections_are_orthogonal():
    layer = RecurrentLayer("lstm", 24, 20, proj_size=12, init="orthogonal", forget_bias=None)
    for suffix in ("", "_reverse"):
        for gate in getattr(layer, f"weight_hh_l0{suffix}").chunk(4):
            torch.testing.assert_close(gate.T @ gate, torch.eye(12))
        projection = getattr(layer, f"weight_hr_l0{suffix}")
        torch.testing.assert_close(projection @ projection.T, torch.eye(12))
        assert getattr(layer, f"weight_ih_l0{suffix}").abs().max() <= math.sqrt(6 / (24 + 20))
        assert not getattr(layer, f"bias_ih_l0{suffix}").any()


@pytest.mark.parametrize(("cell", "place"), [("lstm", 1), ("peephole", 1), ("cifg", 0)])
@pytest.mark.parametrize("init", ["torch", "orthogonal"])
def test_forget_gates_begin_open(cell, place, init):
    size = 20
    layer = RecurrentLayer(cell, 24, size, init=init, forget_bias=1.0)
    for suffix in ("", "_reverse"):
        bias = getattr(layer, f"bias_ih_l0{suffix}") + getattr(layer, f"bias_hh_l0{suffix}")
        assert (bias[place * size : (place + 1) * size] == 1).all()
        others = torch.cat([bias[: place * size], bias[(place + 1) * size :]])
        assert (others.abs() <= 2 / math.sqrt(size)).all()


def test_an_unknown_initialization_is_refused():
    with pytest.raises(ValueError, match="unknown init 'zeros'; there are torch, orthogonal"):
        RecurrentLayer("lstm", 2, 3, init="zeros")
