import json

import pytest

from asr.cli.main import main
from asr.scoring import score


@pytest.fixture
def files(tmp_path, sentences):
    references, hypotheses = sentences
    sides = {"ref": references, "a": hypotheses, "b": references[:-10] + hypotheses[-10:]}
    for name, texts in sides.items():
        lines = [f"{text} (s{i % 8}-{i:04d})\n" for i, text in enumerate(texts)]
        (tmp_path / f"{name}.trn").write_text("".join(lines))
    return {name: str(tmp_path / f"{name}.trn") for name in sides}


def test_score(files, sentences, capsys):
    assert (
        main(["score", files["ref"], files["a"], "--speakers", "id", "--worst", "1", "--confusions", "2"])
        == 0
    )
    output = capsys.readouterr().out
    assert f"{100 * score(*sentences, bootstrap=0).wer:.2f}" in output
    assert "intervals over 8 speakers" in output
    assert "reference   " in output
    assert "substituted" in output


def test_score_json_and_html(files, tmp_path, capsys):
    arguments = [
        "score",
        files["ref"],
        files["a"],
        "--aligner",
        "sclite",
        "--by",
        "speaker",
        "--speakers",
        "id",
    ]
    assert main([*arguments, "--json", str(tmp_path / "r.json"), "--html", str(tmp_path / "r.html")]) == 0
    values = json.loads((tmp_path / "r.json").read_text())
    assert values["aligner"] == "sclite"
    assert values["hypotheses"][0].keys() == {"id", "reference", "hypothesis", "speaker"}
    assert "<!doctype html>" in (tmp_path / "r.html").read_text()
    assert "s3" in capsys.readouterr().out
    assert main(["score", files["ref"], files["a"], "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["words"] == values["words"]


def test_score_links_audio_named_after_the_utterances(files, tmp_path, capsys):
    folder = tmp_path / "sound"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "s0-0000.flac").touch()
    (folder / "s1-0001.doc").touch()
    page = tmp_path / "r.html"
    assert main(["score", files["ref"], files["a"], "--audio", str(folder), "--html", str(page)]) == 0
    assert '"audio": {"s0-0000": "sound/deep/s0-0000.flac"}' in page.read_text()
    assert main(["score", files["ref"], files["a"], "--audio", files["a"], "--html", str(page)]) == 1
    assert "is not a folder" in capsys.readouterr().err


def test_score_by_length_in_words(files, capsys):
    assert main(["score", files["ref"], files["a"], "--by", "words", "--table", "csv"]) == 0
    assert "\n\nlength in words,utterances,words,WER %," in capsys.readouterr().out


def test_score_judges_the_confidences_that_files_hold(tmp_path, capsys):
    (tmp_path / "ref.trn").write_text("a b (u1)\nc (u2)\n")
    (tmp_path / "hyp.ctm").write_text("u1 1 0.0 0.5 a 1.0\nu1 1 0.5 0.5 x 0.5\nu2 1 0.0 0.5 c 0.8\n")
    words = [{"word": "a", "probability": 1.0}, {"word": "x", "probability": 0.5}]
    folder = tmp_path / "whisper"
    folder.mkdir()
    (folder / "u1.json").write_text(
        json.dumps({"text": "a x", "segments": [{"text": "a x", "words": words}]})
    )
    (folder / "u2.json").write_text(json.dumps({"text": "c", "words": [{"word": "c", "confidence": 0.8}]}))
    reference, page = str(tmp_path / "ref.trn"), tmp_path / "r.html"
    for hypothesis in ("hyp.ctm", "whisper"):
        assert main(["score", reference, str(tmp_path / hypothesis), "--json", str(tmp_path / "r.json")]) == 0
        # Bins of [0.5], [0.8] and [1.0]: gaps of 0.5, 0.2 and 0.
        assert "calibration error of the confidences 23.33 %" in capsys.readouterr().out
        assert json.loads((tmp_path / "r.json").read_text())["expected_calibration_error"] == pytest.approx(
            0.7 / 3
        )
    (tmp_path / "poor.ctm").write_text("u1 1 0.0 0.5 a\nu1 1 0.5 0.5 b\nu2 1 0.0 0.5 c\n")
    both = [str(tmp_path / name) for name in ("hyp.ctm", "poor.ctm")]
    assert main(["score", reference, *both, "--table", "csv", "--html", str(page)]) == 0
    heads, *rows = capsys.readouterr().out.splitlines()
    assert heads.endswith(",ECE %")
    assert [row.split(",")[-1] for row in rows] == ["-", "23.33"]


def test_score_ranks_systems(files, capsys):
    assert main(["score", files["ref"], files["a"], files["b"], "--table", "csv", "--bootstrap", "0"]) == 0
    heads, first, second = capsys.readouterr().out.splitlines()
    assert heads.startswith("system,utterances,words,WER %")
    assert (first.split(",")[0], second.split(",")[0]) == (files["b"], files["a"])


def test_score_shows_what_it_normalizes_and_warns_where_it_does_not(tmp_path, capsys):
    (tmp_path / "ref.txt").write_text("u1 HELLO there you\nu2 ONE TWO\n")
    (tmp_path / "hyp.txt").write_text("u1 hello there YOU\nu2 one two\n")
    sides = [str(tmp_path / "ref.txt"), str(tmp_path / "hyp.txt")]
    assert main(["score", *sides]) == 0
    assert "vanish without regard to case" not in capsys.readouterr().err  # four errors are too few to say
    (tmp_path / "ref.txt").write_text("u1 HELLO there you\nu2 ONE TWO THREE\n")
    (tmp_path / "hyp.txt").write_text("u1 hello there YOU\nu2 one two three\n")
    assert main(["score", *sides]) == 0
    assert "vanish without regard to case" in capsys.readouterr().err
    assert main(["score", *sides, "--normalizer", "basic", "--show-normalized"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert "u1 reference\n  before  HELLO there you\n  after   hello there you" in output.out


def test_compare(files, tmp_path, capsys):
    path = tmp_path / "c.json"
    assert (
        main(["compare", files["ref"], files["a"], files["b"], "--speakers", "id", "--json", str(path)]) == 0
    )
    output = capsys.readouterr().out
    assert "B is better: matched pairs over" in output
    assert "100.0% of resampled test sets (8 speakers)" in output
    assert " A: " in output
    values = json.loads(path.read_text())
    assert values["significant"] is True
    assert values["matched_pairs"]["p"] < 0.001


def test_compare_leaves_out_what_either_lacks(tmp_path, capsys):
    sides = {"ref": "abc", "a": "ab", "b": "bc"}
    for name, ids in sides.items():
        (tmp_path / f"{name}.trn").write_text("".join(f"one two ({each})\n" for each in ids))
    paths = [str(tmp_path / f"{name}.trn") for name in sides]
    result = tmp_path / "c.json"
    assert main(["compare", *paths, "--mismatched", "skip", "--json", str(result)]) == 0
    assert json.loads(result.read_text())["a"]["utterances"] == 1
    (tmp_path / "b.trn").write_text("one two (c)\n")
    assert main(["compare", *paths, "--mismatched", "skip"]) == 1
    assert "have no utterance in common" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{ref}", "{absent}"], "there is no such file or folder"),
        (["{ref}", "{a}", "--normalizer", "basics"], "there is no normalizer 'basics'"),
        (["{ref}", "{a}", "--by", "age"], "there is no field 'age'"),
        (["{ref}", "{a}", "--speakers", "{short}"], "no speaker for 's2-0002'"),
        (["{ref}", "{short}", "--format", "kaldi"], "stands there twice"),
        (["{ref}", "{short}"], r"line 1: expected `words (id)`"),
        (["{ref}", "{a}", "--json", "{absent}/r.json"], "cannot write"),
        (["{ref}", "{a}", "--json", "."], "cannot write .: it is a folder"),
    ],
)
def test_errors_are_one_clear_message(arguments, message, files, tmp_path, capsys):
    (tmp_path / "short").with_suffix(".trn").write_text("s0-0000 s0\ns1-0001 s1\n")
    names = files | {"absent": str(tmp_path / "absent"), "short": str(tmp_path / "short.trn")}
    assert main(["score", *(argument.format(**names) for argument in arguments)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) <= 2
