"""Which epoch's weights are kept."""

from asr.training.averaging import rank


def test_of_epochs_with_the_same_wer_the_one_of_lowest_loss_is_best():
    epochs = [
        {"dev_wer": 0.1, "dev_loss": 0.01},
        {"dev_wer": 0.0, "dev_loss": 0.5},
        {"dev_wer": 0.0, "dev_loss": 0.2},
        {"dev_wer": 0.0, "dev_loss": 0.3},
        {"dev_wer": 0.0, "dev_loss": float("nan")},  # a dev set whose tokens never fit into its frames
    ]
    assert min(epochs, key=rank) is min(reversed(epochs), key=rank) is epochs[2]
