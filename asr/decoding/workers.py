"""A beam search on several cores, in processes: flashlight keeps the interpreter to itself while it searches."""

import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection

import torch
from torch import Tensor

from asr.decoding.beam import BeamSearch
from asr.decoding.greedy import Hypothesis
from asr.errors import DecodingError

LEAST_UTTERANCES = 2  # for each process: forking takes as long as searching some utterances


def usable_cores() -> int:
    """Count the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class ParallelBeamSearch:
    """Decode each batch with `search` in several processes: call it as the search itself.

    The processes are forked, so that they share the language model's memory, once there is enough to decode that they
    bring more than they cost. `prepare` forks them before threads are started, as those that read audio: what a fork
    copies of their work is lost to them. The processes end with this one, however that ends. Where there is no safe
    fork (other systems than Linux), everything is decoded in this process.

    Raises DecodingError where a process has died; the next call starts new ones.
    """

    def __init__(self, search: BeamSearch, processes: int):
        self.search = search
        self.processes = processes if sys.platform == "linux" else 1
        self._workers: list[tuple[multiprocessing.Process, Connection]] = []

    def prepare(self, utterances: float) -> None:
        """Start the processes where so many utterances, known or expected, are enough for them."""
        if self.processes > 1 and not self._workers and utterances >= LEAST_UTTERANCES * self.processes:
            self._start()

    def __call__(self, logits: Tensor, lengths: Tensor) -> list[Hypothesis]:
        """Decode a batch: logits (batch, frame, token), lengths (batch,) int64."""
        if self.search.runs_on_gpu(logits):
            return self.search(logits, lengths)
        self.prepare(len(lengths))
        if not self._workers or len(lengths) == 1:
            return self.search(logits, lengths)
        # In turns from the longest on, all have about as much to do.
        order = lengths.argsort(descending=True).tolist()
        shares = [order[i :: self.processes] for i in range(self.processes)]
        log_probs = logits.float().log_softmax(-1).cpu().numpy()
        decoded: dict[int, Hypothesis] = {}
        try:
            for (_, pipe), share in zip(self._workers, shares, strict=True):
                pipe.send([log_probs[i, : lengths[i]] for i in share])
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
        return [decoded[i] for i in range(len(lengths))]

    def close(self) -> None:
        """End the processes."""
        for process, pipe in self._workers:
            pipe.close()
            process.terminate()
            process.join()
        self._workers = []

    def _start(self) -> None:
        import torchaudio.functional  # noqa: F401 (the alignment's, once for all of them)

        context = multiprocessing.get_context("fork")
        for _ in range(self.processes):
            ours, theirs = context.Pipe()
            inherited = [ours, *(pipe for _, pipe in self._workers)]
            process = context.Process(target=_serve, args=(self.search, theirs, inherited), daemon=True)
            process.start()
            theirs.close()
            self._workers.append((process, ours))  # type: ignore[arg-type]


def _serve(search: BeamSearch, pipe: Connection, inherited: list[Connection]) -> None:
    """Decode what comes through the pipe until its other end is closed, by the caller's death at the latest."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's business
    torch.set_num_threads(1)  # the pool of threads did not come along in the fork
    for other in inherited:  # an open copy would hide that death
        other.close()
    while True:
        try:
            question = pipe.recv()
            try:
                answer = [search.decode_one(log_probs) for log_probs in question]
            except Exception as error:  # is the caller's to see
                answer = error
            pipe.send(answer)
        except (EOFError, ConnectionError):
            return
