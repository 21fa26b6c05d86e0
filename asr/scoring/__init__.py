"""Error rates with their uncertainty, where the errors are, and reports people look at.

Light to import: jiwer's engine and numpy; tables, files and HTML are imported by the commands that write
them.
"""

from asr.scoring.report import ErrorReport, score

__all__ = ["ErrorReport", "score"]
