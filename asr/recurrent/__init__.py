"""Recurrent layers over ragged batches: every LSTM variant, fast. Knows torch and nothing of speech."""

from asr.recurrent.cells import CELLS, Cell, CellOptions, Noise, Weights
from asr.recurrent.interface import replace_torch_layers
from asr.recurrent.layer import RecurrentLayer
from asr.recurrent.packed import PackedLayer, pack_for_inference
from asr.recurrent.stack import RecurrentStack

__all__ = [
    "CELLS",
    "Cell",
    "CellOptions",
    "Noise",
    "PackedLayer",
    "RecurrentLayer",
    "RecurrentStack",
    "Weights",
    "pack_for_inference",
    "replace_torch_layers",
]
