"""What a person should know of a run while it trains: spikes of the loss, skipped steps, outputs of blanks only."""

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterable

from asr.errors import AsrError

# Steps in a row without finite gradients after which training stops: it will not recover by itself.
SKIPS_IN_A_ROW = 10
# A loss is a spike if it exceeds max(3 x median, exp(3 sigma) x median, median + 1 nat) of the last losses, where sigma
# is the deviation of their logarithms: losses of batches of few utterances differ much, those of a good model by less
# than a nat.
SPIKE, SPIKE_DEVIATIONS, SPIKE_NATS = 3.0, 3.0, 1.0
LOSSES, FEWEST_LOSSES = 100, 20  # that the median is taken over, and from which on
# Share of frames whose best token is blank, from which on a model outputs nothing, and epochs in which that is usual.
STUCK_SHARE, PATIENCE = 0.99, 3


class RunAborted(AsrError):  # noqa: N818 - it ends a run, not always by an error
    """An error that ends a run in all of its processes alike; the first one reports it."""


def spike_threshold(losses: Iterable[float]) -> float:
    """Return the loss above which a step stands out from the last ones' losses, all in nats for a token.

    The deviation is the median absolute one, as a normal distribution's (Hampel 1974), which spikes do not stretch.

    >>> spike_threshold([0.1] * 20), spike_threshold([2.0] * 20)
    (1.1, 6.0)
    """
    losses = list(losses)
    median = statistics.median(losses)
    logs = [math.log(max(loss, 1e-9)) for loss in losses]
    middle = statistics.median(logs)
    deviation = 1.4826 * statistics.median(abs(value - middle) for value in logs)
    return max(median * max(SPIKE, math.exp(SPIKE_DEVIATIONS * deviation)), median + SPIKE_NATS)


class Watch:
    """Follows a run's losses, skipped steps and blanks, and warns.

    Arguments: warn(message).
    Attributes: skipped_in_a_row, steps without finite gradients since the last one with them.
    """

    def __init__(self, warn: Callable[[str], None]):
        self.warn = warn
        self.skipped_in_a_row = 0
        self.losses: deque[float] = deque(maxlen=LOSSES)
        self.reported: set[str] = set()

    def is_spike(self, loss: float) -> bool:
        """Return whether a step's loss stands out from those before it."""
        return len(self.losses) >= FEWEST_LOSSES and loss > spike_threshold(self.losses)

    def spike(self, step: int, loss: float, names: str) -> None:
        """Warn of a spike; of a batch that is hard in every epoch, once."""
        if names not in self.reported:
            median = statistics.median(self.losses)
            self.warn(f"step {step}: the loss jumps from {median:.2f} to {loss:.2f} with {names}")
        self.reported.add(names)

    def stepped(self, loss: float) -> None:
        """Take the loss of a step whose gradients were finite."""
        self.skipped_in_a_row = 0
        self.losses.append(loss)

    def skipped(self, step: int, reason: str) -> None:
        """Warn of a step without finite gradients; raises RunAborted after SKIPS_IN_A_ROW of them."""
        self.skipped_in_a_row += 1
        self.warn(f"step {step} skipped: {reason}")
        if self.skipped_in_a_row >= SKIPS_IN_A_ROW:
            raise RunAborted(
                f"the loss or its gradient was not finite in {SKIPS_IN_A_ROW} steps in a row; a lower "
                f"optimizer.learning_rate or optimizer.gradient_clip usually helps. The last: {reason}"
            )

    def epoch(self, epochs: int, blank_share: float, entropy: float) -> None:
        """Warn after so many epochs of a model whose outputs on dev are blanks; entropy in nats a frame."""
        if blank_share > STUCK_SHARE and epochs >= PATIENCE:
            self.warn(
                f"after {epochs} epochs {100 * blank_share:.1f} % of the frames are blank (entropy {entropy:.3f} nat): "
                "the model still outputs only blanks. If this lasts: check that transcripts belong to their audio "
                "(`asr check`), raise optimizer.learning_rate, or train for more epochs"
            )
