"""`asr lm` and the decoding options, through the command line."""

import bz2
import gzip
import json
import lzma
import os
import re
import shutil
from itertools import product

import pytest
import torch
from helpers import log_probs_of, make_bundle

import asr
from asr.bundle import Bundle
from asr.cli import main
from asr.data.cuts import load_cuts, write_cuts
from asr.tuning import acoustic_outputs, descend

pytest.importorskip("flashlight.lib.text")


def message_of(capsys, arguments):
    assert main(arguments) == 1
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat\nthe cat ran\n")
    cut = {"id": "one", "supervisions": [{"text": "the dog ran"}]}
    with gzip.open(tmp_path / "cuts.jsonl.gz", "wt") as file:
        file.write(json.dumps(cut) + "\n")
    return [str(tmp_path / "text.txt"), str(tmp_path / "cuts.jsonl.gz")]


def test_build_and_score(texts, tmp_path, capsys):
    lm = str(tmp_path / "lm.arpa.gz")
    assert main(["lm", "build", *texts, "-o", lm, "--order", "2"]) == 0
    assert "8 1-grams" in capsys.readouterr().out  # five words, <unk>, <s>, </s>
    assert main(["lm", "score", lm, texts[1]]) == 0
    assert "unknown words 0.00 % (0 of 3 words in 1 sentences)" in capsys.readouterr().out
    (tmp_path / "other.txt").write_text("the bird sat\n")
    assert main(["lm", "score", lm, str(tmp_path / "other.txt")]) == 0
    assert "unknown words 33.33 %" in capsys.readouterr().out


def test_a_binary_of_the_most_frequent_words(texts, tmp_path, capsys):
    lm = str(tmp_path / "lm.bin")
    assert main(["lm", "build", *texts, "-o", lm, "--order", "2", "--max-words", "3"]) == 0
    assert "6 1-grams" in capsys.readouterr().out
    assert main(["lm", "score", lm, texts[0]]) == 0
    assert "unknown words 16.67 % (1 of 6 words in 2 sentences)" in capsys.readouterr().out


@pytest.mark.parametrize("opened", [open, gzip.open, bz2.open, lzma.open])
def test_texts_of_every_kind_give_the_same_model(tmp_path, opened, capsys):
    sentences = "the cat sat\nthe cat ran\n"
    (tmp_path / "plain.txt").write_text(sentences)
    path = tmp_path / f"text{ {gzip.open: '.gz', bz2.open: '.bz2', lzma.open: '.xz'}.get(opened, '.txt') }"
    with opened(path, "wb") as file:
        file.write(b"\xef\xbb\xbf" + sentences.replace("\n", "\r\n").encode())
    printed = []
    for text in (path, tmp_path / "plain.txt"):
        assert main(["lm", "build", str(text), "-o", "-", "--order", "2"]) == 0
        printed.append(capsys.readouterr())
    assert printed[0] == printed[1]
    assert printed[0].out.startswith("\\data\\\nngram 1=7\n")
    assert "7 1-grams" in printed[0].err


def test_an_order_that_cannot_be_read_again_is_not_built(texts, tmp_path, capsys):
    for order in ("0", "1", "7"):
        arguments = ["lm", "build", *texts, "-o", str(tmp_path / "lm.arpa"), "--order", order]
        assert f"order {order}; expected 2 to 6" in message_of(capsys, arguments)
    assert not (tmp_path / "lm.arpa").exists()


def test_what_is_no_file_is_written_to_and_stays(texts, tmp_path, capsys):
    (tmp_path / "file.arpa").write_text("")
    (tmp_path / "link.arpa").symlink_to("file.arpa")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    for name in ("link.arpa", "pipe"):
        assert main(["lm", "build", *texts, "-o", str(tmp_path / name), "--order", "2"]) == 0
    assert (tmp_path / "link.arpa").is_symlink()
    assert os.read(reader, 1 << 16).decode() == (tmp_path / "file.arpa").read_text()
    assert (tmp_path / "pipe").is_fifo()
    os.close(reader)


def test_what_cannot_be_read(texts, tmp_path, capsys):
    assert "there is no text nowhere" in message_of(capsys, ["lm", "build", "nowhere", "-o", "x"])
    (tmp_path / "bad.jsonl").write_text("{}\n")
    assert "a manifest of cuts" in message_of(capsys, ["lm", "build", str(tmp_path / "bad.jsonl"), "-o", "x"])
    assert "--tokens" in message_of(capsys, ["lm", "build", *texts, "-o", "x", "--tokens"])
    assert "no language model" in message_of(capsys, ["lm", "score", *texts])


