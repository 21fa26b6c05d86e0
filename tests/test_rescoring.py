"""A recurrent language model that ranks the n best of a beam search anew."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from helpers import make_bundle, make_corpus, run_asr
from random_lms import random_lm

from asr.bundle import Bundle
from asr.decoding import BeamSearch, Hypothesis, align
from asr.decoding.beam import BeamConfig
from asr.errors import DecodingError
from asr.language_model import LanguageModel, load_lm
from asr.lm.network import NetworkConfig
from asr.lm.units import TokenUnits, WordUnits
from asr.lm_bundle import LmBundle
from asr.rescoring import Rescorer, make_decoder
from asr.text import CharacterTokenizer
from asr.training.lm.network import RecurrentLm
from asr.tuning import tune_rescoring

pytest.importorskip("flashlight.lib.text")
TOKENIZER = CharacterTokenizer(" acdegorstuw")


def utterance(frames: int = 6, seed: int = 2) -> np.ndarray:
    logits = 2 * np.random.default_rng(seed).standard_normal((frames, TOKENIZER.vocab_size)).astype(
        np.float32
    )
    return logits - np.logaddexp.reduce(logits, 1, keepdims=True)


def rescorer_of(weight: float, bonus: float = 0.0, nbest: int = 4) -> Rescorer:
    _, lm = random_lm("characters")
    search = BeamSearch(TOKENIZER, BeamConfig(beam_size=16, nbest=16))
    return Rescorer(search, lm, TOKENIZER, weight, bonus, nbest)


@pytest.mark.parametrize(("weight", "bonus"), [(0.0, 0.0), (0.4, 0.0), (2.0, 1.5)])
def test_the_best_of_all_candidates(weight, bonus):
    rescorer = rescorer_of(weight, bonus)
    utterances = [utterance(), utterance(9, seed=5)]
    for log_probs, best in zip(utterances, rescorer(utterances), strict=True):
        (found,) = rescorer.candidates([log_probs])
        texts = [rescorer.text(hypothesis) for hypothesis in found]
        lm_scores = rescorer.lm.log_prob(texts)
        totals = [
            hypothesis.score + weight * lm_score + bonus * len(text.split())
            for hypothesis, lm_score, text in zip(found, lm_scores, texts, strict=True)
        ]
        ranked = sorted(range(len(totals)), key=lambda i: -totals[i])[:4]
        assert [rescorer.text(h) for h in (best, *best.alternatives)] == [texts[i] for i in ranked]
        scores = [h.score for h in (best, *best.alternatives)]
        assert scores == pytest.approx([totals[i] for i in ranked], abs=1e-4)
        assert best.lm_score == pytest.approx(lm_scores[ranked[0]], abs=1e-4)
        if best.tokens:
            assert best.frames == align(log_probs, best.tokens).frames


def test_weights_decide():
    log_probs = utterance()
    alone, with_lm = (rescorer_of(weight)([log_probs])[0] for weight in (0.0, 5.0))
    assert alone.tokens == BeamSearch(TOKENIZER, BeamConfig(beam_size=16, nbest=16))([log_probs])[0].tokens
    assert with_lm.lm_score > alone.lm_score


def test_the_source_is_taken_from_the_score():
    rescorer, log_probs = rescorer_of(0.4, nbest=16), utterance()
    (plain,) = rescorer([log_probs])
    rescorer.source_lm, rescorer.source_weight = rescorer.lm, 0.4
    (found,) = rescorer([log_probs])  # both models cancel each other
    alone = rescorer.search([log_probs])[0]
    listed = [found, *found.alternatives]
    assert [h.tokens for h in listed] == [h.tokens for h in (alone, *alone.alternatives)]
    assert [h.score for h in listed] == pytest.approx(
        [h.score for h in (alone, *alone.alternatives)], abs=1e-4
    )
    by_tokens = {tuple(h.tokens): h for h in (plain, *plain.alternatives)}
    assert found.lm_score == pytest.approx(by_tokens[tuple(found.tokens)].lm_score, abs=1e-4)


def test_nothing_said_stays_nothing():
    silence = np.full((5, TOKENIZER.vocab_size), -20.0, np.float32)
    silence[:, 0] = 0.0
    (found,) = rescorer_of(1.0)([silence])
    assert found.tokens == []


def test_a_language_model_of_other_letters():
    _, lm = random_lm("words")
    greek = LanguageModel(replace(lm.bundle, units=WordUnits(["α" * n for n in range(1, lm.units.size - 1)])))
    for stranger, letters in ((lm, " äß"), (greek, " unk")):  # <unk> is no word
        with pytest.raises(DecodingError, match="expected the same letters: train it with --model BUNDLE"):
            Rescorer(lambda log_probs: [], stranger, CharacterTokenizer(letters))
    Rescorer(
        lambda log_probs: [Hypothesis([], [], [], 0.0)], lm, CharacterTokenizer(" CATS")
    )  # basic lowers them


def test_weights_without_a_model():
    with pytest.raises(
        DecodingError, match="source_lm was given alone; expected the language model of the texts"
    ):
        make_decoder(make_bundle().bundle(), source_lm="lm")
    for name in ("rescore_weight", "fuse_bonus", "source_weight"):
        with pytest.raises(DecodingError, match=f"{name} was given without a recurrent language model"):
            make_decoder(make_bundle().bundle(), **{name: 0.3})
    with pytest.raises(
        DecodingError, match=r"lexicon was given with --fuse-lm, .* expected one or the other"
    ):
        make_decoder(make_bundle().bundle(), fuse_lm="lm", lexicon="words.txt", beam_size=3)


@pytest.fixture
def equipped(tmp_path):
    """A recognizer of tones with a language model over its letters, and a corpus."""
    make_corpus(tmp_path / "audio", utterances=4)
    line = "prepare manifest {audio} -o {cuts} --dev-fraction 0.5"
    assert run_asr(line, audio=tmp_path / "audio" / "all.jsonl", cuts=tmp_path / "cuts") == 0
    bundle = make_bundle()
    bundle.save(tmp_path / "bundle")
    units = TokenUnits(bundle.tokenizer, "basic")
    model = RecurrentLm(NetworkConfig(hidden_size=8, embedding_size=4), units.size)
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    LmBundle(model.config, units, weights).save(tmp_path / "lm")
    return tmp_path


def test_commands(equipped, capsys):
    names = {"dir": equipped, "audio": equipped / "audio" / "utterance00.wav"}
    line = (
        "transcribe {audio} --model {dir}/bundle --rescore-lm {dir}/lm --rescore-weight 0.7 --nbest 3 -f json"
    )
    assert run_asr(line, **names) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["lm_score"] < 0
    assert all(alternative["lm_score"] < 0 for alternative in values["alternatives"])
    scores = [values["score"], *(alternative["score"] for alternative in values["alternatives"])]
    assert scores == sorted(scores, reverse=True)
    assert run_asr(line + " --source-lm {dir}/lm", **names) == 0
    corrected = json.loads(capsys.readouterr().out)
    assert corrected["score"] > values["score"]
    fuse = "transcribe {audio} --model {dir}/bundle --fuse-lm {dir}/lm --fuse-weight 0.5 --nbest 2 -f json"
    fuse += " --source-lm {dir}/lm --source-weight 0.2"
    assert run_asr(fuse, **names) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["score"] >= values["alternatives"][0]["score"]
    assert values["lm_score"] < 0
    tune = "lm tune {dir}/cuts/cuts_dev.jsonl.gz --model {dir}/bundle --rescore-lm {dir}/lm --beam-size 8 "
    assert run_asr(tune + "--rescore-weights 0.5 2 --rescore-bonuses 0 -2", **names) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:7]]
    assert [row[:2] for row in rows[:3]] == [["0.00", "0.00"], ["0.00", "-2.00"], ["0.50", "0.00"]]
    best = min(rows[2:], key=lambda row: float(row[2]))
    stored = Bundle.load(equipped / "bundle").decoding
    helped = float(best[2]) < min(float(row[2]) for row in rows[:2])
    assert stored == ({"rescore_weight": float(best[0]), "rescore_bonus": float(best[1])} if helped else {})


def test_tuning_chooses_what_rescoring_then_does(equipped):
    from asr.recognizer import load

    model = load(equipped / "bundle", "cpu")
    manifest = equipped / "cuts" / "cuts_dev.jsonl.gz"
    *_, trial = tune_rescoring(
        model, [manifest], equipped / "lm", {"beam_size": 8, "processes": 1}, weights=(1.0,), bonuses=(-1.0,)
    )
    from asr.evaluation import evaluate

    options = {"rescore_lm": equipped / "lm", "rescore_weight": 1.0, "rescore_bonus": -1.0, "beam_size": 8}
    rescoring = load(equipped / "bundle", "cpu", processes=1, **options)
    assert evaluate(rescoring, manifest).report.wer == pytest.approx(trial.wer)


def test_finding_wrong_words(equipped, capsys):
    page = equipped / "report.html"
    line = (
        "evaluate {dir}/cuts/cuts_dev.jsonl.gz --model {dir}/bundle --judge-lm {dir}/lm --html {page} --quiet"
    )
    assert run_asr(line, dir=equipped, page=page) == 0
    printed = capsys.readouterr().out
    assert re.search(
        r"ROC area of finding the \d+ wrong ones of \d+ words: by confidence [\dna.]+, by", printed
    )
    shown = json.loads(page.read_text().split('id="data">')[1].split("</script>")[0])
    surprises = [
        [-word.log_prob for word in lm.judge(text)] if text else []
        for lm in [load_lm(equipped / "lm")]
        for text in shown["hypotheses"]
    ]
    for found, expected in zip(shown["surprises"], surprises, strict=True):
        assert found == pytest.approx(expected, abs=0.01, nan_ok=True)
    assert [len(row) for row in shown["confidences"]] == [len(row) for row in surprises]
