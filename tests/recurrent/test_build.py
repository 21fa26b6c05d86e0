"""Finding and compiling the CPU kernels."""

import ctypes
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch

from asr.errors import BackendError
from asr.recurrent import RecurrentLayer
from asr.recurrent.cpu import build, library

LAYER = RecurrentLayer("lstm", 2, 3)


@pytest.fixture
def _unloaded(monkeypatch, tmp_path):
    """Forget the loaded library, so that it is looked for again in an empty cache."""
    cached = (library.load, library.instruction_set, library.problem)
    for function in cached:
        function.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield
    for function in cached:
        function.cache_clear()


def one_message(caplog):
    """What was logged, once, of the kernels."""
    (record,) = [record for record in caplog.records if record.name.startswith("asr.recurrent")]
    return record.getMessage()


@pytest.mark.usefixtures("_unloaded")
def test_a_cache_that_cannot_be_written_is_reported_once(monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nothing")
    x, lengths = torch.randn(2, 4, 2), torch.tensor([4, 2])
    RecurrentLayer("lstm", 2, 3)(x, lengths)
    RecurrentLayer("lstm", 2, 3)(x, lengths)
    assert re.search("cannot be put into the cache: .*set XDG_CACHE_HOME", one_message(caplog))


@pytest.mark.usefixtures("_unloaded")
def test_without_a_compiler_auto_reports_it_once_and_does_without(monkeypatch, caplog):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    x, lengths = torch.randn(2, 4, 2), torch.tensor([4, 2])
    y = RecurrentLayer("lstm", 2, 3)(x, lengths)[0]
    assert y.shape == (2, 4, 6)
    RecurrentLayer("lstm", 2, 3)(x, lengths)
    assert "no C++ compiler was found" in one_message(caplog)
    with pytest.raises(BackendError, match="no C\\+\\+ compiler"):
        RecurrentLayer("lstm", 2, 3, backend="fused")(x, lengths)


@pytest.mark.usefixtures("_unloaded")
@pytest.mark.parametrize("grad", [True, False])
def test_without_a_compiler_auto_compiles_the_equations_into_a_graph(monkeypatch, caplog, grad):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    x, lengths, layer = torch.randn(2, 4, 2), torch.tensor([4, 2]), RecurrentLayer("cifg", 2, 3)
    torch._dynamo.reset()
    with torch.set_grad_enabled(grad):
        y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x, lengths)[0]
    assert "no C++ compiler was found" in one_message(caplog)
    layer.backend = "reference"
    torch.testing.assert_close(y, layer(x, lengths)[0])


def test_the_documented_command_compiles_ahead_of_time():
    library.instruction_set()  # in the cache from here on
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "asr.recurrent.cpu.build"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert found == f"{build.library()}\n"


def test_a_wheel_needs_no_compiler(monkeypatch, tmp_path):
    shutil.copytree(build.SOURCES, tmp_path / "cpu", ignore=shutil.ignore_patterns("*.so"))
    monkeypatch.setattr(build, "SOURCES", tmp_path / "cpu")
    monkeypatch.setattr(build, "compile_library", lambda target, compiler: target.touch())
    build.main(["--in-package"])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert build.library().parent == tmp_path / "cpu"


THREADS = r"""
import os, re, torch
from pathlib import Path
from asr.recurrent import RecurrentLayer

torch.set_num_threads(1)
layer = RecurrentLayer("lstm", 8, 200, backend="fused")
x, lengths = torch.randn(40, 3, 8), torch.full((40,), 3)
found = []
for count in (1, 4):
    torch.set_num_threads(count)
    before = len(os.listdir("/proc/self/task"))
    with torch.no_grad():
        layer(x, lengths)
    found.append(len(os.listdir("/proc/self/task")) - before)
runtimes = set(re.findall(r"\S+/lib(?:gomp|iomp5|omp)[^/\s]*\.so\S*", Path("/proc/self/maps").read_text()))
print(found, len(runtimes))
"""


