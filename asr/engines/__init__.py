"""What computes: samples to log-probabilities. Everything before and behind an engine is numpy, and shared.

An engine is imported only when it is made, so that the one that needs no PyTorch can be used without it.
"""

import os
from collections.abc import Sequence
from ctypes.util import find_library
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from asr.bundle import Bundle
from asr.decoding import Decoder
from asr.errors import AsrError
from asr.version import install_hint

COMPUTE_TYPES = ("float32", "bfloat16", "int8")
# Name of an engine: the package that it needs, how to install that, its module and class.
ENGINES = {
    "onnx": ("onnxruntime", "pip install onnxruntime", "asr.engines.onnx_engine", "OnnxEngine"),
    "torch": ("torch", install_hint("torch"), "asr.engines.torch_engine", "TorchEngine"),
}
# Of NVIDIA, of NVIDIA in Windows' Linux, and of AMD.
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


class Stages(Protocol):
    """A model in the three parts that a stream runs one after another, chunk by chunk; `asr.streaming` joins them."""

    def features(self, samples: np.ndarray) -> np.ndarray:
        """Return features (frame, mel) of samples (time,), normalized unless the utterance's own statistics do that."""
        ...

    def convolve(self, features: np.ndarray) -> np.ndarray:
        """Return the output (frame', feature) of the convolutions for features (frame, mel)."""
        ...

    def recur(self, hidden: np.ndarray, states: Any, chunk: int) -> tuple[np.ndarray, Any]:
        """Return log-probabilities (chunk, token) and the states behind the chunk.

        Arguments: hidden (frame, feature), of which what follows the first `chunk` frames is look-ahead; states, those
        behind the chunk before, None at the beginning. The reverse direction begins anew in each call.
        """
        ...


class Engine(Protocol):
    """A model that computes.

    Attributes:
        sample_rate: of the samples it takes, in Hz.
        seconds_per_frame: of the log-probabilities.
        vocab_size: number of tokens, the blank among them.
        device: name of what it computes on, as "cpu" or "cuda:1".
        compute_type: precision, one of COMPUTE_TYPES.
    """

    sample_rate: int
    seconds_per_frame: float
    vocab_size: int
    device: str
    compute_type: str

    def log_probs(self, samples: Sequence[np.ndarray], phones: bool = False) -> list[np.ndarray]:
        """Return the log-probabilities (frame, token) float32 of each piece of audio, computed together.

        Arguments: samples (time,) float32 of each; phones, whether those of the model's phones follow, (frame, token +
        1 + phone). Tokens and phones each begin with a blank. Audio without samples has no frames. Raises MemoryError,
        or an error that tells of a lack of memory, for a batch that is too large.
        """
        ...

    def batch_seconds(self) -> float:
        """Return the seconds of audio, padding included, that are fast to compute together and fit the free memory."""
        ...

    def stages(self) -> Stages:
        """Return the model's parts, for a stream."""
        ...

    def accelerated(self, decoder: Decoder) -> Decoder:
        """Return what decodes as `decoder` does on this engine's device, or the decoder itself."""
        ...


def make_engine(
    bundle: Bundle,
    device: str = "auto",
    *,
    engine: str = "auto",
    compute_type: str = "float32",
    threads: int | None = None,
) -> Engine:
    """Make a bundle's model ready to compute.

    Arguments: device, "cpu", "cuda", "cuda:1", ... or "auto", the GPU where there is one; engine, "torch", "onnx" or
    "auto", see `chosen_engine`; compute_type, one of COMPUTE_TYPES; threads of the CPU, None for what the engine
    chooses. Raises AsrError for what is not there or does not fit together.
    """
    if compute_type not in COMPUTE_TYPES:
        raise AsrError(f"compute type {compute_type!r} is unknown; there are {', '.join(COMPUTE_TYPES)}")
    if engine not in ("auto", *ENGINES):
        raise AsrError(f"there is no engine {engine!r}; there are auto, {', '.join(ENGINES)}")
    chosen = chosen_engine(device, compute_type) if engine == "auto" else engine
    package, hint, module, name = ENGINES[chosen]
    if not find_spec(package):
        purpose = f"compute type {compute_type} on {device}" if engine == "auto" else f"the engine {chosen}"
        raise AsrError(f"{purpose} needs the package {package}, which is not installed; {hint}")
    return getattr(import_module(module), name)(bundle, device, compute_type, threads)


def chosen_engine(device: str, compute_type: str) -> str:
    """Return the engine that "auto" stands for: onnx for float32 on the CPU, torch for everything else.

    The device "auto" is the CPU where PyTorch is not installed, or the machine has no driver of a GPU.
    """
    on_cpu = device == "cpu" or (device == "auto" and not (find_spec("torch") and _has_gpu_driver()))
    return "onnx" if on_cpu and compute_type == "float32" and find_spec("onnxruntime") else "torch"


def _has_gpu_driver() -> bool:
    """Return whether there is a GPU's driver, which tells without the seconds that importing PyTorch takes."""
    return any(map(os.path.exists, GPU_DRIVERS)) or (os.name == "nt" and find_library("nvcuda") is not None)
