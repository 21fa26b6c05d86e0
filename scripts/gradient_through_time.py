"""Plot how the gradient fades through time: `python scripts/gradient_through_time.py [OUTPUT.png]`.

For each cell the norm of d y_T / d x_t, t running back from the last step T, on random input and fresh weights
(Bengio et al. 1994, Hochreiter et al. 2001). Gated cells with an open forget gate carry it much further.
"""

import sys

import matplotlib
import torch

from asr.recurrent import RecurrentLayer

FRAMES = 200
CELLS = {
    "simple RNN": ("rnn_tanh", {}),
    "LSTM": ("lstm", {}),
    "LSTM, forget bias 1": ("lstm", {"forget_bias": 1.0}),
    "coupled gates, forget bias 1": ("cifg", {"forget_bias": 1.0}),
    "GRU": ("gru", {}),
}


def gradient_norms(cell: str, **options) -> torch.Tensor:
    """Norm of the last output's gradient at every step back from it, relative to the last step's."""
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, 16, 64, bidirectional=False, **options)
    x = torch.randn(32, FRAMES, 16, requires_grad=True)
    y, _ = layer(x, torch.full((32,), FRAMES))
    (gradient,) = torch.autograd.grad(y[:, -1].sum(), x)
    norms = gradient.norm(dim=2).mean(0).flip(0)
    return norms / norms[0]


if __name__ == "__main__":
    matplotlib.use("agg")
    from matplotlib import pyplot

    for name, (cell, options) in CELLS.items():
        norms = gradient_norms(cell, **options)
        print(f"{name:30} after 10 steps {norms[10]:.1e}, 50 {norms[50]:.1e}, 150 {norms[150]:.1e}")
        pyplot.semilogy(norms.clamp(min=1e-30), label=name)
    pyplot.xlabel("steps back")
    pyplot.ylabel("gradient norm, relative to the last step's")
    pyplot.ylim(1e-15, 10)
    pyplot.legend()
    output = sys.argv[1] if len(sys.argv) > 1 else "gradient_through_time.png"
    pyplot.savefig(output, dpi=120)
    print(output)
