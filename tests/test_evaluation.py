"""Evaluation from Python: the same as the command's, whatever names the set."""

import numpy as np
import pytest
import torch
from helpers import RATE, TONES, make_bundle, make_corpus, recognizer_of, say

from asr import evaluation
from asr.data.corpora.utterances import Utterance, build_cuts
from asr.data.cuts import load_cuts, write_cuts
from asr.errors import ManifestError
from asr.evaluation import evaluate, utterance_picture
from asr.features import FeatureConfig
from asr.features.log_mel import LogMel
from asr.tuning import Trial, Tuning


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder, 6)
    paths = sorted(folder.glob("*.wav"))
    utterances = [Utterance(path.stem, path, path.with_suffix(".txt").read_text().strip()) for path in paths]
    cuts, problems = build_cuts(utterances)
    assert not problems
    return write_cuts(cuts, folder, "all")


def test_a_manifest_and_its_cuts_are_the_same_set(manifest):
    model = recognizer_of(make_bundle())
    by_name = evaluate(model, manifest)
    cuts = load_cuts(manifest)
    assert by_name.report.hypotheses == evaluate(model, cuts).report.hypotheses
    assert by_name.report.utterances == len(cuts) == 6
    assert by_name.failures == []
    assert by_name.rtf > 0
    assert [transcript.text for transcript in by_name.transcripts] == [
        transcript.text for transcript in model.transcribe([cut.recording.sources[0].source for cut in cuts])
    ]


def test_what_cannot_be_judged_is_a_failure(manifest):
    cuts = load_cuts(manifest)
    cuts[0].supervisions[0].text = None
    cuts[1].recording.sources[0].source = "nowhere.wav"
    seen = []
    result = evaluate(recognizer_of(make_bundle()), cuts, progress=lambda: seen.append(1))
    assert result.report.utterances == 4
    assert len(seen) == 5
    assert [failure.split(": ")[0] for failure in result.failures] == [cuts[0].id, cuts[1].id]
    with pytest.raises(ManifestError, match="there is no manifest"):
        evaluate(recognizer_of(make_bundle()), "nowhere.jsonl.gz")


def test_the_picture_shows_what_was_decoded_of_recordings_that_are_too_quiet(monkeypatch):
    """Their level is corrected before they are recognized: a picture without that would not be of these words."""
    torch.manual_seed(5)
    bundle = make_bundle()
    bundle.log_mel = LogMel(FeatureConfig(n_mels=20, normalize="global"))
    speech = say("".join(TONES), np.random.default_rng(1))
    bundle.log_mel.fit_statistics([speech])
    model = recognizer_of(bundle)
    shown = []
    monkeypatch.setattr(
        evaluation, "picture", lambda features, posteriors, *rest: shown.append(posteriors) or ""
    )
    for samples in (speech, 0.1 * speech):
        utterance_picture(model, samples, model.transcribe(samples))
        (hypothesis,) = model.decoder([np.log(shown[-1])])
        assert (
            model.bundle.tokenizer.decode(hypothesis.tokens).split() == model.transcribe(samples).text.split()
        )
    np.testing.assert_allclose(shown[0], shown[1], atol=1e-3)
    assert len(speech) / RATE < 2


def test_a_language_model_helps_where_it_is_better_than_both_without():
    without = [Trial("greedy", (0.2,)), Trial("beam, no lm", (0.19,))]
    tuning = Tuning(without, [Trial("lm", (0.21,)), Trial("lm", (0.18,)), Trial("lm", (0.18,))])
    assert (tuning.best_without.name, tuning.best is tuning.trials[1], tuning.helps) == (
        "beam, no lm",
        True,
        True,
    )
    assert not Tuning(without, [Trial("lm", (0.19,))]).helps
