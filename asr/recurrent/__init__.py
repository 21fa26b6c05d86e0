"""Recurrent layers over ragged batches: every LSTM variant, fast. Knows torch and nothing of speech."""

from asr.recurrent.cells import CELLS, Cell, CellOptions, Noise, Weights
from asr.recurrent.layer import RecurrentLayer

__all__ = ["CELLS", "Cell", "CellOptions", "Noise", "RecurrentLayer", "Weights"]