def test_tune_stores_what_evaluate_and_transcribe_use(corpus, bundle, tmp_path, capsys):
    model = str(shutil.copytree(bundle, tmp_path / "bundle"))
    cuts = corpus / "cuts"
    lm, tokens, manifest = (
        str(tmp_path / "lm.arpa"),
        str(tmp_path / "tokens.arpa"),
        str(cuts / "cuts_dev.jsonl.gz"),
    )
    text = str(cuts / "cuts_train.jsonl.gz")
    assert main(["lm", "build", text, "-o", lm, "--order", "2", "--model", model]) == 0
    assert main(["lm", "build", text, "-o", tokens, "--order", "3", "--model", model, "--tokens"]) == 0
    tune = ["lm", "tune", "--model", model, manifest, "--lm"]
    grid = ["--lm-weights", "0.5", "1", "--word-bonuses", "0", "1", "--blank-penalties", "0"]
    assert main([*tune, tokens, "--lexicon", "none", "--dry-run", *grid]) == 0
    assert not Bundle.load(model).decoding
    capsys.readouterr()
    assert main([*tune, lm, *grid]) == 0
    output = capsys.readouterr().out
    rows = [line.split() for line in output.splitlines() if line.startswith("     ")]
    assert [row[:-1] for row in rows[:2]] == [["greedy"], ["beam,", "no", "lm"]]
    assert len(rows[2:]) == 4
    without, best = (min(float(row[-1]) for row in part) for part in (rows[:2], rows[2:]))
    stored = Bundle.load(model).decoding
    assert ("does not help" in output) == (without <= best) == (not stored)
    assert not stored or f"LM weight {stored['lm_weight']}, word bonus {stored['word_bonus']}" in output

    assert main(["evaluate", manifest, "--model", model, "--lm", lm, "--quiet"]) == 0
    assert "WER" in capsys.readouterr().out
    audio = str(corpus / "audio" / "utterance00.wav")
    assert main(["transcribe", audio, "--model", model, "--lm", lm, "--nbest", "3", "-f", "json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert 1 <= len(result["alternatives"]) <= 2
    scores = [alternative["score"] for alternative in result["alternatives"]]
    assert scores == sorted(scores, reverse=True)
    assert result["text"] not in [alternative["text"] for alternative in result["alternatives"]]


@pytest.mark.parametrize("known", ["ab b", "cb b"])
def test_tune_stores_what_helps_and_nothing_else(tmp_path, monkeypatch, capsys, known):
    make_bundle().save(tmp_path / "bundle")
    (tmp_path / "text.txt").write_text(f"{known}\n" * 9)
    lm = str(tmp_path / "lm.arpa")
    assert main(["lm", "build", str(tmp_path / "text.txt"), "-o", lm, "--order", "2"]) == 0
    tokens = torch.tensor(
        [4, 3, 1, 3, 0]
    )  # "cb b", where "ab b" was said: the model hears c a little better than a
    logits = torch.nn.functional.one_hot(tokens, 5) * 9.0
    logits[0, 2] = 8.5
    monkeypatch.setattr(
        "asr.tuning.acoustic_outputs", lambda *arguments: (["ab b"], log_probs_of(logits[None]))
    )
    tune = ["lm", "tune", "--model", str(tmp_path / "bundle"), "any", "--lm", lm]
    assert main([*tune, "--lm-weights", "0.5", "--word-bonuses", "0"]) == 0
    stored = Bundle.load(tmp_path / "bundle").decoding
    best = {"beam_size": 32, "lm_weight": 0.5, "word_bonus": 0.0, "blank_penalty": 0.0}
    assert stored == (best if known == "ab b" else {})
    assert ("does not help" in capsys.readouterr().out) == (not stored)


def test_tune_finds_the_penalty_that_brings_deleted_words_back(tmp_path, monkeypatch, capsys):
    make_bundle().save(tmp_path / "bundle")
    (tmp_path / "text.txt").write_text("ab b\n" * 9 + "ab\n" * 9)
    lm = str(tmp_path / "lm.arpa")
    assert main(["lm", "build", str(tmp_path / "text.txt"), "-o", lm, "--order", "2"]) == 0
    logits = torch.nn.functional.one_hot(torch.tensor([2, 3, 1, 3, 0]), 5) * 9.0  # "ab b"
    logits[3, 0] = 10.0
    monkeypatch.setattr(
        "asr.tuning.acoustic_outputs", lambda *arguments: (["ab b"], log_probs_of(logits[None]))
    )
    capsys.readouterr()
    tune = ["lm", "tune", "--model", str(tmp_path / "bundle"), "any", "--lm", lm]
    assert main([*tune, "--lm-weights", "0.1", "--word-bonuses", "0"]) == 0
    # The first that does, in the coarse grid.
    assert Bundle.load(tmp_path / "bundle").decoding["blank_penalty"] == 2.0
    output = capsys.readouterr().out
    assert output.startswith("lm weight  word bonus  blank penalty  WER %\n")
    assert "word bonus 0.0, blank penalty 2.0: WER 0.00 %" in output


def test_tuning_descends_from_the_best_of_a_coarse_grid():
    axes, errors = [(0, 1, 2, 3, 4, 5), (7, 8), (0, 1, 2, 3, 4)], {}

    def wer(x, y, z):
        assert (x, y, z) not in errors
        errors[x, y, z] = (x - 3) ** 2 + (y - 8) ** 2 + (z - 3) ** 2 - (x - 3) * (z - 3) / 2
        return errors[x, y, z]

    descend(wer, axes, [2, 1, 2])
    assert list(errors)[:18] == list(product((0, 2, 4), (7, 8), (0, 2, 4)))
    assert min(errors, key=lambda point: errors[point]) == (3, 8, 3)
    assert len(errors) < 30


def test_tune_leaves_out_what_it_cannot_judge(corpus, bundle, tmp_path, capsys):
    cuts = load_cuts(corpus / "cuts" / "cuts_dev.jsonl.gz")[:4]
    cuts[0].supervisions[0].text = None
    cuts[1].recording.sources[0].source = "nowhere.wav"
    failures = []
    references, outputs = acoustic_outputs(
        asr.load(bundle, "cpu"), write_cuts(cuts, tmp_path, "some"), failures.append
    )
    assert len(references) == len(outputs) == 2
    assert sorted(failures)[0].startswith(cuts[0].id)
    assert "has no transcript" in " ".join(failures)
    assert re.search(r"there is no file \S*nowhere\.wav", " ".join(failures))
    tune = ["lm", "tune", "--model", str(bundle), "any", "--lm", "any", "--device"]
    assert "there is no device 'foo'" in message_of(capsys, [*tune, "foo"])
    assert "torch finds no GPU" in message_of(capsys, [*tune, "cuda"]) or torch.cuda.is_available()


def test_options_that_contradict_each_other(corpus, bundle, capsys):
    audio = str(corpus / "audio" / "utterance00.wav")
    options = ["transcribe", audio, "--model", str(bundle)]
    assert "LM weight 1.0 was given without a language model" in message_of(
        capsys, [*options, "--lm-weight", "1"]
    )
    assert "no file of hotwords" in message_of(capsys, [*options, "--hotwords", "nowhere"])
    assert "no language model nowhere" in message_of(capsys, [*options, "--lm", "nowhere"])


def test_tuning_touches_nothing_but_the_configuration(tmp_path):
    from asr.bundle import store_decoding

    folder = tmp_path / "bundle"
    make_bundle().save(folder)
    (folder / "lm.arpa").write_text("mine")
    weights = (folder / "model.safetensors").stat().st_mtime_ns
    store_decoding(folder, {"beam_size": 8, "lm_weight": 0.5, "word_bonus": 1.0})
    assert (folder / "lm.arpa").read_text() == "mine"
    assert (folder / "model.safetensors").stat().st_mtime_ns == weights
    assert Bundle.load(folder).decoding["lm_weight"] == 0.5


def test_sentences_that_the_model_cannot_write_are_left_out_of_a_token_model(bundle, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("abc ab\ncafé\nab c\n")
    arguments = ["lm", "build", str(tmp_path / "text.txt"), "-o", str(tmp_path / "lm.arpa"), "--order", "2"]
    assert main([*arguments, "--tokens", "--model", str(bundle)]) == 0
    assert "1 sentences have letters that the model lacks" in capsys.readouterr().err


def test_hotwords_are_spelled_as_the_model_spells(corpus, bundle, tmp_path, capsys):
    path = tmp_path / "hotwords.txt"
    path.write_text("\ufeffAb 2\nCAB\n")
    audio = str(corpus / "audio" / "utterance00.wav")
    arguments = ["transcribe", audio, "--model", str(bundle), "--hotwords", str(path)]
    assert main(arguments) == 0
    path.write_text("ab inf\n")
    assert "the bonus 'inf' is no number" in message_of(capsys, arguments)


def test_a_damaged_heading_of_an_arpa_file(corpus, bundle, tmp_path, capsys):
    path = tmp_path / "lm.arpa"
    path.write_text("\\data\\\nngram 1=abc\n\n\\1-grams:\n-1 a\n\\end\\\n")
    audio = str(corpus / "audio" / "utterance00.wav")
    assert "is no language model" in message_of(
        capsys, ["transcribe", audio, "--model", str(bundle), "--lm", str(path)]
    )


def test_the_best_of_several_has_its_score(corpus, bundle, capsys):
    audio = str(corpus / "audio" / "utterance00.wav")
    assert main(["transcribe", audio, "--model", str(bundle), "--nbest", "3", "-f", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["score"] >= found["alternatives"][0]["score"]
