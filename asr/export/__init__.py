"""A bundle in the files that other programs load, and the proof that they compute the same."""

from asr.export.check import Agreement, check_export
from asr.export.formats import FORMATS, export

__all__ = ["FORMATS", "Agreement", "check_export", "export"]
