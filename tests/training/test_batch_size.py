"""The batch size that fits the memory."""

import gc
from dataclasses import replace

import pytest
import torch
from helpers import make_bundle, train_arguments

from asr.cli.main import main
from asr.errors import ConfigError
from asr.training import batch_size
from asr.training.batch_size import bytes_per_second, with_batch_seconds
from asr.training.config import TrainConfig
from asr.training.read_config import read_config


def automatic() -> TrainConfig:
    return read_config(["--data.batch_seconds=auto"])


def bytes_counted_by_hand() -> int:
    """Count float32 values that the backward pass needs of a second of audio, for the model of `make_bundle`.

    100 frames of 20 mel bands; convolutions of 4 channels with strides (2, 2) and (1, 2) in (time, mel); one layer of
    16 units in both directions; 5 tokens.
    """
    first, second = 50 * 10 * 4, 50 * 5 * 4
    convolutions = (
        100 * 20 + 2 * first + 2 * second
    )  # inputs, and each layer before and behind its activation
    gates, states = 50 * 2 * 4 * 16, 50 * 2 * 2 * 16
    recurrent = 50 * 20 + 50 * 20 + gates + states  # its input, normalized and not
    output = 2 * 50 * 32 + 2 * 50 * 5  # what it reads, normalized and not, and what it gives
    return 4 * (convolutions + recurrent + output)


def test_what_a_batch_keeps_is_found_by_a_small_one():
    bundle = make_bundle()
    before = {name: value.clone() for name, value in bundle.model.state_dict().items()}
    found = bytes_per_second(bundle)
    torch.testing.assert_close(
        bundle.model.state_dict(), before, rtol=0, atol=0
    )  # batch norm's statistics, too
    # What is counted by hand is kept for certain; masks and copies of other layouts come on top.
    assert 1 < found / bytes_counted_by_hand() < 2
    state = torch.get_rng_state()
    assert bytes_per_second(bundle) == pytest.approx(found, rel=0.01)
    assert torch.equal(state, torch.get_rng_state())
    assert not bundle.model.training
    gc.collect()


def test_the_number_follows_the_free_memory(monkeypatch, caplog):
    caplog.set_level("INFO")
    bundle = make_bundle()
    needed = bytes_per_second(bundle)
    monkeypatch.setattr(batch_size, "free_memory", lambda: int(100 * needed / batch_size.MEMORY_SHARE))
    assert with_batch_seconds(automatic(), bundle, 1e6).data.batch_seconds == pytest.approx(100, abs=2)
    assert "batches: " in caplog.text
    monkeypatch.setattr(batch_size, "free_memory", lambda: 10**15)
    assert with_batch_seconds(automatic(), bundle, 1e6).data.batch_seconds == batch_size.MOST_SECONDS
    # Of an hour no fewer than twenty batches, of a minute no batch shorter than the longest utterance may be.
    assert with_batch_seconds(automatic(), bundle, 3600).data.batch_seconds == 180
    assert with_batch_seconds(automatic(), bundle, 60).data.batch_seconds == automatic().data.max_seconds
    monkeypatch.setattr(batch_size, "free_memory", lambda: 10**5)
    with pytest.raises(
        ConfigError, match=r"0.0 GB of free memory hold batches of 0 s, data.max_seconds is 30 s"
    ):
        with_batch_seconds(automatic(), bundle, 1e6)


def test_a_number_stays():
    bundle = make_bundle()
    assert with_batch_seconds(TrainConfig(), bundle, 1e6) == TrainConfig()
    resumed = with_batch_seconds(automatic(), bundle, 1e6, resumed=77.0)
    assert resumed == replace(automatic(), data=replace(automatic().data, batch_seconds=77.0))


def test_training_with_auto_notes_the_number(corpus, tmp_path, capsys):
    more = ("--run.epochs=1", "--data.batch_seconds=auto", "--data.sortagrad=true")
    assert main(train_arguments(corpus, tmp_path / "run", *more)) == 0
    assert "batches: 30 s of audio" in capsys.readouterr().out
    assert "batch_seconds: 30.0" in (tmp_path / "run" / "config.yaml").read_text()
