"""What `asr evaluate` tells of a test set beside its word error rate, and what it does with bad ones."""

import csv
import gzip
import json
import re
import sys

import numpy as np
import pytest
import soundfile
from helpers import RATE, say
from lhotse import AudioSource

from asr.cli import main
from asr.scoring import ErrorReport


@pytest.fixture(scope="module")
def dev(corpus):
    return corpus / "cuts" / "cuts_dev.jsonl.gz"


def cuts_of(manifest):
    return [json.loads(line) for line in gzip.decompress(manifest.read_bytes()).decode().splitlines()]


def write(path, cuts):
    path.write_text("".join(json.dumps(cut) + "\n" for cut in cuts))
    return path


def evaluate(bundle, *arguments):
    return main(["evaluate", "--model", str(bundle), *map(str, arguments)])


def data_of(page):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
    return json.loads(found[1])


def test_sets_of_the_same_ids_keep_their_own_audio(bundle, dev, tmp_path):
    """As a set and its noisy copy."""
    noisy = cuts_of(dev)
    for number, cut in enumerate(noisy):
        source = cut["recording"]["sources"][0]
        samples, rate = soundfile.read(source["source"])
        source["source"] = str(tmp_path / f"{number}.wav")
        soundfile.write(source["source"], samples + 0.01, rate)
    manifest, page = write(tmp_path / "cuts_noisy.jsonl", noisy), tmp_path / "page.html"
    assert evaluate(bundle, dev, manifest, "--html", page) == 0
    audio = data_of(page)["audio"]
    assert len(audio) == 2 * len(noisy)
    for cut in noisy:
        assert audio[f"dev {cut['id']}"] != audio[f"noisy {cut['id']}"]


def test_fields_of_the_manifest_and_unseen_words(bundle, dev, tmp_path, capsys):
    train = dev.with_name("cuts_train.jsonl.gz")
    cuts = cuts_of(dev)
    for number, cut in enumerate(cuts):
        cut["supervisions"][0] |= {
            "gender": "FM"[number % 2],
            "custom": {"age": 20 + number, "tags": ["x"], "noisy": number % 2 == 0},
        }
    cuts[0]["supervisions"][0]["text"] += " cabbage"
    manifest = write(tmp_path / "cuts.jsonl", cuts)
    result = tmp_path / "result.json"
    assert evaluate(bundle, manifest, "--json", result, "--by", "gender", "age") == 0
    printed = capsys.readouterr().out
    said = [word for cut in cuts for word in cut["supervisions"][0]["text"].split()]
    known = {word for cut in cuts_of(train) for word in cut["supervisions"][0]["text"].split()}
    unseen = sum(word not in known for word in said)
    assert re.search(
        rf"% of {len(said) - unseen} words that occur in training, \S+ % of {unseen} words that do not",
        printed,
    )
    assert re.search(r"^F +\d+ +\d+", printed, re.MULTILINE)
    report = ErrorReport.from_json(result.read_text())
    assert {"speaker", "gender", "age", "noisy", "duration", "snr"} <= set(report.fields)
    assert "tags" not in report.fields
    assert all(
        20 < ratio < 60 for ratio in report.fields["snr"]
    )  # tones of 0.1 over noise of 0.003: some 30 dB
    assert report.normalizer_version.startswith("asr ")


def test_page_plays_and_pictures_the_worst(bundle, dev, tmp_path):
    page, result = tmp_path / "report.html", tmp_path / "result.json"
    cuts = cuts_of(dev)
    cuts[0]["supervisions"][0]["text"] = "cab cab cab cab"
    manifest = write(tmp_path / "cuts.jsonl", cuts)
    assert evaluate(bundle, manifest, "--html", page, "--json", result) == 0
    data = data_of(page)
    report = ErrorReport.from_json(result.read_text())
    wrong = {name for name, row in zip(report.ids, report.utterance_errors, strict=True) if row[:3].any()}
    assert set(data["pictures"]) == wrong
    assert cuts[0]["id"] in wrong
    for name in report.ids:
        packed, linked = (
            data["audio"][name].startswith("data:audio/ogg"),
            "audio/utterance" in data["audio"][name],
        )
        assert packed == (name in wrong)
        assert linked != packed
        if linked:
            path, _ = data["audio"][name].split("#t=")
            assert (page.parent / path).is_file()
    assert '<svg class="picture"' in data["pictures"][cuts[0]["id"]]
    assert "by familiarity of the word" in page.read_text()
    assert "calibration error" in page.read_text()


def test_long_audio_is_broken_down_by_seams(bundle, dev, tmp_path):
    text = " ".join(["abc cab ba a"] * 12)
    samples = say(text, np.random.default_rng(0))
    assert len(samples) > 30 * RATE
    soundfile.write(tmp_path / "long.wav", samples, RATE)
    cut = cuts_of(dev)[0]
    cut["recording"] |= {"num_samples": len(samples), "duration": len(samples) / RATE}
    cut["recording"]["sources"][0]["source"] = str(tmp_path / "long.wav")
    for part in (cut, cut["supervisions"][0]):
        part["duration"] = len(samples) / RATE
    cut["supervisions"][0]["text"] = text
    page = tmp_path / "report.html"
    assert evaluate(bundle, write(tmp_path / "cuts.jsonl", [cut]), "--html", page) == 0
    assert "within 2 s of a seam" in page.read_text()


