"""Which epoch's weights are kept, and the average of several."""

from types import SimpleNamespace

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


def process(number, channel):
    """What averaging sees of a training process; the first one's message lies in `channel`."""

    def broadcast(message):
        channel.setdefault("message", message)
        return channel["message"]

    fabric = SimpleNamespace(is_global_zero=number == 0, broadcast=broadcast)
    model = nn.Linear(1, 1)

    def measure(model):
        return {"dev_wer": float(model.weight.detach())}

    return SimpleNamespace(fabric=fabric, evaluated_model=model, history=[], measure=measure)


def test_processes_on_machines_of_their_own_get_the_average_from_the_first(tmp_path):
    channel: dict = {}
    first, second = process(0, channel), process(1, channel)
    kept = BestEpochs(tmp_path / "first", 2)
    (tmp_path / "first").mkdir()
    for epoch, (weight, wer) in enumerate([(9.0, 0.9), (1.0, 0.2), (3.0, 0.1)], 1):
        first.epoch = epoch
        for each in (first, second):
            each.history.append({"epoch": epoch, "dev_wer": wer, "dev_loss": wer})
        nn.init.constant_(first.evaluated_model.weight, weight)
        kept.keep(first)
    assert len(list((tmp_path / "first").iterdir())) == 2
    assert kept.measure_average(first) == 2.0
    assert BestEpochs(tmp_path / "second", 2).measure_average(second) == 2.0


def test_there_is_no_average_of_nothing(tmp_path):
    assert BestEpochs(tmp_path, 2).measure_average(process(0, {})) == float("inf")
