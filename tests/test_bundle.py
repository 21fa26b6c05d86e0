import json
import re
import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import make_bundle

from asr.bundle import CONFIG_FILE, WEIGHTS_FILE, Bundle, available_models, find_bundle
from asr.errors import BundleError
from asr.torch_bundle import TorchBundle


@pytest.fixture
def folder(tmp_path):
    make_bundle().save(tmp_path / "bundle")
    return tmp_path / "bundle"


@torch.no_grad()
def test_loaded_bundle_computes_the_same(folder):
    saved, loaded = make_bundle(), TorchBundle.load(folder)
    samples = torch.randn(1, 8000, generator=torch.Generator().manual_seed(1))
    for first, second in zip(saved.log_mel(samples), loaded.log_mel(samples), strict=True):
        assert torch.equal(first, second)
    features, lengths = saved.log_mel(samples)
    assert torch.equal(saved.model(features, lengths)[0], loaded.model(features, lengths)[0])
    assert loaded.model.config == saved.model.config
    assert loaded.log_mel.config == saved.log_mel.config
    assert loaded.tokenizer.tokens == saved.tokenizer.tokens
    assert (loaded.normalizer, dict(loaded.training)) == ("basic", {"dev_wer": 0.5, "epoch": 3})
    assert not loaded.model.training


@torch.no_grad()
def test_weights_stored_in_half_the_size_compute_nearly_the_same(folder, tmp_path):
    whole = TorchBundle.load(folder)
    replace(whole, stored_as="float16").save(tmp_path / "half")
    half = TorchBundle.load(tmp_path / "half")
    assert (tmp_path / "half" / WEIGHTS_FILE).stat().st_size < 0.6 * (folder / WEIGHTS_FILE).stat().st_size
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.float32}
    features, lengths = whole.log_mel(torch.randn(1, 8000, generator=torch.Generator().manual_seed(1)))
    first, second = whole.model(features, lengths)[0], half.model(features, lengths)[0]
    assert 0 < (first - second).norm() < 2e-3 * first.norm()
    half.save(tmp_path / "again")
    assert (tmp_path / "again" / WEIGHTS_FILE).read_bytes() == (tmp_path / "half" / WEIGHTS_FILE).read_bytes()


def test_the_weights_are_read_without_torch(folder):
    saved, bundle = make_bundle(), Bundle.load(folder)
    tensors = {f"model.{name}": value for name, value in saved.model.state_dict().items()}
    assert set(bundle.weights) == set(tensors)
    for name, value in tensors.items():
        np.testing.assert_array_equal(bundle.weights[name], value.numpy())
    assert (bundle.model, bundle.features) == (saved.model.config, saved.log_mel.config)
    assert bundle.seconds_per_frame == saved.seconds_per_frame
    bundle.save(folder.parent / "again")
    assert (folder.parent / "again" / WEIGHTS_FILE).read_bytes() == (folder / WEIGHTS_FILE).read_bytes()


def test_a_bundle_is_found_by_name_or_folder(folder, monkeypatch):
    assert find_bundle(folder) == folder
    assert Bundle.load(find_bundle("an4")).tokenizer.vocab_size == 130
    monkeypatch.chdir(folder.parent)
    folder.rename("an4")
    assert find_bundle("an4").resolve() == folder.parent / "an4"
    with pytest.raises(
        BundleError, match=r"there is no bundle an5 \(did you mean 'an4'\?\); expected the folder"
    ):
        find_bundle("an5")
    assert "an4" in available_models()


def test_configuration_is_readable(folder):
    config = json.loads((folder / CONFIG_FILE).read_text())
    assert config["normalizer"] == "basic"
    assert config["model"]["hidden_size"] == 16
    assert config["features"]["n_mels"] == 20
    assert config["training"]["dev_wer"] == 0.5


def test_saving_again_replaces_the_bundle_and_leaves_nothing_else(folder):
    (folder / "stale").touch()
    make_bundle().save(folder)
    assert not (folder / "stale").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_what_a_killed_save_left_is_in_nobodys_way(folder):
    left = folder.parent / f".{folder.name}.replaced"
    left.mkdir()
    (left / "config.json").write_text("{}")
    bundle = TorchBundle.load(folder)
    bundle.save(folder)
    bundle.save(folder)
    assert TorchBundle.load(folder).normalizer == bundle.normalizer


