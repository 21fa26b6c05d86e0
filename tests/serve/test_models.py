"""Names of the models that are served."""

import pytest
from serving import AN4

from asr.errors import BundleError
from asr.serve import models
from asr.serve.models import folders_of


def test_a_model_has_the_name_of_its_run_or_the_one_given(tmp_path, monkeypatch):
    bundle = tmp_path / "mine" / "bundle"
    bundle.parent.mkdir()
    bundle.symlink_to(AN4)  # a link is where it leads
    copied = tmp_path / "yours" / "bundle"
    copied.mkdir(parents=True)
    for path in AN4.iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    assert list(folders_of([str(copied), f"whisper-1={copied}", str(bundle)])) == [
        "yours",
        "whisper-1",
        "an4",
    ]
    with pytest.raises(BundleError, match="two models are called an4"):
        folders_of(["an4", str(AN4)])
    with pytest.raises(BundleError, match="no bundle an5"):
        folders_of(["an5"])
    monkeypatch.setattr(models, "find_bundle", lambda name: tmp_path / "cache" / "0123abc")
    assert list(folders_of(["jane/tones@v2", "x=jane/tones"])) == ["tones", "x"]
