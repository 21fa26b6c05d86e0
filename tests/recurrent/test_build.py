"""Finding and compiling the CPU kernels."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from asr.errors import BackendError
from asr.recurrent import RecurrentLayer, build, cpu_backend

LAYER = RecurrentLayer("lstm", 2, 3)


@pytest.fixture
def _unloaded(monkeypatch, tmp_path):
    """Forget the loaded library, so that it is looked for again in an empty cache."""
    cached = (
        cpu_backend._library,
        cpu_backend.instruction_set,
        cpu_backend._load_problem,
    )
    for function in cached:
        function.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield
    for function in cached:
        function.cache_clear()


@pytest.mark.usefixtures("_unloaded")
def test_a_cache_that_cannot_be_written_is_told_once(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nothing")
    x, lengths = torch.randn(2, 4, 2), torch.tensor([4, 2])
    with pytest.warns(UserWarning, match="cannot be put into the cache: .*set XDG_CACHE_HOME"):
        RecurrentLayer("lstm", 2, 3)(x, lengths)
    RecurrentLayer("lstm", 2, 3)(x, lengths)


@pytest.mark.usefixtures("_unloaded")
def test_without_a_compiler_auto_says_so_once_and_does_without(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    x, lengths = torch.randn(2, 4, 2), torch.tensor([4, 2])
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler was found"):
        y = RecurrentLayer("lstm", 2, 3)(x, lengths)[0]
    assert y.shape == (2, 4, 6)
    RecurrentLayer("lstm", 2, 3)(x, lengths)  # warnings are errors here: a second one would fail
    with pytest.raises(BackendError, match="no C\\+\\+ compiler"):
        RecurrentLayer("lstm", 2, 3, backend="fused")(x, lengths)


@pytest.mark.usefixtures("_unloaded")
def test_an_unknown_instruction_set_is_refused(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("ASR_RECURRENT_ISA", "sse9")
    with pytest.raises(BackendError, match="sse9"):
        cpu_backend.instruction_set()


def test_a_failing_compiler_is_quoted(tmp_path):
    with pytest.raises(BackendError, match="compiling the fused CPU kernels failed"):
        build.compile_library(tmp_path / "kernels.so", shutil.which("false") or "false")


def run_kernel_tests(environment, *options):
    """Run the kernels' own tests in a fresh process."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "tests/recurrent/test_fused_cpu.py",
        "tests/recurrent/test_packed.py",
        *options,
    ]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", build.INSTRUCTION_SETS)
def test_every_instruction_set_of_this_processor_passes(name, monkeypatch):
    if not cpu_backend._library().recurrent_supports(name.encode()):
        pytest.skip(f"this processor does not run {name}")
    run_kernel_tests({**os.environ, "ASR_RECURRENT_ISA": name})


@pytest.mark.slow
def test_the_widest_vectors_are_right_even_without_avx512(tmp_path):
    """The AVX-512 source, tiles and panels and all, with its vectors split in two by the compiler."""
    run_kernel_tests(
        {
            **os.environ,
            "ASR_RECURRENT_ISA": "avx2",
            "ASR_RECURRENT_FLAGS": "-UWIDTH -DWIDTH=16",
            "XDG_CACHE_HOME": str(tmp_path),
        }
    )


@pytest.mark.slow
def test_the_sanitizers_find_nothing(tmp_path):
    runtime = [
        subprocess.run(
            ["g++", f"-print-file-name={name}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    environment = {
        **os.environ,
        "ASR_RECURRENT_FLAGS": "-g -fsanitize=address,undefined -fno-sanitize-recover=undefined",
        "XDG_CACHE_HOME": str(tmp_path),
        "LD_PRELOAD": " ".join(runtime),
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    run_kernel_tests(environment)
