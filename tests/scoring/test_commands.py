import json

import pytest
from sclite import sclite_counts

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
    assert values["hypotheses"][0].keys() == {"id", "reference", "hypothesis", "errors", "speaker"}
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


def asr(line, **paths):
    """Run a command line, words in braces replaced by paths."""
    return main([word.format(**paths) for word in line.split()])


def test_plain_lines_are_not_taken_for_ids(tmp_path, capsys):
    (tmp_path / "ref.txt").write_text("hello there world\nthe cat sat on the mat\nyes it is\n")
    (tmp_path / "hyp.txt").write_text("hello their world\nthe cat sat on a mat\nyes it is\n")
    paths = {name: tmp_path / f"{name}.txt" for name in ("ref", "hyp")}
    assert asr("score {ref} {hyp}", **paths) == 1
    assert "--format kaldi or --format lines" in capsys.readouterr().err
    assert asr("score {ref} {hyp} --format lines --json -", **paths) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["words"], values["substitutions"]) == (12, 2)
    assert values["hypotheses"][0]["errors"] == {
        "substitutions": 1,
        "deletions": 0,
        "insertions": 0,
        "words": 3,
    }


def test_what_files_were_read_as_is_printed(files, tmp_path, capsys):
    assert asr("score {ref} {a}", **files) == 0
    assert f"read as TRN: {files['ref']}, {files['a']}" in capsys.readouterr().out
    assert asr("score {ref} {a} --table csv", **files) == 0
    assert "read as TRN" in capsys.readouterr().err


def test_ids_that_begin_with_speakers_are_noticed(files, capsys):
    assert asr("score {ref} {a}", **files) == 0
    assert "the ids seem to begin with the speaker, 8 of them: --speakers id" in capsys.readouterr().err
    assert asr("score {ref} {a} --speakers id", **files) == 0
    assert "--speakers id" not in capsys.readouterr().err


def test_systems_have_names_and_errors_of_their_own(files, tmp_path, capsys):
    page = tmp_path / "r.html"
    assert (
        asr("score {ref} {a} {b} --names poor fair --table markdown --html {page}", page=page, **files) == 0
    )
    output = capsys.readouterr().out
    assert [line.split("|")[1].strip() for line in output.splitlines()[2:4]] == ["fair", "poor"]
    assert "normalizer none, aligned as jiwer, intervals over 948 utterances" in output
    text = page.read_text()
    for name in ("poor", "fair"):
        assert f"<h2>Confusions in {name}</h2>" in text
    assert asr("score {ref} {a} {b} --names one", **files) == 1
    assert "--names has 1 names for 2 systems" in capsys.readouterr().err
    assert asr("score {ref} {a} {a}", **files) == 1
    assert "tell them apart with --names" in capsys.readouterr().err


def test_score_with_rules_and_kaldis_per_utt(tmp_path, capsys):
    (tmp_path / "ref.trn").write_text("the colour red (u1)\n")
    (tmp_path / "hyp.trn").write_text("the color read (u1)\n")
    (tmp_path / "rules.txt").write_text("colour => color\n")
    paths = {"ref": tmp_path / "ref.trn", "hyp": tmp_path / "hyp.trn", "rules": tmp_path / "rules.txt"}
    assert asr("score {ref} {hyp} --rules {rules} --per-utt {out}", out=tmp_path / "per_utt", **paths) == 0
    assert "normalizer none, rules.txt (rules.txt " in capsys.readouterr().out
    assert (tmp_path / "per_utt").read_text().splitlines()[-1] == "u1 #csid 2 1 0 0"
    assert asr("score {ref} {hyp} {rules} --names a b --per-utt x", **paths) == 1
    assert "--per-utt takes one system" in capsys.readouterr().err


def test_scoring_as_sclite(tmp_path, capsys):
    (tmp_path / "ref.trn").write_text("One { two / too } @ (u1)\n{ uh / @ } YES (u2)\n")
    (tmp_path / "hyp.trn").write_text("one too (u1)\nyes (u2)\n")
    paths = {"ref": tmp_path / "ref.trn", "hyp": tmp_path / "hyp.trn"}
    for aligner, errors, words in (("sclite", 0, 3), ("sclite-s", 2, 3)):
        assert asr(f"score {{ref}} {{hyp}} --aligner {aligner} --json -", **paths) == 0
        values = json.loads(capsys.readouterr().out)
        assert (values["substitutions"] + values["deletions"] + values["insertions"], values["words"]) == (
            errors,
            words,
        )
        flags = ["-s"] if aligner == "sclite-s" else []
        expected = sclite_counts(tmp_path / "ref.trn", tmp_path / "hyp.trn", flags=flags)
        assert (sum(expected[:3]), expected[3]) == (errors, words)


def test_several_systems_are_compared_in_pairs(files, tmp_path, capsys):
    path = tmp_path / "c.json"
    line = "compare {ref} {a} {b} {ref} --names poor fair right --speakers id -o {path} --bootstrap 200"
    assert asr(line, path=path, **files) == 0
    output = capsys.readouterr().out
    assert "p (Holm) is adjusted for 3 tests" in output
    values = json.loads(path.read_text())
    assert [(pair["a"], pair["b"], pair["better"]) for pair in values["pairs"]] == [
        ("right", "fair", "right"),
        ("right", "poor", "right"),
        ("fair", "poor", "fair"),
    ]
    assert values["systems"]["right"]["wer"] == 0
    for pair in values["pairs"]:
        assert pair["adjusted_p"] >= pair["matched_pairs"]["p"]
    assert asr("compare {ref} {a} {b} --table csv --bootstrap 0", **files) == 0
    result, pairs = capsys.readouterr().out.split("\n\n")
    assert result.startswith("system,utterances,words,WER %")
    assert pairs.startswith('A,B,"A less B, WER %",95 %,segments,z,p')
    assert asr("compare {ref} {a}", **files) == 1
    assert "expected two or more" in capsys.readouterr().err


def test_compare_takes_the_normalizer_that_reports_name(tmp_path, capsys):
    references, ids = ["Hello, there", "Yes!"], ["u1", "u2"]
    for name, hypotheses in (("a", ["hello there", "yes"]), ("b", ["hello dear", "yes"])):
        report = score(references, hypotheses, ids=ids, normalizer="basic")
        (tmp_path / f"{name}.json").write_text(report.to_json())
    (tmp_path / "ref.trn").write_text("Hello, there (u1)\nYes! (u2)\n")
    paths = {name: tmp_path / name for name in ("ref.trn", "a.json", "b.json", "out.json")}
    paths = {name.split(".")[0]: path for name, path in paths.items()}
    for reference in ("ref", "a"):
        assert asr(f"compare {{{reference}}} {{a}} {{b}} --json {{out}}", **paths) == 0
        values = json.loads(paths["out"].read_text())
        assert (values["a"]["normalizer"], values["a"]["wer"], values["b"]["wer"]) == ("basic", 0.0, 1 / 3)
    assert asr("compare {ref} {a} {b} --normalizer none --json {out}", **paths) == 0
    assert json.loads(paths["out"].read_text())["a"]["substitutions"] == 2
    (tmp_path / "b.json").write_text(score(references, references, ids=ids, normalizer="english").to_json())
    assert asr("compare {ref} {a} {b}", **paths) == 1
    assert "name different normalizers" in capsys.readouterr().err
