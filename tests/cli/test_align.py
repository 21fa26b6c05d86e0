"""`asr align`, through the command line."""

import json

import pytest

import asr
from asr.cli import main


def test_times_of_a_known_text(corpus, bundle, tmp_path, capsys):
    audio = corpus / "audio" / "utterance00.wav"
    text = audio.with_suffix(".txt")
    options = ["--model", str(bundle)]
    assert main(["align", str(audio), str(text), *options]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[2] for row in rows] == text.read_text().split()
    times = [float(time) for row in rows for time in row[:2]]
    assert times == sorted(times)
    assert abs(times[0] - 0.1) < 0.05  # where the first tone starts
    assert main(["align", str(audio), text.read_text(), *options, "-f", "json"]) == 0
    words = json.loads(capsys.readouterr().out)["words"]
    assert [word["start"] for word in words] == times[::2]
    assert main(["align", str(audio), str(text), *options, "-f", "srt", "-o", str(tmp_path / "a.srt")]) == 0
    assert "-->" in (tmp_path / "a.srt").read_text()
    assert asr.load(bundle).align(audio, text.read_text()).words[0].start == times[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("xyz", "letters outside the tokenizer's alphabet"),
        ("", "no word in the text"),
        ("abc " * 500, "is it the text of this audio"),
        ("nowhere.txt", "there is no text nowhere.txt"),
    ],
)
def test_what_cannot_be_aligned(corpus, bundle, capsys, text, message):
    audio = str(corpus / "audio" / "utterance00.wav")
    assert main(["align", audio, text, "--model", str(bundle)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
