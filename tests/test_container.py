"""The image of the light install: what goes into it, and, where docker runs, that it is small and transcribes."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import RATE, say

ROOT = Path(__file__).parents[1]
MOST_BYTES = 300e6
BASE_BYTES = 125e6  # of python:3.12-slim


def docker(*arguments, **options):
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="module")
def image():
    """The built image and the one that it stands on; skipped where docker does not run or cannot fetch that.

    Where nothing can be fetched, ASR_TEST_BASE names an image with Python and pip that is there.
    """
    if shutil.which("docker") is None or docker("info").returncode:
        pytest.skip("docker does not run here: the image is not built")
    usual = (ROOT / "Dockerfile").read_text().split("ARG BASE=")[1].split()[0]
    base = os.environ.get("ASR_TEST_BASE", usual)
    if base == usual and docker("pull", base).returncode:
        pytest.skip(f"docker cannot pull {base} here: the image is not built")
    done = docker("build", "--network=host", f"--build-arg=BASE={base}", "-t", "asr-of-the-tests", str(ROOT))
    assert done.returncode == 0, done.stderr
    yield "asr-of-the-tests", base
    docker("rmi", "asr-of-the-tests")


@pytest.mark.slow
def test_the_image_is_small_and_transcribes(image, tmp_path):
    image, base = image
    size, of_base = (
        int(docker("image", "inspect", "--format", "{{.Size}}", name).stdout) for name in (image, base)
    )
    assert size - of_base < MOST_BYTES - BASE_BYTES
    tmp_path.chmod(0o755)
    soundfile.write(tmp_path / "speech.wav", say("abc", np.random.default_rng(0)), RATE)
    run = ("run", "--rm", "-v", f"{tmp_path}:/data", image)
    done = docker(*run, "transcribe", "speech.wav", "-f", "json")
    assert done.returncode == 0, done.stderr
    assert '"text"' in done.stdout
    has_torch = "import importlib.util as util; print(util.find_spec('torch') is not None)"
    assert docker(*run[:-1], "--entrypoint", "python", image, "-c", has_torch).stdout.strip() == "False"


def test_what_the_image_copies_is_there():
    lines = [line.split() for line in (ROOT / "Dockerfile").read_text().splitlines()]
    copied = [name for line in lines if line[:1] == ["COPY"] and line[1][:2] != "--" for name in line[1:-1]]
    assert copied
    assert all((ROOT / name).exists() for name in copied)
