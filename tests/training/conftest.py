"""A prepared corpus for the tests that train."""

import pytest
from helpers import make_corpus

from asr.cli import main


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Folder with recordings, their texts, and manifests cuts_train and cuts_dev in `cuts`."""
    folder = tmp_path_factory.mktemp("corpus")
    manifest = str(make_corpus(folder / "audio", utterances=60))
    assert main(["prepare", "manifest", manifest, f"--output-dir={folder}/cuts", "--dev-fraction=0.2"]) == 0
    return folder
