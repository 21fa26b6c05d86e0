"""A beam search in several processes gives what one gives, and ends cleanly."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import log_probs_of

from asr.decoding import BeamConfig, BeamSearch, ParallelBeamSearch
from asr.decoding.workers import usable_cores
from asr.errors import DecodingError
from asr.text import CharacterTokenizer

pytest.importorskip("flashlight.lib.text")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="decodes in one process elsewhere")


@pytest.fixture
def search():
    return BeamSearch(CharacterTokenizer(" abc"), BeamConfig(nbest=2))


@pytest.fixture
def parallel(search):
    parallel = ParallelBeamSearch(search, 3)
    parallel.prepare(6)
    yield parallel
    parallel.close()


def batch(size):
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(0, 30, (size,), generator=generator)
    return log_probs_of(torch.randn(size, 30, 5, generator=generator) * 3, lengths)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_gives_what_one_process_gives(search, parallel, size):
    assert parallel(batch(size)) == search(batch(size))


def test_a_dying_process_is_told_and_replaced(search, parallel):
    process, _ = parallel._workers[1]
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with pytest.raises(DecodingError, match="one of the 3 processes of the beam search died"):
        parallel(batch(4))
    assert parallel(batch(6)) == search(batch(6))
    assert len(parallel._workers) == 3


def test_an_error_of_a_process_is_the_callers(parallel):
    with pytest.raises(IndexError, match="out of bounds"):
        parallel([log_probs[:, :0] for log_probs in batch(6)])


def test_few_utterances_are_not_worth_processes(search):
    parallel = ParallelBeamSearch(search, 3)
    assert parallel(batch(5)) == search(batch(5))
    assert parallel._workers == []
    parallel.prepare(5)
    assert parallel._workers == []
    assert parallel(batch(6)) == search(batch(6))
    assert len(parallel._workers) == 3
    parallel.close()


def test_an_interrupt_leaves_no_answers_behind(search, parallel, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    first = parallel._workers[0]
    monkeypatch.setattr(first[1], "recv", interrupted)
    with pytest.raises(KeyboardInterrupt):
        parallel(batch(4))
    assert first[0].exitcode is not None
    assert parallel(batch(6)) == search(batch(6))


def test_processes_end_with_a_killed_caller():
    program = (
        "import os, time; from asr.decoding import BeamSearch, ParallelBeamSearch;"
        "from asr.text import CharacterTokenizer;"
        "parallel = ParallelBeamSearch(BeamSearch(CharacterTokenizer(' ab')), 2); parallel.prepare(4);"
        "print(*(process.pid for process, _ in parallel._workers), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout is not None
        workers = caller.stdout.readline().split()
        assert len(workers) == 2
        caller.kill()
        # The pipe has its end only when no process holds it any more.
        assert caller.stdout.read() == ""
    until = time.monotonic() + 10
    while any(_runs(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(_runs(pid) for pid in workers)


def _runs(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0]
    except FileNotFoundError:
        return False
    return state != "Z"  # where nothing collects orphans, they stay as zombies


def test_counts_the_cores_it_may_use():
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
