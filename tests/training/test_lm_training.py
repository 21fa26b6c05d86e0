"""Training of recurrent language models: exact resume, guards, what it leaves, and what it refuses."""

import json
import signal

import numpy as np
import pytest
import torch
from helpers import make_bundle, run_asr

from asr.errors import AsrError, ConfigError, TextError
from asr.language_model import load_lm
from asr.lm.network import NetworkConfig
from asr.recurrent.cells import CELLS
from asr.training.interrupts import Interrupted
from asr.training.lm.config import LmConfig, LmDataConfig, LmOptimizerConfig, LmRunConfig, UnitsConfig
from asr.training.lm.loop import LmTraining
from asr.training.lm.network import RecurrentLm
from asr.training.lm.text import Chunks, Corpus, LmText
from asr.training.watch import RunAborted

SETTINGS = (
    "--network.hidden_size=16 --network.embedding_size=8 --data.batch_size=8 --data.chunk=12 --run.epochs=2 "
    "--run.threads=1 --optimizer.learning_rate=0.02"
)


def sentences() -> list[str]:
    """Give sentences whose last words agree with their second."""
    generator = np.random.default_rng(1)
    lines = []
    for _ in range(120):
        noun, plural = generator.choice(["cat", "dog"]), generator.random() < 0.5
        lines.append(f"the {noun}{'s' if plural else ''} {'were' if plural else 'was'} full")
    return lines


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(sentences()) + "\n")
    return path


def config_of(path, **sections) -> LmConfig:
    defaults = {
        "run": LmRunConfig(epochs=2, threads=1),
        "data": LmDataConfig((str(path),), batch_size=4, chunk=8),
        "network": NetworkConfig(hidden_size=16, embedding_size=8, recurrent_dropout=0.2, weight_dropout=0.2),
        "optimizer": LmOptimizerConfig(learning_rate=0.02),
    }
    return LmConfig(**defaults | sections)


def training_of(config, folder=None, **observers) -> LmTraining:
    text = LmText(config)
    torch.manual_seed(config.run.seed)
    return LmTraining(config, RecurrentLm(config.network, text.units.size), text, folder, **observers)


def test_a_run_that_is_resumed_takes_the_same_steps(text, tmp_path):
    config = config_of(text)
    whole = training_of(config)
    whole.fit()
    begun = training_of(config, tmp_path)
    begun.on_step = lambda numbers: begun._receive(signal.SIGTERM) if numbers["step"] == 31 else None
    with pytest.raises(Interrupted) as interruption:
        begun.fit()
    assert interruption.value.saved
    assert begun.step == 31 != whole.step
    resumed = training_of(config)
    resumed.load(torch.load(tmp_path / "last.ckpt", weights_only=True))
    resumed.fit()
    assert resumed.step == whole.step
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    timeless = [{k: v for k, v in numbers.items() if k != "minutes"} for numbers in whole.history]
    assert timeless == [{k: v for k, v in numbers.items() if k != "minutes"} for numbers in resumed.history]


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_learns(text, cell):
    training = training_of(config_of(text, network=NetworkConfig(cell, hidden_size=16, embedding_size=8)))
    first = training.measure()
    training.fit()
    assert training.measure() < 0.75 * first
    assert training.best == min(numbers["dev_perplexity"] for numbers in training.history)


@pytest.mark.parametrize(
    "options", [{"tied": True, "hidden_size": 8}, {"softmax": "adaptive", "cutoffs": (4,)}]
)
def test_output_layers_learn(text, options):
    network = NetworkConfig(**{"hidden_size": 16, "embedding_size": 8, "embedding_dropout": 0.1} | options)
    training = training_of(config_of(text, network=network, run=LmRunConfig(epochs=4, threads=1)))
    first = training.measure()
    training.fit()
    assert training.measure() < 0.75 * first


def test_the_state_is_carried_without_its_gradient(text):
    """A step's loss is that of the chunk read on from those before it."""
    config = config_of(text, network=NetworkConfig(hidden_size=16, embedding_size=8, dropout=0.0))
    config = LmConfig(config.run, config.data, config.text, config.network, LmOptimizerConfig(0.0))
    losses = []
    training = training_of(config, on_step=lambda numbers: losses.append(numbers["loss"]))
    training.fit()
    chunks = Chunks(training.text.train, config, 0)
    with torch.no_grad():
        hidden, _ = training.model(chunks.inputs)
        loss = training.model.loss(hidden.flatten(0, 1), chunks.targets.flatten()).view(chunks.targets.shape)
    expected = [float(part.mean()) for part in loss.split(config.data.chunk, 1)]
    assert losses[: len(expected)] == pytest.approx(expected, abs=1e-5)


def test_chunks_hold_every_sentence_once(text):
    config = config_of(text)
    corpus = LmText(config).train
    epochs = [Chunks(corpus, config, epoch) for epoch in (0, 0, 1)]
    assert torch.equal(epochs[0].inputs, epochs[1].inputs)
    assert not torch.equal(epochs[0].inputs, epochs[2].inputs)
    tokens = torch.cat([torch.cat(epochs[0][i], 1) for i in range(Chunks.count(corpus, config))], 1)
    assert tokens.numel() == 2 * epochs[0].inputs.numel()
    used = epochs[0].targets.flatten()
    assert 0 <= len(corpus.ids) - len(used) < config.data.batch_size
    in_order = LmConfig(config.run, LmDataConfig(("t",), order="read", batch_size=1, chunk=8))
    assert Chunks(corpus, in_order, 5).targets.flatten().tolist() == corpus.ids.tolist()


