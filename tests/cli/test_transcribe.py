"""Inputs, outputs and long recordings of `asr transcribe`."""

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from helpers import RATE, run_asr, say

import asr
from asr.cli import main
from asr.errors import AsrError, AudioError
from asr.outputs import FORMATS, ORIGINS_FILE


@pytest.fixture
def tree(tmp_path):
    """Folder with one.wav and deeper/two.wav."""
    folder = tmp_path / "in"
    (folder / "deeper").mkdir(parents=True)
    for path, text in ((folder / "one.wav", "ab c"), (folder / "deeper" / "two.wav", "cab")):
        soundfile.write(path, say(text, np.random.default_rng(0)), RATE)
    return folder


@pytest.fixture
def run(bundle, tree, tmp_path):
    """Run a command line with the model, in which {tree}, {out} and {tmp} stand for folders."""
    places = {"bundle": bundle, "tree": tree, "out": tmp_path / "out", "tmp": tmp_path}
    return lambda line: run_asr(f"{line} --model {{bundle}}", **places)


def names(folder):
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name != ORIGINS_FILE
    )


def test_folders_keep_their_tree(run, tmp_path):
    out = tmp_path / "out"
    assert run("transcribe {tree} --recursive -o {out} -f srt ctm") == 0
    assert names(out) == ["deeper/two.ctm", "deeper/two.srt", "one.ctm", "one.srt"]
    assert run("transcribe {tree}/*/*.wav -o {out}/glob") == 0
    assert names(out / "glob") == ["deeper/two.txt"]


def test_outputs_beside_the_inputs(run, tree):
    assert run("transcribe {tree}/one.wav --beside -f all") == 0
    assert names(tree) == sorted(["deeper/two.wav", "one.wav", *(f"one.{form}" for form in FORMATS)])


def test_a_dash_for_the_output_prints(run, tree, monkeypatch, capsys):
    monkeypatch.chdir(tree)
    assert run("transcribe one.wav -o -") == 0
    assert capsys.readouterr().out == "ab c\n"
    assert names(tree) == ["deeper/two.wav", "one.wav"]


def test_what_is_done_is_kept_and_the_rest_goes_on(run, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "one.txt").write_text("mine")
    assert run("transcribe {tree} --recursive -o {out}") == 0
    assert "1 of 2 have outputs already" in capsys.readouterr().err
    assert (out / "one.txt").read_text() == "mine"
    assert (out / "deeper" / "two.txt").read_text() != ""
    assert run("transcribe {tree} --recursive -o {out} --overwrite") == 0
    assert (out / "one.txt").read_text() != "mine"


def test_lists_of_files_name_their_bad_entries(bundle, tree, tmp_path, capsys):
    files = tmp_path / "list.txt"
    files.write_text(f"{tree}/one.wav\n\n{tree}/lost.wav\n{tree}/deeper\n")
    assert main(["transcribe", f"@{files}", f"@{tmp_path}/no.txt", "--model", str(bundle)]) == 1
    printed = capsys.readouterr()
    assert [line.split(": ")[0] for line in printed.out.splitlines()] == [
        f"{tree}/one.wav",
        f"{tree}/deeper/two.wav",
    ]
    assert f"{files} line 3: {tree}/lost.wav: there is no such file or folder" in printed.err
    assert f"the list {tmp_path}/no.txt cannot be read: No such file or directory" in printed.err
    assert "2 of 4 failed" in printed.err


def test_several_formats_need_a_place(run, capsys):
    assert run("transcribe {tree}/one.wav -f srt vtt") == 1
    assert "-o DIR or --beside" in capsys.readouterr().err
    assert run("transcribe {tree} --recursive -f srt") == 1
    assert "-o DIR or --beside" in capsys.readouterr().err
    assert run("transcribe {tree}/one.wav -f vtt") == 0
    assert capsys.readouterr().out.startswith("WEBVTT\n\n00:00:0")


def test_line_count_needs_a_width(run, capsys):
    assert run("transcribe {tree}/one.wav -f srt --max-line-count 2") == 1
    assert "--max-line-width" in capsys.readouterr().err
    assert run("transcribe {tree}/one.wav -f srt --max-line-width 0") == 1
    assert "expected 1 or more" in capsys.readouterr().err


