"""The adapter of torchaudio's CUDA decoder, with a decoder that stands in for it, and with itself where a GPU is."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import log_probs_of, make_bundle
from torch.nn.functional import one_hot

from asr.decoding import BeamConfig, BeamSearch, ParallelBeamSearch, greedy
from asr.engines.cuda_beam import CudaBeamSearch
from asr.engines.torch_engine import TorchEngine
from asr.text import CharacterTokenizer

TOKENIZER = CharacterTokenizer(" abc")  # blank, space, a, b, c
EMPTY = np.zeros((0, 5), np.float32)


class StandIn:
    """Takes what the CUDA decoder takes; says the greedy result, the same with a space, and another one."""

    def __init__(self):
        self.lengths = []

    def __call__(self, log_probs, lengths):
        assert log_probs.is_contiguous()
        assert log_probs.dtype == torch.float32
        assert lengths.dtype == torch.int32
        self.lengths.append(lengths.tolist())
        found = []
        for best in greedy(log_probs_of(log_probs, lengths)):
            texts = [best.tokens, [*best.tokens, 1], [2], [3]]
            found.append([SimpleNamespace(tokens=t, score=-float(i)) for i, t in enumerate(texts)])
        return found


def outputs_of(*paths):
    """Log-probabilities of paths of token ids."""
    return [log_probs_of(one_hot(torch.tensor([path]), 5) * 14.0)[0] if path else EMPTY for path in paths]


def test_tokens_are_placed_by_the_alignment():
    log_probs = outputs_of([0, 2, 2, 0, 3, 0], [4, 0, 4])
    expected = greedy(log_probs)
    found = CudaBeamSearch(TOKENIZER, BeamConfig(nbest=2), "cpu", StandIn())(log_probs)
    assert [(one.tokens, one.frames) for one in found] == [(one.tokens, one.frames) for one in expected]
    assert found[0].confidences == pytest.approx(expected[0].confidences)
    assert [one.score for one in found] == [0.0, 0.0]
    # The n best are different texts: a space at the end makes none.
    assert [[other.tokens for other in one.alternatives] for one in found] == [[[2]], [[2]]]


def test_the_decoder_sees_the_penalized_blank():
    log_probs = outputs_of([0, 2, 0], [3])
    seen = []
    search = CudaBeamSearch(
        TOKENIZER,
        BeamConfig(blank_penalty=2.0),
        "cpu",
        lambda *given: seen.append(given[0]) or StandIn()(*given),
    )
    before = [one.copy() for one in log_probs]
    search(log_probs)
    assert seen[0][0, :, 0].numpy() == pytest.approx(before[0][:, 0] - 2.0)
    assert (seen[0][0, :, 1:].numpy() == before[0][:, 1:]).all()
    assert all((one == old).all() for one, old in zip(log_probs, before, strict=True))


def test_silence_is_kept_from_the_decoder():
    log_probs = outputs_of([0, 0, 0, 0], [0, 2, 0, 0], [], [0, 3])
    decoder = StandIn()
    search = CudaBeamSearch(TOKENIZER, BeamConfig(), "cpu", decoder)
    found = search(log_probs)
    assert decoder.lengths == [[4, 2]]
    assert [one.tokens for one in found] == [[], [2], [], [3]]
    assert search(log_probs[:1])[0].tokens == []
    assert len(decoder.lengths) == 1


def test_beams_beyond_its_limits_stay_with_flashlight():
    assert CudaBeamSearch.fits(TOKENIZER, BeamConfig(128, nbest=5))
    assert not CudaBeamSearch.fits(TOKENIZER, BeamConfig(129))
    assert not CudaBeamSearch.fits(TOKENIZER, BeamConfig(nbest=6))


@pytest.mark.parametrize(
    ("options", "chosen"),
    [({}, True), ({"config": BeamConfig(beam_size=500)}, False), ({"hotwords": {"ab": 3.0}}, False)],
)
def test_it_is_chosen_by_an_engine_on_a_gpu_and_nothing_else(options, chosen):
    pytest.importorskip("flashlight.lib.text")
    decoder = ParallelBeamSearch(BeamSearch(TOKENIZER, **options), 1)
    engine = TorchEngine(make_bundle().bundle(), "cpu")
    assert engine.accelerated(decoder) is decoder
    engine._device = torch.device("cuda")
    assert isinstance(engine.accelerated(decoder), CudaBeamSearch) == chosen
    assert engine.accelerated(greedy) is greedy


@pytest.mark.gpu
def test_agrees_with_flashlight_on_a_gpu():
    logits = torch.randn(8, 60, 5, generator=torch.Generator().manual_seed(2)) * 4
    log_probs = log_probs_of(logits, [60, 59, 40, 31, 8, 2, 1, 0])
    config = BeamConfig(beam_size=5, beam_threshold=1000.0)
    expected, found = BeamSearch(TOKENIZER, config)(log_probs), CudaBeamSearch(TOKENIZER, config)(log_probs)
    same = [a.tokens == b.tokens for a, b in zip(expected, found, strict=True)]
    assert sum(same) >= 7  # narrow beams that are pruned in another order may differ where two are as good
    for one, other, equal in zip(expected, found, same, strict=True):
        if equal:
            assert other.frames == one.frames
            assert other.score == pytest.approx(one.score, abs=0.05)
