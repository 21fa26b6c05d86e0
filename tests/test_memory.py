"""The batch size that fits the memory, and what happens where it did not."""

import numpy as np
import pytest
import torch
from helpers import RATE, make_bundle, recognizer_of, say

from asr.decoding import greedy
from asr.engines import torch_engine
from asr.errors import AsrError
from asr.memory import (
    MEMORY_SHARE,
    activation_bytes,
    batch_seconds_within,
    cgroup_room,
    free_memory,
    in_halves,
)


def test_the_number_follows_the_free_memory_and_the_model(monkeypatch):
    bundle = make_bundle().bundle()
    free = 100 * activation_bytes(bundle) / MEMORY_SHARE
    assert batch_seconds_within(free, bundle, 240) == pytest.approx(100)
    assert batch_seconds_within(10**15, bundle, 240) == 240
    engine = torch_engine.TorchEngine(bundle, "cpu")
    monkeypatch.setattr(torch_engine, "free_memory", lambda: int(free))
    assert engine.batch_seconds() == pytest.approx(100, rel=0.01)
    monkeypatch.setattr(torch_engine, "free_memory", lambda: 10**15)
    assert engine.batch_seconds() == 240
    engine._device = torch.device("cuda")
    monkeypatch.setattr(torch_engine, "free_gpu_memory", lambda device: 10**15)
    assert engine.batch_seconds() == 1920


def test_a_second_takes_about_what_is_worked_out():
    bundle = make_bundle()
    recognizer = recognizer_of(bundle)
    samples = [np.zeros(20 * RATE, np.float32)] * 2
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        found = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                self.found = max(self.found, result.untyped_storage().nbytes())
            return result

    with Largest() as largest:
        recognizer.log_probs(samples)
    # Several tensors are held where most is, each no larger than the largest.
    assert largest.found < 40 * activation_bytes(bundle.bundle()) < 6 * largest.found


def test_free_memory_is_that_of_the_machine():
    assert 10**8 < free_memory() < 10**13


def test_limits_of_control_groups(tmp_path):
    inner, outer = tmp_path / "jobs" / "7", tmp_path / "jobs"
    inner.mkdir(parents=True)
    for group, most, used in ((inner, "max", 50), (outer, "1000", 700)):
        (group / "memory.max").write_text(f"{most}\n")
        (group / "memory.current").write_text(f"{used}\n")
        (group / "memory.stat").write_text("anon 10\ninactive_file 250\n")
    assert list(cgroup_room("0::/jobs/7\n", tmp_path)) == [550]
    old = (
        tmp_path / "memory"
    )  # of the first version, seen from inside a container: the group itself is the root
    old.mkdir()
    (old / "memory.limit_in_bytes").write_text("4000\n")
    (old / "memory.usage_in_bytes").write_text("4500\n")
    (old / "memory.stat").write_text("total_inactive_file 100\n")
    assert list(cgroup_room("9:cpu:/x\n4:memory:/elsewhere/8\n", tmp_path)) == [0]
    assert list(cgroup_room("", tmp_path)) == []


def test_a_batch_is_halved_where_memory_runs_out():
    asked = []

    def compute(items):
        asked.append(len(items))
        if len(items) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return [10 * item for item in items]

    assert in_halves(compute, [1, 2, 3, 4, 5]) == [[10, 20], [30], [40, 50]]
    assert asked == [5, 2, 3, 1, 2]
    assert [value for part in in_halves(compute, list(range(9))) for value in part] == list(range(0, 90, 10))


def test_what_is_no_lack_of_memory_is_not_hidden():
    def wrong(items):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        in_halves(wrong, [1, 2])


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_single_stretch_that_does_not_fit(error):
    def never(items):
        raise error

    with pytest.raises(AsrError, match="single stretch of audio"):
        in_halves(never, [1, 2, 3])


@pytest.mark.parametrize("stage", ["model", "decoder"])
def test_no_file_is_lost_to_a_lack_of_memory(stage, monkeypatch):
    recognizer = recognizer_of(make_bundle())
    audio = [
        say(text, np.random.default_rng(i)) for i, text in enumerate("a ab abc b bc c ca cab".split() * 2)
    ]
    expected = recognizer.transcribe(audio)
    sizes = []
    whole = recognizer.engine.log_probs if stage == "model" else greedy

    def tight(samples, phones=False):
        sizes.append(len(samples))
        if len(samples) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return whole(samples)

    if stage == "model":
        monkeypatch.setattr(recognizer.engine, "log_probs", tight)
    else:
        recognizer.decoder = tight
    found = recognizer.transcribe(audio)
    assert [one.text for one in found] == [one.text for one in expected]
    assert [len(one.words) for one in found] == [len(one.words) for one in expected]
    assert max(sizes) == 16


def test_batches_stay_small_once_memory_ran_out(monkeypatch):
    recognizer = recognizer_of(make_bundle())
    sizes, whole = [], recognizer.engine.log_probs

    def tight(samples, phones=False):
        sizes.append(len(samples))
        if len(samples) > 2:
            raise MemoryError
        return whole(samples)

    monkeypatch.setattr(recognizer.engine, "log_probs", tight)
    monkeypatch.setattr(recognizer.engine, "batch_seconds", lambda: 4.0)
    assert len(recognizer.transcribe([np.zeros(RATE, np.float32)] * 12)) == 12
    assert sizes == [4, 2, 2, *[2] * 4]
