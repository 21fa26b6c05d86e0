"""`asr check --model`: transcripts that belong to other audio, by a model that was trained on the tones."""

import json

from asr.cli import main
from asr.data import load_cuts, write_manifest


def test_exchanged_transcripts_are_named(corpus, bundle, tmp_path, capsys):
    cuts = load_cuts(corpus / "cuts" / "cuts_train.jsonl.gz")
    texts = [cut.supervisions[0].text for cut in cuts]
    first, second = 0, next(i for i in range(1, len(texts)) if abs(len(texts[i]) - len(texts[0])) > 3)
    cuts[first].supervisions[0].text, cuts[second].supervisions[0].text = texts[second], texts[first]
    manifest, result = str(write_manifest(cuts, tmp_path / "cuts.jsonl")), tmp_path / "result.json"
    quiet = ["--ignore", "same sentence", "pace", "--json", str(result)]
    assert main(["check", manifest, "--model", str(bundle), *quiet]) == 1
    shown = capsys.readouterr().out
    assert "mismatch: transcripts that the model does not recognize in their audio" in shown
    assert "worst by alignment:" in shown
    values = json.loads(result.read_text())
    named = {item["id"] for item in values["findings"] if item["kind"] == "mismatch"}
    assert {cuts[first].id, cuts[second].id} <= named
    assert len(named) <= 4
    assert len(values["judgments"]) == len(cuts)
    assert main(["check", manifest, "--model", str(bundle), "--headers-only", *quiet]) in (0, 1)
    assert "mismatch" not in capsys.readouterr().out
