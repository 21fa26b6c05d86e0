"""Language models of every cell of the registry, at as many recurrent parameters as an LSTM of --hidden-size.

    python scripts/lm_cells.py train.txt --dev dev.txt

One layer over words, one epoch, the same optimizer, order of sentences and seed for all. The speed is in tokens a
second of processor time, forward, backward and the update of the weights together, so that other jobs matter little.
Prints a row of a table as each training ends.
"""

import argparse
import time

import torch

from asr.lm.network import NetworkConfig
from asr.recurrent.cells import CELLS
from asr.training.lm.config import LmConfig, LmDataConfig, LmOptimizerConfig, LmRunConfig, UnitsConfig
from asr.training.lm.loop import LmTraining
from asr.training.lm.network import RecurrentLm
from asr.training.lm.text import LmText


def recurrent_parameters(network: NetworkConfig) -> int:
    """Count the weights of the recurrent layers."""
    return sum(p.numel() for p in RecurrentLm(network, vocab_size=3).recurrent.parameters())


def of_equal_size(cell: str, wanted: int, embedding_size: int) -> NetworkConfig:
    """Return the layer of the cell whose parameters are nearest to those wanted; its size is a multiple of 8."""
    configs = [
        NetworkConfig(cell, hidden_size=size, embedding_size=embedding_size, dropout=0.0)
        for size in range(64, 1025, 8)
    ]
    return min(configs, key=lambda config: abs(recurrent_parameters(config) - wanted))


def main() -> None:
    """Train one cell after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text")
    parser.add_argument("--dev", required=True)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--embedding-size", type=int, default=128)
    parser.add_argument("--most-words", type=int, default=10_000)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    wanted = recurrent_parameters(
        NetworkConfig("lstm", hidden_size=arguments.hidden_size, embedding_size=arguments.embedding_size)
    )
    run = LmRunConfig(epochs=1, threads=1)
    data = LmDataConfig(train=(arguments.text,), dev=(arguments.dev,))
    units = UnitsConfig(most_words=arguments.most_words)
    optimizer = LmOptimizerConfig(arguments.learning_rate, weight_decay=0.0, warmup_epochs=0.05)
    text = LmText(LmConfig(run, data, units))
    print(f"{text.train.words} words, {len(text.train.ids)} tokens to train on; {text.dev.words} of dev")
    print("| cell | hidden size | recurrent parameters | all parameters | dev perplexity | tokens a second |")
    print("|---|---|---|---|---|---|", flush=True)
    for cell in CELLS:
        network = of_equal_size(cell, wanted, arguments.embedding_size)
        torch.manual_seed(run.seed)
        model = RecurrentLm(network, text.units.size)
        ends: list[float] = []
        training = LmTraining(
            LmConfig(run, data, units, network, optimizer),
            model,
            text,
            on_step=lambda numbers, ends=ends: ends.append(time.process_time()),
        )
        training.fit()
        tokens = data.batch_size * data.chunk
        speed = tokens * (len(ends) - 1) / (ends[-1] - ends[0])
        parameters = sum(p.numel() for p in model.parameters())
        print(
            f"| {cell} | {network.hidden_size} | {recurrent_parameters(network)} | {parameters} | "
            f"{training.best:.1f} | {speed:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
