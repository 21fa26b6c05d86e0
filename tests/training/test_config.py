from pathlib import Path

import pytest

from asr.errors import ConfigError
from asr.training.config import TrainConfig
from asr.training.read_config import config_text, read_config


def test_defaults_need_nothing():
    assert read_config([]) == TrainConfig()


def test_options_override_files_and_later_files_earlier_ones(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "model: {layers: 2, hidden_size: 64}\ndata: {train: [a.jsonl.gz]}\noptimizer: {learning_rate: 0.01}\n"
    )
    (tmp_path / "mine.yaml").write_text(
        "model:\n  hidden_size: 96\n  front_end: {strides: [[2, 2], [1, 2]]}\n"
    )
    config = read_config(
        [
            "--config",
            f"{tmp_path}/base.yaml",
            "--config",
            f"{tmp_path}/mine.yaml",
            "--optimizer.learning_rate=0.02",
        ]
    )
    assert (config.model.layers, config.model.hidden_size) == (2, 96)
    assert config.model.front_end.strides == ((2, 2), (1, 2))
    assert config.data.train == ("a.jsonl.gz",)
    assert config.optimizer.learning_rate == 0.02
    assert config.features == TrainConfig().features


@pytest.mark.parametrize("arguments", [["--config"], ["--config="], ["--config", "--run.epochs=2"]])
def test_config_without_a_file(arguments):
    with pytest.raises(ConfigError, match="--config has no file behind it"):
        read_config(arguments)


def test_one_manifest_needs_no_list():
    assert read_config(["--data.train", "a.jsonl.gz"]).data.train == "a.jsonl.gz"
    assert read_config(["--data.train", "[a.jsonl.gz, b.jsonl.gz]"]).data.train == (
        "a.jsonl.gz",
        "b.jsonl.gz",
    )


def test_what_is_printed_reads_back(tmp_path):
    config = read_config(
        ["--model.cell", "gru", "--data.speed_perturb", "[0.9, 1.1]", "--features.f_max", "7000"]
    )
    (tmp_path / "printed.yaml").write_text(config_text(config))
    assert read_config(["--config", str(tmp_path / "printed.yaml")]) == config


@pytest.mark.parametrize(
    ("yaml", "unknown", "nearest"),
    [
        ("model:\n  hiden_size: 3\n", "model.hiden_size", "model.hidden_size"),
        ("modle:\n  hidden_size: 3\n", "modle", "model"),
        ("optimizer:\n  lr: 3\n", "optimizer.lr", "optimizer"),
        ("model:\n  front_end:\n    chanels: [3]\n", "model.front_end.chanels", "model.front_end.channels"),
    ],
)
def test_misspelled_key_is_named_with_the_nearest(tmp_path, yaml, unknown, nearest):
    path = tmp_path / "config.yaml"
    path.write_text(yaml)
    with pytest.raises(ConfigError) as caught:
        read_config(["--config", str(path)])
    assert str(path) in str(caught.value)
    assert repr(unknown) in str(caught.value)
    assert f"did you mean '{nearest}" in str(caught.value)


def test_misspelled_option_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"--model.layer \(did you mean 'model.layers'\?\)"):
        read_config(["--model.layer", "3"])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--model.hidden_size", "wide"], "hidden_size"),
        (["--optimizer.schedule", "sine"], "schedule"),
        (["--run.epochs", "1.5"], "epochs"),
        (["--features.hop_length", "0"], "hop_length is 0"),
        (["--model.front_end.kernel_sizes", "[[2, 2], [3, 3]]"], "expected odd numbers"),
        (["--model.front_end.strides", "[[0, 2], [2, 2]]"], "strides is .*; expected 1 or more"),
        (["--model.dropout", "2"], "model.dropout is 2.0; expected 0 or more and less than 1"),
        (["--model.layers", "0"], "model.layers is 0; expected 1 or more"),
        (["--optimizer.gradient_clip", "-1"], "gradient_clip is -1.0; expected 0 or more"),
        (["--optimizer.betas", "[0.9, 1.5]"], r"betas is \(0.9, 1.5\); expected 0 or more and less than 1"),
        (["--optimizer.learning_rate", ".nan"], "learning_rate is nan; expected 0 or more"),
        (["--loss.label_smoothing", "2"], "label_smoothing is 2.0; expected 0 or more and 1 at most"),
        (["--data.batch_seconds", "-5"], "batch_seconds is -5.0; expected more than 0"),
        (["--data.speed_perturb", "[0, 1]"], "speed_perturb is"),
        (["--run.devices", "0"], "devices is 0; expected 1 or more"),
    ],
)
def test_wrong_values_are_named(arguments, named):
    with pytest.raises(ConfigError, match=named):
        read_config(arguments)


@pytest.mark.parametrize("content", ["model: [", "just text", "run:\n", "model: small\n"])
def test_unreadable_files_are_named(tmp_path, content):
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        read_config(["--config", str(path)])
    path.write_bytes("run:\n  folder: café\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"broken\.yaml is not UTF-8 text"):
        read_config(["--config", str(path)])
    with pytest.raises(ConfigError, match=r"missing\.yaml: No such file"):
        read_config(["--config", str(tmp_path / "missing.yaml")])


RECIPES = Path(__file__).parents[2] / "recipes"
AN4 = [RECIPES / "an4" / name for name in ("config.yaml", "small.yaml")]


@pytest.mark.parametrize("paths", [AN4, *([path] for path in sorted(RECIPES.glob("*/config*.yaml")))])
def test_recipes_are_valid(paths):
    read_config([word for path in paths for word in ("--config", str(path))])
