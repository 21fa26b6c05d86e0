"""Draw how gradients fade and explode through time on real speech, and what clipping does.

`python scripts/learn/gradients.py AUDIO [FOLDER]` reads one utterance of a few seconds, computes its log-mel features,
and writes gradient_reach.svg (the norm of d y_T / d x_t for t running back from the last frame T; Bengio et al. 1994,
Hochreiter et al. 2001) and clipping.svg (a simple RNN that learns the utterance with and without clipping; Pascanu et
al. 2013). Random weights, orthogonal recurrent matrices scaled by a gain.
"""

import sys
from pathlib import Path

import matplotlib
import torch

from asr.audio import load_audio
from asr.features import FeatureConfig, LogMel
from asr.recurrent import RecurrentLayer

UNITS = 64
CELLS: dict[str, tuple[str, float, dict]] = {
    "simple RNN, gain 0.8": ("rnn_tanh", 0.8, {}),
    "simple RNN, gain 1": ("rnn_tanh", 1.0, {}),
    "simple RNN, gain 3": ("rnn_tanh", 3.0, {}),
    "LSTM, gain 1": ("lstm", 1.0, {}),
    "LSTM, gain 1, forget bias 3": ("lstm", 1.0, {"forget_bias": 3.0}),
    "GRU, gain 1": ("gru", 1.0, {}),
}


def make_layer(cell: str, gain: float, size: int, **options: float) -> RecurrentLayer:
    """Return a layer in one direction whose recurrent matrices are orthogonal times `gain`."""
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, size, UNITS, bidirectional=False, **options)
    with torch.no_grad():
        for block in layer.weight_hh_l0.split(UNITS):
            torch.nn.init.orthogonal_(block, gain)
        layer.weight_ih_l0 *= 0.5
    return layer


def features_of(path: str) -> torch.Tensor:
    """Return the log-mel features (1, frame, mel) of a file, with mean 0 and variance 1 in each band."""
    config = FeatureConfig()
    samples = torch.from_numpy(load_audio(path, config.sample_rate))
    features, _ = LogMel(config)(samples[None])
    return features.detach()


def reach(layer: RecurrentLayer, features: torch.Tensor) -> torch.Tensor:
    """Return the last output's gradient norm at each frame (frame,), last first, relative to the last frame's."""
    x = features.clone().requires_grad_()
    y, _ = layer(x, torch.tensor([x.shape[1]]))
    (gradient,) = torch.autograd.grad(y[0, -1].sum(), x)
    norms = gradient[0].norm(dim=1).flip(0)
    return norms / norms[0]


def learn(features: torch.Tensor, clip: float | None, steps: int = 150) -> tuple[list[float], list[float]]:
    """Return loss and gradient norm of each step of a simple RNN that learns to predict the next frame."""
    layer = make_layer("rnn_tanh", 1.5, features.shape[2])
    output = torch.nn.Linear(UNITS, features.shape[2])
    parameters = [*layer.parameters(), *output.parameters()]
    optimizer = torch.optim.SGD(parameters, 0.15, momentum=0.9)
    losses, norms = [], []
    for _ in range(steps):
        y, _ = layer(features[:, :-1], torch.tensor([features.shape[1] - 1]))
        loss = (output(y) - features[:, 1:]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, clip or float("inf")).item())
        losses.append(loss.item())
        optimizer.step()
    return losses, norms


if __name__ == "__main__":
    from matplotlib import pyplot

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "asr"
    features = features_of(sys.argv[1])
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else ".")
    for name, (cell, gain, options) in CELLS.items():
        norms = reach(make_layer(cell, gain, features.shape[2], **options), features)
        print(f"{name:28} 10 frames back {norms[10]:.1e}, 50 {norms[50]:.1e}, 150 {norms[150]:.1e}")
        pyplot.semilogy(norms[:200].clamp(min=1e-30), label=name)
    pyplot.xlabel("frames back (10 ms each)")
    pyplot.ylabel("gradient norm, relative to the last frame's")
    pyplot.ylim(1e-20, 1e20)
    pyplot.legend()
    pyplot.savefig(folder / "gradient_reach.svg", bbox_inches="tight")
    pyplot.close()
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5))
    for name, clip in (("no clipping", None), ("clipped to 0.5", 0.5)):
        losses, norms = learn(features, clip)
        print(
            f"{name:28} largest gradient norm {max(norms):.1e}, last loss {losses[-1]:.2f}, lowest {min(losses):.2f}"
        )
        axes[0].semilogy(losses, label=name)
        axes[1].semilogy(norms, label=name)
    axes[0].set_ylabel("loss")
    axes[1].set_ylabel("gradient norm before clipping")
    for axis in axes:
        axis.set_xlabel("step")
    axes[0].legend()
    figure.savefig(folder / "clipping.svg", bbox_inches="tight")
