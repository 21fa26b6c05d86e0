"""A corpus prepared and a model trained once, through the command line, for every test here."""

import pytest
from helpers import prepare_corpus, train_arguments

from asr.cli import main


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Folder with recordings, their texts, and manifests cuts_train and cuts_dev in `cuts`."""
    return prepare_corpus(tmp_path_factory.mktemp("corpus"), 80)


@pytest.fixture(scope="session")
def run_folder(corpus, tmp_path_factory):
    """What `asr train` left behind."""
    folder = tmp_path_factory.mktemp("runs") / "tones"
    assert main(train_arguments(corpus, folder, "--run.epochs=60")) == 0
    return folder


@pytest.fixture(scope="session")
def bundle(run_folder):
    return run_folder / "bundle"