def test_a_folder_that_is_no_bundle_is_not_overwritten(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(BundleError, match="exists and is no bundle"):
        make_bundle().save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"


def test_a_full_disk_leaves_the_bundle_that_was_there(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # the weights cannot be written whole
    try:
        with pytest.raises(BundleError, match=r"cannot write the bundle .*File too large"):
            make_bundle().save(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert list(folder.parent.iterdir()) == [folder]


def edit(folder, **changes):
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | changes))


def test_missing_bundle_and_missing_files_are_named(folder, tmp_path):
    with pytest.raises(BundleError, match=r"there is no bundle .*nowhere"):
        TorchBundle.load(tmp_path / "nowhere")
    for name in (WEIGHTS_FILE, "tokenizer.json", CONFIG_FILE):
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        with pytest.raises(BundleError, match=re.escape(name)):
            TorchBundle.load(folder)
        (folder / name).write_bytes(kept)
    TorchBundle.load(folder)


def test_damaged_weights_are_refused(folder):
    weights = folder / WEIGHTS_FILE
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1  # one bit of one weight
    weights.write_bytes(content)
    with pytest.raises(BundleError, match="is damaged: its checksum differs"):
        TorchBundle.load(folder)
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match="is damaged"):
        TorchBundle.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, r"has format 99 .* reads format 1"),
        ({"normalizer": "latin"}, "normalizer 'latin' is unknown"),
        ({"model": {"hiden_size": 3}}, "unknown key 'hiden_size'"),
        ({"vocab_size": 7}, "its tokenizer has 5 tokens, its model 7"),
        ({"model": None}, "model is None; expected keys and values"),
        ({"model": {"layers": "1"}}, r"model\.layers is '1'; expected int"),
        ({"model": {"layers": True}}, r"model\.layers is True; expected int"),
        ({"model": {"norm": "lyer"}}, r"model\.norm is 'lyer'; expected 'layer' or 'none'"),
        ({"model": {"cell": "lstn"}}, "model: unknown cell 'lstn'"),
        ({"model": {"hidden_size": 16, "proj_size": 16}}, "model: proj_size must be"),
        (
            {"model": {"front_end": {"strides": [[2, 2], [1]]}}},
            r"front_end\.strides is \[1\]; expected tuple",
        ),
        ({"model": {"front_end": {"kernel_sizes": [[-1, 3], [3, 3]]}}}, "expected odd numbers"),
        (
            {"model": {"hidden_size": 10**18}},
            r"cannot be used: model\.hidden_size is 10+; expected .* 100000 at most",
        ),
        ({"model": {"layers": 10**9}}, r"cannot be used: model\.layers is 10+; expected .* 1000 at most"),
        ({"features": {"hop_length": 160.5}}, r"features\.hop_length is 160\.5; expected int"),
        ({"normalizer": ["basic"]}, r"normalizer is \['basic'\]; expected str"),
        ({"training": "long"}, "training is 'long'; expected dict"),
        ({"stored_as": "int8"}, "stored_as is 'int8'; expected 'float32' or 'float16'"),
    ],
)
def test_contradicting_configuration_is_refused(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(BundleError, match=message):
        TorchBundle.load(folder)


@pytest.mark.parametrize("hidden_size", [32, 10**5])
def test_weights_of_another_model_are_refused(folder, hidden_size):
    """Before they take any memory: weights of 100,000 units have 160 GB."""
    config = json.loads((folder / CONFIG_FILE).read_text())
    edit(folder, model=config["model"] | {"hidden_size": hidden_size})
    with pytest.raises(BundleError, match="does not fit the model"):
        TorchBundle.load(folder)


def test_damaged_configuration_is_refused(folder):
    for content in ("{", "[]", '{"a": 1}'):
        (folder / CONFIG_FILE).write_text(content)
        with pytest.raises(BundleError, match=re.escape(CONFIG_FILE)):
            TorchBundle.load(folder)


def test_nothing_is_unpickled(folder, monkeypatch):
    import pickle

    def refuse(*arguments, **options):
        raise RuntimeError("unpickling")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    bundle = TorchBundle.load(folder)
    assert np.isfinite(next(bundle.model.parameters()).detach().numpy()).all()
