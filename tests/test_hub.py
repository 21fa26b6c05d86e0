"""Models of the hub, against a server here that speaks its API: push, load, pin, offline, what goes wrong."""

import json
import shutil
from dataclasses import replace

import huggingface_hub.constants
import numpy as np
import pytest
from helpers import make_bundle, run_asr
from hub_server import TOKEN, HubServer

import asr
from asr.bundle import Bundle, find_bundle
from asr.errors import AsrError, BundleError

# Of the hub's client, in its own upload.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub with nothing in it, an empty cache, and someone who is logged in."""
    server = HubServer()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    yield server
    server.close()


@pytest.fixture
def pushed(server, tmp_path, capsys):
    """A model that was pushed, and the address of its commit."""
    make_bundle().save(tmp_path / "mine")
    assert run_asr("push mine jane/tones --license apache-2.0") == 0
    return capsys.readouterr().out.strip()


def test_what_is_pushed_is_loaded_elsewhere_and_then_without_a_network(
    server, pushed, tmp_path, monkeypatch, capsys
):
    (commit,) = server.commits["jane/tones"].values()
    assert set(commit) == {"README.md", "config.json", "model.safetensors", "tokenizer.json"}
    assert pushed.startswith(f"{server.url}/jane/tones/commit/")
    samples = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    expected = asr.load(tmp_path / "mine", "cpu").log_probs(samples)
    np.testing.assert_array_equal(asr.load("jane/tones", "cpu").log_probs(samples), expected)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    server.requests.clear()
    np.testing.assert_array_equal(asr.load("jane/tones", "cpu").log_probs(samples), expected)
    assert not server.requests
    assert run_asr("models") == 0
    assert "jane/tones  downloaded" in capsys.readouterr().out


def test_a_revision_is_pinned_by_commit_and_branch(server, pushed, tmp_path):
    first = pushed.rpartition("/")[2]
    replace(make_bundle(), decoding={"lm_weight": 2.0}).save(tmp_path / "tuned")
    assert run_asr("push tuned jane/tones") == 0
    replace(make_bundle(), decoding={"lm_weight": 3.0}).save(tmp_path / "tried")
    assert run_asr("push tried jane/tones@trial") == 0
    names = ("jane/tones", f"jane/tones@{first}", "jane/tones@trial")
    weights = [Bundle.load(find_bundle(name)).decoding.get("lm_weight") for name in names]
    assert weights == [2.0, None, 3.0]


def test_tuning_changes_no_model_of_the_cache(server, pushed, capsys):
    folder = find_bundle("jane/tones")
    for name in ("jane/tones", folder, "an4"):
        assert run_asr("lm tune dev.jsonl.gz --lm lm.arpa --model {name}", name=name) == 1
        message = capsys.readouterr().err
        where = "comes with asr" if name == "an4" else "is in the cache of the Hugging Face hub"
        assert f"the model {name} {where}, where nothing is changed; copy it (cp -rL" in message
    assert run_asr("lm tune dev.jsonl.gz --lm lm.arpa --model jane/tones --dry-run") == 1
    assert "there is no language model lm.arpa" in capsys.readouterr().err  # it began


def test_only_files_of_a_bundle_are_downloaded(server, pushed):
    server.commit("jane/tones", "main", {"training_state.pkl": b"\x80", "handler.py": b"raise SystemExit"})
    assert {path.name for path in find_bundle("jane/tones").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }


def test_a_download_that_was_spoiled_is_repeated_and_named_if_it_is_again(server, pushed, tmp_path):
    server.spoiled = 1
    assert asr.load("jane/tones", "cpu").sample_rate == 16000
    shutil.rmtree(tmp_path / "cache")
    server.spoiled = 2
    with pytest.raises(BundleError, match=r"the download of jane/tones from http.* is damaged, twice: model"):
        asr.load("jane/tones", "cpu")


def message_of(name):
    with pytest.raises(AsrError) as caught:
        find_bundle(name)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_is_not_on_the_hub_is_one_sentence(server, pushed, monkeypatch):
    assert "has no model jane/words, or it is private; expected" in message_of("jane/words")
    assert message_of("jane/tones@v9").startswith("jane/tones@v9: ")
    assert "not this revision" in message_of("jane/tones@v9")
    server.commits["jane/other"], server.branches["jane/other"] = {}, {}
    server.commit("jane/other", "main", {"config.json": b'{"architectures": ["Bert"]}'})
    assert "is not a bundle's configuration" in message_of("jane/other")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "jane/tones is not in the cache" in message_of("jane/tones")
    assert "HF_HUB_OFFLINE is set" in message_of("jane/tones")


def test_a_hub_that_cannot_be_reached_and_a_path_that_is_none(server, monkeypatch, tmp_path):
    server.close()
    assert "jane/tones is not in the cache" in message_of("jane/tones")
    assert "cannot be reached" in message_of("jane/tones")
    (tmp_path / "runs").mkdir()
    with pytest.raises(BundleError, match=r"there is no bundle runs/mine; `asr train` writes one"):
        asr.load("runs/mine")
    monkeypatch.setattr("asr.hub.find_spec", lambda name: None)
    assert "need the package huggingface_hub; pip install 'recurrent-asr[hub]'" in message_of("jane/tones")


def test_who_is_not_logged_in_cannot_push(server, tmp_path, monkeypatch, capsys):
    make_bundle().save(tmp_path / "mine")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert run_asr("push mine jane/tones") == 1
    message = capsys.readouterr().err
    assert "jane/tones: http" in message
    assert "answers 401" in message
    assert "log in with `hf auth login`" in message
    assert run_asr("push mine tones") == 1
    assert "'tones' is no name of the hub; expected OWNER/NAME" in capsys.readouterr().err


def test_models_of_the_hub_are_listed(server, pushed, capsys):
    assert run_asr("models --hub ton") == 0
    assert capsys.readouterr().out == "jane/tones  7 downloads\n"
    assert run_asr("models --hub french") == 0
    assert capsys.readouterr().out == ""


def test_the_card_holds_what_is_known(tmp_path, capsys):
    training = {
        "train_hours": 0.5,
        "train_utterances": 90,
        "train_manifests": "cuts.jsonl.gz",
        "dev_wer": 0.25,
    }
    replace(make_bundle(), training=training).save(tmp_path / "mine")
    result = {"wer": 0.125, "wer_interval": [0.1, 0.15], "words": 800, "utterances": 90}
    (tmp_path / "test.json").write_text(json.dumps({"model": "mine"} | result))
    line = "push {model} jane/tones --dry-run --license apache-2.0 --data Tones. --evaluation {test}"
    assert run_asr(line, model=tmp_path / "mine", test=tmp_path / "test.json") == 0
    card = capsys.readouterr().out
    assert "license: apache-2.0" in card
    assert "| test | 12.50 | 10.00 to 15.00 | 800 | 90 |" in card
    assert "Tones. 0.50 hours (90 utterances) of `cuts.jsonl.gz`." in card
    assert "asr transcribe speech.wav --model jane/tones" in card
    assert "It knows the letters `abc` only." in card
    assert run_asr("push {model} jane/tones --dry-run", model=tmp_path / "mine") == 0
    assert "25.00 % on the development set by which training chose its epoch" in capsys.readouterr().out
    (tmp_path / "other.json").write_text("[]")
    line = "push {model} jane/tones --dry-run --evaluation {other}"
    assert run_asr(line, model=tmp_path / "mine", other=tmp_path / "other.json") == 1
    assert "other.json is no evaluation" in capsys.readouterr().err
