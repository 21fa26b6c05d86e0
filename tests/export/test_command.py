"""`asr export` with its check: what is equal is written, what is not is refused with the figure."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import make_bundle, make_corpus
from random_bundles import FRONT, bundle_of, random_parts

from asr.bundle import BUNDLES, Bundle
from asr.cli import main
from asr.errors import AsrError, ManifestError
from asr.export import check_export, export
from asr.features import FeatureConfig
from asr.model_config import ModelConfig

AN4 = BUNDLES / "an4"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    corpus = make_corpus(folder, utterances=4)
    cuts = folder / "cuts"
    assert main(["prepare", "manifest", str(corpus), "--output-dir", str(cuts), "--dev-fraction", "0.5"]) == 0
    return cuts / "cuts_dev.jsonl.gz"


@pytest.mark.parametrize("options", [[], ["--int8"], ["--format", "sherpa-onnx"]])
def test_what_agrees_is_written(manifest, tmp_path, capsys, options):
    bundle = make_bundle()
    bundle.log_mel.config = replace(bundle.log_mel.config, samples="standardized")
    bundle.save(tmp_path / "bundle")
    folder = tmp_path / "exported"
    command = ["export", str(tmp_path / "bundle"), "-o", str(folder), "--check", str(manifest), *options]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "accepted: expected" in out
    assert ("a WER within 0.2 points" in out) == (options == ["--int8"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.int8.onnx" if options == ["--int8"] else "model.onnx",
        "tokens.txt",
    ]


def test_what_does_not_agree_is_refused_and_not_written(manifest, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("asr.export.check.MOST_WER_DIFFERENCE", -1.0)
    folder = tmp_path / "exported"
    assert main(["export", "an4", "-o", str(folder), "--int8", "--check", str(manifest)]) == 1
    out, err = capsys.readouterr()
    assert "refused: expected a WER within" in out
    assert "nothing was written" in err
    assert "export without --int8" in err
    assert not folder.exists()


def test_another_models_file_is_refused_with_its_figures(manifest, tmp_path):
    bundle = Bundle.load(AN4)
    weights = dict(bundle.weights)
    weights["model.output.bias"] = weights["model.output.bias"] + np.eye(130, dtype=np.float32)[5] * 40
    path = export(replace(bundle, weights=weights), tmp_path)
    agreement = check_export(bundle, path, "onnx", int8=False, manifest=manifest)
    assert not agreement.accepted
    assert agreement.difference > 0.1
    assert "refused: expected all transcripts equal and probabilities within 1e-04" in agreement.describe()


def test_onnx_asr_is_checked_by_its_transcripts(manifest, tmp_path):
    bundle = bundle_of(*random_parts(FeatureConfig(f_min=0.0), ModelConfig(FRONT, layers=1, hidden_size=8)))
    path = export(bundle, tmp_path, "onnx-asr")
    agreement = check_export(bundle, path, "onnx-asr", int8=False, manifest=manifest)
    assert agreement.difference is None
    assert not agreement.exact
    assert "probability" not in agreement.describe()


def test_a_manifest_without_transcripts_shows_nothing(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr("asr.export.check.text_of", lambda cut: None)
    with pytest.raises(ManifestError, match="has no transcripts; expected some, to compare error rates"):
        check_export(Bundle.load(AN4), tmp_path, "onnx", False, manifest)


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08\x08\x3a\xff\xff"])
def test_a_graph_file_that_is_damaged_is_one_sentence(manifest, tmp_path, content):
    bundle = Bundle.load(AN4)
    path = export(bundle, tmp_path)
    path.write_bytes(content)
    with pytest.raises(
        AsrError, match=r"^onnxruntime \S+ cannot load .*model\.onnx: .*export it again, or pip install"
    ):
        check_export(bundle, path, "onnx", int8=False, manifest=manifest)
