"""Transcripts that belong to other audio are found by a model, and no others."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from asr.data.corpora.doctor import check
from asr.data.corpora.utterances import Utterance, build_cuts
from asr.mismatch import judge, mismatches, worst
from asr.text import CharacterTokenizer

RATE = 16000
LETTERS = "abcdefgh "
TOKENIZER = CharacterTokenizer(LETTERS)


class Model:
    """Recognizes what was written into the samples: a letter each 400 samples, one in ten heard as another."""

    sample_rate = RATE
    bundle = SimpleNamespace(normalizer="none", tokenizer=TOKENIZER)

    def log_probs(self, samples, phones=False):
        return [self._log_probs(piece) for piece in samples]

    def _log_probs(self, samples):
        chance = np.random.default_rng(len(samples))
        letters = np.rint(samples[::400] * 20).astype(int)
        heard = np.where(chance.random(len(letters)) < 0.1, chance.integers(1, 10, len(letters)), letters)
        path = np.stack([heard, np.zeros_like(heard)], 1).ravel()  # a blank behind each
        probabilities = np.full((len(path), TOKENIZER.vocab_size), 0.02)
        probabilities[np.arange(len(path)), path] = 0.8
        return np.log(probabilities / probabilities.sum(1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A hundred utterances, of which ten have the transcript of another; (cuts, ids of those)."""
    folder, chance = tmp_path_factory.mktemp("corpus"), random.Random(0)
    texts = [" ".join("".join(chance.choices("abcdefgh", k=5)) for _ in range(3 + i % 4)) for i in range(100)]
    moved = chance.sample(range(100), 10)
    given = dict(enumerate(texts)) | dict(
        zip(moved, [texts[place] for place in [*moved[1:], moved[0]]], strict=True)
    )
    utterances = []
    for index, text in enumerate(texts):
        path = folder / f"{index:03}.wav"
        soundfile.write(path, np.repeat(np.array(TOKENIZER.encode(text)) / 20, 400), RATE, subtype="FLOAT")
        utterances.append(Utterance(f"{index:03}", path, given[index]))
    return build_cuts(utterances)[0], {f"{index:03}" for index in moved if given[index] != texts[index]}


def test_exchanged_transcripts_are_found_and_no_others(corpus):
    cuts, moved = corpus
    judgments = judge(Model(), {"train": cuts})
    assert [judgment.id for judgment in judgments] == [cut.id for cut in cuts]
    findings = mismatches(judgments)
    assert {finding.id for finding in findings} == moved
    assert all(finding.kind == "mismatch" for finding in findings)
    report = check({"train": cuts}, more=findings)
    assert report.counts["mismatch"] == len(moved)
    assert {cuts[index].id for _, index in report.faulty()} >= moved
    lines = worst(judgments, 2).splitlines()
    assert lines[0] == "worst by alignment:"
    assert lines[1].split()[1].rstrip(":") in moved
    assert lines[3] == "worst by word error rate:"


def test_what_cannot_be_judged_is_skipped(corpus, tmp_path):
    cuts, _ = corpus
    texts = {"strange": "xyz", "empty": "", "long": "ab" * 200, "lost": "abc"}
    others = build_cuts(
        [Utterance(name, cuts[0].recording.sources[0].source, text) for name, text in texts.items()]
    )[0]
    others[-1].recording.sources[0].source = str(tmp_path / "lost.wav")
    assert {cut.id for cut in others} == texts.keys()
    judged = judge(Model(), {"train": [*others, cuts[0]]})
    assert cuts[0].id in {judgment.id for judgment in judged}
    assert not {judgment.id for judgment in judged} & {"strange", "empty", "long"}
    assert mismatches([]) == []
