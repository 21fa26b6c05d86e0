"""Streams: the same as the whole where it can be, the same for any blocks, and words that settle."""

import numpy as np
import pytest
import torch
from helpers import log_probs_of, make_bundle, recognizer_of, say
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding import greedy
from asr.errors import AsrError, AudioError, DecodingError
from asr.features import FeatureConfig
from asr.features.log_mel import LogMel
from asr.model import AcousticModel
from asr.model_config import FrontEndConfig, ModelConfig
from asr.streaming import SETTLED_SECONDS, Stream, _Decoder
from asr.text import CharacterTokenizer
from asr.torch_bundle import TorchBundle

TEXT = "ab c cab a bca"
TOKENIZER = CharacterTokenizer([" ", "a", "b", "c"])


def make(normalize="global", **options) -> TorchBundle:
    """Give an untrained bundle that finds something in everything."""
    torch.manual_seed(5)
    log_mel = LogMel(FeatureConfig(n_mels=20, normalize=normalize))
    if normalize == "global":
        log_mel.fit_statistics([say(TEXT, np.random.default_rng(1))])
    front_end = options.pop("front_end", FrontEndConfig(channels=(4, 4), strides=((2, 2), (2, 2))))
    config = ModelConfig(front_end=front_end, layers=2, hidden_size=16, **options)
    model = AcousticModel(config, 20, TOKENIZER.vocab_size).eval()
    with torch.no_grad():
        model.output.weight *= 30
    return TorchBundle(model, log_mel, TOKENIZER, "basic")


def stream_of(bundle: TorchBundle, **options) -> Stream:
    return recognizer_of(bundle).stream(**options)


def streamed_log_probs(stream: Stream, samples: np.ndarray, block: int) -> np.ndarray:
    """Feed samples block by block; give all log-probabilities that were decoded."""
    seen, feed = [], stream._decoder.feed
    stream._decoder.feed = lambda log_probs: seen.append(log_probs) or feed(log_probs)
    for start in range(0, len(samples), block):
        stream.feed(samples[start : start + block])
    stream.finish()
    return np.concatenate(seen)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return say(TEXT, np.random.default_rng(0))


@pytest.mark.parametrize("cell", ["lstm", "gru", "peephole"])
@pytest.mark.parametrize("normalize", ["global", "none"])
def test_one_direction_is_exactly_the_whole(speech, cell, normalize):
    bundle = make(normalize, cell=cell, bidirectional=False)
    whole = recognizer_of(bundle).log_probs(speech)
    streamed = streamed_log_probs(stream_of(bundle, chunk=0.2), speech, 1000)
    np.testing.assert_allclose(streamed, whole, rtol=0, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize(
    "front_end",
    [
        FrontEndConfig(channels=(3,), kernel_sizes=((11, 5),), strides=((3, 2),), norm="layer"),
        FrontEndConfig(
            channels=(3,) * 3, kernel_sizes=((5, 3), (3, 3), (7, 1)), strides=((1, 2), (2, 2), (2, 1))
        ),
    ],
)
def test_kernels_and_strides_of_any_size(speech, front_end):
    bundle = make(bidirectional=False, front_end=front_end)
    whole = recognizer_of(bundle).log_probs(speech)
    streamed = streamed_log_probs(stream_of(bundle, chunk=0.1), speech, 333)
    np.testing.assert_allclose(streamed, whole, rtol=0, atol=1e-5 * np.abs(whole).max())


def test_the_forward_direction_is_carried_through_both(speech):
    """With the reverse direction's weights out of play, chunks with a look-ahead are exact too."""
    bundle = make()
    with torch.no_grad():
        for layer in bundle.model.recurrent:
            for name, weight in layer.named_parameters():
                if name.endswith("_reverse"):
                    weight.zero_()
    whole = recognizer_of(bundle).log_probs(speech)
    streamed = streamed_log_probs(stream_of(bundle, chunk=0.3, look_ahead=0.2), speech, 1000)
    np.testing.assert_allclose(streamed, whole, rtol=0, atol=1e-5 * np.abs(whole).max())


def test_a_longer_look_ahead_is_closer_to_the_whole(speech):
    bundle = make()
    whole = recognizer_of(bundle).log_probs(speech)
    errors = [
        np.abs(
            streamed_log_probs(stream_of(bundle, chunk=0.2, look_ahead=seconds), speech, 4000) - whole
        ).mean()
        for seconds in (0.0, 0.3, 5.0)
    ]
    assert errors[0] > errors[1] > 10 * errors[2]
    assert errors[2] < 1e-5 * np.abs(whole).max()  # it saw the end


def test_statistics_of_what_was_heard_are_the_utterances_at_its_end(speech):
    bundle = make("utterance")
    whole = recognizer_of(bundle).log_probs(speech)
    streamed = streamed_log_probs(stream_of(bundle, chunk=0.2, look_ahead=10.0), speech, 4000)
    np.testing.assert_allclose(streamed, whole, rtol=0, atol=1e-4 * np.abs(whole).max())


def test_statistics_forget(speech):
    """A stream that became a hundred times louder is soon normalized as if it always had been."""
    bundle = make("utterance", bidirectional=False)
    always = np.tile(speech, 30)  # 2 minutes
    became = np.concatenate([0.01 * speech, always[len(speech) :]])
    streams = [stream_of(bundle), stream_of(bundle)]
    for stream, samples in zip(streams, (always, became), strict=True):
        stream.feed(samples)
    np.testing.assert_allclose(*[stream._front.recent for stream in streams], rtol=0, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9000), min_size=1, max_size=12),
    normalize=st.sampled_from(["global", "utterance"]),
    bidirectional=st.booleans(),
)
def test_blocks_do_not_matter(sizes, normalize, bidirectional):
    bundle = make(normalize, bidirectional=bidirectional)
    samples = say(TEXT, np.random.default_rng(0))[: 1 + 3 * sum(sizes)]
    at_once, by_block = (
        stream_of(bundle, chunk=0.24, look_ahead=0.0 if not bidirectional else 0.4) for _ in "ab"
    )
    expected = at_once.feed(samples) + at_once.finish()
    parts = np.split(samples, np.cumsum(sizes))
    words = [word for part in parts for word in by_block.feed(part)] + by_block.finish()
    assert words == expected == by_block.words
    assert by_block.text == " ".join(word.word for word in expected)


