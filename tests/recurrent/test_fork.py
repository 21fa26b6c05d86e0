"""Processes forked after a layer ran: the threads that it ran on are not there any more."""

import subprocess
import sys

import pytest

FORK = r"""
import os, sys, threading
import torch
from asr.recurrent import PackedLayer, RecurrentLayer

torch.set_num_threads(int(sys.argv[1]))
layer = RecurrentLayer("lstm", 8, 200, backend="fused")
packed = PackedLayer(layer)
x, lengths = torch.randn(4, 15, 8), torch.tensor([15, 4, 0, 7])  # small: torch itself hangs on more than 32768 numbers


def run():
    with torch.no_grad():
        return [layer(x, lengths)[0], packed(x, lengths)[0], PackedLayer(layer)(x, lengths)[0]]


expected = run()


def forked(generations):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    same = all(torch.equal(*pair) for _ in range(3) for pair in zip(run(), expected))
    results = []
    other = threading.Thread(target=lambda: results.extend(run()))  # a thread of the child's own
    other.start()
    other.join()
    same = same and all(torch.equal(*pair) for pair in zip(results, expected, strict=True))
    if generations > 1:
        same = same and forked(generations - 1) == 0
    os._exit(0 if same else 1)


assert forked(2) == 0
assert all(torch.equal(*pair) for pair in zip(run(), expected))
print("the same")
"""


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_forked_process_computes_the_same_and_does_not_hang(threads):
    command = [sys.executable, "-c", FORK, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "the same\n", done.stderr[-2000:]
