import numpy as np
import pytest

from asr.scoring import score
from asr.scoring.calibration import calibration, correct_words, expected_calibration_error


def test_honest_confidences_have_little_error():
    rng = np.random.default_rng(0)
    confidences = rng.random(200_000)
    honest = expected_calibration_error(confidences, rng.random(200_000) < confidences)
    assert honest.error < 0.01
    boastful = expected_calibration_error(confidences, rng.random(200_000) < confidences / 2)
    assert boastful.error == pytest.approx(0.25, abs=0.01)


def test_bins():
    result = expected_calibration_error([1.0, 0.95, 0.0], [True, False, False])
    assert [(words, right) for words, _, right in result.bins] == [(1, 0.0), (2, 0.5)]
    assert result.error == pytest.approx(2 / 3 * 0.475)
    assert result.words == 3


def test_confidences_of_a_report():
    report = score(["a b c", "d"], ["a x c c", ""])
    assert correct_words(report, 0) == [True, False, False, True]
    assert calibration(report, [[1, 0, 0, 1], []]).error == 0


@pytest.mark.parametrize(
    ("confidences", "message"),
    [([[0.5], []], "1 confidences for 2 words"), ([[0.5, 1.5], []], r"in \[0, 1\]")],
)
def test_confidences_that_do_not_fit(confidences, message):
    with pytest.raises(ValueError, match=message):
        calibration(score(["a b", "c"], ["a b", ""]), confidences)
