import itertools

import pytest
import torch
from helpers import log_probs_of

from asr.ctc import ctc_loss, frames_needed, unalignable
from asr.decoding import greedy
from asr.errors import AlignmentError


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(token for token, _ in itertools.groupby(path) if token != 0)


def test_loss_is_minus_the_log_of_all_paths_that_spell_the_target():
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 3, dtype=torch.float64)
    lengths, targets = [5, 3], [(1, 1), (2,)]
    expected = 0.0
    for index, (frames, target) in enumerate(zip(lengths, targets, strict=True)):
        probabilities = logits[index, :frames].softmax(-1)
        total = sum(
            probabilities[range(frames), path].prod()
            for path in itertools.product(range(3), repeat=frames)
            if collapse(path) == target
        )
        expected -= total.log()
    tokens = torch.tensor([[1, 1], [2, 0]])
    loss = ctc_loss(logits, torch.tensor(lengths), tokens, torch.tensor([2, 1]))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected / 3, atol=1e-6, rtol=1e-6)


def test_frames_needed_is_the_length_of_the_shortest_path():
    for target in itertools.product((1, 2), repeat=4):
        shortest = next(
            frames
            for frames in itertools.count(4)
            if any(collapse(path) == target for path in itertools.product(range(3), repeat=frames))
        )
        assert frames_needed(torch.tensor([target]), torch.tensor([4])).item() == shortest


def test_repeats_past_the_length_do_not_count():
    assert frames_needed(torch.tensor([[1, 2, 2, 2]]), torch.tensor([2])).item() == 2


def test_a_batch_without_a_token_is_named():
    nothing = torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    reason = "its transcript is empty"
    assert unalignable(torch.tensor([3, 3]), *nothing) == {0: reason, 1: reason}


@pytest.mark.parametrize("token", [-1, 0, 4])
def test_a_target_that_is_no_token_is_refused(token):
    logits, lengths = torch.randn(1, 3, 4), torch.tensor([3])
    with pytest.raises(ValueError, match="targets must be tokens from 1 to 3"):
        ctc_loss(logits, lengths, torch.tensor([[1, token]]), torch.tensor([2]))
    assert ctc_loss(logits, lengths, torch.tensor([[1, token]]), torch.tensor([1])) > 0  # past the length


def test_faulty_utterances_are_named():
    logits = torch.randn(3, 3, 4)
    tokens = torch.tensor([[1, 1, 1], [1, 0, 0], [2, 0, 0]])
    with pytest.raises(AlignmentError) as caught:
        ctc_loss(
            logits, torch.tensor([3, 3, 3]), tokens, torch.tensor([3, 0, 1]), ids=["long", "empty", "fine"]
        )
    assert "long: its 3 tokens need at least 5 frames of logits but its audio gives 3" in str(caught.value)
    assert "empty: its transcript is empty" in str(caught.value)
    assert "fine" not in str(caught.value)


def test_just_alignable_is_alignable():
    tokens, lengths = torch.tensor([[1, 1, 2]]), torch.tensor([3])
    assert unalignable(torch.tensor([4]), tokens, lengths) == {}
    assert list(unalignable(torch.tensor([3]), tokens, lengths)) == [0]


def test_non_finite_logits_are_named():
    logits = torch.randn(2, 4, 3)
    logits[1, 2, 0] = float("nan")
    with pytest.raises(AlignmentError, match=r"not finite: b: its loss is"):
        ctc_loss(logits, torch.tensor([4, 4]), torch.tensor([[1], [2]]), torch.tensor([1, 1]), ids=["a", "b"])


@pytest.mark.parametrize(
    "path", [(0, 0), (1, 1, 1), (0, 1, 1, 0, 1, 2, 2, 0), (2, 1, 2, 1), (1, 0, 1, 0, 1)], ids=str
)
def test_greedy_collapses_the_best_path(path):
    logits = 5.0 * torch.nn.functional.one_hot(torch.tensor([path]), 3)
    (hypothesis,) = greedy(log_probs_of(logits))
    assert tuple(hypothesis.tokens) == collapse(path)
    for token, (first, last) in zip(hypothesis.tokens, hypothesis.frames, strict=True):
        assert set(path[first : last + 1]) == {token}
    assert all(0.9 < confidence <= 1 for confidence in hypothesis.confidences)


def test_greedy_reads_no_further_than_the_length():
    logits = 5.0 * torch.nn.functional.one_hot(torch.tensor([[1, 2, 1], [1, 2, 1]]), 3)
    assert [h.tokens for h in greedy(log_probs_of(logits, [1, 0]))] == [[1], []]
