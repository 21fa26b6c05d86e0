"""Phones for the intermediate layers: the dictionary, the tokens, the loss."""

import pytest
import torch

from asr.ctc import ctc_loss
from asr.data import Batch
from asr.errors import ConfigError
from asr.model import AcousticModel, FrontEndConfig, ModelConfig
from asr.text import BpeTokenizer, CharacterTokenizer
from asr.training.config import LossConfig
from asr.training.lexicon import Lexicon
from asr.training.step import GradientMaker

LINES = ["cab K AE B", "cab(2) K AH B", "bad B AE D # not good", "", ";;;", "Ace EY S"]
TEXTS = ["a bad cab", "cab ace", "bad bad cab"]


@pytest.fixture
def lexicon():
    return Lexicon(LINES)


def test_first_pronunciations_without_comments(lexicon):
    assert lexicon.words == {"cab": ["K", "AE", "B"], "bad": ["B", "AE", "D"], "ace": ["EY", "S"]}
    assert lexicon.phones == ["AE", "B", "D", "EY", "K", "S"]


@pytest.mark.parametrize("content", [None, b"", b"# nothing\n", b"\xff\xfe cab K"])
def test_a_file_that_is_no_dictionary_is_named(tmp_path, content):
    path = tmp_path / "words.dict"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"words\.dict"):
        Lexicon.read(str(path))


def test_phones_are_tokens_that_no_text_encodes_to(lexicon):
    phones = Lexicon(["cab ა ბ", "bad ბ ა გ"]).phones
    tokenizer = BpeTokenizer.train(TEXTS, 12, phones)
    place = {tokenizer.tokens.index(phone) for phone in phones}
    assert len(tokenizer.tokens) == 12
    assert len(place) == 3
    for text in TEXTS:
        assert not place & set(tokenizer.encode(text))
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_encoding_by_the_dictionary():
    lexicon = Lexicon(["cab ა ბ", "bad ბ ა გ"])
    encode = lexicon.encoder(tokenizer := BpeTokenizer.train(TEXTS, 12, lexicon.phones))
    assert [tokenizer.tokens[token] for token in encode("bad cab")] == ["ბ", "ა", "გ", "ა", "ბ"]
    assert encode("a bad cab") is None


def test_a_tokenizer_without_the_phones_is_refused(lexicon):
    with pytest.raises(ConfigError, match=r"phone 'AE'.*text\.tokenizer bpe"):
        lexicon.encoder(CharacterTokenizer("abc"))


@pytest.mark.parametrize("unknown", [(), (1,), (0, 1)])
def test_intermediate_layers_recognize_phones(unknown):
    """Their loss is of the phones, counted by word piece; utterances without a pronunciation have no part in it."""
    torch.manual_seed(0)
    model = AcousticModel(
        ModelConfig(front_end=FrontEndConfig((4, 4)), layers=2, hidden_size=8, dropout=0.0), 16, 8
    )
    batch = Batch(
        features=torch.randn(2, 60, 16),
        feature_lengths=torch.tensor([60, 48]),
        tokens=torch.tensor([[1, 2, 3], [2, 1, 0]]),
        token_lengths=torch.tensor([3, 2]),
        ids=["x", "y"],
        texts=["x", "y"],
        seconds=1.0,
    )
    targets = {"x": [4, 5, 6, 7], "y": [5, 5, 4]}
    spoken = {text: None if index in unknown else targets[text] for index, text in enumerate("xy")}
    model.eval()
    config = LossConfig(intermediate_layers=(1,), intermediate_weight=0.4)
    between = []
    with model.recurrent[0].register_forward_hook(lambda module, inputs, output: between.append(output[0])):
        logits, lengths = model(batch.features, batch.feature_lengths)
    scores = model.score(between[0]).detach()
    parts = [
        ctc_loss(
            scores[i : i + 1], lengths[i : i + 1], torch.tensor([targets[t]]), torch.tensor([len(targets[t])])
        )
        * len(targets[t])
        for i, t in enumerate("xy")
        if i not in unknown
    ]
    words = ctc_loss(logits.detach(), lengths, batch.tokens, batch.token_lengths)
    expected = 0.6 * float(words) + 0.4 * sum(float(part) for part in parts) / 5
    loss = GradientMaker(model, config, phones=spoken.get).loss(batch)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    loss.backward()