def test_it_runs_on_torchs_threads_and_no_more():
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True)
    assert done.stdout == "[0, 3] 1\n"  # threads that the call started, OpenMP runtimes in the process


@pytest.mark.usefixtures("_unloaded")
def test_an_unknown_instruction_set_is_refused(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("ASR_RECURRENT_ISA", "sse9")
    with pytest.raises(BackendError, match="sse9"):
        library.instruction_set()


def test_a_failing_compiler_is_quoted(tmp_path):
    with pytest.raises(BackendError, match="compiling the fused CPU kernels failed"):
        build.compile_library(tmp_path / "kernels.so", shutil.which("false") or "false")


@pytest.mark.slow
def test_instructions_that_the_compiler_does_not_know_are_left_out(tmp_path):
    compiler = tmp_path / "old_compiler"
    compiler.write_text(
        '#!/bin/sh\ncase "$*" in *-mavx512bf16*) echo unrecognized option >&2; exit 1;; esac\n'
        f'exec {build.find_compiler()} "$@"\n'
    )
    compiler.chmod(0o755)
    build.compile_library(tmp_path / "kernels.so", str(compiler), ["-O0"])
    torch.get_num_threads()  # OpenMP's functions are there
    kernels = ctypes.CDLL(str(tmp_path / "kernels.so"))
    assert not kernels.recurrent_supports(b"avx512bf16")
    assert kernels.recurrent_supports(b"portable")


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
    if not library.load().recurrent_supports(name.encode()):
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


# Stands before the C library's function and fails once, at the call that the test asks for.
ALLOCATE = """
#include <errno.h>
#include <malloc.h>
long calls_left = 0;
int posix_memalign(void **memory, size_t alignment, size_t size) {
    if (__atomic_sub_fetch(&calls_left, 1, __ATOMIC_SEQ_CST) == 0) return ENOMEM;
    *memory = memalign(alignment, size);
    return *memory ? 0 : ENOMEM;
}
"""
EXHAUST = """
import ctypes, itertools, sys, torch
from asr.recurrent import RecurrentLayer

torch.set_num_threads(4)
calls_left = ctypes.c_long.in_dll(ctypes.CDLL(sys.argv[1]), "calls_left")
layer = RecurrentLayer("lstm", 8, 200, backend="fused")
x, lengths = torch.randn(40, 3, 8), torch.full((40,), 3)


def kernels_failed_once(run):
    failed = False
    for call in itertools.count(1):
        calls_left.value = call
        try:
            run()
        except MemoryError:
            failed = True
        except RuntimeError as error:  # torch's own allocation
            assert "allocate memory" in str(error)
        if calls_left.value > 0:  # the call that was to fail did not come
            return failed


with torch.no_grad():
    assert kernels_failed_once(lambda: layer(x, lengths))
calls_left.value = 0
y = layer(x, lengths)[0]
assert kernels_failed_once(lambda: y.backward(torch.ones_like(y), retain_graph=True))
"""


@pytest.mark.slow
def test_exhausted_memory_is_an_error_and_no_thread_waits_for_one_that_failed(tmp_path):
    allocator = tmp_path / "allocate.so"
    command = [build.find_compiler(), "-x", "c", "-", "-shared", "-fPIC", "-o", str(allocator)]
    subprocess.run(command, input=ALLOCATE, text=True, check=True)
    environment = os.environ | {"LD_PRELOAD": str(allocator)}
    command = [sys.executable, "-c", EXHAUST, str(allocator)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


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


def test_processes_that_start_together_compile_once(tmp_path):
    """The second waits for the first and takes its library."""
    code = (
        "import time\n"
        "from asr.recurrent.cpu import build\n"
        "def compile_library(target, compiler, extra):\n"
        "    time.sleep(2)\n"
        "    target.touch()\n"
        "    print('compiled')\n"
        "build.compile_library = compile_library\n"
        "print(build.library().exists())\n"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(outputs) == ["True\n", "True\n", "compiled\nTrue\n"]
