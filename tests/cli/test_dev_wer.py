"""What training says of dev is what `asr evaluate` says of its bundle."""

import json
import sys

import pytest
import soundfile
import torch
from helpers import FakeWandb, make_corpus, prepare_corpus, run_asr, train_arguments

from asr.cli import main
from asr.ctc import log_probs_of
from asr.data.cuts import load_cuts, text_of
from asr.data.reading import read_samples
from asr.decoding import greedy
from asr.scoring import score
from asr.torch_bundle import TorchBundle


@pytest.fixture(scope="module")
def quiet_dev(tmp_path_factory):
    """A corpus whose dev recordings are 40 dB quieter than those of training."""
    folder = prepare_corpus(tmp_path_factory.mktemp("quiet"), 60)
    for cut in load_cuts(folder / "cuts" / "cuts_dev.jsonl.gz"):
        path = cut.recording.sources[0].source
        samples, rate = soundfile.read(path)
        soundfile.write(path, samples * 0.01, rate, subtype="FLOAT")
    return folder


def evaluated(bundle, manifest, tmp_path):
    result = tmp_path / "result.json"
    line = "evaluate {manifest} --model {bundle} --json {result} --quiet"
    assert run_asr(line, manifest=manifest, bundle=bundle, result=result) == 0
    return json.loads(result.read_text())


def test_dev_wer_is_that_of_evaluate(quiet_dev, tmp_path):
    run, dev = tmp_path / "run", quiet_dev / "cuts" / "cuts_dev.jsonl.gz"
    settings = ("--run.epochs=25", "--features.normalize=global")
    assert main(train_arguments(quiet_dev, run, *settings)) == 0
    wer = json.loads((run / "summary.json").read_text())["dev_wer"]
    assert wer < unleveled_wer(run / "bundle", dev)
    assert wer == pytest.approx(wer_of(evaluated(run / "bundle", dev, tmp_path)), abs=1e-4)
    again = tmp_path / "again"
    warm = ("--run.epochs=1", "--optimizer.learning_rate=0", f"--run.warm_start={run}/bundle")
    assert main(train_arguments(quiet_dev, again, *warm)) == 0
    wer = json.loads((again / "summary.json").read_text())["dev_wer"]
    assert wer == pytest.approx(wer_of(evaluated(again / "bundle", dev, tmp_path)), abs=1e-4)


def unleveled_wer(bundle, manifest):
    """Return the WER of features that are not brought to the training data's level."""
    model = TorchBundle.load(bundle)
    references, hypotheses = [], []
    for cut in load_cuts(manifest):
        samples = torch.from_numpy(read_samples(cut, model.log_mel.config.sample_rate))
        with torch.no_grad():
            logits, lengths = model.model(*model.log_mel(samples[None]))
        (hypothesis,) = greedy(log_probs_of(logits, lengths))
        references.append(text_of(cut))
        hypotheses.append(model.tokenizer.decode(hypothesis.tokens))
    return score(references, hypotheses, bootstrap=0).word_errors.rate


def wer_of(result):
    (part,) = result["sets"].values() if "sets" in result else [result]
    return part["wer"]


def test_nothing_usable_ends_the_run_without_a_bundle(corpus, tmp_path, capsys):
    """Transcripts that are far longer than their frames."""
    audio = tmp_path / "audio"
    make_corpus(audio, 4)
    for text in audio.glob("*.txt"):
        text.write_text("abc " * 50)
    (audio / "all.jsonl").unlink()
    line = "prepare manifest {audio} --output-dir {cuts} --dev-fraction 0"
    assert run_asr(line, audio=audio, cuts=tmp_path / "cuts") == 0
    run = tmp_path / "run"
    train = f"--data.train={tmp_path}/cuts/cuts_train.jsonl.gz"
    assert main(train_arguments(corpus, run, train, "--run.epochs=2")) == 1
    printed = capsys.readouterr()
    assert "none of the 4 training utterances can be used: utterance" in printed.err
    assert "best dev WER" not in printed.out
    assert not (run / "bundle").exists()
    assert "none of the 4 training utterances" in (run / "report.html").read_text("utf-8")


def test_the_shipped_model_is_fine_tuned_by_one_command(corpus, tmp_path, capsys):
    data = [f"--data.{part}={corpus}/cuts/cuts_{part}.jsonl.gz" for part in ("train", "dev")]
    line = ["train", "--warm-start", "an4", *data, f"--run.folder={tmp_path}/run", "--run.epochs=1"]
    assert main([*line, "--data.workers=0"]) == 0
    printed = capsys.readouterr()
    assert "starts from a trained model, which knows 130 of 130 tokens" in printed.out
    assert main([*line, "--model.hidden_size=12", "--overwrite"]) == 1
    error = capsys.readouterr().err
    assert "model.hidden_size is 12, the model's is 160" in error
    assert (tmp_path / "run" / "bundle").is_dir()


def test_overwriting_keeps_the_run_until_its_successor_has_begun(corpus, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    assert main(train_arguments(corpus, run, "--run.epochs=1")) == 0
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    fake = FakeWandb()
    fake.refuses = True
    monkeypatch.setitem(sys.modules, "wandb", fake)
    other = ("--run.epochs=2", "--model.hidden_size=8", "--run.wandb=tones", "--overwrite")
    assert main(train_arguments(corpus, run, *other)) == 1
    assert "run.wandb: Weights & Biases cannot begin" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files
    fake.refuses = False
    assert main(train_arguments(corpus, run, *other)) == 0
    assert "hidden_size: 8" in (run / "config.yaml").read_text()
    assert not (run / ".replaced").exists()
