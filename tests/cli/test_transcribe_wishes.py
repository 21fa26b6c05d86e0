"""Channels, doubtful words, damaged files, and what programs read of `asr transcribe`."""

import io
import json
import re
import sys

import numpy as np
import pytest
import soundfile
from helpers import RATE, run_asr, say

import asr
from asr.scoring.formats import read_transcripts


@pytest.fixture
def run(bundle, tmp_path):
    return lambda line: run_asr(f"{line} --model {{bundle}}", bundle=bundle, tmp=tmp_path)


@pytest.fixture
def call(tmp_path):
    """Write a call of two people, one after the other: "ab c" on the first channel, "cab" on the second."""
    first, second = (say(text, np.random.default_rng(0)) for text in ("ab c", "cab"))
    samples = 0.003 * np.random.default_rng(1).standard_normal((len(first) + len(second), 2))
    samples[: len(first), 0] = first
    samples[len(first) :, 1] = second
    soundfile.write(tmp_path / "call.wav", samples, RATE)
    return tmp_path / "call.wav"


def test_each_channel_is_a_speaker(run, call, tmp_path, capsys):
    assert run("transcribe {tmp}/call.wav --channels separate -o {tmp}/out -f all --word-timestamps") == 0
    out = tmp_path / "out"
    assert (out / "call.txt").read_text() == "channel 1: ab c\nchannel 2: cab\n"
    cues = (out / "call.srt").read_text().split("\n\n")
    assert [cue.splitlines()[-1] for cue in cues if cue.strip()] == ["channel 1: ab c", "channel 2: cab"]
    assert "<v channel 2>cab\n" in (out / "call.vtt").read_text()
    assert "\tchannel 1: ab c\n" in (out / "call.tsv").read_text()
    rows = [line.split() for line in (out / "call.ctm").read_text().splitlines()]
    assert [(row[1], row[4]) for row in rows] == [("1", "ab"), ("1", "c"), ("2", "cab")]
    value = json.loads((out / "call.json").read_text())
    assert [(segment["speaker"], segment["text"]) for segment in value["segments"]] == [
        ("channel 1", "ab c"),
        ("channel 2", "cab"),
    ]
    assert [word["channel"] for word in value["words"]] == [1, 1, 2]
    assert value["text"] == "ab c cab"
    starts = [word["start"] for word in value["words"]]
    assert starts == sorted(starts)


def test_one_channel_or_their_mix(run, call, capsys):
    for number, text in ((1, "ab c"), (2, "cab")):
        assert run(f"transcribe {{tmp}}/call.wav --channels {number}") == 0
        assert capsys.readouterr().out == text + "\n"
    assert run("transcribe {tmp}/call.wav --channels mix -f ctm") == 0
    assert {line.split()[1] for line in capsys.readouterr().out.splitlines()} == {"1"}
    assert run("transcribe {tmp}/call.wav --channels 3") == 1
    assert "has 2 channels; expected at least 3, to read number 3" in capsys.readouterr().err


def test_separate_channels_of_standard_input_and_of_mono(run, call, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(call.read_bytes())))
    assert run("transcribe - --channels separate") == 0
    assert capsys.readouterr().out == "channel 1: ab c\nchannel 2: cab\n"
    soundfile.write(tmp_path / "mono.wav", say("ab c", np.random.default_rng(0)), RATE)
    assert run("transcribe {tmp}/mono.wav --channels separate") == 0
    assert capsys.readouterr().out == "ab c\n"
    (tmp_path / "noise.wav").write_bytes(b"no audio")
    assert run("transcribe {tmp}/noise.wav {tmp}/call.wav --channels separate") == 1
    printed = capsys.readouterr()
    assert [line.split(": ", 1)[1] for line in printed.out.splitlines()] == [
        "channel 1: ab c",
        "channel 2: cab",
    ]
    assert "noise.wav" in printed.err


@pytest.mark.parametrize("channels", ["0", "left", "-1"])
def test_channels_that_are_none(run, call, channels, capsys):
    with pytest.raises(SystemExit):
        run(f"transcribe {{tmp}}/call.wav --channels={channels}")
    assert "expected mix, separate, or the number of a channel" in capsys.readouterr().err


def test_doubtful_words_are_marked_or_omitted(run, call, bundle, tmp_path, capsys):
    samples, rate = soundfile.read(call)
    soundfile.write(call, samples[:, 0], rate)  # which the small model divides into words on every machine
    words = asr.load(bundle).transcribe(call).words
    limit = sorted(word.confidence for word in words)[1]  # one word has less
    doubtful = min(words, key=lambda word: word.confidence).word
    line = (
        f"transcribe {{tmp}}/call.wav --min-confidence {limit} --overwrite -o {{tmp}}/out -f txt srt json ctm"
    )
    assert run(line) == 0
    out = tmp_path / "out"
    expected = [f"[{word.word}]" if word.confidence < limit else word.word for word in words]
    assert (out / "call.txt").read_text().split() == expected
    assert f"[{doubtful}]" in (out / "call.srt").read_text()
    value = json.loads((out / "call.json").read_text())
    assert [word["word"] for word in value["words"] if word.get("doubtful")] == [doubtful]
    assert [line.split()[4] for line in (out / "call.ctm").read_text().splitlines()] == [
        w.word for w in words
    ]
    assert run(f"{line} --doubtful omit") == 0
    kept = [word.word for word in words if word.confidence >= limit]
    assert (out / "call.txt").read_text().split() == kept
    assert [line.split()[4] for line in (out / "call.ctm").read_text().splitlines()] == kept
    assert json.loads((out / "call.json").read_text())["text"].split() == kept
    with pytest.raises(SystemExit):
        run("transcribe {tmp}/call.wav --min-confidence 2")
    assert "expected a number from 0 to 1" in capsys.readouterr().err