def test_guards(text):
    warned = []
    config = config_of(text, optimizer=LmOptimizerConfig(1e30, gradient_clip=0.0))
    training = training_of(config, on_warning=lambda message, step: warned.append(message))
    with pytest.raises(RunAborted, match="not finite in 10 steps in a row"):
        training.fit()
    assert "skipped: the loss is" in warned[-1]


def test_the_command_and_what_it_leaves(text, tmp_path, capsys):
    run = tmp_path / "run"
    assert run_asr("lm train {text} -o {run} " + SETTINGS, text=text, run=run) == 0
    printed = capsys.readouterr().out
    assert "0.00 % of them unknown" in printed
    assert "dev perplexity" in printed
    lm = load_lm(run)
    assert lm.units.names[:4] == ["</s>", "<unk>", "full", "the"]
    assert "dev_perplexity" in json.loads((run / "summary.json").read_text())
    assert "Perplexity on dev" in (run / "report.html").read_text()
    assert run_asr("lm train {text} -o {run} " + SETTINGS, text=text, run=run) == 1
    assert "already holds a run; --resume continues it" in capsys.readouterr().err
    resume = "lm train {text} -o {run} --resume " + SETTINGS
    assert run_asr(resume + " --network.cell=gru", text=text, run=run) == 1
    assert "network.cell lstm, not gru" in capsys.readouterr().err
    assert run_asr(resume.replace("run.epochs=2", "run.epochs=3"), text=text, run=run) == 0
    assert "epoch 3.00/3" in capsys.readouterr().out


def test_pieces_of_a_recognizer(text, tmp_path, capsys):
    text.write_text("a b\nab cab\nbad\n" * 20)
    bundle = make_bundle()
    bundle.save(tmp_path / "acoustic")
    line = "lm train {text} -o {run} --model {bundle} --text.units=pieces " + SETTINGS
    assert run_asr(line, text=text, run=tmp_path / "run", bundle=tmp_path / "acoustic") == 0
    lm = load_lm(tmp_path / "run")
    assert lm.units.names == ["</s>", *bundle.tokenizer.tokens[1:]]
    assert lm.units.encode(["ab", "cab"]).ids == bundle.tokenizer.encode("ab cab")


@pytest.mark.parametrize("units", ["characters", "pieces"])
def test_own_units(text, units):
    config = config_of(text, text=UnitsConfig(units, vocab_size=30))
    assert LmText(config).train.words > 300


def test_configurations_that_cannot_be(text, capsys):
    for options, message in (
        ("--network.cel=gru", "did you mean 'network.cell'?"),
        ("--network.cell=grus --overwrite", "unknown cell 'grus'"),
        ("--text.normalizer=basics", "text.normalizer is 'basics'; expected basic"),
        ("--data.dev=[{text}]", "expected texts that were not trained on"),
        ("--network.tied=true", "expected the same width"),
    ):
        line = "lm train {text} -o {run} --run.epochs=1 --data.batch_size=4 " + options
        assert run_asr(line, text=text, run=text.parent / "bad") == 1
        assert message in capsys.readouterr().err
    assert run_asr("lm train -o {run}", run=text.parent / "bad") == 1
    assert "no text was given; expected" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run_asr("lm score x y --network.cell=gru")
    assert run_asr("lm train --print-config --network.cell=gru") == 0
    assert "cell: gru" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("", TextError, "holds no word; expected a sentence a line"),
        ("...\n", TextError, "holds no word; expected a sentence a line"),
        (
            "hello\n",
            ConfigError,
            "has one sentence, which is held out as dev; expected more text",
        ),
        ("hello you\nyes\n", ConfigError, "expected at least two for each of data.batch_size 4"),
        ("x" * 10_000 + "\n", TextError, "a word of 10000 letters .* expected words of at most 1000"),
        ("the <unk> sat\n", TextError, "the text holds <unk>, which the model adds itself"),
    ],
)
def test_texts_that_cannot_be(tmp_path, content, error, message):
    path = tmp_path / "text.txt"
    path.write_text(content)
    with pytest.raises(error, match=message):
        LmText(config_of(path, text=UnitsConfig(normalizer="none" if "<" in content else "basic")))


def test_a_checkpoint_of_another_network(text):
    state = training_of(config_of(text)).state()
    other = training_of(config_of(text, network=NetworkConfig("gru", hidden_size=16, embedding_size=8)))
    with pytest.raises(AsrError, match=r"size mismatch for recurrent.0.weight_ih_l0"):
        other.load(state)


def test_dev_is_read_sentence_by_sentence(text):
    training = training_of(config_of(text))
    by_batches = training.measure()
    single = 0.0
    training.model.eval()
    dev: Corpus = training.text.dev
    with torch.no_grad():
        for number in range(dev.sentences):
            targets = torch.from_numpy(dev.sentence(number).astype(np.int64))
            hidden, _ = training.model(torch.cat([torch.zeros(1, dtype=torch.int64), targets[:-1]])[None])
            single += float(training.model.loss(hidden[0], targets).sum())
    assert by_batches == pytest.approx(single, rel=1e-5)
