"""Fixtures every test may use."""

import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():  # before any test or doctest defines a kernel: Triton reads it there
    os.environ["TRITON_INTERPRET"] = "1"

SHARED_DATA = Path(os.environ.get("ASR_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real speech kept beside the checkout; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no real speech in ../shared/data, nor in a folder that ASR_TEST_DATA names")
    return SHARED_DATA
