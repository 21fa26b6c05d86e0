"""The adapter of torchaudio's CUDA decoder, with a decoder that stands in for it, and with itself where a GPU is."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import one_hot

from asr.decoding import BeamConfig, BeamSearch, greedy
from asr.decoding.cuda_beam import CudaBeamSearch
from asr.text import CharacterTokenizer

TOKENIZER = CharacterTokenizer(" abc")  # blank, space, a, b, c


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
        for best in greedy(log_probs, lengths.long()):
            texts = [best.tokens, [*best.tokens, 1], [2], [3]]
            found.append([SimpleNamespace(tokens=t, score=-float(i)) for i, t in enumerate(texts)])
        return found


def logits_of(*paths):
    """Logits of paths of token ids, padded with what would be heard as speech."""
    frames = max(map(len, paths))
    padded = [[*path, *[2] * (frames - len(path))] for path in paths]
    return one_hot(torch.tensor(padded), 5) * 14.0, torch.tensor([len(path) for path in paths])


def test_tokens_are_placed_by_the_alignment():
    logits, lengths = logits_of([0, 2, 2, 0, 3, 0], [4, 0, 4])
    expected = greedy(logits, lengths)
    found = CudaBeamSearch(TOKENIZER, 32, 2, 0.9999, StandIn())(logits, lengths)
    assert [(one.tokens, one.frames) for one in found] == [(one.tokens, one.frames) for one in expected]
    assert found[0].confidences == pytest.approx(expected[0].confidences)
    assert [one.score for one in found] == [0.0, 0.0]
    # The n best are different texts: a space at the end makes none.
    assert [[other.tokens for other in one.alternatives] for one in found] == [[[2]], [[2]]]


def test_silence_is_kept_from_the_decoder():
    logits, lengths = logits_of([0, 0, 0, 0], [0, 2, 0, 0], [2], [0, 3])
    lengths[2] = 0
    decoder = StandIn()
    found = CudaBeamSearch(TOKENIZER, 32, 1, 0.999, decoder)(logits, lengths)
    assert decoder.lengths == [[4, 2]]
    assert [one.tokens for one in found] == [[], [2], [], [3]]
    assert CudaBeamSearch(TOKENIZER, 32, 1, 0.999, decoder)(logits[:1], lengths[:1])[0].tokens == []
    assert len(decoder.lengths) == 1


def test_beams_beyond_its_limits_stay_with_flashlight():
    assert CudaBeamSearch.fits(TOKENIZER, 128, 5)
    assert not CudaBeamSearch.fits(TOKENIZER, 129, 1)
    assert not CudaBeamSearch.fits(TOKENIZER, 32, 6)


@pytest.mark.parametrize(
    ("options", "chosen"),
    [({}, True), ({"config": BeamConfig(beam_size=500)}, False), ({"hotwords": {"ab": 3.0}}, False)],
)
def test_it_is_chosen_for_logits_on_a_gpu_and_nothing_else(options, chosen):
    pytest.importorskip("flashlight.lib.text")
    search = BeamSearch(TOKENIZER, **options)
    on_gpu = SimpleNamespace(is_cuda=True)
    assert search.runs_on_gpu(on_gpu) == chosen  # type: ignore[arg-type]
    assert not search.runs_on_gpu(torch.zeros(1, 2, 5))


@pytest.mark.gpu
def test_agrees_with_flashlight_on_a_gpu():
    logits = torch.randn(8, 60, 5, generator=torch.Generator().manual_seed(2)) * 4
    lengths = torch.tensor([60, 59, 40, 31, 8, 2, 1, 0])
    search = BeamSearch(TOKENIZER, BeamConfig(beam_size=5, beam_threshold=1000.0))
    expected, found = search(logits, lengths), search(logits.cuda(), lengths.cuda())
    same = [a.tokens == b.tokens for a, b in zip(expected, found, strict=True)]
    assert sum(same) >= 7  # narrow beams that are pruned in another order may differ where two are as good
    for one, other, equal in zip(expected, found, same, strict=True):
        if equal:
            assert other.frames == one.frames
            assert other.score == pytest.approx(one.score, abs=0.05)