def test_a_full_disk_stops_the_run(run, capsys, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("asr.cli.transcribe.write_outputs", full)
    assert run("transcribe {tree} --recursive -o {out}") == 1
    errors = capsys.readouterr().err
    assert errors.count("No space left on device") == 1
    assert "the same command continues where it was" in errors
    assert "the others are finished" not in errors


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_an_output_that_cannot_be_written_whole_is_not_there(run, bundle, tmp_path):
    words = ["abc cab", " ".join(["abc"] * 30), "ba c"]
    for name, text in zip(("one", "two", "three"), words, strict=True):
        soundfile.write(tmp_path / f"{name}.wav", say(text, np.random.default_rng(0)), RATE)
    out = tmp_path / "out"
    out.mkdir()
    (out / "two.txt").write_text("of an earlier run")
    program = (
        "import resource, sys; from asr.cli import main; resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40));"
        "sys.exit(main(sys.argv[1:]))"
    )
    paths = [str(tmp_path / f"{name}.wav") for name in ("one", "two", "three")]
    command = [sys.executable, "-c", program, "transcribe", *paths, "--model", str(bundle), "-o", str(out)]
    result = subprocess.run([*command, "--overwrite"], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"cannot write {out}/two.txt: File too large" in result.stderr
    assert "1 of 3 failed; the others are finished" in result.stderr
    assert names(out) == ["one.txt", "three.txt", "two.txt"]  # nothing half-written beside them
    assert (out / "two.txt").read_text() == "of an earlier run"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_standard_output_on_a_full_disk(run, bundle, tree):
    command = [sys.executable, "-m", "asr", "transcribe", str(tree / "one.wav"), "--model", str(bundle)]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    expected = "asr transcribe: stopped: no space is left to write to (No space left on device)\n"
    assert result.stderr == expected


def test_word_timestamps_of_standard_input(run, tree, capsys, monkeypatch):
    content = (tree / "one.wav").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert run("transcribe - -f json --word-timestamps") == 0
    value = json.loads(capsys.readouterr().out)
    assert value["segments"][0]["words"][0].keys() == {"word", "start", "end", "probability"}


def test_times_of_letters_change_no_word(run, bundle, tree, capsys):
    command = ["transcribe", str(tree / "one.wav"), "--model", str(bundle), "-f", "json"]
    assert main([*command, "--word-timestamps"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert main([*command, "--character-timestamps"]) == 0
    timed = json.loads(capsys.readouterr().out)
    for word in [*timed["words"], *timed["segments"][0]["words"]]:
        letters = word.pop("characters")
        assert "".join(letter["character"] for letter in letters) == word["word"]
        edges = [letter[edge] for letter in letters for edge in ("start", "end")]
        assert edges == sorted(edges)
        assert (edges[0], edges[-1]) == (word["start"], word["end"])
    assert timed == plain
    assert run("transcribe {tree}/one.wav --character-timestamps") == 1
    assert "add -f json" in capsys.readouterr().err


def test_a_long_recording_gives_the_words_of_its_parts(bundle, tmp_path, monkeypatch):
    model = asr.load(bundle, "cpu")
    generator = np.random.default_rng(4)
    spoken = [
        " ".join("".join(generator.choice(list("abc"), generator.integers(1, 4))) for _ in range(3))
        for _ in range(40)
    ]
    parts = [say(text, generator) for text in spoken]
    path = tmp_path / "long.wav"
    soundfile.write(path, np.concatenate(parts), RATE)
    apart = [word for transcript in model.transcribe(parts) for word in transcript.words]
    seconds = sum(map(len, parts)) / RATE
    monkeypatch.setattr("asr.sources.BLOCK_SECONDS", 7.0)
    monkeypatch.setattr("asr.long_audio.WINDOW_SECONDS", 10.0)
    monkeypatch.setattr("asr.long_audio.SEARCH_SECONDS", 5.0)
    together = model.transcribe(path)
    assert seconds > 60
    assert together.duration == pytest.approx(seconds, abs=0.01)
    starts = [word.start for word in together.words]
    assert starts == sorted(starts)
    # Between tones the small model places spaces by what is around them; what seams lose or double are letters.
    import jiwer

    letters = together.text.replace(" ", "")
    # Losing or doubling what two windows share at each of the seams would be about 20 %.
    assert jiwer.cer("".join(word.word for word in apart), letters) < 0.05
    assert letters == "".join(word.word for word in together.words)


def test_a_recording_damaged_half_way_fails_as_a_whole(bundle, tmp_path, monkeypatch, capsys):
    whole = np.concatenate([say("abc ab", np.random.default_rng(i)) for i in range(20)])
    soundfile.write(tmp_path / "whole.flac", whole, RATE)
    content = bytearray((tmp_path / "whole.flac").read_bytes())
    middle = len(content) // 2
    (tmp_path / "damaged.flac").write_bytes(content[:middle])
    monkeypatch.setattr("asr.sources.BLOCK_SECONDS", 5.0)
    assert main(["transcribe", str(tmp_path), "--model", str(bundle), "--batch-size", "10"]) == 1
    printed = capsys.readouterr()
    assert [line.split(": ")[0] for line in printed.out.splitlines()] == [f"{tmp_path}/whole.flac"]
    assert f"{tmp_path}/damaged.flac" in printed.err


@pytest.mark.parametrize("size", ["0", "-3", "nan", "many"])
def test_a_batch_size_that_is_none(bundle, tree, size, capsys):
    with pytest.raises(SystemExit):
        main(["transcribe", str(tree), "--model", str(bundle), "--batch-size", size])
    assert f"{size!r} was given; expected seconds of audio, more than 0, or auto" in capsys.readouterr().err


@pytest.mark.parametrize("compute_type", ["bfloat16", "int8"])
def test_smaller_weights_hear_the_same(bundle, tree, compute_type, capsys):
    arguments = ["transcribe", str(tree), "--recursive", "--model", str(bundle), "--quiet"]
    assert main(arguments) == 0
    expected = capsys.readouterr().out
    assert main([*arguments, "--compute-type", compute_type]) == 0
    assert capsys.readouterr().out == expected
    model = asr.load(bundle, "cpu", compute_type=compute_type).engine.model
    assert {layer.precision for layer in model.recurrent} == {compute_type}


def test_a_compute_type_that_is_none_is_refused(bundle):
    with pytest.raises(AsrError, match="'int4' is unknown; there are float32, bfloat16, int8"):
        asr.load(bundle, "cpu", compute_type="int4")


def test_standard_input_is_never_done_before(bundle, tree, tmp_path, monkeypatch):
    arguments = ["transcribe", "-", "--model", str(bundle), "-o", str(tmp_path / "out")]
    heard = []
    for path in (tree / "one.wav", tree / "deeper" / "two.wav"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
        assert main(arguments) == 0
        heard.append((tmp_path / "out" / "stdin.txt").read_text())
    assert heard[0] != heard[1]


def test_an_input_newer_than_its_output_is_done_again(bundle, tree, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["transcribe", str(tree / "one.wav"), "--model", str(bundle), "-o", str(out)]
    assert main(arguments) == 0
    before = (out / "one.txt").read_text()
    soundfile.write(tree / "one.wav", say("cab ab", np.random.default_rng(0)), RATE)
    os.utime(tree / "one.wav", (time.time() + 5, time.time() + 5))
    assert main(arguments) == 0
    assert "outputs already" not in capsys.readouterr().err
    assert (out / "one.txt").read_text() != before


@pytest.mark.parametrize("place", [["--beside"], ["-o", "{tree}"]])
def test_what_others_wrote_is_not_replaced(bundle, tree, capsys, place):
    (tree / "one.txt").write_text("by hand")
    os.utime(tree / "one.txt", (0, 0))  # older than the audio
    where = [each.format(tree=tree) for each in place]
    arguments = ["transcribe", f"{tree}/one.wav", f"{tree}/deeper/two.wav", "--model", str(bundle), *where]
    assert main([*arguments, "-f", "txt", "srt"]) == 1
    error = capsys.readouterr().err
    assert f"{tree}/one.txt is there, older than its audio, and not known to be written by asr" in error
    assert "1 of 2 failed; the others are finished" in error
    assert (tree / "one.txt").read_text() == "by hand"
    os.utime(tree / "one.txt")  # as new: kept, and what is missing is written
    assert main([*arguments, "-f", "txt", "srt"]) == 0
    assert (tree / "one.txt").read_text() == "by hand"
    assert (tree / "one.srt").is_file()
    assert main([*arguments, "--overwrite"]) == 0
    assert (tree / "one.txt").read_text() == "ab c\n"


def test_a_folder_that_cannot_be_is_told_before_anything_is_heard(tree, capsys):
    where = ["-o", str(tree / "one.wav" / "out")]
    assert main(["transcribe", str(tree / "one.wav"), "--model", "nowhere", *where]) == 1
    assert capsys.readouterr().err.strip().endswith("one.wav/out: Not a directory")


def test_a_file_named_in_two_ways_is_one(run, tree, monkeypatch, capsys):
    monkeypatch.chdir(tree)
    assert run("transcribe one.wav ./one.wav .") == 0
    assert capsys.readouterr().out == "ab c\n"


def test_an_interruption_ends_the_wait_for_standard_input(run, monkeypatch, capsys):
    """Ctrl-C comes to the main thread, which therefore does the waiting."""

    class Waiting(io.BytesIO):
        def read(self, size=-1):
            assert threading.current_thread() is threading.main_thread()
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Waiting()))
    assert run("transcribe -") == 130
    assert "interrupted" in capsys.readouterr().err


def test_no_audio_from_python(bundle):
    with pytest.raises(AudioError, match="an object of type Tensor was given; expected a path"):
        asr.load(bundle).transcribe(torch.zeros(16000))


def test_another_file_of_the_same_name_is_not_done(bundle, tree, tmp_path, capsys):
    out = tmp_path / "out"
    (tree / "other").mkdir()
    mine, others = tree / "one.wav", tree / "other" / "one.wav"
    soundfile.write(others, say("cab ab", np.random.default_rng(0)), RATE)
    os.utime(others, (0, 0))  # older than any output

    def heard(path, *more):
        assert main(["transcribe", str(path), "--model", str(bundle), "-o", str(out), *more]) == 0
        return (out / "one.txt").read_text(), capsys.readouterr().err

    text = heard(mine)[0]
    assert "outputs already" in heard(mine)[1]
    replaced, told = heard(others)
    assert replaced != text
    assert f"of the same name ({out}/one.txt was made of {mine})" in told
    # Of several formats each knows its own; a file that was moved is the same.
    assert heard(mine, "-f", "srt")[0] == replaced
    moved = others.rename(tree / "one.wav.old").rename(tree / "deeper" / "one.wav")
    assert "outputs already" in heard(moved)[1]
    assert heard(mine)[0] == text
    # What a crash left of the last line, or nothing known at all, is as if the output were the file's.
    with (out / ORIGINS_FILE).open("a") as file:
        file.write('{"output": "one.t')
    assert "outputs already" in heard(mine)[1]
    (out / ORIGINS_FILE).unlink()
    assert "outputs already" in heard(moved)[1]


def test_namesakes_keep_their_folders_whatever_is_added(bundle, tree, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tree)
    paths = []
    for folder, text in (("a", "ab"), ("b", "cab"), ("c", "bc")):
        (tree / folder).mkdir()
        soundfile.write(tree / folder / "x.wav", say(text, np.random.default_rng(0)), RATE)
        paths.append(f"{folder}/x.wav")
    out = tmp_path / "out"
    assert main(["transcribe", *paths[1:], "--model", str(bundle), "-o", str(out)]) == 0
    assert names(out) == ["b/x.txt", "c/x.txt"]
    assert main(["transcribe", *paths, "--model", str(bundle), "-o", str(out)]) == 0
    assert "2 of 3 have outputs already" in capsys.readouterr().err
    assert names(out) == ["a/x.txt", "b/x.txt", "c/x.txt"]
    assert main(["transcribe", *paths[1:], "--model", str(bundle), "-f", "ctm"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {"b-x", "c-x"}


def test_a_glob_leaves_its_own_outputs_out(run, tree, capsys):
    soundfile.write(tree / "talk 2024.05.wav", say("ab", np.random.default_rng(0)), RATE)
    for _ in range(2):
        assert run("transcribe {tree}/* --beside -f all") == 0
    assert "have outputs already" in capsys.readouterr().err
    stems = {
        name.removesuffix(f".{form}") for form in FORMATS for name in names(tree) if name.endswith(f".{form}")
    }
    assert stems == {"one", "talk 2024.05"}


def test_names_that_are_not_utf8(run, bundle, tree, tmp_path, capfdbinary):
    path = os.fsencode(tree) + b"/caf\xe9.wav"
    shutil.copy(tree / "one.wav", path)
    arguments = ["transcribe", os.fsdecode(path), str(tree / "one.wav"), "--model", str(bundle)]
    assert main([*arguments, "-o", str(tmp_path / "out"), "-f", "all"]) == 0
    assert (os.fsencode(tmp_path) + b"/out/caf\xe9.json") in [
        os.path.join(os.fsencode(tmp_path), b"out", name)  # noqa: PTH118 - of bytes
        for name in os.listdir(os.fsencode(tmp_path / "out"))  # noqa: PTH208
    ]
    command = [sys.executable, "-m", "asr", *arguments]
    done = subprocess.run(command, capture_output=True, check=True)
    assert path + b": ab c\n" in done.stdout


def test_what_cannot_be_read_is_told_and_the_rest_done(bundle, tree, tmp_path, monkeypatch, capsys):
    """A name too long, and a folder inside that is closed."""
    closed = tree / "closed"
    closed.mkdir()
    scan = os.scandir

    def guarded(path="."):
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(closed))
        return scan(path)

    monkeypatch.setattr(os, "scandir", guarded)  # root may read anything
    arguments = ["transcribe", "x" * 5000, str(tree), "--recursive", "--model", str(bundle)]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert "cannot be read: File name too long" in printed.err
    assert f"{closed}: cannot be read: Permission denied" in printed.err
    assert len(printed.out.splitlines()) == 2


def test_what_is_finished_is_printed_when_the_run_is_interrupted(bundle, tree, monkeypatch, capsys):
    """Short recordings are done first, and their text waits for the long one's before it."""
    long = np.concatenate([say("abc ab", np.random.default_rng(i)) for i in range(20)])
    soundfile.write(tree / "long.wav", long, RATE)
    real = asr.Recognizer.transcribe_as_completed

    def interrupted(*arguments, **options):
        for count, outcome in enumerate(real(*arguments, **options)):
            if count == 2:
                raise KeyboardInterrupt
            yield outcome

    monkeypatch.setattr(asr.Recognizer, "transcribe_as_completed", interrupted)
    (tree / "broken.wav").write_bytes(b"no audio")
    paths = [str(tree / name) for name in ("long.wav", "broken.wav", "one.wav")]
    assert main(["transcribe", *paths, "--model", str(bundle)]) == 130
    printed = capsys.readouterr()
    assert printed.out == f"{tree}/one.wav: ab c\n"
    assert "broken.wav" in printed.err


def test_formats_may_stand_before_the_files(run, capsys):
    assert run("transcribe -f trn {tree}/one.wav") == 0
    assert capsys.readouterr().out == "ab c (one)\n"
    assert run("transcribe {tree}/one.wav -f srtt") == 1
    assert "there is no format 'srtt'; expected txt, json" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("transcribe {tree}/one.wav --threads -1")
    assert "'-1' was given; expected a number of threads" in capsys.readouterr().err


def test_what_is_no_file_and_no_folder(run, tree, monkeypatch, capsys):
    monkeypatch.chdir(tree)
    assert run("transcribe '' /dev/null one.wav") == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == ["one.wav: ab c"]
    assert "an input is empty ('')" in printed.err
    assert "/dev/null is empty (0 bytes)" in printed.err


def test_a_pipe_is_read_once(run, bundle, tree):
    command = f'{sys.executable} -m asr transcribe --model {bundle} <(cat "{tree}/one.wav")'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "ab c\n"
