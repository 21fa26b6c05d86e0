"""NIST's sclite and sc_stats (Debian's package sctk), to compare with."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

FOLDER = Path("/usr/lib/sctk/bin")


def tool(name: str) -> str:
    """Find a tool of sctk; the test is skipped where it is absent."""
    path = shutil.which(name) or shutil.which(str(FOLDER / name))
    if path is None:
        pytest.skip(f"{name} is not installed (Debian's package sctk)")
    return path


def write_trn(path: Path, texts: Sequence[str]) -> Path:
    path.write_text("".join(f"{text} (s{i % 7}_{i:05d})\n" for i, text in enumerate(texts)), "utf-8")
    return path


def sclite_counts(
    references: Path,
    hypotheses: Path,
    forms: tuple[str, str] = ("trn", "trn"),
    flags: Sequence[str] = ("-s",),
) -> tuple[int, int, int, int]:
    """Give sclite's substitutions, deletions, insertions and reference words."""
    command = [tool("sclite"), "-r", str(references), forms[0], "-h", str(hypotheses), forms[1]]
    command += ["-i", "spu_id", *flags, "-o", "rsum", "stdout"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    row = next(line for line in output.splitlines() if re.match(r"\s*\|\s*Sum\s*\|", line))
    _, words, _, substitutions, deletions, insertions, *_ = map(int, re.findall(r"\d+", row))
    return substitutions, deletions, insertions, words


def mapsswe(references: Path, hypotheses: Sequence[Path], folder: Path) -> str:
    """Give NIST's report of the matched-pair sentence-segment test."""
    alignments = b""
    for path in hypotheses:
        command = [tool("sclite"), "-r", str(references), "trn", "-h", str(path), "trn", path.stem]
        command += ["-i", "spu_id", "-s", "-o", "sgml", "stdout", "-f", "0"]
        alignments += subprocess.run(command, capture_output=True, check=True).stdout
    command = [tool("sc_stats"), "-p", "-t", "mapsswe", "-v", "-n", "-"]
    done = subprocess.run(command, input=alignments, capture_output=True, cwd=folder, check=True)
    return done.stdout.decode()