def test_padded_and_joined_cuts(bundle, dev, tmp_path, capsys):
    from lhotse import CutSet

    from asr.data import load_cuts
    from asr.data.reading import read_samples

    first, second, third = (cut.to_lhotse() for cut in load_cuts(dev)[:3])
    made = [first.pad(duration=first.duration + 0.5), second.append(third).resample(8000)]
    manifest, result = tmp_path / "mixed.jsonl", tmp_path / "result.json"
    CutSet.from_cuts(made).to_file(manifest)
    assert evaluate(bundle, manifest, "--training-manifest", manifest, "--json", result) == 0
    report = ErrorReport.from_json(result.read_text())
    texts = [cut.supervisions[0].text for cut in (first, second, third)]
    assert list(report.references) == [texts[0], f"{texts[1]} {texts[2]}"]
    assert "words that do not" not in capsys.readouterr().out
    samples = read_samples(load_cuts(manifest)[1], RATE)
    assert len(samples) == pytest.approx(RATE * (second.duration + third.duration), abs=4)
    arpa = tmp_path / "lm.arpa"
    assert main(["lm", "build", str(manifest), "-o", str(arpa), "--order", "2"]) == 0
    assert all(f"\t{word}\t" in arpa.read_text() for text in texts for word in text.split())


def test_a_padded_cut_of_a_sphere_file(shared_data, dev, tmp_path):
    from lhotse import Recording

    from asr.audio import load_audio
    from asr.data.reading import read_samples

    path = shared_data / "an4" / "wav" / "an4_clstk" / "mdxn" / "an106-mdxn-b.sph"
    samples = load_audio(path, RATE)
    cut = Recording(
        "a", [AudioSource("file", [0], str(path))], RATE, len(samples), len(samples) / RATE
    ).to_cut()
    padded = read_samples(cut.pad(duration=cut.duration + 1), RATE)
    assert len(padded) == len(samples) + RATE
    assert np.allclose(padded[: len(samples)], samples, atol=1e-6)


def test_oracle_of_a_long_recording(bundle, tmp_path, capsys):
    pytest.importorskip("flashlight.lib.text.decoder")
    from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

    text = " ".join(["abc cab ba a"] * 80)
    soundfile.write(tmp_path / "long.wav", say(text, np.random.default_rng(0)), RATE)
    recording = Recording.from_file(tmp_path / "long.wav")
    assert recording.duration > 180
    spoken = SupervisionSegment("a", recording.id, 0, recording.duration, text=text)
    cut = MonoCut("a", 0, recording.duration, 0, [spoken], recording=recording)
    manifest, result = tmp_path / "long.jsonl", tmp_path / "result.json"
    CutSet.from_cuts([cut]).to_file(manifest)
    assert evaluate(bundle, manifest, "--nbest", "5", "--json", result) == 0
    values = json.loads(result.read_text())
    assert 0 <= values["oracle_wer"] <= values["wer"] < 0.5


def test_oracle_of_the_n_best(bundle, dev, tmp_path, capsys):
    pytest.importorskip("flashlight.lib.text.decoder")
    result = tmp_path / "result.json"
    assert evaluate(bundle, dev, "--nbest", "5", "--json", result) == 0
    values = json.loads(result.read_text())
    assert 0 <= values["oracle_wer"] <= values["wer"]
    assert f"oracle WER {100 * values['oracle_wer']:.2f} %" in capsys.readouterr().out
    assert evaluate(bundle, dev, "--json", result) == 0
    assert json.loads(result.read_text())["oracle_wer"] is None
    assert "oracle" not in capsys.readouterr().out


@pytest.mark.parametrize("form", ["csv", "markdown", "latex"])
def test_tables_stand_alone(bundle, dev, form, capsys):
    assert evaluate(bundle, dev, "--table", form) == 0
    output = capsys.readouterr()
    assert "device: cpu" in output.err
    lines = output.out.splitlines()
    if form == "csv":
        (row,) = csv.DictReader(lines)
        assert row["set"] == "dev"
        assert (row["normalizer"], row["aligner"]) == ("basic", "jiwer")
        assert {"WER %", "WER 95 %", "CER %", "SER %", "RTF", "ECE %", "sub", "del", "ins"} <= row.keys()
    else:
        assert len(lines) == {"markdown": 5, "latex": 8}[form]
        assert "normalizer basic" in lines[-1]


def test_another_normalizer(bundle, dev, capsys):
    pytest.importorskip("whisper_normalizer")
    assert evaluate(bundle, dev, "--normalizer", "english") == 0
    assert "normalizer english (whisper-normalizer" in capsys.readouterr().out


