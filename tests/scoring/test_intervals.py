import numpy as np
import pytest

from asr.scoring.intervals import bootstrap, rate_interval


def test_draws_are_those_of_blocks_with_replacement():
    """Grouping equal blocks changes nothing: mean and spread are those of drawing blocks one by one."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 9, 60)
    errors = rng.binomial(lengths, 0.2)
    drawn = bootstrap(errors, lengths, draws=20_000).draws
    chosen = rng.integers(0, 60, (20_000, 60))
    plain = errors[chosen].sum(axis=1) / lengths[chosen].sum(axis=1)
    assert drawn.mean() == pytest.approx(plain.mean(), rel=0.01)
    assert drawn.std() == pytest.approx(plain.std(), rel=0.03)


def test_interval_covers_a_rate_known_to_us():
    """Of 300 test sets by 20 speakers, at 95 % expected, chance allows 91 to 98."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        lengths = rng.integers(50, 400, 20)
        errors = rng.binomial(lengths, rng.beta(3.5, 31.5, 20))  # a mean rate of 10 %
        low, high = rate_interval(errors, lengths, draws=1000)
        held += low <= 0.1 <= high
    assert 0.91 <= held / 300 <= 0.98


def test_utterances_of_one_speaker_are_not_independent():
    rng = np.random.default_rng(2)
    rates = np.repeat(rng.beta(2, 18, 20), 50)
    lengths = np.full(1000, 10)
    errors = rng.binomial(lengths, rates)
    alone = rate_interval(errors, lengths)
    grouped = rate_interval(errors.reshape(20, 50).sum(axis=1), lengths.reshape(20, 50).sum(axis=1))
    assert grouped[1] - grouped[0] > 2 * (alone[1] - alone[0])


def test_no_error_is_no_proof_of_perfection():
    low, high = rate_interval(np.zeros(100, int), np.full(100, 10))
    assert low == 0
    assert high == pytest.approx(3.69 / 1000, rel=0.02)  # the exact Poisson limit


@pytest.mark.parametrize(("errors", "lengths"), [([], []), ([1], [5]), ([1, 2], [0, 0])])
def test_where_there_is_nothing_to_resample(errors, lengths):
    assert rate_interval(np.array(errors, int), np.array(lengths, int)) is None


def test_the_same_data_give_the_same_interval():
    errors, lengths = np.arange(40) % 7, np.full(40, 20)
    assert rate_interval(errors, lengths) == rate_interval(errors, lengths)


def test_pieces_of_draws_make_up_the_whole(monkeypatch):
    monkeypatch.setattr("asr.scoring.intervals._CELLS", 100)
    errors, lengths = np.arange(40), np.arange(40) * 3 + 50
    assert bootstrap(errors, lengths, draws=501).draws.shape == (501,)