def test_what_can_be_read_of_damaged_audio_is_kept_and_marked(run, tmp_path, capsys):
    samples = np.concatenate([say("abc ab", np.random.default_rng(i)) for i in range(20)])
    soundfile.write(tmp_path / "a.flac", samples, RATE)
    content = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(content[: len(content) // 2])
    assert run("transcribe {tmp}/a.flac --salvage -o {tmp}/out -f all --failures {tmp}/failures.jsonl") == 1
    assert "a.flac is truncated" in capsys.readouterr().err
    out = tmp_path / "out"
    value = json.loads((out / "a.json").read_text())
    assert 0.4 < value["duration"] / (len(samples) / RATE) < 0.55
    assert value["text"].replace(" ", "").startswith("abcababcab")
    assert "truncated" in value["damage"]
    mark = f"[audio is damaged after {value['duration']:.1f} s]"
    for form in ("txt", "srt", "vtt", "tsv", "ctm", "trn"):
        assert mark in (out / f"a.{form}").read_text(), form
    for form in ("ctm", "trn"):  # a comment there, which scoring skips
        assert mark not in "".join(read_transcripts(out / f"a.{form}").texts.values())
    (failure,) = map(json.loads, (tmp_path / "failures.jsonl").read_text().splitlines())
    assert failure["source"] == f"{tmp_path}/a.flac"
    assert failure["kind"] == "AudioError"
    assert run("transcribe {tmp}/a.flac --failures {tmp}/failures.jsonl") == 1
    assert capsys.readouterr().out == ""


def test_failures_for_a_program(run, call, tmp_path):
    (tmp_path / "noise.wav").write_bytes(b"no audio")
    assert run("transcribe {tmp}/noise.wav {tmp}/lost.wav {tmp}/call.wav --failures {tmp}/f.jsonl") == 1
    rows = [json.loads(line) for line in (tmp_path / "f.jsonl").read_text().splitlines()]
    assert {row["source"].rpartition("/")[2] for row in rows} == {"noise.wav", "lost.wav"}
    assert {row["kind"] for row in rows} == {"AudioError"}
    assert all(row["message"].startswith(row["source"]) or row["source"] in row["message"] for row in rows)
    assert run("transcribe {tmp}/call.wav --failures {tmp}/f.jsonl") == 0
    assert (tmp_path / "f.jsonl").read_text() == ""
    assert run("transcribe {tmp}/call.wav --failures {tmp}/none/f.jsonl") == 1


def test_json_names_its_file_model_and_version(run, call, bundle, tmp_path, capsys):
    assert run("transcribe {tmp}/call.wav -o {tmp}/out -f json") == 0
    written = json.loads((tmp_path / "out" / "call.json").read_text())
    assert run("transcribe {tmp}/call.wav -f json") == 0
    assert json.loads(capsys.readouterr().out) == written
    facts = {name: written[name] for name in ("file", "model", "asr_version")}
    assert facts == {"file": str(call), "model": str(bundle), "asr_version": asr.__version__}
    assert run('align {tmp}/call.wav "ab c" -f json') == 0
    assert json.loads(capsys.readouterr().out)["model"] == str(bundle)


def test_progress_and_messages_as_lines_of_json(run, call, tmp_path, capsys):
    (tmp_path / "noise.wav").write_bytes(b"no audio")
    assert run("transcribe {tmp}/call.wav {tmp}/noise.wav --log json") == 1
    printed = capsys.readouterr()
    events = [json.loads(line) for line in printed.err.splitlines()]
    progress = [event for event in events if event["event"] == "progress"]
    seconds = soundfile.info(call).duration
    assert progress[-1]["done"] == pytest.approx(seconds, abs=0.1)
    assert progress[-1]["task"] == "transcribing"
    (failure,) = [event for event in events if event["event"] == "failure"]
    assert failure["source"].endswith("noise.wav")
    assert events[-1]["message"] == "1 of 2 failed; the others are finished"
    assert not re.search(r"event", printed.out)
    assert run("align {tmp}/lost.wav abc --log=json") == 1
    (error,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert (error["event"], error["status"]) == ("error", 1)


def test_a_form_of_log_that_is_none(capsys):
    assert run_asr("models --log xml") == 2
    assert "--log is 'xml'; expected text or json" in capsys.readouterr().err


def test_usage_errors_are_lines_of_json_where_all_is(run, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("transcribe --modle --log json")
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    assert (event["event"], event["status"]) == ("error", 2)
    assert "'--modle' is not an argument of asr transcribe (did you mean '--model'?)" in event["message"]


def test_inputs_that_become_one_id_in_trn_are_named(run, call, tmp_path, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in ("a/x.wav", "b/x.wav", "a-x.wav"):
        (tmp_path / name).write_bytes(call.read_bytes())
    line = "transcribe {tmp}/a/x.wav {tmp}/b/x.wav {tmp}/a-x.wav -f"
    assert run(f"{line} trn") == 0
    captured = capsys.readouterr()
    assert [text.split()[-1] for text in captured.out.splitlines()] == ["(a-x)", "(b-x)", "(a-x)"]
    assert (
        f"the id a-x in ctm and trn stands for {tmp_path}/a/x.wav, {tmp_path}/a-x.wav; rename" in captured.err
    )
    assert run(f"{line} txt") == 0  # where no id is written, nothing is to be renamed
    assert "rename" not in capsys.readouterr().err