def test_what_a_normalizer_taught_the_model_to_write_is_right(dev):
    pytest.importorskip("whisper_normalizer")
    from types import SimpleNamespace

    from asr.data import load_cuts
    from asr.evaluation import evaluate as evaluate_cuts
    from asr.text import normalize
    from asr.transcript import Transcript

    (cut,) = load_cuts(dev)[:1]
    cut.supervisions[0].text = "zero three five one"
    taught = normalize("zero three five one", "english")
    assert normalize(taught, "english") != taught
    perfect = SimpleNamespace(
        bundle=SimpleNamespace(normalizer="english"),
        sample_rate=16000,
        transcribe_as_completed=lambda sources, **_: [(0, Transcript(taught, (), 1.0))],
    )
    assert evaluate_cuts(perfect, [cut]).report.wer == 0


def test_one_bad_utterance_of_each_kind(bundle, dev, tmp_path, capsys):
    cuts = cuts_of(dev)[:7]
    (tmp_path / "corrupt.wav").write_bytes(b"RIFF" + bytes(3000))
    cuts[0]["recording"]["sources"][0]["source"] = str(tmp_path / "corrupt.wav")
    cuts[1]["recording"]["sources"][0]["source"] = str(tmp_path / "lost.wav")
    del cuts[2]["supervisions"][0]["text"]
    cuts[3]["supervisions"] = []
    del cuts[4]["supervisions"][0]["speaker"]
    cuts[5]["supervisions"][0]["text"] = ""
    result = tmp_path / "result.json"
    status = evaluate(
        bundle,
        write(tmp_path / "cuts.jsonl", cuts),
        "--json",
        result,
        "--html",
        tmp_path / "r.html",
    )
    assert status == 1
    errors = capsys.readouterr().err
    for number, reason in enumerate(("corrupt.wav is no audio", "no file", "no transcript", "no transcript")):
        assert re.search(f"^{cuts[number]['id']}: .*{reason}", errors, re.MULTILINE)
    assert errors.splitlines()[-1] == "4 of 7 failed; the others are finished"
    report = ErrorReport.from_json(result.read_text())
    assert report.ids == tuple(cut["id"] for cut in cuts[4:])
    assert report.fields["speaker"][0] is None
    assert report.resampled == "utterances"


def test_a_set_without_any_readable_utterance_is_left_out(bundle, dev, tmp_path, capsys):
    lost = cuts_of(dev)[:2]
    lost[0]["recording"]["sources"][0]["source"] = str(tmp_path / "lost.wav")
    (tmp_path / "corrupt.wav").write_bytes(b"no sound")
    lost[1]["recording"]["sources"][0]["source"] = str(tmp_path / "corrupt.wav")
    result = tmp_path / "result.json"
    gone = write(tmp_path / "cuts_gone.jsonl", lost)
    assert evaluate(bundle, dev, gone, "--json", result) == 1
    output = capsys.readouterr()
    assert list(json.loads(result.read_text())["sets"]) == ["dev"]
    assert "gone" not in re.sub(r"\S*tmp\S*", "", output.out)
    assert "2 of " in output.err
    assert evaluate(bundle, gone) == 1
    assert "no utterance could be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{empty}"], "is empty"),
        (["{lost}"], "there is no manifest"),
        (["{dev}", "--html", "{lost}/r.html"], "there is no folder"),
        (["{dev}", "--normalizer", "basics"], "there are basic, english, none"),
        (
            ["{dev}", "--training-manifest", "{lost}"],
            r"there is no manifest .*lost\.jsonl; expected one of cuts",
        ),
        (
            ["{dev}", "--training-manifest", "{noise}"],
            "is not a manifest of cuts, or is damaged",
        ),
        (["{dev}", "--by", "hair"], "there is no field 'hair'"),
    ],
)
def test_errors_are_one_clear_message(bundle, dev, tmp_path, arguments, message, capsys):
    files = {"dev": dev, **{name: tmp_path / f"{name}.jsonl" for name in ("empty", "lost", "noise")}}
    files["empty"].touch()
    files["noise"].write_text("not json\n")
    assert evaluate(bundle, *(argument.format(**files) for argument in arguments)) == 1
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("field", "message"), [("hair", "there is no field 'hair'"), ("speaker:16", "cannot be parted at 16")]
)
def test_fields_are_looked_for_before_anything_is_loaded(dev, tmp_path, field, message, capsys):
    options = ["--model", str(tmp_path / "nowhere"), str(dev), "--by", field]
    assert main(["evaluate", *options]) == 1
    assert message in capsys.readouterr().err


def test_a_page_without_its_package_is_refused_before_anything_is_recognized(
    bundle, dev, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.setattr("asr.evaluation.evaluate", lambda *_, **__: pytest.fail("hours were spent"))
    assert evaluate(bundle, dev, "--html", tmp_path / "page.html") == 1
    assert "the package jinja2 is needed; " in capsys.readouterr().err
