"""From recordings to a word error rate, through the command line alone."""

import io
import json
import re
import sys

import numpy as np
import pytest
import soundfile
import yaml
from helpers import RATE, say

import asr
from asr.cli import main
from asr.outputs import FORMATS


def test_training_leaves_bundle_configuration_checkpoints_and_logs(run_folder):
    present = {str(path.relative_to(run_folder)) for path in run_folder.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "bundle/config.json",
        "bundle/model.safetensors",
        "bundle/tokenizer.json",
        "checkpoints/last.ckpt",
        "checkpoints/previous.ckpt",
        "logs/metrics.csv",
    } <= present
    assert any("tfevents" in name for name in present)
    assert yaml.safe_load((run_folder / "config.yaml").read_text())["model"]["hidden_size"] == 24


def test_trained_model_recognizes_unheard_speakers(bundle, corpus, tmp_path, capsys):
    result = tmp_path / "result.json"
    manifest = str(corpus / "cuts" / "cuts_dev.jsonl.gz")
    assert main(["evaluate", "--model", str(bundle), manifest, "--json", str(result)]) == 0
    printed = capsys.readouterr().out
    assert "WER" in printed
    assert "real-time factor" in printed
    values = json.loads(result.read_text())
    assert values["wer"] < 0.4  # of 14 words; a model that learned nothing has 1.0
    assert values["cer"] <= values["wer"]
    assert values["utterances"] == len(values["hypotheses"]) > 3
    errors = values["substitutions"] + values["deletions"] + values["insertions"]
    assert values["wer"] == pytest.approx(errors / values["words"])
    assert values["words"] == sum(len(item["reference"].split()) for item in values["hypotheses"])
    assert values["rtf"] > 0
    recorded = json.loads((bundle / "config.json").read_text())["training"]
    assert recorded["dev_wer"] == pytest.approx(values["wer"], abs=1e-4)


