"""A service in this process, and audio for it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")

from serving import RATE, Running, serving


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with serving(["an4", "other=an4"]) as running:
        yield running


@pytest.fixture
def noise(tmp_path) -> Path:
    """Half a second that is audio and no speech."""
    path = tmp_path / "noise.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(RATE // 2), RATE)
    return path


@pytest.fixture(scope="session")
def spoken(shared_data) -> list[Path]:
    """Real utterances of AN4."""
    return sorted((shared_data / "an4" / "wav" / "an4_clstk" / "mkem").glob("*.sph"))
