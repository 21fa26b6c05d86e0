"""Every output format is read back by rules written here, and files are written whole or not at all."""

import json
import re

import pytest

from asr.outputs import FORMATS, Layout, render, to_json, write_outputs
from asr.scoring.formats import read_transcripts
from asr.transcript import Character, Transcript, Word


def transcript(text="one two three", step=0.4, length=0.3, start=0.1):
    words = tuple(
        Word(word, round(start + i * step, 3), round(start + i * step + length, 3), 0.75)
        for i, word in enumerate(text.split())
    )
    return Transcript(text, words, words[-1].end + 1 if words else 1.0)


TALK = Transcript(
    "one two <b> & four",
    (
        Word("one", 0.1, 0.4, 0.9),
        Word("two", 0.4, 0.8, 0.8),
        Word("<b>", 3601.5, 3601.5, 0.7),
        Word("&", 3601.5, 3601.9, 0.6),
        Word("four", 3601.8, 3602.25, 0.5),
    ),
    4000.0,
)


def cues(content, point):
    """Read subtitles: (start, end) in seconds and text; fails on what players do not take."""
    blocks = content.strip().split("\n\n")
    if point == ".":
        assert blocks.pop(0) == "WEBVTT"
    found = []
    for number, block in enumerate(blocks, 1):
        lines = block.split("\n")
        if point == ",":
            assert lines.pop(0) == str(number)
        times = re.fullmatch(
            rf"(\d\d+:\d\d:\d\d\{point}\d\d\d) --> (\d\d+:\d\d:\d\d\{point}\d\d\d)", lines[0]
        )
        assert times, lines[0]
        hours = [time.replace(point, ".").split(":") for time in times.groups()]
        start, end = (int(h) * 3600 + int(m) * 60 + float(s) for h, m, s in hours)
        assert start < end
        assert not found or start >= found[-1][1]
        assert lines[1:]
        assert all(lines[1:])
        found.append((start, end, "\n".join(lines[1:])))
    return found


@pytest.mark.parametrize(("form", "point"), [("srt", ","), ("vtt", ".")])
@pytest.mark.parametrize(
    "layout", [Layout(), Layout(max_line_width=7, max_line_count=1, highlight_words=True)]
)
def test_subtitles_are_valid(form, point, layout):
    found = cues(render(TALK, form, "talk", layout), point)
    assert found[0][0] == pytest.approx(0.1)
    assert found[-1][1] == pytest.approx(3602.25)


def test_subtitles_say_the_segments():
    assert [text for *_, text in cues(render(TALK, "srt", "x"), ",")] == ["one two", "<b> & four"]
    assert [text for *_, text in cues(render(TALK, "vtt", "x"), ".")] == ["one two", "&lt;b&gt; &amp; four"]


def test_line_width_and_count():
    layout = Layout(max_line_width=9, max_line_count=2)
    text = "a bb ccc dddd eeeee unbreakable g h"
    texts = [text for *_, text in cues(render(transcript(text), "srt", "x", layout), ",")]
    assert texts == ["a bb ccc\ndddd", "eeeee\nunbreakable", "g h"]


def test_highlighted_words_follow_each_other():
    found = cues(render(transcript("one two"), "vtt", "x", Layout(highlight_words=True)), ".")
    assert [text for *_, text in found] == ["<u>one</u> two", "one two", "one <u>two</u>"]


def test_json_has_whispers_fields():
    value = json.loads(render(TALK, "json", "x", Layout(word_timestamps=True)))
    assert {"text", "segments", "language"} <= value.keys()
    assert [segment["id"] for segment in value["segments"]] == [0, 1]
    assert value["segments"][1] | {"words": None} == {
        "id": 1,
        "start": 3601.5,
        "end": 3602.25,
        "text": "<b> & four",
        "words": None,
    }
    assert value["segments"][0]["words"][1] == {"word": "two", "start": 0.4, "end": 0.8, "probability": 0.8}
    assert "words" not in to_json(TALK)["segments"][0]


def test_letters_are_listed_with_their_words_only_where_there_are_some():
    word = Word("ab", 0.1, 0.3, 0.9, (Character("a", 0.1, 0.2), Character("b", 0.2, 0.3)))
    value = json.loads(
        render(Transcript("ab c", (word, Word("c", 0.4, 0.5, 0.8)), 1.0), "json", "x", Layout(True))
    )
    letters = [{"character": "a", "start": 0.1, "end": 0.2}, {"character": "b", "start": 0.2, "end": 0.3}]
    for words in (value["words"], value["segments"][0]["words"]):
        assert words[0]["characters"] == letters
        assert "characters" not in words[1]


def test_tsv_is_in_milliseconds():
    assert render(TALK, "tsv", "x") == "start\tend\ttext\n100\t800\tone two\n3601500\t3602250\t<b> & four\n"


def test_ctm_and_trn_read_back(tmp_path):
    for form in ("ctm", "trn"):
        (tmp_path / f"x.{form}").write_text(render(transcript(), form, "my talk (2)"))
    timed = read_transcripts(tmp_path / "x.ctm").timed
    assert [(word.file, word.text) for word in timed] == [
        ("my_talk__2_", word) for word in "one two three".split()
    ]
    assert timed[1].start == pytest.approx(0.5)
    assert timed[1].end == pytest.approx(0.8)
    assert read_transcripts(tmp_path / "x.trn").texts == {"my_talk__2_": "one two three"}


def test_nothing_said():
    empty = Transcript("", (), 1.0)
    expected = {
        "txt": "\n",
        "srt": "",
        "vtt": "WEBVTT\n\n",
        "tsv": "start\tend\ttext\n",
        "ctm": "",
        "trn": " (x)\n",
    }
    assert {form: render(empty, form, "x") for form in FORMATS if form != "json"} == expected
    assert to_json(empty)["segments"] == []


def test_segments_part_at_pauses_and_are_not_endless():
    long = transcript(" ".join(["word"] * 400), step=0.4, length=0.3)
    segments = long.segments
    assert len(segments) > 5
    assert all(segment.end - segment.start <= 30 for segment in segments)
    assert [word for segment in segments for word in segment.words] == list(long.words)


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "new" / "talk"
    write_outputs(TALK, target, FORMATS, "talk")
    assert sorted(path.name for path in target.parent.iterdir()) == sorted(f"talk.{form}" for form in FORMATS)

    def full(transcript, form, *arguments):
        if form == "json":
            raise OSError(28, "No space left on device")
        return "new"

    monkeypatch.setattr("asr.outputs.render", full)
    with pytest.raises(OSError, match="No space"):
        write_outputs(TALK, target, FORMATS, "talk")
    assert (target.parent / "talk.txt").read_text() == TALK.text + "\n"
    assert sorted(path.name for path in target.parent.iterdir()) == sorted(f"talk.{form}" for form in FORMATS)