def test_several_sets_and_forms(bundle, corpus, tmp_path, capsys):
    dev, train = (str(corpus / "cuts" / f"cuts_{split}.jsonl.gz") for split in ("dev", "train"))
    result, page = tmp_path / "result.json", tmp_path / "report.html"
    arguments = ["evaluate", "--model", str(bundle), dev, train, "--table", "markdown"]
    assert main([*arguments, "--json", str(result), "--html", str(page), "--worst", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| set")
    assert [line.split("|")[1].strip() for line in lines[2:4]] == ["dev", "train"]
    sets = json.loads(result.read_text())["sets"]
    for name, values in sets.items():
        low, high = values["wer_interval"]
        assert low <= values["wer"] <= high, name
        assert 0 <= values["expected_calibration_error"] <= 1
    assert "<html" in page.read_text()


def test_one_file_prints_its_text(bundle, corpus, capsys):
    path = corpus / "audio" / "utterance00.wav"
    assert main(["transcribe", str(path), "--model", str(bundle)]) == 0
    assert capsys.readouterr().out == asr.load(bundle, "cpu").transcribe(path).text + "\n"


def test_folder_goes_to_a_folder(bundle, corpus, tmp_path):
    out = tmp_path / "out"
    arguments = ["transcribe", str(corpus / "audio"), "--model", str(bundle), "-o", str(out), "-f", "all"]
    assert main(arguments) == 0
    assert len(list(out.glob("*.txt"))) == len(list(out.glob("*.json"))) == 80
    assert len(list(out.glob("[!.]*"))) == 80 * len(FORMATS)
    correct = 0
    for path in (corpus / "audio").glob("*.wav"):
        transcript = json.loads((out / f"{path.stem}.json").read_text())
        assert transcript["text"] + "\n" == (out / f"{path.stem}.txt").read_text()
        assert " ".join(word["word"] for word in transcript["words"]) == transcript["text"]
        times = [time for word in transcript["words"] for time in (word["start"], word["end"])]
        assert times == sorted(times)
        assert all(0 <= time <= transcript["duration"] for time in times)
        assert all(0 <= word["confidence"] <= 1 for word in transcript["words"])
        correct += transcript["text"] == path.with_suffix(".txt").read_text().strip()
    assert correct > 60


def test_order_of_printing_is_the_order_asked_for(bundle, corpus, capsys):
    paths = [str(path) for path in sorted((corpus / "audio").glob("*.wav"), key=lambda p: p.name[::-1])][:12]
    assert main(["transcribe", *paths, "--model", str(bundle), "--batch-seconds", "3"]) == 0
    assert [line.split(": ")[0] for line in capsys.readouterr().out.splitlines()] == paths
    assert main(["transcribe", *paths, "--model", str(bundle), "-f", "json"]) == 0
    assert [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()] == paths


def test_standard_input(bundle, corpus, capsys, monkeypatch):
    path = corpus / "audio" / "utterance01.wav"
    assert main(["transcribe", str(path), "--model", str(bundle)]) == 0
    from_file = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert main(["transcribe", "-", "--model", str(bundle)]) == 0
    assert capsys.readouterr().out == from_file


def test_other_formats_and_rates_give_the_same_words(bundle, tmp_path, capsys):
    samples = say("abc cab ba", np.random.default_rng(5))
    import soxr

    variants = {
        "same.flac": (samples, RATE, {}),
        "same.ogg": (samples, RATE, {"format": "OGG", "subtype": "OPUS"}),
        "same.mp3": (samples, RATE, {}),
        "high.wav": (np.stack([soxr.resample(samples, RATE, 44100)] * 2, 1), 44100, {}),
        "low.wav": (soxr.resample(samples, RATE, 8000), 8000, {}),
        "sphere.sph": (samples, RATE, {"format": "NIST", "subtype": "PCM_16"}),
    }
    for name, (audio, rate, options) in variants.items():
        soundfile.write(tmp_path / name, audio, rate, **options)
    assert main(["transcribe", str(tmp_path), "--model", str(bundle)]) == 0
    texts = {line.split(": ")[0]: line.split(": ")[1] for line in capsys.readouterr().out.splitlines()}
    assert len(texts) == len(variants)
    # A model of tones may miss a pause, more so in codecs' noise or without the upper bands of 8 kHz, but no letter.
    assert {text.replace(" ", "") for text in texts.values()} == {"abccabba"}
    for name in ("low.wav", "same.mp3", "same.ogg"):
        texts.pop(str(tmp_path / name))
    assert len(set(texts.values())) == 1


def test_silence_transcribes_to_nothing(bundle, tmp_path, capsys):
    soundfile.write(tmp_path / "silence.wav", np.zeros(RATE), RATE)
    assert main(["transcribe", str(tmp_path / "silence.wav"), "--model", str(bundle)]) == 0
    assert capsys.readouterr().out == "\n"


def test_bad_files_are_named_and_the_rest_is_done(bundle, corpus, tmp_path, capsys):
    good = corpus / "audio" / "utterance02.wav"
    (tmp_path / "text.wav").write_text("this is not audio")
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "header.wav", np.zeros(0), RATE)
    (tmp_path / "truncated.wav").write_bytes(good.read_bytes()[:9000])
    soundfile.write(tmp_path / "nan.wav", np.full(1000, np.nan), RATE, subtype="FLOAT")
    (tmp_path / "folder").mkdir()
    bad = [
        str(tmp_path / name) for name in ("text.wav", "empty.wav", "header.wav", "truncated.wav", "nan.wav")
    ]
    missing, empty_folder = str(tmp_path / "missing.wav"), str(tmp_path / "folder")
    out = tmp_path / "out"
    status = main(
        ["transcribe", *bad, missing, empty_folder, str(good), "--model", str(bundle), "-o", str(out)]
    )
    assert status == 1
    errors = capsys.readouterr().err.splitlines()
    for path in [*bad, missing, empty_folder]:
        assert sum(path in line for line in errors) == 1, path
    assert errors[-1] == "7 of 8 failed; the others are finished"
    assert "Traceback" not in "".join(errors)
    assert [path.name for path in out.glob("[!.]*")] == ["utterance02.txt"]


def test_same_names_from_different_folders_do_not_overwrite_each_other(bundle, tmp_path):
    for name in ("a/talk.wav", "b/talk.wav", "b/talk.flac"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, say("a", np.random.default_rng(0)), RATE)
    out = tmp_path / "out"
    arguments = [
        "transcribe",
        str(tmp_path / "a"),
        str(tmp_path / "b"),
        "--model",
        str(bundle),
        "-o",
        str(out),
    ]
    assert main(arguments) == 0
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.txt")) == [
        "a/talk.txt",
        "b/talk.txt",
        "talk.txt",
    ]


def test_manifest_naming_lost_files(bundle, corpus, tmp_path, capsys):
    import gzip

    cuts = gzip.decompress((corpus / "cuts" / "cuts_dev.jsonl.gz").read_bytes()).decode()
    lost = re.search(r"utterance\d+\.wav", cuts)[0]
    manifest = tmp_path / "cuts.jsonl.gz"
    manifest.write_bytes(gzip.compress(cuts.replace(lost, "lost.wav").encode()))
    result = tmp_path / "result.json"
    arguments = ["evaluate", "--model", str(bundle), str(manifest), "--json", str(result)]
    assert main(arguments) == 1
    assert "lost.wav" in capsys.readouterr().err
    assert len(json.loads(result.read_text())["hypotheses"]) == len(cuts.splitlines()) - 1
