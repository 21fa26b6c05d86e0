"""Time training steps: `python scripts/bench/bench_training.py --config recipes/an4/config.yaml`, asr train's options.

The same batches of the recipe's own training data go, in turns in one process, through its model as it is and through
the same network with torch.nn.LSTM on packed sequences in place of our recurrent layers; with `--speechbrain 2` also
through SpeechBrain's CRDNN encoder at its defaults and a model of ours with as many parameters. Printed are medians of
a whole step (front end, recurrent stack, CTC, backward, optimizer; without the loss of intermediate layers), their
ratio, and what of our step each part takes.
"""

import argparse
import copy
import statistics
import time
from collections import defaultdict
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr.ctc import ctc_loss
from asr.data import Batch
from asr.model import AcousticModel
from asr.model_config import ModelConfig
from asr.recurrent import RecurrentLayer
from asr.training.build import new_bundle
from asr.training.config import TrainConfig
from asr.training.data import SpeechData, all_cuts, load_corpora
from asr.training.read_config import read_config

HOW_TO_INSTALL = (
    "SpeechBrain comes with `pip install --no-deps speechbrain hyperpyyaml ruamel.yaml`, whose versions of torch and "
    "torchaudio would replace ours."
)


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
    """A model with its optimizer; `step` takes one training step."""

    def __init__(self, model: nn.Module):
        self.model = model.train()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
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
            ("forward", "CTC", "backward", "optimizer"), times, times[1:], strict=False
        ):
            self.spent[name] += end - begin
        return times[-1] - times[0]


class SpeechBrainModel(nn.Module):
    """SpeechBrain's CRDNN encoder at its defaults, and an output layer; it is told of no lengths, and pads."""

    def __init__(self, encoder: type[nn.Module], n_mels: int, vocab_size: int):
        super().__init__()
        self.encoder = encoder(input_shape=[None, None, n_mels])
        with torch.no_grad():
            width = self.encoder(torch.zeros(1, 8, n_mels)).shape[-1]
        self.output = nn.Linear(width, vocab_size)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (batch, frame, mel) -> logits (batch, frame, token), a frame for each of the features'."""
        return self.output(self.encoder(features)), lengths


def speechbrain_encoder() -> type[nn.Module] | None:
    """Return SpeechBrain's CRDNN class; None where its package is absent."""
    try:
        from speechbrain.lobes.models.CRDNN import CRDNN
    except ImportError as error:
        print(f"SpeechBrain is left out ({error}); {HOW_TO_INSTALL}")
        return None
    return CRDNN


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def as_large(config: ModelConfig, n_mels: int, vocab_size: int, count: int) -> AcousticModel:
    """Return our model with the hidden size whose number of parameters comes nearest to the given one."""
    sizes = range(64, 1025, 8)
    with torch.device("meta"):
        by_size = {
            h: parameters(AcousticModel(replace(config, hidden_size=h), n_mels, vocab_size)) for h in sizes
        }
    nearest = min(by_size, key=lambda size: abs(by_size[size] - count))
    return AcousticModel(replace(config, hidden_size=nearest), n_mels, vocab_size)


def compare(title: str, models: dict[str, nn.Module], batches: list[Batch]) -> None:
    """Time steps of the models in turns on the same batches, after one each that is not counted; print the medians."""
    contenders = {name: Contender(model) for name, model in models.items()}
    for contender in contenders.values():
        contender.step(batches[0])
        contender.spent.clear()
    counted = batches[1:]
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for batch in counted:
        for name, contender in contenders.items():
            times[name].append(contender.step(batch))
    ours, speech = statistics.median(times["ours"]), statistics.median(batch.seconds for batch in counted)
    threads = torch.get_num_threads()
    print(f"{title}: {len(counted)} batches of {speech:.0f} s of speech, {threads} threads", flush=True)
    for name, values in times.items():
        median, millions = statistics.median(values), parameters(models[name]) / 1e6
        speed = f"{median / ours:6.2f} of ours  {speech / median:5.1f} x real time"
        print(f"  {name:22} {millions:5.1f} M parameters  {1000 * median:8.0f} ms a step  {speed}")
    spent = contenders["ours"].spent
    shares = ", ".join(f"{name} {100 * value / sum(spent.values()):.0f} %" for name, value in spent.items())
    print(f"  ours: {shares}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description="Time training steps of a recipe's model against torch.nn.LSTM and SpeechBrain's CRDNN. "
        "Configuration is given as to `asr train`: --config FILE, once or more, and --section.key VALUE.",
        epilog=HOW_TO_INSTALL,
        allow_abbrev=False,
    )
    parser.add_argument("--data", help="configuration of the recipe whose prepared data are taken instead")
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument(
        "--speechbrain",
        type=int,
        metavar="N",
        default=0,
        help="also against SpeechBrain's CRDNN, on N batches of 16 utterances: minutes each on two cores",
    )
    arguments, configuration = parser.parse_known_args()
    config = read_config(configuration)
    source = read_config(["--config", arguments.data]) if arguments.data else config
    train, dev = (
        load_corpora(paths, key) for paths, key in ((source.data.train, "train"), (source.data.dev, "dev"))
    )
    torch.manual_seed(0)
    bundle = new_bundle(source, all_cuts(train))
    n_mels, vocab_size = source.features.n_mels, bundle.tokenizer.vocab_size

    def batches_of(config: TrainConfig, count: int) -> list[Batch]:
        loader = SpeechData(config, bundle, train, dev).train_loader
        loader.set_epoch(0)
        return list(islice(loader, count + 1))

    size = config.text.vocab_size if config.text.tokenizer == "bpe" else vocab_size
    ours = AcousticModel(config.model, n_mels, size)
    theirs = copy.deepcopy(ours)
    for index, layer in enumerate(theirs.recurrent):
        theirs.recurrent[index] = PackedTorchLayer(layer)  # type: ignore[arg-type]
    models = {"ours": ours, "torch.nn.LSTM, packed": theirs}
    compare("as configured", models, batches_of(source, arguments.batches))
    if arguments.speechbrain and (encoder := speechbrain_encoder()):
        theirs = SpeechBrainModel(encoder, n_mels, vocab_size)
        ours = as_large(config.model, n_mels, vocab_size, parameters(theirs))
        sixteen = replace(source, data=replace(source.data, batch_seconds=1e6, max_batch_size=16))
        batches = batches_of(sixteen, arguments.speechbrain)
        compare("of equal size", {"ours": ours, "SpeechBrain's CRDNN": theirs}, batches)


if __name__ == "__main__":
    main()
