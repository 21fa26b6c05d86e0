"""`asr align`, through the command line."""

import json

import numpy as np
import pytest
import soundfile
from helpers import RATE, say

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


def test_times_of_letters(bundle, tmp_path, capsys):
    generator = np.random.default_rng(1)
    soundfile.write(tmp_path / "a.wav", say("ab cab", generator), RATE)
    truth = [0.1, 0.27, 0.74, 0.91, 1.08]  # where each tone of 0.12 s starts
    options = ["--model", str(bundle), "--character-timestamps"]
    assert main(["align", str(tmp_path / "a.wav"), "ab cab", *options]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    assert [(row[2], row[3]) for row in rows] == [*zip("abcab", ["ab"] * 2 + ["cab"] * 3, strict=True)]
    assert [float(row[0]) for row in rows] == pytest.approx(truth, abs=0.05)
    assert [float(row[1]) for row in rows] == pytest.approx([start + 0.12 for start in truth], abs=0.05)
    assert main(["align", str(tmp_path / "a.wav"), "ab cab", *options, "-f", "json"]) == 0
    words = json.loads(capsys.readouterr().out)["segments"][0]["words"]
    found = [letter for word in words for letter in word["characters"]]
    assert [f"{letter['start']:.3f}" for letter in found] == [row[0] for row in rows]
    for word in words:
        assert word["characters"][0]["start"] == word["start"]
        assert word["characters"][-1]["end"] == word["end"]
    assert main(["align", str(tmp_path / "a.wav"), "ab cab", *options, "-f", "srt"]) == 1
    assert "srt has words" in capsys.readouterr().err


def test_letters_of_word_pieces_on_real_speech(shared_data, capsys):
    audio = shared_data / "an4" / "wav" / "an4_clstk" / "mdxn" / "an106-mdxn-b.sph"
    text = "ENTER ZERO"
    arguments = ["align", str(audio), text, "--character-timestamps", "-f", "json"]
    assert main(arguments) == 0
    value = json.loads(capsys.readouterr().out)
    assert "".join(letter["character"] for word in value["words"] for letter in word["characters"]) == (
        text.lower().replace(" ", "")
    )
    edges = [
        letter[edge] for word in value["words"] for letter in word["characters"] for edge in ("start", "end")
    ]
    assert edges == sorted(edges)
    assert 0 <= edges[0] < edges[-1] <= value["duration"]


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
