"""Compile the CPU kernels: on first use into the user's cache, or ahead of time.

`python -m asr.recurrent.cpu.build` fills the cache, with `--in-package` it puts the library beside the sources, for a
wheel. The sources under src/ include neither torch nor Python headers, so the library works with every version of
both. It links no OpenMP runtime of its own: it finds torch's when it is loaded. $CXX names another compiler,
$ASR_RECURRENT_FLAGS adds flags (a sanitizer's, say), $ASR_RECURRENT_ISA forces avx512bf16, avx512vnni, avx512, avx2
or portable kernels.
"""

import argparse
import contextlib
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from asr.errors import BackendError

logger = logging.getLogger("asr.recurrent.cpu.build")  # __name__ is another where this module is the program
SOURCES = Path(__file__).parent / "src"
FLAGS = [
    "-std=c++17",
    "-O2",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fopenmp",
    "-fPIC",
    "-fvisibility=hidden",
    "-w",
]
AVX512 = [
    "-DWIDTH=16",
    "-mavx512f",
    "-mavx512bw",
    "-mavx512dq",
    "-mavx512vl",
    "-mfma",
    "-mprefer-vector-width=512",
]
INSTRUCTION_SETS = {  # the best first
    "avx512bf16": [*AVX512, "-mavx512vnni", "-mavx512bf16"],
    "avx512vnni": [*AVX512, "-mavx512vnni"],
    "avx512": AVX512,
    "avx2": ["-DWIDTH=8", "-mavx2", "-mfma"],
    "portable": ["-DWIDTH=4"],
}


def library() -> Path:
    """Return the compiled library's path; compile it if neither the package nor the cache has it.

    Raises BackendError where that is impossible, with the reason.
    """
    extra = os.environ.get("ASR_RECURRENT_FLAGS", "").split()
    if prebuilt().exists() and not extra:
        return prebuilt()
    compiler = find_compiler()
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    machine = platform.machine()  # homes are shared, and compilers of all machines give the same version
    made_of = "\n".join([_source_hash(), machine, compiler, version, *FLAGS, *extra])
    key = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asr"
        cached = cache / f"recurrent-{key}.so"
        if not cached.exists():
            cache.mkdir(parents=True, exist_ok=True)
            with _alone(cached.with_suffix(".lock")):
                if not cached.exists():
                    logger.warning(
                        "Compiling the recurrent kernels for this machine (once, about half a minute) ..."
                    )
                    compile_library(cached, compiler, extra)
    except (OSError, RuntimeError) as error:  # no such place, or no home to look for it in
        raise BackendError(
            f"the fused CPU kernels cannot be put into the cache: {error}; set XDG_CACHE_HOME to a folder that can be "
            "written to"
        ) from None
    return cached


def prebuilt() -> Path:
    """Return where a wheel has the library, compiled of these very sources."""
    return SOURCES / f"kernels-{_source_hash()}.so"


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process is in here with the same path: processes that start together compile once."""
    import fcntl  # only here: Windows has none, and no kernels are built there

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
        path.unlink(missing_ok=True)


def compile_library(target: Path, compiler: str, extra: list[str] | None = None) -> None:
    """Compile every instruction set that the compiler knows side by side and put the library at `target` in one step.

    `extra` flags come last: a sanitizer's, say. Raises BackendError with the compiler's first complaint.
    """
    extra = extra or []
    x86 = platform.machine() in ("x86_64", "AMD64")
    names = list(INSTRUCTION_SETS) if x86 else ["portable"]
    names = [name for name in names if _knows(compiler, INSTRUCTION_SETS[name])]
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=target.parent) as folder,
        ThreadPoolExecutor() as pool,
    ):
        jobs = {
            f"{folder}/{name}.o": [
                "kernels.cpp",
                f"-DISA={name}",
                *INSTRUCTION_SETS[name],
            ]
            for name in names
        }
        jobs |= {f"{folder}/{name}.o": [f"{name}.cpp"] for name in ("entry", "pool", "threads")}
        commands = [
            [compiler, *FLAGS, *options, *extra, "-c", str(SOURCES / source), "-o", out]
            for out, (source, *options) in jobs.items()
        ]
        list(pool.map(_call, commands))
        linked = f"{folder}/kernels.so"
        # No -fopenmp here: the OpenMP functions stay undefined and resolve to those that torch has loaded.
        sanitizers = [flag for flag in extra if flag.startswith("-fsanitize")]
        _call([compiler, "-shared", "-pthread", *sanitizers, *jobs, "-o", linked])
        Path(linked).replace(target)  # atomic: another process sees the whole file or none


def find_compiler() -> str:
    """Return the C++ compiler: $CXX, or the first of c++, g++ and clang++. Raises BackendError if there is none."""
    if not sys.platform.startswith("linux"):
        raise BackendError(f"the fused CPU kernels are built on Linux only, this is {sys.platform}")
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and (path := shutil.which(name)):
            return path
    raise BackendError("no C++ compiler was found (c++, g++, clang++ or $CXX) for the fused CPU kernels")


def _knows(compiler: str, flags: list[str]) -> bool:
    """Return whether the compiler takes these flags: those of 2019 do not know AVX512-BF16."""
    command = [compiler, *flags, "-E", "-x", "c++", os.devnull]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _call(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if "error" in line] or result.stderr.splitlines()
        raise BackendError(f"compiling the fused CPU kernels failed: {(lines or ['no message'])[0]}")


def _source_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted(SOURCES.glob("*.h")) + sorted(SOURCES.glob("*.cpp")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def main(arguments: list[str] | None = None) -> None:
    """Command line: build into the cache, or into the package for a wheel."""
    parser = argparse.ArgumentParser(description="Compile the fused recurrent CPU kernels ahead of time.")
    parser.add_argument(
        "--in-package",
        action="store_true",
        help="put the library beside its sources, for a wheel",
    )
    if parser.parse_args(arguments).in_package:
        target = prebuilt()
        compile_library(target, find_compiler())
    else:
        target = library()
    print(target)


if __name__ == "__main__":
    try:
        main()
    except BackendError as error:
        sys.exit(str(error))
