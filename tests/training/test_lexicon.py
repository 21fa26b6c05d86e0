"""Phones for some layers: the dictionary and the loss."""

import itertools

import pytest
import torch
from helpers import train_arguments

from asr.bundle import Bundle
from asr.cli import main
from asr.ctc import ctc_loss
from asr.data import Batch
from asr.errors import TextError
from asr.model import AcousticModel, FrontEndConfig, ModelConfig
from asr.text.lexicon import Lexicon
from asr.training.config import LossConfig
from asr.training.step import GradientMaker

LINES = ["cab K AE B", "cab(2) K AH B", "bad B AE D # not good", "", ";;;", "Ace EY S"]


@pytest.fixture
def lexicon():
    return Lexicon(LINES)


def test_every_pronunciation_without_comments(lexicon):
    assert lexicon.words == {
        "cab": [["K", "AE", "B"], ["K", "AH", "B"]],
        "bad": [["B", "AE", "D"]],
        "ace": [["EY", "S"]],
    }
    assert lexicon.phones == ["AE", "AH", "B", "D", "EY", "K", "S"]


@pytest.mark.parametrize("content", [None, b"", b"# nothing\n", b"\xff\xfe cab K"])
def test_a_file_that_is_no_dictionary_is_named(tmp_path, content):
    path = tmp_path / "words.dict"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TextError, match=r"words\.dict"):
        Lexicon.read(path)


def test_encoding_by_the_first_pronunciation(lexicon):
    encode = lexicon.encoder(phones := ["K", "B", "D", "S", "AE", "AH", "EY"])
    assert [phones[place - 1] for place in encode("bad cab")] == ["B", "AE", "D", "K", "AE", "B"]
    assert encode("a bad cab") is None


def test_a_model_without_a_phone_is_refused(lexicon):
    with pytest.raises(TextError, match=r"phone 'AE'"):
        lexicon.encoder(["K", "B"])


@pytest.mark.parametrize("layers", [(1,), (2,), (1, 2)])
@pytest.mark.parametrize("unknown", [(), (1,), (0, 1)])
def test_intermediate_layers_recognize_phones(unknown, layers):
    """Their loss is of the phones, counted by word piece; utterances without a pronunciation have no part in it."""
    torch.manual_seed(0)
    model = AcousticModel(
        ModelConfig(
            front_end=FrontEndConfig((4, 4)), layers=2, hidden_size=8, dropout=0.0, phones=tuple("ABCDEFG")
        ),
        16,
        4,
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
    config = LossConfig(intermediate_layers=layers, intermediate_weight=0.4)
    between = []
    for layer in layers:
        model.recurrent[layer - 1].register_forward_hook(
            lambda module, inputs, output: between.append(output[0])
        )
    logits, lengths = model(batch.features, batch.feature_lengths)
    parts = [
        ctc_loss(
            scores[i : i + 1], lengths[i : i + 1], torch.tensor([targets[t]]), torch.tensor([len(targets[t])])
        )
        * len(targets[t])
        for scores in [model.score_phones(hidden).detach() for hidden in between]
        for i, t in enumerate("xy")
        if i not in unknown
    ]
    words = ctc_loss(logits.detach(), lengths, batch.tokens, batch.token_lengths)
    expected = 0.6 * float(words) + 0.4 * sum(float(part) for part in parts) / 5 / len(layers)
    loss = GradientMaker(model, config, phones=spoken.get).loss(batch)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    loss.backward()


def test_a_run_gets_the_phones_of_its_lexicon_and_keeps_them(corpus, tmp_path, capsys):
    words = [letters for count in (1, 2) for letters in itertools.product("abc", repeat=count)]
    lines = [f"{''.join(word)} {' '.join(word).upper()}\n" for word in words]  # longer ones are unknown
    (tmp_path / "lexicon.txt").write_text("".join(lines))
    options = [f"--loss.lexicon={tmp_path}/lexicon.txt", "--loss.intermediate_layers=[1]", "--run.epochs=1"]
    run = train_arguments(corpus, tmp_path / "run", *options)
    assert main(run) == 0
    assert Bundle.load(tmp_path / "run" / "bundle").model.phones == ("A", "B", "C")
    assert main([*run, "--run.epochs=2", "--resume"]) == 0
    (tmp_path / "lexicon.txt").write_text("".join([*lines, "d D\n"]))
    capsys.readouterr()
    assert main([*run, "--run.epochs=3", "--resume"]) == 1
    assert "the lexicon has the phone 'D', which the model lacks" in capsys.readouterr().err
