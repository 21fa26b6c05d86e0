"""What is warned of while a run trains, and what is not."""

import pytest

from asr.training.watch import SKIPS_IN_A_ROW, RunAborted, Watch, spike_threshold


def watch_after(losses):
    """Return a watch that has taken these losses, and the warnings that it will give."""
    warnings = []
    watch = Watch(warnings.append)
    for loss in losses:
        watch.stepped(loss)
    return watch, warnings


@pytest.mark.parametrize(
    ("usual", "loss", "is_spike"), [(0.1, 0.5, False), (0.1, 1.2, True), (2.0, 5.0, False), (2.0, 7.0, True)]
)
def test_jumps_beyond_what_batches_differ_by_are_spikes(usual, loss, is_spike):
    watch, _ = watch_after([usual] * 20)
    assert watch.is_spike(loss) == is_spike
    early, _ = watch_after([usual] * 5)
    assert not early.is_spike(99.0)


@pytest.mark.parametrize(("spread", "is_spike"), [(1.0, True), (3.0, False)])
def test_batches_of_few_utterances_differ_more(spread, is_spike):
    """Of losses between 1 / spread and spread, 1 usual, 4 stands out only where they hardly differ."""
    watch, _ = watch_after([spread ** (step / 10 - 1) for step in range(21)])
    assert watch.is_spike(4.0) == is_spike


def test_the_threshold_is_the_largest_of_its_three_bounds():
    assert spike_threshold([0.01] * 30) == pytest.approx(1.01)  # a nat above the median
    assert spike_threshold([4.0] * 30) == pytest.approx(12.0)  # three times the median
    losses = [2.0, 8.0] * 15
    # The median is 5; logarithms lie log(2) from their median, log(4).
    assert spike_threshold(losses) == pytest.approx(5 * 2 ** (3 * 1.4826))
    assert spike_threshold([2.0] * 29 + [1e9]) == pytest.approx(6.0)  # a spike before does not stretch it


def test_a_spike_of_the_same_batch_is_reported_once():
    watch, warnings = watch_after([2.0] * 20)
    watch.spike(7, 9.0, "a, b")
    watch.spike(8, 9.5, "a, b")
    watch.spike(9, 9.5, "c")
    assert warnings == [
        "step 7: the loss jumps from 2.00 to 9.00 with a, b",
        "step 9: the loss jumps from 2.00 to 9.50 with c",
    ]


def test_skips_in_a_row_end_the_run():
    watch, warnings = watch_after([])
    for step in range(SKIPS_IN_A_ROW - 1):
        watch.skipped(step, "nan")
    watch.stepped(1.0)  # which begins the count again
    for step in range(SKIPS_IN_A_ROW - 1):
        watch.skipped(step, "nan")
    with pytest.raises(
        RunAborted, match=r"10 steps in a row; a lower optimizer\.learning_rate .* The last: inf"
    ):
        watch.skipped(99, "inf")
    assert len(warnings) == 2 * SKIPS_IN_A_ROW - 1


@pytest.mark.parametrize(("epochs", "share", "warned"), [(2, 1.0, 0), (3, 0.98, 0), (3, 0.995, 1)])
def test_a_model_that_outputs_only_blanks_is_reported_after_some_epochs(epochs, share, warned):
    watch, warnings = watch_after([])
    watch.epoch(epochs, share, 0.1)
    assert len(warnings) == warned
