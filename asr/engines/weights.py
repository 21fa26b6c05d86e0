"""The names and shapes of a bundle's weights, which an engine without PyTorch has to check itself."""

from collections.abc import Iterator

import numpy as np

from asr.bundle import CONFIG_FILE, WEIGHTS_FILE, Bundle
from asr.errors import BundleError
from asr.model_config import ModelConfig

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def check_weights(bundle: Bundle, gates: int, peepholes: int) -> None:
    """Raise BundleError that names the first weight that is absent or of another shape than the configuration's.

    Arguments: gates of the model's cell, and how many of them have peepholes.
    """
    for name, shape in expected_shapes(bundle, gates, peepholes):
        found = bundle.weights[name].shape if name in bundle.weights else "no such array"
        if found != shape:
            path = bundle.folder / WEIGHTS_FILE if bundle.folder else WEIGHTS_FILE
            raise BundleError(
                f"{path} does not fit the model that {CONFIG_FILE} describes: {name} is {found}, expected {shape}; "
                "copy the bundle again"
            )


def expected_shapes(bundle: Bundle, gates: int, peepholes: int) -> Shapes:
    """Yield the name and shape of each weight that a bundle's configuration asks for."""
    model, mels = bundle.model, bundle.features.n_mels
    if bundle.features.normalize == "global":
        yield from {"log_mel.mean": (mels,), "log_mel.std": (mels,)}.items()
        yield from {"log_mel.level": (), "log_mel.level_std": ()}.items()
    channels = 1
    front = model.front_end
    for index, (size, kernel, stride) in enumerate(
        zip(front.channels, front.kernel_sizes, front.strides, strict=True)
    ):
        mels = (mels - 1) // stride[1] + 1
        yield from _convolution(
            f"model.front_end.layers.{index}", front.norm, (size, channels, *kernel), mels
        )
        channels = size
    width = channels * mels
    for index in range(model.layers):
        yield from _norm(f"model.norms.{index}", model, width)
        for suffix in ("", "_reverse")[: 1 + model.bidirectional]:
            for name, shape in _recurrent(model, width, gates, peepholes):
                yield f"model.recurrent.{index}.{name}_l0{suffix}", shape
        width = (model.proj_size or model.hidden_size) * (1 + model.bidirectional)
    yield from _norm(f"model.norms.{model.layers}", model, width)
    yield "model.output.weight", (bundle.tokenizer.vocab_size, width)
    yield "model.output.bias", (bundle.tokenizer.vocab_size,)
    if model.phones:
        yield "model.phone_output.weight", (1 + len(model.phones), width)
        yield "model.phone_output.bias", (1 + len(model.phones),)


def no_frames(bundle: Bundle, count: int, phones: bool) -> list[np.ndarray]:
    """Return the log-probabilities of so many pieces of audio without samples; see `Engine.log_probs`."""
    width = bundle.tokenizer.vocab_size + (1 + len(bundle.model.phones)) * phones
    return [np.zeros((0, width), np.float32) for _ in range(count)]


def _convolution(prefix: str, norm: str, kernel: tuple[int, ...], mels: int) -> Shapes:
    yield f"{prefix}.conv.weight", kernel
    if norm == "none":
        yield f"{prefix}.conv.bias", kernel[:1]
    if norm == "batch":
        for name in ("weight", "bias", "running_mean", "running_var"):
            yield f"{prefix}.batch_norm.{name}", kernel[:1]
    if norm == "layer":
        for name in ("weight", "bias"):
            yield f"{prefix}.layer_norm.{name}", (kernel[0], mels)


def _norm(prefix: str, model: ModelConfig, width: int) -> Shapes:
    if model.norm == "layer":
        for name in ("weight", "bias"):
            yield f"{prefix}.{name}", (width,)


def _recurrent(model: ModelConfig, width: int, gates: int, peepholes: int) -> Shapes:
    size, output = model.hidden_size, model.proj_size or model.hidden_size
    yield from {"weight_ih": (gates * size, width), "weight_hh": (gates * size, output)}.items()
    yield from {"bias_ih": (gates * size,), "bias_hh": (gates * size,)}.items()
    if model.proj_size:
        yield "weight_hr", (output, size)
    if peepholes:
        yield "weight_peephole", (peepholes, size)
    if model.layer_norm:
        for name, length in (("ih", gates * size), ("hh", gates * size), ("cell", size)):
            yield from ((f"norm_{name}_{kind}", (length,)) for kind in ("weight", "bias"))
