"""Time the parts of a language model's training step: `python scripts/bench/bench_lm_step.py`.

Prints the processor time of each part, of one thread, with our recurrence and with torch.nn.LSTM in its place; medians
over steps. Tokens are drawn by Zipf's law.
"""

import itertools
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from asr.lm.network import NetworkConfig
from asr.training.lm.network import RecurrentLm, States

WORDS, BATCH, CHUNK, STEPS = 30003, 32, 35, 8
PARTS = ("embedding", "recurrence", "softmax", "clipping", "optimizer")


def step(
    model: RecurrentLm, optimizer: torch.optim.Optimizer, ids: Tensor, recur: Callable, states: list
) -> list:
    """Take a step; return the seconds of each part, and leave the states behind it in `states`."""
    marks = [time.process_time()]

    def mark() -> None:
        marks.append(time.process_time())

    optimizer.zero_grad()
    embedded = model._embed(ids[:, :-1])
    x = embedded.detach().requires_grad_()
    mark()
    hidden, finals = recur(x, states)
    states[:] = [tuple(part.detach() for part in final) for final in finals]
    hidden = model.dropout(hidden)
    mark()
    h = hidden.detach().requires_grad_()
    model.loss(h.flatten(0, 1), ids[:, 1:].flatten()).mean().backward()
    mark()
    hidden.backward(h.grad)
    mark()
    embedded.backward(x.grad)
    mark()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    mark()
    optimizer.step()
    mark()
    first, forward, softmax, backward, last, clipping, update = (b - a for a, b in itertools.pairwise(marks))
    return [first + last, forward + backward, softmax, clipping, update]


def main() -> None:
    """Time both."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = NetworkConfig(hidden_size=768, proj_size=256, embedding_size=256, dropout=0.05)
    model = RecurrentLm(config, WORDS).train()
    ids = torch.multinomial(1 / (torch.arange(WORDS) + 3.0), BATCH * (CHUNK + 1), replacement=True)
    ids = ids.view(BATCH, CHUNK + 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003, fused=True)
    (layer,) = model.recurrent
    theirs = nn.LSTM(256, 768, batch_first=True, proj_size=256)

    def by_ours(x: Tensor, states: States) -> tuple[Tensor, States]:
        y, final = layer(x, [CHUNK] * BATCH, states[0] if states else None)
        return y, [final]

    def by_torch(x: Tensor, states: States) -> tuple[Tensor, States]:
        y, final = theirs(x, states[0] if states else None)
        return y, [final]

    for name, recur in (("ours", by_ours), ("torch.nn.LSTM", by_torch)):
        states: States = []
        seconds = [step(model, optimizer, ids, recur, states) for _ in range(STEPS + 1)][1:]
        medians = [1000 * statistics.median(part) for part in zip(*seconds, strict=True)]
        shares = ", ".join(
            f"{part} {ms:.1f} ({ms / sum(medians):.0%})" for part, ms in zip(PARTS, medians, strict=True)
        )
        print(f"{name}: {sum(medians):.1f} ms: {shares}")


if __name__ == "__main__":
    main()
