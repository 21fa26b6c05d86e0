"""Pseudo-labels: what is kept, how wrong it is, and what is worth transcribing by hand."""

import csv

import pytest
from helpers import run_asr

from asr.data.cuts import load_cuts, text_of


def test_labels_are_a_manifest_of_what_the_model_is_sure_of(corpus, bundle, tmp_path, capsys):
    output, table = tmp_path / "cuts.jsonl.gz", tmp_path / "hand.csv"
    line = (
        "label {bundle} {audio} -o {output} --min-confidence 0.8 --held-out {dev} --by-hand {table} "
        "--by-hand-count 5"
    )
    dev = corpus / "cuts" / "cuts_dev.jsonl.gz"
    values = {"bundle": bundle, "audio": corpus / "audio", "output": output, "dev": dev, "table": table}
    assert run_asr(line, **values) == 0
    printed = capsys.readouterr().out
    assert "least confidence" in printed
    cuts = load_cuts(output)
    assert len(cuts) > 40
    assert f"{len(cuts)} of " in printed
    for cut in cuts:
        assert float(cut.supervisions[0].custom["confidence"]) >= 0.8
        assert cut.duration > 0
    texts = {cut.id: text_of(cut) for cut in load_cuts(corpus / "cuts" / "cuts_train.jsonl.gz")}
    whole = [cut for cut in cuts if cut.id.endswith("-000") and cut.id[:-4] in texts]
    assert sum(text_of(cut) == texts[cut.id[:-4]] for cut in whole) > 0.7 * len(whole)
    rows = list(csv.DictReader(table.read_text("utf-8").splitlines()))
    assert len(rows) == 5
    doubts = [float(row["doubt"]) for row in rows]
    assert doubts == sorted(doubts, reverse=True)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--max-wer 5", "name its manifest with --held-out"),
        ("--min-confidence 2", "--min-confidence is 2.0; expected a number from 0 to 1"),
        ("--min-confidence 1", "lower --min-confidence"),
    ],
)
def test_what_cannot_be_labeled_is_refused(corpus, bundle, tmp_path, capsys, more, message):
    line = f"label {{bundle}} {{audio}} -o {{output}} {more}"
    assert run_asr(line, bundle=bundle, audio=corpus / "audio", output=tmp_path / "cuts.jsonl") == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "cuts.jsonl").exists()


def test_the_held_out_set_chooses_the_confidence(corpus, bundle, tmp_path, capsys):
    dev = corpus / "cuts" / "cuts_dev.jsonl.gz"
    line = "label {bundle} {audio} -o {output} --held-out {dev} --max-wer {wer}"
    values = {"bundle": bundle, "audio": corpus / "audio", "dev": dev, "output": tmp_path / "cuts.jsonl"}
    assert run_asr(line, **values, wer=100) == 0
    assert "a confidence of at least 0:" in capsys.readouterr().out
