"""The decoder's options in Python: the same as on the command line."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import make_bundle, say

import asr
from asr.cli.main import main
from asr.decoding import BeamSearch, ParallelBeamSearch, greedy
from asr.errors import AsrError, DecodingError


@pytest.fixture
def folder(tmp_path):
    make_bundle().save(tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def lm(tmp_path):
    (tmp_path / "text.txt").write_text("cb b\nab b\n" * 9)
    path = str(tmp_path / "lm.arpa")
    assert main(["lm", "build", str(tmp_path / "text.txt"), "-o", path, "--order", "2"]) == 0
    return path


def test_without_options_it_is_greedy(folder):
    assert asr.load(folder, "cpu").decoder is greedy
    assert asr.load(folder, "cpu", lm=None, processes=2).decoder is greedy


def test_a_language_model_in_the_bundle_is_taken_unless_another_is_named(folder, lm, tmp_path, monkeypatch):
    from asr.bundle import LM_FILE, store_decoding

    shutil.copy(lm, folder / LM_FILE)
    store_decoding(folder, {"lm_weight": 0.25, "word_bonus": 2.0, "beam_size": 16})
    config = asr.load(folder, "cpu").decoder.search.config
    assert (config.lm_weight, config.word_bonus, config.beam_size) == (0.25, 2.0, 16)
    assert asr.load(folder, "cpu", lm="none").decoder is greedy
    assert asr.load(folder, "cpu", lm="none", beam_size=4).decoder.search.is_free
    assert asr.load(folder, "cpu", lexicon="none").decoder.search.is_free
    assert asr.load(folder, "cpu", nbest=2).decoder.search.has_lm
    other = tmp_path / "other.arpa"
    other.write_text(Path(lm).read_text().replace("cb", "ba"))
    assert list(asr.load(folder, "cpu", lm=other).decoder.search.words) == ["ba", "b", "ab"]
    monkeypatch.setattr("asr.decoding.choice.find_spec", lambda name: None)
    assert asr.load(folder, "cpu").decoder is greedy


def test_options_search_as_the_command_line_does(folder, lm, tmp_path, capsys):
    import soundfile

    audio = tmp_path / "audio.wav"
    soundfile.write(audio, say("ab b", np.random.default_rng(0)), 16000)
    (tmp_path / "hotwords").write_text("ba 2\n")
    options = ["--lm-weight", "0.3", "--word-bonus", "1", "--nbest", "4", "--beam-size", "9"]
    options += ["--blank-penalty", "0.5"]
    command = ["transcribe", str(audio), "--model", str(folder), "-f", "json", "--lm", lm, *options]
    assert main([*command, "--hotwords", str(tmp_path / "hotwords")]) == 0
    expected = json.loads(capsys.readouterr().out)
    settings = {
        "lm": lm,
        "lm_weight": 0.3,
        "word_bonus": 1.0,
        "blank_penalty": 0.5,
        "nbest": 4,
        "beam_size": 9,
    }
    for hotwords in (tmp_path / "hotwords", {"ba": 2.0}):
        model = asr.load(folder, "cpu", **settings, hotwords=hotwords)
        assert isinstance(model.decoder, ParallelBeamSearch)
        found = model.transcribe(audio)
        assert found.text == expected["text"]
        assert [other.text for other in found.alternatives] == [
            one["text"] for one in expected["alternatives"]
        ]


def test_what_was_tuned_counts_with_a_language_model_only(folder, lm):
    from asr.bundle import store_decoding

    store_decoding(folder, {"lm_weight": 0.25, "word_bonus": 2.0, "blank_penalty": 1.5, "beam_size": 32})
    config = asr.load(folder, "cpu", lm=lm, word_bonus=1.0).decoder.search.config
    assert (config.lm_weight, config.word_bonus, config.blank_penalty) == (0.25, 1.0, 1.5)
    assert asr.load(folder, "cpu", lm=lm, blank_penalty=0.0).decoder.search.config.blank_penalty == 0.0
    config = asr.load(folder, "cpu", nbest=2).decoder.search.config
    assert (config.word_bonus, config.blank_penalty) == (0.0, 0.0)


def test_what_contradicts_itself_is_refused(folder):
    with pytest.raises(DecodingError, match=r"LM weight 0\.5 was given without a language model"):
        asr.load(folder, "cpu", lm_weight=0.5)
    with pytest.raises(AsrError, match="a decoder was given and options for another: nbest"):
        asr.load(folder, "cpu", decoder=BeamSearch(make_bundle().tokenizer), nbest=2)
    with pytest.raises(TypeError, match="beam_width"):
        asr.load(folder, "cpu", beam_width=3)


def test_words_that_the_model_cannot_write_are_reported(folder, caplog):
    asr.load(folder, "cpu", hotwords={"xyz": 4.0, "ab": 4.0})
    assert re.search("1 of the lexicon's words and hotwords are left out, .*: xyz", caplog.text)
