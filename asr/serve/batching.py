"""Requests of several callers are computed together: a window of each in turn, as many as are fast at once."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from asr.decoding import Decoder, reads_phones, words_of
from asr.errors import AsrError
from asr.long_audio import Joiner, Window, windows
from asr.memory import BatchBudget, in_halves
from asr.recognizer import Recognizer
from asr.serve.metrics import Metrics
from asr.transcript import Transcript, Word

logger = logging.getLogger(__name__)

# Of a token other than blank in a frame, below which a picture does not show it.
LEAST_POSTERIOR = 0.02
# Jobs that do not fit a batch, after which no further one is tried: the window of each that is tried is in memory.
MOST_MISFITS = 8
# Seconds of audio computed a second, before any was measured.
FIRST_PACE = 20.0


@dataclass(eq=False)
class Job:
    """A recording that is being recognized.

    Attributes:
        windows: those that are still to be cut.
        seconds: of audio that are still to be computed.
        decoder: of its log-probabilities.
        joiner: of what is computed.
        done: set to the transcript or an error.
        report: called in the event loop with words once they are settled; None where nobody waits for them.
        posteriors: (frame, token, probability) of all tokens but blanks; None where nobody looks at them.
        window: the next one, once it is cut.
        reported: how many words were reported.
    """

    windows: Iterator[Window]
    seconds: float
    decoder: Decoder
    joiner: Joiner
    done: "asyncio.Future[Transcript]"
    report: Callable[[list[Word]], object] | None = None
    posteriors: list[tuple[int, int, float]] | None = None
    window: Window | None = None
    reported: int = 0
    began: float = field(default_factory=time.monotonic)

    def draw(self) -> Window:
        """Return the next window, cut it if it is not. Raises AsrError."""
        if self.window is None:
            self.window = next(self.windows)
        return self.window


class Batcher:
    """Computes the jobs of one model in a thread: those that came first, first, but a long one lets others pass.

    Arguments: recognizer; wait, seconds that a job may wait for others while uploads are on their way; metrics.
    """

    def __init__(self, recognizer: Recognizer, wait: float, metrics: Metrics):
        self.recognizer, self.wait, self.metrics = recognizer, wait, metrics
        self.expected = 0  # requests whose audio is being read
        self._budget = BatchBudget(recognizer.engine.batch_seconds(), recognizer.sample_rate)
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._pace = FIRST_PACE
        self._thread = threading.Thread(target=self._run, name="asr-batches", daemon=True)
        self._thread.start()

    async def transcribe(
        self,
        blocks: Iterable[np.ndarray],
        seconds: float,
        decoder: Decoder | None = None,
        report: Callable[[list[Word]], object] | None = None,
        posteriors: list[tuple[int, int, float]] | None = None,
    ) -> Transcript:
        """Return the transcript of samples (time,) float32 in blocks, so many seconds in all. Raises AsrError."""
        recognizer = self.recognizer
        rate, step = recognizer.sample_rate, recognizer.engine.seconds_per_frame
        loop = asyncio.get_running_loop()
        job = Job(
            windows(blocks, rate, round(step * rate)),
            seconds,
            decoder or recognizer.decoder,
            recognizer.joiner(),
            loop.create_future(),
            report,
            posteriors,
        )
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()
        try:
            return await job.done
        finally:
            with self._changed:  # of a caller that is gone
                if job in self._jobs:
                    self._jobs.remove(job)

    @property
    def waiting(self) -> int:
        """Return the number of jobs that are not done."""
        return len(self._jobs)

    def seconds_to_wait(self) -> float:
        """Return about how long it takes until what waits now is computed."""
        with self._changed:
            return sum(job.seconds for job in self._jobs) / self._pace

    def close(self) -> None:
        """End the thread once its batch is computed."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            began = time.monotonic()
            try:
                self._compute(batch)
            except Exception as error:
                if not isinstance(error, AsrError):
                    logger.exception("a batch of %d requests failed", len(batch))
                for job in batch:
                    self._settle(job, error)
            seconds = sum(job.window.seconds for job in batch if job.window is not None)
            self.metrics.batch(len(batch), seconds, time.monotonic() - began)
            self._pace += 0.1 * (seconds / max(time.monotonic() - began, 1e-3) - self._pace)
            for job in batch:
                job.window = None

    def _next_batch(self) -> list[Job]:
        """Wait for jobs; return those whose windows are computed together, none at the end."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return []
                until = self._jobs[0].began + self.wait
                while self.expected and not self._closed and (left := until - time.monotonic()) > 0:
                    self._changed.wait(left)
                waiting = list(self._jobs)
            if batch := self._chosen(waiting):
                # Behind those that did not fit.
                with self._changed:
                    batch = [job for job in batch if job in self._jobs]
                    for job in batch:
                        self._jobs.remove(job)
                    self._jobs.extend(batch)
                if batch:
                    return batch

    def _chosen(self, waiting: list[Job]) -> list[Job]:
        """Return the jobs, in order, whose windows fit a batch."""
        batch, longest, misfits = [], 0, 0
        for job in waiting:
            try:
                length = len(job.draw().samples)
            except Exception as error:
                self._settle(job, error)
                continue
            if not batch or self._budget.holds(len(batch) + 1, max(longest, length)):
                batch.append(job)
                longest = max(longest, length)
            elif (misfits := misfits + 1) == MOST_MISFITS:
                break
        return batch

    def _compute(self, batch: list[Job]) -> None:
        drawn = [job.draw() for job in batch]
        phones = any(reads_phones(job.decoder) for job in batch)
        compute = partial(self.recognizer.engine.log_probs, phones=phones)
        parts = in_halves(compute, [window.samples for window in drawn])
        self._budget.shrink(len(parts))
        computed = (log_probs for part in parts for log_probs in part)
        for job, window, log_probs in zip(batch, drawn, computed, strict=True):
            try:
                self._decode(job, window, log_probs)
            except AsrError as error:  # of its decoder alone
                self._settle(job, error)

    def _decode(self, job: Job, window: Window, log_probs: np.ndarray) -> None:
        first, settled = job.joiner.add(window, log_probs)
        tokens = settled[:, : self.recognizer.engine.vocab_size]  # phones may follow
        (hypothesis,) = job.decoder([settled if reads_phones(job.decoder) else tokens])
        job.joiner.parts.append((first, hypothesis))
        if job.posteriors is not None:
            job.posteriors += _likely(tokens, first)
        job.seconds = max(0.0, job.seconds - window.seconds)
        if window.last:
            self._settle(job, self._transcript(job, window))
        elif job.report is not None:
            self._report(job)

    def _transcript(self, job: Job, last: Window) -> Transcript:
        duration = last.offset + len(last.samples) / self.recognizer.sample_rate
        seams = tuple(job.joiner.seams)
        transcript = self.recognizer.transcript_of(
            job.joiner.hypothesis(), job.joiner.loud(), duration, seams=seams
        )
        if job.report is not None:
            self._call(job, job.report, list(transcript.words[job.reported :]))
        return transcript

    def _report(self, job: Job) -> None:
        """Report the words that the next window cannot change: all but the last."""
        assert job.report is not None
        words = words_of(
            job.joiner.hypothesis(),
            self.recognizer.bundle.tokenizer,
            self.recognizer.engine.seconds_per_frame,
            job.joiner.loud(),
        )[:-1]
        if len(words) > job.reported:
            self._call(job, job.report, list(words[job.reported :]))
            job.reported = len(words)

    def _settle(self, job: Job, outcome: Transcript | Exception) -> None:
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)

        def settle() -> None:
            if job.done.done():
                return
            if isinstance(outcome, Exception):
                job.done.set_exception(outcome)
            else:
                job.done.set_result(outcome)

        self._call(job, settle)

    def _call(self, job: Job, function: Callable, *arguments: object) -> None:
        loop = job.done.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(function, *arguments)


def _likely(log_probs: np.ndarray, first: int) -> list[tuple[int, int, float]]:
    """Return (frame, token, probability) of the likely tokens but blanks."""
    probabilities = np.exp(log_probs)
    probabilities[:, 0] = 0.0
    frames, tokens = np.nonzero(probabilities >= LEAST_POSTERIOR)
    values = probabilities[frames, tokens]
    return [
        (first + int(frame), int(token), round(float(value), 3))
        for frame, token, value in zip(frames, tokens, values, strict=True)
    ]
