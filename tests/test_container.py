"""The image of the light install: what goes into it, and, where docker runs, that it is small and transcribes."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import RATE, say

ROOT = Path(__file__).parents[1]
MOST_BYTES = 300e6


def docker(*arguments, **options):
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="module")
def image():
    """The built image; skipped where docker does not run or cannot fetch the image that ours begins with."""
    if shutil.which("docker") is None or docker("info").returncode:
        pytest.skip("docker does not run here: the image is not built")
    base = (ROOT / "Dockerfile").read_text().split("FROM ")[1].split()[0]
    if docker("pull", base).returncode:
        pytest.skip(f"docker cannot pull {base} here: the image is not built")
    done = docker("build", "-t", "asr-of-the-tests", str(ROOT))
    assert done.returncode == 0, done.stderr
    yield "asr-of-the-tests"
    docker("rmi", "asr-of-the-tests")


@pytest.mark.slow
def test_the_image_is_small_and_transcribes(image, tmp_path):
    size = docker("image", "inspect", "--format", "{{.Size}}", image).stdout
    assert int(size) < MOST_BYTES
    tmp_path.chmod(0o755)
    soundfile.write(tmp_path / "speech.wav", say("abc", np.random.default_rng(0)), RATE)
    run = ("run", "--rm", "-v", f"{tmp_path}:/data", image)
    done = docker(*run, "transcribe", "speech.wav", "-f", "json")
    assert done.returncode == 0, done.stderr
    assert '"text"' in done.stdout
    assert "torch" not in docker(*run[:-1], "--entrypoint", "pip", image, "list").stdout


def test_what_the_image_copies_is_there():
    lines = [line.split() for line in (ROOT / "Dockerfile").read_text().splitlines()]
    copied = [name for line in lines if line[:1] == ["COPY"] for name in line[1:-1]]
    assert copied
    assert all((ROOT / name).exists() for name in copied)