def spelled(*frames: str) -> np.ndarray:
    """Give log-probabilities (frame, token) of frames spelled out, . for blank and _ for a space."""
    letters = "._abc"
    path = torch.tensor([letters.index(letter) for letter in "".join(frames)])
    return log_probs_of(torch.nn.functional.one_hot(path, 5)[None] * 9.0)[0]


@pytest.mark.parametrize("cut", range(1, 18))
def test_chunks_decode_as_the_whole(cut):
    log_probs = spelled("aab.bb__..cc_a.a.b")
    decoder = _Decoder(make_bundle().bundle())
    words = decoder.feed(log_probs[:cut]) + decoder.feed(log_probs[cut:]) + decoder.finish()
    (whole,) = greedy([log_probs])
    assert " ".join(word.word for word in words) == TOKENIZER.decode(whole.tokens)
    step = make_bundle().seconds_per_frame
    assert [(round(word.start / step), round(word.end / step)) for word in words] == [
        (0, 6),
        (10, 12),
        (13, 18),
    ]


def test_a_word_settles_when_another_begins_or_nothing_is_said_for_long():
    decoder = _Decoder(make_bundle().bundle())
    patience = round(SETTLED_SECONDS / decoder.step)

    def said(frames):
        return [word.word for word in decoder.feed(spelled(frames))]

    assert said("ab") == []
    assert said("." * (patience - 1)) == []  # it may go on
    assert said("c") == []
    assert said("_") == ["abc"]
    assert said("__.") == []
    assert said("ab_c") == ["ab"]
    assert said("." * patience) == ["c"]
    assert said("c") == []
    assert said("." * (patience + 5) + "a_") == ["c", "a"]
    assert decoder.finish() == []


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 3000])
def test_short_streams(samples):
    stream = stream_of(make_bundle())
    assert stream.feed(np.zeros(samples, np.float32)) == []
    stream.finish()
    assert stream.finish() == []
    with pytest.raises(ValueError, match="the stream is finished"):
        stream.feed(np.zeros(1, np.float32))


def test_words_end_with_the_audio(monkeypatch):
    said = spelled("." * 30 + "a")  # in the last of the frames of 0.02 s
    monkeypatch.setattr(
        "asr.model.AcousticModel.score", lambda self, x: torch.from_numpy(said)[None, -x.shape[1] :]
    )
    stream = stream_of(make_bundle(), chunk=5.0)
    samples = np.zeros(9650, np.float32)
    assert stream.feed(samples) == []
    (word,) = stream.finish()
    assert (word.start, word.end) == (0.6, 0.603)
    assert stream.words == [word]


def test_what_is_refused():
    bundle = make_bundle()
    for options in ({"chunk": 0.0}, {"chunk": float("nan")}, {"look_ahead": -0.1}):
        with pytest.raises(AsrError, match="expected a chunk of more than 0 s"):
            stream_of(bundle, **options)
    with pytest.raises(AsrError, match="reads in one direction"):
        stream_of(make(bidirectional=False), look_ahead=1.0)
    with pytest.raises(
        AudioError, match=r"shape \(2, 5\) .* expected \(time,\) float samples .* at 16000 Hz"
    ):
        stream_of(bundle).feed(np.zeros((2, 5)))
    with pytest.raises(AudioError, match="type int16"):
        stream_of(bundle).feed(np.zeros(5, np.int16))
    with pytest.raises(AudioError, match="NaN"):
        stream_of(bundle).feed(np.full(5, np.nan))
    with pytest.raises(DecodingError, match="greedily"):
        recognizer_of(bundle, decoder=lambda log_probs: []).stream()
