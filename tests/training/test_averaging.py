"""Which epoch's weights are kept, and the average of several."""

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from asr.training.averaging import BestEpochs, rank


def test_of_epochs_with_the_same_wer_the_one_of_lowest_loss_is_best():
    epochs = [
        {"dev_wer": 0.1, "dev_loss": 0.01},
        {"dev_wer": 0.0, "dev_loss": 0.5},
        {"dev_wer": 0.0, "dev_loss": 0.2},
        {"dev_wer": 0.0, "dev_loss": 0.3},
        {"dev_wer": 0.0, "dev_loss": float("nan")},  # a dev set whose tokens never fit into its frames
    ]
    assert min(epochs, key=rank) is min(reversed(epochs), key=rank) is epochs[2]


HISTORY = [
    {"epoch": epoch, "dev_wer": wer, "dev_loss": wer} for epoch, wer in enumerate((0.9, 0.2, 0.5, 0.1), 1)
]


def keep_epochs(folder, count):
    """Keep the best epochs of four whose weights are 1, 2, 3 and 4."""
    kept = BestEpochs(folder, count)
    folder.mkdir(exist_ok=True)
    model = nn.Linear(1, 1)
    for index in range(len(HISTORY)):
        nn.init.constant_(model.weight, index + 1.0)
        kept.keep(HISTORY[: index + 1], model)
    return kept


def test_the_best_epochs_are_kept_and_averaged(tmp_path):
    kept = keep_epochs(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-0002.pt", "epoch-0004.pt"]
    weights = kept.average(Fabric(accelerator="cpu"), HISTORY)
    assert weights["weight"].item() == 3.0


def test_there_is_no_average_of_nothing(tmp_path):
    assert BestEpochs(tmp_path, 2).average(Fabric(accelerator="cpu"), HISTORY) is None
    assert BestEpochs(None, 2).average(Fabric(accelerator="cpu"), HISTORY) is None


def _average_on_own_disk(rank, world_size, port, folder, results):
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size)

    class Process:
        is_global_zero = rank == 0

        @staticmethod
        def broadcast(value):
            values = [value]
            torch.distributed.broadcast_object_list(values)
            return values[0]

    disk = folder / f"machine{rank}"  # the second is empty
    results[rank] = BestEpochs(disk, 2).average(Process, HISTORY)["weight"].item()


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_processes_on_machines_of_their_own_get_the_average_from_the_first(tmp_path, free_port):
    keep_epochs(tmp_path / "machine0", 2)
    context = torch.multiprocessing.get_context("fork")
    with context.Manager() as manager:
        results = manager.dict()
        processes = [
            context.Process(
                target=_average_on_own_disk, args=(rank, 2, free_port, tmp_path, results), daemon=True
            )
            for rank in (0, 1)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert dict(results) == {0: 3.0, 1: 3.0}
