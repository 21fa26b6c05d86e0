"""Layers to run, their outputs and gradients, and errors: what the backends' tests share."""

import torch
from torch import Tensor

from asr.recurrent import RecurrentLayer
from asr.recurrent.cells import Call, Noise, Weights


def make_call(cell, lengths, *, frames=None, input_size=6, hidden_size=10, training=True, **options) -> Call:
    """A layer with random input and state, every tensor a fresh leaf; frames, unless given, as the longest has."""
    layer = RecurrentLayer(cell, input_size, hidden_size, **options).train(training)
    lengths = torch.as_tensor(lengths)
    frames = int(lengths.max()) if frames is None else frames
    x = torch.randn(len(lengths), frames, input_size)
    sizes = (layer.output_size, hidden_size)[: 1 + layer.cell.lstm_family]
    state = tuple(torch.randn(len(layer.directions()), len(lengths), size) / 2 for size in sizes)
    noise = [layer.draw_noise(x) for _ in layer.directions()]
    weights = [layer.weights(suffix) for suffix in layer.directions()]
    return converted(Call(cell, layer.options, x, lengths, state, weights, noise))


def converted(call: Call, to: torch.dtype | str = torch.float32) -> Call:
    """The same call in another precision, or on another device, as fresh leaves."""

    def leaf(t):
        return t.detach().to(to).requires_grad_() if isinstance(t, Tensor) else t

    def mask(t):
        return t.detach().to(to) if isinstance(t, Tensor) else t

    return call._replace(
        x=leaf(call.x),
        lengths=call.lengths if isinstance(to, torch.dtype) else call.lengths.to(to),
        state=tuple(map(leaf, call.state)),
        weights=[Weights(*map(leaf, own)) for own in call.weights],
        noise=[Noise(*map(mask, own)) for own in call.noise],
    )


def outputs_and_gradients(run, call: Call) -> dict[str, Tensor]:
    """Everything a caller may see of one layer, by name: outputs, and gradients of a random function of them all."""
    y, final = run(call)
    leaves = {"x": call.x} | {f"state_{j}": part for j, part in enumerate(call.state)}
    for d, weights in enumerate(call.weights):
        leaves |= {f"{name}_{d}": t for name, t in weights._asdict().items() if t is not None}
    found = {"y": y} | {f"final_{j}": part for j, part in enumerate(final)}
    generator = torch.Generator().manual_seed(1)
    cotangents = [torch.randn(t.shape, generator=generator).to(t) for t in found.values()]
    gradients = torch.autograd.grad(list(found.values()), list(leaves.values()), cotangents)
    found |= {f"d{name}": gradient for name, gradient in zip(leaves, gradients, strict=True)}
    return {name: tensor.detach() for name, tensor in found.items()}


def errors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Relative error in the 2-norm, of each named tensor."""
    assert found.keys() == expected.keys()
    return {
        name: ((found[name].double() - e.double()).norm() / e.double().norm().clamp(min=1e-9)).item()
        for name, e in expected.items()
    }
