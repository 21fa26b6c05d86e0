"""Train each cell to recall a bit over a growing distance, and draw what the LSTM's gates do meanwhile.

`python scripts/learn/recall.py [FOLDER]` prints a table and writes recall.svg and gates.svg. The first step shows a
bit with a marker, further steps show noise, and the last step asks for the bit (after Hochreiter & Schmidhuber 1997).
A cell that forgets answers half of the questions right.
"""

import sys
from pathlib import Path

import matplotlib
import torch
from torch.nn import functional as F

from asr.recurrent import RecurrentLayer

CELLS: dict[str, tuple[str, dict]] = {
    "simple RNN": ("rnn_tanh", {}),
    "GRU": ("gru", {}),
    "LSTM": ("lstm", {}),
    "LSTM, forget bias 1": ("lstm", {"forget_bias": 1.0}),
    "LSTM, forget bias 3": ("lstm", {"forget_bias": 3.0}),
    "peepholes, forget bias 3": ("peephole", {"forget_bias": 3.0}),
    "coupled gates, forget bias 3": ("cifg", {"forget_bias": 3.0}),
}
DISTANCES = (5, 10, 20, 40, 80, 160)
SEEDS = (0, 1, 2)
UNITS = 16


class Recall(torch.nn.Module):
    """A recurrent layer in one direction and a linear output that answers with the bit's logit."""

    def __init__(self, cell: str, **options: float):
        super().__init__()
        self.layer = RecurrentLayer(cell, 2, UNITS, bidirectional=False, **options)
        self.output = torch.nn.Linear(UNITS, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the answer's logit (batch,) for x (batch, frame, 2)."""
        y, _ = self.layer(x, torch.full((len(x),), x.shape[1]))
        return self.output(y[:, -1]).squeeze(1)


def questions(count: int, distance: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x (count, distance + 1, 2) of value and marker, and the bits (count,); the marked value comes first."""
    x = torch.randn(count, distance + 1, 2, generator=generator)
    bits = torch.randint(2, (count,), generator=generator).float()
    x[:, :, 1] = 0
    x[:, 0, 0] = 2 * bits - 1
    x[:, 0, 1] = 1
    return x, bits


def train(name: str, distance: int, seed: int = 0, steps: int = 400) -> tuple[Recall, float]:
    """Return a trained model and its accuracy on unseen questions."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    cell, options = CELLS[name]
    model = Recall(cell, **options)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(steps):
        x, bits = questions(32, distance, generator)
        loss = F.binary_cross_entropy_with_logits(model(x), bits)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        x, bits = questions(1000, distance, generator)
        return model, ((model(x) > 0) == bits.bool()).float().mean().item()


def gates(model: Recall, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the gates and the cell state of an LSTM, each (frame, unit), for x (frame, 2)."""
    layer, size = model.layer, UNITS
    weight_ih, weight_hh = layer.weight_ih_l0, layer.weight_hh_l0
    bias = layer.bias_ih_l0 + layer.bias_hh_l0
    h = c = torch.zeros(size)
    rows: dict[str, list[torch.Tensor]] = {
        "input gate": [],
        "forget gate": [],
        "output gate": [],
        "cell state": [],
    }
    for frame in x:
        i, f, g, o = (weight_ih @ frame + weight_hh @ h + bias).chunk(4)
        i, f, o = i.sigmoid(), f.sigmoid(), o.sigmoid()
        c = f * c + i * g.tanh()
        h = o * c.tanh()
        for values, row in zip((i, f, o, c), rows.values(), strict=True):
            row.append(values)
    return {name: torch.stack(row) for name, row in rows.items()}


def draw_gates(model: Recall, distance: int, path: Path) -> None:
    """Draw the gates and state of the unit that holds the bit best, for a question with bit 1 and one with bit 0."""
    from matplotlib import pyplot

    x, _ = questions(2, distance, torch.Generator().manual_seed(1))
    x[0, 0, 0], x[1, 0, 0] = 1, -1
    x[1, 1:] = x[0, 1:]
    with torch.no_grad():
        ones, zeros = gates(model, x[0]), gates(model, x[1])
    unit = int((ones["cell state"][-1] - zeros["cell state"][-1]).abs().argmax())
    figure, axes = pyplot.subplots(2, 1, figsize=(7, 4), sharex=True)
    for name in ("input gate", "forget gate", "output gate"):
        axes[0].plot(ones[name][:, unit], label=name)
    axes[0].set_ylabel("gate")
    axes[0].legend(loc="center right")
    axes[1].plot(ones["cell state"][:, unit], label="after a 1")
    axes[1].plot(zeros["cell state"][:, unit], label="after a 0")
    axes[1].set_ylabel("cell state")
    axes[1].set_xlabel("step")
    axes[1].legend(loc="center right")
    figure.savefig(path, bbox_inches="tight")
    pyplot.close(figure)


if __name__ == "__main__":
    from matplotlib import pyplot

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "asr"
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    print("| cell | " + " | ".join(f"{distance} steps" for distance in DISTANCES) + " |")
    print("|---" * (len(DISTANCES) + 1) + "|")
    for name in CELLS:
        accuracies = [
            100 * sum(train(name, distance, seed)[1] for seed in SEEDS) / len(SEEDS) for distance in DISTANCES
        ]
        print(f"| {name} | " + " | ".join(f"{accuracy:.0f} %" for accuracy in accuracies) + " |", flush=True)
        pyplot.semilogx(DISTANCES, accuracies, marker="o", label=name)
    pyplot.xlabel("steps between the bit and the question")
    pyplot.ylabel("right answers %")
    pyplot.legend()
    pyplot.savefig(folder / "recall.svg", bbox_inches="tight")
    pyplot.close()
    draw_gates(train("LSTM, forget bias 3", 40)[0], 40, folder / "gates.svg")
