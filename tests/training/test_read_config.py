"""Files and options in every order, keys explained, and what a bundle to begin from fixes."""

import itertools

import pytest
import yaml
from helpers import make_bundle

from asr.cli import main
from asr.errors import ConfigError
from asr.training.config import TrainConfig
from asr.training.read_config import explained_config, plain, read_config, settings


@pytest.fixture
def files(tmp_path):
    (tmp_path / "one.yaml").write_text("model: {layers: 2, hidden_size: 64}\n")
    (tmp_path / "two.yaml").write_text("model: {hidden_size: 96}\nrun: {epochs: 7}\n")
    return [f"--config={tmp_path}/one.yaml", f"--config={tmp_path}/two.yaml"]


def test_an_option_wins_over_every_file_wherever_it_stands(files):
    option = "--model.hidden_size=32"
    for order in itertools.permutations([*files, option]):
        config = read_config(order)
        assert (config.model.layers, config.model.hidden_size, config.run.epochs) == (2, 32, 7), order


@pytest.mark.parametrize("place", [0, 1, 2])
def test_also_on_the_command_line_and_in_two_words(files, capsys, place):
    words = [*(file.split("=") for file in files)]
    words.insert(place, ["--model.hidden_size", "32"])
    assert main(["train", "--print-config", *itertools.chain(*words)]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["hidden_size"] == 32


def test_of_files_and_of_options_the_last_wins(files):
    assert read_config(files).model.hidden_size == 96
    assert read_config(files[::-1]).model.hidden_size == 64
    assert read_config(["--run.seed=1", *files, "--run.seed=2"]).run.seed == 2


def test_every_key_is_explained_and_prints_as_it_reads(tmp_path):
    assert [setting.key for setting in settings() if not setting.explanation] == []
    config = read_config(["--model.cell=gru", "--data.speed_perturb=[0.9, 1.1]", "--features.f_max=7000"])
    text = explained_config(config)
    assert yaml.safe_load(text) == plain(config)
    assert "# schedule" not in text
    assert "(cosine|linear|constant)" in text
    (tmp_path / "printed.yaml").write_text(text)
    assert read_config([f"--config={tmp_path}/printed.yaml"]) == config


def test_the_help_lists_the_files_option_and_every_key(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    printed = capsys.readouterr().out
    assert "--config FILE" in printed
    for setting in settings():
        assert f"  --{setting.key} {setting.values}\n" in printed
    assert "--optimizer.schedule cosine|linear|constant" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning_rate=1"], "--learning_rate (did you mean 'optimizer.learning_rate'?)"),
        (["--resum"], "--resum (did you mean 'resume'?)"),
        (
            ["--data.min_seconds=9", "--data.max_seconds=8"],
            "data.min_seconds is 9.0 and data.max_seconds 8.0",
        ),
        (
            ["--data.curriculum_epochs=2", "--data.sortagrad=true"],
            "curriculum_epochs is 2 and data.sortagrad true",
        ),
        (["--loss.intermediate_layers=[3]"], "loss.intermediate_layers is [3] and model.layers 3"),
        (["--text.tokenizer=bundle"], 'text.tokenizer is "bundle" and run.warm_start ""'),
        (["--data.train=[a, b]", "--data.train_weights=[1]"], "1 weights, and data.train names 2 manifests"),
    ],
)
def test_contradictions_are_named_by_key_and_value(arguments, message):
    with pytest.raises(ConfigError) as caught:
        read_config(arguments)
    assert message in str(caught.value)


@pytest.fixture
def small(tmp_path):
    folder = tmp_path / "small"
    make_bundle().save(folder)
    return folder


def test_a_bundle_gives_the_keys_that_are_not_set(small, tmp_path):
    config = read_config([f"--run.warm_start={small}", "--model.dropout=0.3"])
    assert (config.features.n_mels, config.model.layers, config.model.hidden_size) == (20, 1, 16)
    assert config.model.front_end.channels == (4, 4)
    assert config.model.dropout == 0.3
    assert (config.text.normalizer, config.text.tokenizer) == ("basic", "bundle")
    assert read_config([f"--run.warm_start={small}"]).model.dropout == TrainConfig().model.dropout
    (tmp_path / "same.yaml").write_text("model: {front_end: {channels: [4, 4]}}\ntext: {tokenizer: bpe}\n")
    config = read_config([f"--config={tmp_path}/same.yaml", f"--run.warm_start={small}"])
    assert config.text.tokenizer == "bpe"


def test_a_run_may_begin_from_a_model_of_other_frames_a_second(small):
    warm = f"--run.warm_start={small}"
    own = read_config([warm]).model.front_end.strides
    slower = [[3 * time, mel] for time, mel in own]
    config = read_config([warm, f"--model.front_end.strides={slower}"])
    assert config.model.front_end.strides == tuple(map(tuple, slower))
    assert config.model.front_end.channels == (4, 4)
    with pytest.raises(ConfigError, match=r"model\.front_end\.strides is"):
        read_config([warm, f"--model.front_end.strides={[[time, 3 * mel] for time, mel in own]}"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--model.hidden_size=12", "model.hidden_size is 12, the model's is 16"),
        ("--features.n_mels=40", "features.n_mels is 40, the model's is 20"),
        (
            '--model.front_end={"channels": [8, 8]}',
            "model.front_end.channels is [8, 8], the model's is [4, 4]",
        ),
    ],
)
def test_what_contradicts_the_bundle_is_named(small, option, message):
    with pytest.raises(ConfigError) as caught:
        read_config([option, f"--run.warm_start={small}"])
    assert message in str(caught.value)
    assert "FeatureConfig(" not in str(caught.value)


def test_a_run_can_be_read_again_when_its_bundle_is_gone(small, tmp_path):
    arguments = [f"--run.warm_start={small}", f"--run.folder={tmp_path}/run"]
    config = read_config(arguments)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(explained_config(config))
    small.rename(tmp_path / "elsewhere")
    assert read_config(arguments) == config


def test_values_behind_an_option_make_a_list():
    config = read_config(["--data.train", "a,1.jsonl", "b.jsonl", "--data.train_weights", "1", "2.5"])
    assert config.data.train == ("a,1.jsonl", "b.jsonl")
    assert config.data.train_weights == (1.0, 2.5)
    assert read_config(["--data.speed_perturb", "0.9"]).data.speed_perturb == (0.9,)
    strides = read_config(["--model.front_end.strides", "[2,2]", "[3,2]"]).model.front_end.strides
    assert strides == ((2, 2), (3, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.layers", "x"], "model.layers is x; expected INT"),
        (["--optimizer.schedule", "foo"], "optimizer.schedule is foo; expected cosine|linear|constant"),
        (["--data.speed_perturb=abc"], "data.speed_perturb is abc; expected [FLOAT,...]"),
        (["--model.layers"], "--model.layers has no value behind it; expected INT"),
        (["--run.seed", "1", "2"], "--run.seed has 2 values behind it (1, 2); expected one, INT"),
        (
            ["stray", "--run.seed", "1"],
            "'stray' stands before all options; expected one such as --run.seed 1",
        ),
    ],
)
def test_values_of_another_kind_are_named_with_what_was_expected(arguments, message):
    with pytest.raises(ConfigError) as refused:
        read_config(arguments)
    assert str(refused.value) == message
