"""A beam search on several cores, in processes: flashlight keeps the interpreter to itself while it searches."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection

import numpy as np

from asr.decoding.beam import BeamSearch
from asr.decoding.choice import reads_phones
from asr.decoding.greedy import Hypothesis
from asr.decoding.pronouncing import JointSearch
from asr.errors import DecodingError

LEAST_UTTERANCES = 2  # for each process: forking takes as long as searching some utterances


def usable_cores() -> int:
    """Count the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class ParallelBeamSearch:
    """Decodes each batch with `search` in several processes: call it as the search itself.

    The processes are forked, so that they share the language model's memory, once there is enough to decode that they
    bring more than they cost. `prepare` forks them before threads are started, as those that read audio: what a fork
    copies of their work is lost to them. The processes end with this one, however that ends. Where there is no safe
    fork (other systems than Linux), everything is decoded in this process.

    Raises DecodingError where a process has died; the next call starts new ones.
    """

    def __init__(self, search: BeamSearch | JointSearch, processes: int):
        self.search = search
        self.processes = processes if sys.platform == "linux" else 1
        self._workers: list[tuple[multiprocessing.Process, Connection]] = []

    @property
    def reads_phones(self) -> bool:
        """Return whether the search does; see `asr.decoding.reads_phones`."""
        return reads_phones(self.search)

    def prepare(self, utterances: float) -> None:
        """Start the processes where so many utterances, known or expected, are enough for them."""
        if self.processes > 1 and not self._workers and utterances >= LEAST_UTTERANCES * self.processes:
            self._start()

    def __call__(self, log_probs: Sequence[np.ndarray]) -> list[Hypothesis]:
        """Decode utterances: log_probs (frame, token) float32 of each."""
        self.prepare(len(log_probs))
        if not self._workers or len(log_probs) == 1:
            return self.search(log_probs)
        # In turns from the longest on, all have about as much to do.
        order = sorted(range(len(log_probs)), key=lambda i: -len(log_probs[i]))
        shares = [order[i :: self.processes] for i in range(self.processes)]
        decoded: dict[int, Hypothesis] = {}
        try:
            for (_, pipe), share in zip(self._workers, shares, strict=True):
                pipe.send([log_probs[i] for i in share])
            for (_, pipe), share in zip(self._workers, shares, strict=True):
                answer = pipe.recv()
                if isinstance(answer, Exception):
                    raise answer
                decoded.update(zip(share, answer, strict=True))
        except (EOFError, ConnectionError):
            self.close()
            raise DecodingError(
                f"one of the {self.processes} processes of the beam search died, of too little memory as a rule; "
                "try again with fewer (--threads 1), or with a smaller language model"
            ) from None
        except BaseException:  # such as Ctrl-C: answers that are still to come belong to no later batch
            self.close()
            raise
        return [decoded[i] for i in range(len(log_probs))]

    def close(self) -> None:
        """End the processes."""
        for process, pipe in self._workers:
            pipe.close()
            process.terminate()
            process.join()
        self._workers = []

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        for _ in range(self.processes):
            ours, theirs = context.Pipe()
            inherited = [ours, *(pipe for _, pipe in self._workers)]
            process = context.Process(target=_serve, args=(self.search, theirs, inherited), daemon=True)
            process.start()
            theirs.close()
            self._workers.append((process, ours))  # type: ignore[arg-type]


def _serve(search: BeamSearch | JointSearch, pipe: Connection, inherited: list[Connection]) -> None:
    """Decode what comes through the pipe until its other end is closed, by the caller's death at the latest."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's business
    for pipe_end in inherited:  # an open copy would hide that death
        pipe_end.close()
    while True:
        try:
            question = pipe.recv()
            try:
                answer = search(question)
            except Exception as error:  # is the caller's to see
                answer = error
            pipe.send(answer)
        except (EOFError, ConnectionError):
            return
