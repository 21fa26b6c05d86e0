"""Time training steps of a recipe's model: `python scripts/bench_training.py --config recipes/an4/config.yaml`.

The same batches of the recipe's own training data go, in turns in one process, through the model as it is and through
the same network with torch.nn.LSTM on packed sequences in place of our recurrent layers. Printed are medians of a whole
step (front end, recurrent stack, CTC, backward, optimiser), their ratio, and what of our step each part takes.
"""

import argparse
import copy
import statistics
import time
from collections import defaultdict
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr.ctc import ctc_loss
from asr.data import Batch, load_cuts
from asr.recurrent import RecurrentLayer
from asr.training.config import read_config
from asr.training.data import SpeechData
from asr.training.train import new_bundle


class PackedTorchLayer(nn.Module):
    """torch.nn.LSTM over packed sequences, called as a RecurrentLayer is."""

    def __init__(self, layer: RecurrentLayer):
        super().__init__()
        self.lstm = nn.LSTM(layer.input_size, layer.hidden_size, bidirectional=True, batch_first=True)
        self.lstm.load_state_dict(layer.state_dict())

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, None]:
        """x (batch, frame, feature) -> y (batch, frame, 2 * hidden)."""
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])
        return y, None


class Contender:
    """A model with its optimiser; `step` takes one training step."""

    def __init__(self, model: nn.Module):
        self.model = model.train()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        self.spent: defaultdict[str, float] = defaultdict(float)

    def step(self, batch: Batch) -> float:
        """Take a step; its seconds."""
        times = [time.perf_counter()]
        logits, lengths = self.model(batch.features, batch.feature_lengths)
        times.append(time.perf_counter())
        loss = ctc_loss(logits, lengths, batch.tokens, batch.token_lengths)
        times.append(time.perf_counter())
        self.optimizer.zero_grad()
        loss.backward()
        times.append(time.perf_counter())
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        times.append(time.perf_counter())
        for name, begin, end in zip(
            ("forward", "CTC", "backward", "optimiser"), times, times[1:], strict=False
        ):
            self.spent[name] += end - begin
        return times[-1] - times[0]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description="Time training steps of a recipe's model against torch.nn.LSTM."
    )
    parser.add_argument("--config", required=True, help="a recipe's, its data prepared")
    parser.add_argument("--batches", type=int, default=8)
    arguments = parser.parse_args()
    config = read_config(["--config", arguments.config])
    train, dev = ([*load_cuts(str(path))] for path in (config.data.train, config.data.dev))
    torch.manual_seed(0)
    bundle = new_bundle(config, train)
    data = SpeechData(config, bundle, train, dev)
    data.train_loader.set_epoch(0)
    batches = list(islice(data.train_loader, arguments.batches + 1))
    theirs = copy.deepcopy(bundle.model)
    for index, layer in enumerate(theirs.recurrent):
        theirs.recurrent[index] = PackedTorchLayer(layer)  # type: ignore[arg-type]
    contenders = {"ours": Contender(bundle.model), "torch.nn.LSTM, packed": Contender(theirs)}
    for contender in contenders.values():
        contender.step(batches[0])
        contender.spent.clear()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for batch in batches[1:]:
        for name, contender in contenders.items():
            times[name].append(contender.step(batch))
    ours = statistics.median(times["ours"])
    speech = statistics.median(batch.seconds for batch in batches[1:])
    millions = sum(p.numel() for p in bundle.model.parameters()) / 1e6
    print(
        f"{millions:.1f} M parameters, batches of {speech:.0f} s of speech, {torch.get_num_threads()} threads"
    )
    for name, values in times.items():
        median = statistics.median(values)
        speed = f"{median / ours:6.2f} of ours  {speech / median:5.0f} x real time"
        print(f"  {name:22} {1000 * median:8.0f} ms a step  {speed}")
    spent = contenders["ours"].spent
    shares = ", ".join(f"{name} {100 * value / sum(spent.values()):.0f} %" for name, value in spent.items())
    print(f"  ours: {shares}")


if __name__ == "__main__":
    main()
