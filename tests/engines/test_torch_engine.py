"""The torch engine: what it refuses, and what it leaves behind when memory runs out."""

import gc
import weakref

import numpy as np
import pytest
import torch
from helpers import make_bundle

from asr.engines import make_engine
from asr.engines.torch_engine import TorchEngine, chosen_device
from asr.errors import AsrError, BundleError
from asr.memory import is_out_of_memory


def test_what_is_not_there_is_refused():
    bundle = make_bundle().bundle()
    with pytest.raises(AsrError, match="there is no device 'foo'"):
        make_engine(bundle, "foo", engine="torch")
    with pytest.raises(AsrError, match="compute type 'int4' is unknown; there are float32, bfloat16, int8"):
        make_engine(bundle, "cpu", compute_type="int4")
    if not torch.cuda.is_available():
        assert chosen_device("auto") == "cpu"
        with pytest.raises(
            AsrError, match="the device cuda:1 was asked for but torch finds no GPU; take cpu"
        ):
            make_engine(bundle, "cuda:1", engine="torch")


def test_weights_that_do_not_fit_are_refused():
    bundle = make_bundle().bundle()
    del bundle.weights["model.output.bias"]
    with pytest.raises(BundleError, match="does not fit the model"):
        TorchEngine(bundle, "cpu")


def test_log_probs_do_not_depend_on_the_batch():
    engine = TorchEngine(make_bundle().bundle(), "cpu")
    generator = np.random.default_rng(0)
    samples = [0.1 * generator.standard_normal(n).astype(np.float32) for n in (8000, 0, 3000)]
    together = engine.log_probs(samples)
    for utterance, alone in zip(together, (engine.log_probs([one])[0] for one in samples), strict=True):
        np.testing.assert_allclose(utterance, alone, atol=1e-5)


def test_an_error_of_lacking_memory_keeps_no_tensors(monkeypatch):
    engine = TorchEngine(make_bundle().bundle(), "cpu")
    kept = []

    def exhausted(samples, phones):
        activations = torch.zeros(3)
        kept.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(engine, "_log_probs", exhausted)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        engine.log_probs([np.zeros(100, np.float32)])
    gc.collect()
    assert kept[0]() is None
    assert is_out_of_memory(caught.value)
